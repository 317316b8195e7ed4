"""The errors of the client, under the project's own root.

    RelatedImagesError
    └── ClientError
        ├── NotInstanceAware        Glance has no filter, or did not acknowledge the headers
        ├── ImageNotOfInstance      the image is not recorded as made from the server
        ├── PolicyEmpty             the rules keep no backup
        ├── PolicyInvalid           a backup policy is invalid
        ├── InstallationAmbiguous   servers are recorded in several installations
        ├── ServiceFailed           a request to Nova or Cinder failed
        ├── DrawingFailed           Graphviz is not installed, or failed
        ├── UploadInvalid           the data cannot be sent
        ├── ImportInvalid           an argument of the import is invalid
        ├── ImportNotOffered        the deployment has no import method for this source
        │   └── StoreNotOffered     the deployment has no such store
        ├── ImportFailed            Glance refused the import, or the import failed
        │   └── ImportUnfinished    the import did not end before the deadline
        └── GlanceError             a request to Glance failed
            ├── GlanceUnreachable   no response, or an incomplete one
            ├── InvalidResponse     the response is not from Glance
            ├── Unauthorized        401
            ├── Forbidden           403
            ├── NotFound            404
            ├── Conflict            409
            ├── PayloadTooLarge     413
            └── ServiceUnavailable  503, with ``retry_after`` if the response has Retry-After

Any other status raises :class:`GlanceError` itself.
"""

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

from related_images.errors import (
    AdminOnly,
    InstallationBound,
    InstallationUnregistered,
    RecordingForbidden,
    RelatedImagesError,
    SchemaMissing,
    SchemaOutdated,
    SchemaTooNew,
    StoreUnavailable,
)
from related_images.model import DependentSummary

_NOT_STARTED: Final = {
    error.code for error in (StoreUnavailable, SchemaMissing, SchemaOutdated, SchemaTooNew)
}
"""Codes of 503 responses that the filter sends before it changes anything."""
_NEXT_STEPS: Final = {
    RecordingForbidden.code: "use an account that has the role",
    AdminOnly.code: "use an account that has the role",
    InstallationBound.code: "use a service user of the installation for this resource type",
    InstallationUnregistered.code: "ask an administrator to register the installation",
}
"""The next step by the code of the filter's error, where it depends on more than the status."""


class ClientError(RelatedImagesError):
    """The base class of the client's errors."""

    code = "client.failed"
    title = "The client failed"


class NotInstanceAware(ClientError):
    """Glance does not have the filter, or a response does not acknowledge the instance headers.

    :ivar image_id: ID of the image that was created nevertheless, or ``None``
    """

    code = "client.not-instance-aware"
    title = "Glance does not have the related-images filter"

    def __init__(self, message: str, *, image_id: str | None = None) -> None:
        super().__init__(message)
        self.image_id = image_id


class ImageNotOfInstance(ClientError):
    """The image is not recorded as made from the server; it was not deleted.

    :ivar image_id: ID of the image
    """

    code = "client.image-not-of-instance"
    title = "The image is not recorded as made from this server"

    def __init__(self, message: str, *, image_id: str) -> None:
        super().__init__(message)
        self.image_id = image_id


class PolicyEmpty(ClientError):
    """The policy has no rule, so it would keep at most one backup of each group."""

    code = "retention.policy-empty"
    title = "The rules would keep no backup"


class PolicyInvalid(ClientError):
    """A backup policy has an error: the policy of a server, or a policy that is to be stored."""

    code = "retention.policy-invalid"
    title = "A backup policy is invalid"


class InstallationAmbiguous(ClientError):
    """Servers with these IDs are recorded in more than one installation."""

    code = "backups.installation-ambiguous"
    title = "Servers are recorded in several installations"


class ServiceFailed(ClientError):
    """A request to Nova or Cinder failed.

    :ivar status: HTTP status of the response; ``None`` without a response
    """

    code = "backups.service-failed"
    title = "A request to Nova or Cinder failed"

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class DrawingFailed(ClientError):
    """Graphviz is not installed, or did not draw the picture."""

    code = "lineage.drawing-failed"
    title = "The lineage cannot be drawn"


class UploadInvalid(ClientError):
    """The data has a type that cannot be sent, or its file cannot be read."""

    code = "upload.invalid"
    title = "The data cannot be sent"


class ImportInvalid(ClientError):
    """An argument of the import is invalid; nothing was created or sent."""

    code = "import.invalid"
    title = "An argument of the import is invalid"


class ImportNotOffered(ClientError):
    """The deployment has no import method for the source.

    :ivar offered: the import methods of the deployment
    """

    code = "import.not-offered"
    title = "The deployment cannot import this"

    def __init__(self, message: str, *, offered: Iterable[str]) -> None:
        super().__init__(message)
        self.offered = tuple(offered)


class StoreNotOffered(ImportNotOffered):
    """The deployment has no such store, or the store is read-only.

    :ivar offered: the writable stores of the deployment
    """

    code = "import.store-not-offered"
    title = "The deployment has no such store"


class ImportFailed(ClientError):
    """Glance refused the import, or the import failed. The client does not change the image then.

    :ivar image_id: ID of the image
    :ivar image_status: the last known status of the image; ``None`` if it is not known
    """

    code = "import.failed"
    title = "The import failed"

    def __init__(self, message: str, *, image_id: str, image_status: str | None) -> None:
        super().__init__(message)
        self.image_id = image_id
        self.image_status = image_status


