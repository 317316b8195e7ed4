"""Every error this project raises on purpose.

    RelatedImagesError
    ├── ConfigurationError          a setting that cannot be used
    │   └── NovaUnexpected
    ├── NotServed                   the embedded registry cannot be served
    ├── UntrustedGlanceAnswer          what the registry says cannot be acted upon
    ├── NovaUnreachable             Nova does not answer as it must
    ├── BusUnusable                 a message bus does not take us as a listener
    ├── NotificationMalformed       Nova did not send what it is known to send
    ├── BadInput                    the request itself is wrong
    │   ├── TupleIncomplete, TupleMalformed, TupleConflict, KindUnknown, LabelMalformed
    │   ├── ProjectMalformed
    │   ├── MethodOverridden
    │   ├── BodyMalformed, BodyIncomplete, BodyTooLarge, FieldInvalid
    │   └── ImageIdMalformed, ParameterUnknown, ParameterMalformed, LimitMalformed, MarkerUnknown
    ├── NotIdentified               nobody vouches for the caller
    ├── Forbidden                   the caller may not do this
    │   └── RecordingForbidden, InstallationBound, InstallationUnregistered, AdminOnly
    ├── NotFound                    it is not there, or not for this caller
    │   └── ImageNotFound, InstanceNotFound, RelationNotFound, InstallationNotFound
    ├── Conflict                    it contradicts what is recorded
    │   ├── ImageInUse, ImageBeingDeleted, ImageGone
    │   └── RelationConflict, InstallationConflict, InstanceTooLarge
    └── StoreUnavailable            the database cannot be used now
        └── StoreInDoubt, SchemaOutdated, SchemaMissing, SchemaTooNew

Nothing here knows HTTP. ``code`` is the dotted word that programs may rely on, ``title`` names the
kind of fault, and the message says what was wrong, what is allowed and what to do next.
"""


class RelatedImagesError(Exception):
    """Root of the tree. ``code`` never changes once released."""

    code = "internal"
    title = "Something went wrong"

    def for_log(self) -> str:
        """The message, and what else is only for the log."""
        return str(self)


class ConfigurationError(RelatedImagesError):
    """A section holds an option that is unknown or that cannot be understood."""

    code = "settings.invalid"
    title = "The configuration cannot be used"


class NovaUnexpected(ConfigurationError):
    """A function of Nova that is to be wrapped is not there, or takes other arguments."""

    code = "nova.unexpected"
    title = "This Nova is not one that is known"


class NotServed(RelatedImagesError):
    """Something on this machine is in the way: an address, a directory, a missing package."""

    code = "serve.failed"
    title = "The embedded registry cannot be served"


class UntrustedGlanceAnswer(RelatedImagesError):
    """The registry hides images from this caller, or is not the one that is related here."""

    code = "glance.untrusted-answer"
    title = "What the registry says cannot be acted upon"


class NovaUnreachable(RelatedImagesError):
    """Nova is not where it is said to be, or does not let this caller see all servers."""

    code = "nova.unreachable"
    title = "Nova cannot be asked"


class BadInput(RelatedImagesError):
    code = "request.invalid"
    title = "The request is not valid"


class TupleIncomplete(BadInput):
    code = "tuple.incomplete"
    title = "Half of the instance tuple is missing"


class TupleMalformed(BadInput):
    code = "tuple.malformed"
    title = "The instance tuple is malformed"


class TupleConflict(BadInput):
    code = "tuple.conflict"
    title = "Two different instances are named"


class KindUnknown(BadInput):
    code = "kind.unknown"
    title = "There is no such kind of relation here"


class ProjectMalformed(BadInput):
    code = "project.malformed"
    title = "The project that owns the instance is malformed"


class LabelMalformed(BadInput):
    code = "label.malformed"
    title = "The label is malformed"


class MethodOverridden(BadInput):
    code = "request.method-overridden"
    title = "The instance tuple does not go with a method override"


