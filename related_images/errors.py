"""The errors that this project raises deliberately.

    RelatedImagesError
    ├── ConfigurationError          the configuration is invalid
    │   └── NovaUnexpected, CinderUnexpected
    ├── NotServed                   the embedded Glance cannot start
    ├── UntrustedGlanceAnswer       a response of Glance cannot be relied on
    ├── NovaUnreachable             Nova cannot be queried
    ├── UntrustedNovaAnswer         a response of Nova cannot be relied on
    ├── CinderUnreachable           Cinder cannot be queried
    ├── UntrustedCinderAnswer       a response of Cinder cannot be relied on
    ├── BusUnusable                 the message bus cannot be used
    ├── NotificationMalformed       a notification of Nova is malformed
    ├── BadInput                    the request is malformed
    │   ├── TupleIncomplete, TupleMalformed, TupleConflict, KindUnknown, LabelMalformed
    │   ├── ProjectMalformed, ResourceTypeUnknown, OriginRefused
    │   ├── MethodOverridden
    │   ├── BodyMalformed, BodyIncomplete, BodyTooLarge, FieldInvalid
    │   └── ImageIdMalformed, ParameterUnknown, ParameterMalformed, LimitMalformed, MarkerUnknown
    ├── NotIdentified               the request has no valid token
    ├── Forbidden                   the caller is not permitted to do this
    │   ├── RecordingForbidden, InstallationBound, InstallationUnregistered, AdminOnly
    │   └── PolicyForbidden
    ├── NotFound                    it does not exist, or the caller cannot see it
    │   ├── ImageNotFound, InstanceNotFound, RelationNotFound, OriginNotFound
    │   └── InstallationNotFound, ResourceTypeNotFound
    ├── Conflict                    the request conflicts with recorded relations
    │   ├── ImageInUse, ImageBeingDeleted, ImageGone, InstanceEnded, LeaseLimitReached
    │   ├── ResourceTypeConflict, ResourceTypeInUse
    │   └── RelationConflict, OriginConflict, InstallationConflict, ListTooWide
    └── StoreUnavailable            the database is unavailable
        └── StoreInDoubt, SchemaOutdated, SchemaMissing, SchemaTooNew

Nothing here depends on HTTP. Programs may rely on ``code``, a dotted word. ``title`` names the kind
of error. The message says what was wrong, what is allowed and what to do next.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from related_images.model import DependentSummary


class RelatedImagesError(Exception):
    """The root of the tree. ``code`` never changes once released."""

    code = "internal"
    title = "An unexpected error occurred"

    @property
    def details(self) -> Mapping[str, Any]:
        """Further properties of the error in a response, as JSON."""
        return {}

    def for_log(self) -> str:
        """Return the message with details that belong in the log only."""
        return str(self)


class ConfigurationError(RelatedImagesError):
    """A section has an unknown option, or an option with an invalid value."""

    code = "settings.invalid"
    title = "The configuration is invalid"


class NovaUnexpected(ConfigurationError):
    """A function of Nova that must be wrapped is missing or takes other arguments."""

    code = "nova.unexpected"
    title = "This version of Nova is not supported"


class CinderUnexpected(ConfigurationError):
    """A function of Cinder that must be wrapped is missing or takes other arguments."""

    code = "cinder.unexpected"
    title = "This version of Cinder is not supported"


class NotServed(RelatedImagesError):
    """The address is taken, the directory cannot be used, or a package is missing."""

    code = "serve.failed"
    title = "The embedded Glance cannot start"


class UntrustedGlanceAnswer(RelatedImagesError):
    """Glance hides images from this caller, or it is not the Glance of the recorded images."""

    code = "glance.untrusted-answer"
    title = "The response of Glance cannot be relied on"


class NovaUnreachable(RelatedImagesError):
    """Nova has another address, or does not list the servers of all projects to this caller."""

    code = "nova.unreachable"
    title = "Nova cannot be queried"


class UntrustedNovaAnswer(RelatedImagesError):
    """Nova hides servers from this caller, or it is not the Nova of the recorded servers."""

    code = "nova.untrusted-answer"
    title = "The response of Nova cannot be relied on"


class CinderUnreachable(RelatedImagesError):
    """Cinder has another address, or does not respond."""

    code = "cinder.unreachable"
    title = "Cinder cannot be queried"


class UntrustedCinderAnswer(RelatedImagesError):
    """Cinder hides volumes from this caller, or it is not the Cinder of the recorded volumes."""

    code = "cinder.untrusted-answer"
    title = "The response of Cinder cannot be relied on"


class BadInput(RelatedImagesError):
    """The root of the errors of malformed requests."""

    code = "request.invalid"
    title = "The request is not valid"


class TupleIncomplete(BadInput):
    """Only one of the two instance headers is given, or an optional header without both."""

    code = "tuple.incomplete"
    title = "An instance header is missing"


class TupleMalformed(BadInput):
    """An installation UUID or a server ID is malformed."""

    code = "tuple.malformed"
    title = "The installation UUID or the server ID is malformed"


class TupleConflict(BadInput):
    """A header and a query parameter, or two query parameters, contradict each other."""

    code = "tuple.conflict"
    title = "Headers or parameters contradict each other"


class KindUnknown(BadInput):
    """A relation kind is unknown, or is not allowed for this request."""

    code = "kind.unknown"
    title = "The relation kind is not allowed"


class ResourceTypeUnknown(BadInput):
    """A resource type is malformed, unknown, or not allowed for this kind of relation."""

    code = "resource-type.unknown"
    title = "The resource type is unknown"


class ProjectMalformed(BadInput):
    """``X-Instance-Project-ID`` is malformed."""

    code = "project.malformed"
    title = "The project ID of the server is malformed"


class LabelMalformed(BadInput):
    """A label is malformed."""

    code = "label.malformed"
    title = "The label is malformed"


class OriginRefused(BadInput):
    """A resource of this type cannot come from that other resource."""

    code = "origin.refused"
    title = "The resource cannot come from this source"


class MethodOverridden(BadInput):
    """The query overrides the method of a request with instance headers."""

    code = "request.method-overridden"
    title = "Instance headers cannot be combined with a method override"


class BusUnusable(RelatedImagesError):
    """The message bus refuses the connection or the credentials."""

    code = "bus.unusable"
    title = "The message bus cannot be used"


class NotificationMalformed(RelatedImagesError):
    """A notification does not have the fields that Nova documents."""

    code = "notification.malformed"
    title = "The notification is malformed"


class BodyMalformed(BadInput):
    """The body is not a JSON object in UTF-8."""

    code = "body.malformed"
    title = "The body is not a JSON object"


class BodyIncomplete(BadInput):
    """The body is shorter than its Content-Length."""

    code = "body.incomplete"
    title = "The body is incomplete"


class BodyTooLarge(BadInput):
    """The body is larger than the filter reads."""

    code = "body.too-large"
    title = "The body is too large"


class FieldInvalid(BadInput):
    """A field of the body is missing, unknown or malformed."""

    code = "body.field-invalid"
    title = "A field of the body is not valid"


class ImageIdMalformed(BadInput):
    """An image ID is not a UUID in lower case."""

    code = "image.id-malformed"
    title = "The image ID is malformed"


class ParameterUnknown(BadInput):
    """A query parameter is unknown to the route."""

    code = "parameter.unknown"
    title = "The query parameter is unknown"


class ParameterMalformed(BadInput):
    """A query parameter has a malformed value, is missing or is given twice."""

    code = "parameter.malformed"
    title = "A query parameter is malformed"


class LimitMalformed(BadInput):
    """``limit`` is not a whole number of at least 1."""

    code = "limit.malformed"
    title = "The limit is not a positive whole number"


class MarkerUnknown(BadInput):
    """``marker`` does not come from a page of this list, or its row was deleted."""

    code = "marker.unknown"
    title = "The marker is invalid"


class NotIdentified(RelatedImagesError):
    """The request has no valid token."""

    code = "identity.required"
    title = "Authentication is required"


class Forbidden(RelatedImagesError):
    """The root of the errors of missing permissions."""

    code = "request.forbidden"
    title = "The caller is not permitted to do this"


class RecordingForbidden(Forbidden):
    """The caller has no role that permits it to record or remove relations."""

    code = "relation.forbidden"
    title = "The caller is not permitted to record or remove relations"


class InstallationBound(Forbidden):
    """The installation is bound to other service users, or to this user only for other types."""

    code = "installation.bound"
    title = "The service user is not permitted to report on this resource"


class InstallationUnregistered(Forbidden):
    """The installation must be registered and is not."""

    code = "installation.unregistered"
    title = "The installation is not registered"


class AdminOnly(Forbidden):
    """The caller has no admin role."""

    code = "admin.required"
    title = "An admin role is required"


class PolicyForbidden(Forbidden):
    """A rule of the policy file refuses the request."""

    code = "policy.forbidden"
    title = "The policy does not permit this request"


class NotFound(RelatedImagesError):
    """The root of the errors of resources that do not exist or that the caller cannot see."""

    code = "request.not-found"
    title = "There is no such resource"


class ImageNotFound(NotFound):
    """The image does not exist, or the caller cannot see it."""

    code = "image.not-found"
    title = "There is no such image"


class InstanceNotFound(NotFound):
    """The server is not recorded, or the caller cannot see it."""

    code = "instance.not-found"
    title = "There is no such server or volume"


class RelationNotFound(NotFound):
    """The relation does not exist, or the caller cannot see it."""

    code = "relation.not-found"
    title = "There is no such relation"


class OriginNotFound(NotFound):
    """No origin of the resource since that time is recorded, or the caller cannot see it."""

    code = "origin.not-found"
    title = "There is no such origin"


class InstallationNotFound(NotFound):
    """The installation is not registered."""

    code = "installation.not-found"
    title = "There is no such installation"


class ResourceTypeNotFound(NotFound):
    """The resource type is not registered."""

    code = "resource-type.not-found"
    title = "There is no such registered resource type"


class Conflict(RelatedImagesError):
    """The root of the errors of requests that conflict with recorded relations."""

    code = "request.conflict"
    title = "The request conflicts with recorded relations"


class RelationConflict(Conflict):
    """The relation is recorded with another label."""

    code = "relation.conflict"
    title = "The relation is recorded with another label"


class OriginConflict(Conflict):
    """Another source of the resource is recorded with the same time."""

    code = "origin.conflict"
    title = "Another source is recorded with the same time"


class InstallationConflict(Conflict):
    """The installation is registered with another name or other service users."""

    code = "installation.conflict"
    title = "The installation is registered with other values"


class ListTooWide(Conflict):
    """Too many images would have to be examined for one page of a restricted image list."""

    code = "list.too-wide"
    title = "The image list is too wide"


class ResourceTypeConflict(Conflict):
    """The resource type is registered with another longest lease."""

    code = "resource-type.conflict"
    title = "The resource type is registered with another longest lease"


class ResourceTypeInUse(Conflict):
    """A resource type that is to be removed has live leases."""

    code = "resource-type.in-use"
    title = "The resource type has live leases"


class InstanceEnded(Conflict):
    """A ``use`` by a resource that is recorded as deleted."""

    code = "instance.ended"
    title = "The resource is recorded as deleted"


class LeaseLimitReached(Conflict):
    """The project has the largest number of live leases."""

    code = "lease.limit-reached"
    title = "The project has too many leases"


class ImageInUse(Conflict):
    """Live resources use the image, and delete protection is on.

    :ivar use: what was refused, and which live resources use the image
    :ivar advice: what to do next
    :ivar dependents: the numbers of all dependents that the caller sees; ``None`` if they were not
        counted
    """

    code = "image.in-use"
    title = "Live resources use the image"

    def __init__(
        self, use: str, advice: str = "", dependents: "DependentSummary | None" = None
    ) -> None:
        self.use = use
        self.advice = advice
        self.dependents = dependents
        words = dependents.in_words if dependents else ""
        super().__init__("; ".join(filter(None, (use, words, advice))))

    @property
    def details(self) -> Mapping[str, Any]:
        return {"dependents": self.dependents.as_json()} if self.dependents else {}


class ImageBeingDeleted(Conflict):
    """A ``boot`` or ``use`` of an image that Glance is deleting."""

    code = "image.being-deleted"
    title = "The image is being deleted"


class ImageGone(Conflict):
    """A ``boot`` or ``use`` of an image that is marked deleted."""

    code = "image.gone"
    title = "The image is marked deleted"


class StoreUnavailable(RelatedImagesError):
    """The database does not respond in time, refuses the connection, is full or is read-only."""

    code = "store.unavailable"
    title = "The database is unavailable"
    database_message = ""
    """The error code and message of the database, for the log only."""

    def for_log(self) -> str:
        return f"{self} [{self.database_message}]" if self.database_message else str(self)


class StoreInDoubt(StoreUnavailable):
    """The connection was lost during a commit. The transaction may have been committed."""

    code = "store.in-doubt"
    title = "The result of the commit is unknown"


class SchemaMissing(StoreUnavailable):
    """The tables were not created."""

    code = "schema.missing"
    title = "The database has no tables of related-images"


class SchemaOutdated(StoreUnavailable):
    """The tables have an older revision than this program needs."""

    code = "schema.outdated"
    title = "The database schema is older than this program"


class SchemaTooNew(StoreUnavailable):
    """The tables have a newer revision than this program knows."""

    code = "schema.too-new"
    title = "The database schema is newer than this program"