class ImportUnfinished(ImportFailed):
    """The import did not end before the deadline, and continues."""

    code = "import.unfinished"
    title = "The import did not end in time"


class GlanceError(ClientError):
    """A request failed.

    :ivar code: the code of the filter's error; the code of the class for other errors
    :ivar request: method and path
    :ivar status: HTTP status of the response; ``None`` without a response
    :ivar request_id: ID of the request in Glance's log, or ``None``
    :ivar retry_after: seconds to wait before the next attempt, from Retry-After, or ``None``
    :ivar doubtful: ``True`` if Glance may have processed the request in spite of the error
    :ivar reason: the message of the response, or of the failed connection
    :ivar image_id: ID of the image in question; ``None`` if certainly no image was created
    :ivar dependents: the numbers of the dependents that the caller sees, if the guard refused the
        request (``image.in-use``) and the filter counted them
    """

    code = "glance.refused"
    title = "Glance refused the request"
    next_step = "an operator finds the cause in Glance's log, by the request ID"
    filter_adds_next_step = False
    """``True`` if the filter's messages for this status end with the next step."""
    no_response = "got no answer"

    def __init__(
        self,
        request: str,
        reason: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: int | None = None,
        dependents: DependentSummary | None = None,
    ) -> None:
        self.request = request
        self.reason = reason.rstrip(". ")
        self.status = status
        self.code = code or type(self).code
        self.request_id = request_id
        self.retry_after = retry_after
        self.dependents = dependents
        is_not_started = status == HTTPStatus.SERVICE_UNAVAILABLE and code in _NOT_STARTED
        self.doubtful = status is None or (status >= 500 and not is_not_started)
        self.image_id: str | None = None
        super().__init__(self._message())

    @property
    def is_temporary(self) -> bool:
        """Return True if a later attempt may succeed: without a response, or after a 5xx."""
        return self.doubtful and (self.status is None or self.status >= 500)

    def _message(self) -> str:
        result = f"answered {self.status}" if self.status else self.no_response
        wait = "" if self.retry_after is None else f" after {self.retry_after} seconds"
        is_from_filter = self.code != type(self).code
        has_next_step = is_from_filter and self.filter_adds_next_step
        next_step = _NEXT_STEPS.get(self.code, self.next_step)
        step = "" if has_next_step and self.code not in _NEXT_STEPS else f"; {next_step}{wait}"
        request_id = f" (request id {self.request_id})" if self.request_id else ""
        return f"{self.request} {result}: {self.reason}{step}{request_id}"


class GlanceUnreachable(GlanceError):
    """The client got no response, or an incomplete one, or the cloud has no image service."""

    code = "glance.unreachable"
    title = "Glance could not be reached"
    next_step = (
        "check the endpoint and the network; if only long requests fail, the web server of Glance "
        "must accept longer ones (buffer-size of uWSGI)"
    )


class InvalidResponse(GlanceError):
    """The response is not from Glance, or does not have the required fields."""

    code = "glance.invalid-response"
    title = "The response is not from Glance"
    next_step = (
        "check that the endpoint is the root URL of Glance or its /v2, and check the proxies "
        "before it"
    )

    def __init__(self, request: str, reason: str, *, status: int, request_id: str | None) -> None:
        super().__init__(request, reason, status=status, request_id=request_id)
        self.doubtful = True  # whatever the status is


class Unauthorized(GlanceError):
    """Glance or Keystone does not accept the credentials."""

    code = "glance.unauthorized"
    title = "Glance does not accept the credentials"
    next_step = "authenticate again"
    no_response = "was not sent, because Keystone does not accept the credentials"

    def __init__(self, request: str, reason: str, **response: Any) -> None:
        super().__init__(request, reason, **response)
        self.doubtful = False  # also without a status, if Keystone refused the credentials


class Forbidden(GlanceError):
    """The account is not permitted to do this."""

    code = "glance.forbidden"
    title = "The account is not permitted to do this"
    next_step = (
        "check the roles of the account, the owner of the image, and whether it is protected"
    )
    filter_adds_next_step = True


class NotFound(GlanceError):
    """The resource does not exist, or the caller cannot see it."""

    code = "glance.not-found"
    title = "The resource does not exist, or the caller cannot see it"
    next_step = "check the ID, and whether the project is permitted to see it"


class Conflict(GlanceError):
    """The request conflicts with the current state of a resource."""

    code = "glance.conflict"
    title = "The request conflicts with the current state"
    next_step = "check the current state, then correct the request"
    filter_adds_next_step = True


class PayloadTooLarge(GlanceError):
    """The request is larger than Glance or a quota allows."""

    code = "glance.too-large"
    title = "The request is larger than Glance or a quota allows"
    next_step = "send less, or ask for a larger quota"


class ServiceUnavailable(GlanceError):
    """Glance or the filter is temporarily unavailable."""

    code = "glance.unavailable"
    title = "Glance is temporarily unavailable"
    next_step = "try again"


BY_STATUS: dict[int, type[GlanceError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    503: ServiceUnavailable,
}
"""The class of the error by HTTP status."""