class BusUnusable(RelatedImagesError):
    code = "bus.unusable"
    title = "The message bus cannot be listened to"


class NotificationMalformed(RelatedImagesError):
    code = "notification.malformed"
    title = "A notification cannot be understood"


class BodyMalformed(BadInput):
    code = "body.malformed"
    title = "The body is not a JSON object"


class BodyIncomplete(BadInput):
    code = "body.incomplete"
    title = "The body ended too early"


class BodyTooLarge(BadInput):
    code = "body.too-large"
    title = "The body is too large"


class FieldInvalid(BadInput):
    code = "body.field-invalid"
    title = "A field of the body is not valid"


class ImageIdMalformed(BadInput):
    code = "image.id-malformed"
    title = "The image id is malformed"


class ParameterUnknown(BadInput):
    code = "parameter.unknown"
    title = "There is no such query parameter here"


class ParameterMalformed(BadInput):
    code = "parameter.malformed"
    title = "A query parameter is malformed"


class LimitMalformed(BadInput):
    code = "limit.malformed"
    title = "The limit is not a positive whole number"


class MarkerUnknown(BadInput):
    code = "marker.unknown"
    title = "The marker is not one that was given out"


class NotIdentified(RelatedImagesError):
    code = "identity.required"
    title = "The caller is not authenticated"


class Forbidden(RelatedImagesError):
    code = "request.forbidden"
    title = "The caller may not do this"


class RecordingForbidden(Forbidden):
    code = "relation.forbidden"
    title = "The caller may not change what is recorded"


class InstallationBound(Forbidden):
    code = "installation.bound"
    title = "The installation belongs to another service user"


class InstallationUnregistered(Forbidden):
    code = "installation.unregistered"
    title = "The installation is not registered"


class AdminOnly(Forbidden):
    code = "admin.required"
    title = "Only an administrator may do this"


class NotFound(RelatedImagesError):
    code = "request.not-found"
    title = "There is no such thing"


class ImageNotFound(NotFound):
    code = "image.not-found"
    title = "There is no such image"


class InstanceNotFound(NotFound):
    code = "instance.not-found"
    title = "There is no such instance"


class RelationNotFound(NotFound):
    code = "relation.not-found"
    title = "There is no such relation"


class InstallationNotFound(NotFound):
    code = "installation.not-found"
    title = "There is no such installation"


class Conflict(RelatedImagesError):
    code = "request.conflict"
    title = "The request contradicts what is recorded"


class RelationConflict(Conflict):
    code = "relation.conflict"
    title = "The relation is recorded with another label"


class InstallationConflict(Conflict):
    code = "installation.conflict"
    title = "The installation is registered differently"


class InstanceTooLarge(Conflict):
    code = "instance.too-large"
    title = "The instance has more images than one image list can carry"


class ImageInUse(Conflict):
    code = "image.in-use"
    title = "Live instances were started from the image"


class ImageBeingDeleted(Conflict):
    code = "image.being-deleted"
    title = "The image is being deleted at the moment"


class ImageGone(Conflict):
    code = "image.gone"
    title = "The image is marked deleted"


class StoreUnavailable(RelatedImagesError):
    """The database is down, slow, locked, full or read-only."""

    code = "store.unavailable"
    title = "Relations cannot be stored or read now"
    said = ""
    """The code and the message of the database itself; for the log alone."""

    def for_log(self) -> str:
        return f"{self} [{self.said}]" if self.said else str(self)


class StoreInDoubt(StoreUnavailable):
    """The connection was lost during a commit: what was to be stored may be stored or not."""

    code = "store.in-doubt"
    title = "Whether it was stored cannot be told"


class SchemaMissing(StoreUnavailable):
    code = "schema.missing"
    title = "The database holds no tables of related-images"


class SchemaOutdated(StoreUnavailable):
    code = "schema.outdated"
    title = "The database schema is older than this program"


class SchemaTooNew(StoreUnavailable):
    code = "schema.too-new"
    title = "The database schema is newer than this program"
