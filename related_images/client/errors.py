"""The errors of the client, under the project's own root.

    RelatedImagesError
    └── ClientError
        ├── NotInstanceAware        Glance has no filter, or did not acknowledge
        ├── ImageNotOfInstance      nothing recorded says that the image was made of the instance
        ├── PolicyEmpty             the rules for backups keep nothing
        ├── PolicyInvalid           a policy for backups cannot be understood
        ├── InstallationAmbiguous   servers are known in several installations
        ├── UploadInvalid           the data cannot be sent
        ├── ImportInvalid           the import cannot be asked for like this
        ├── ImportNotOffered        the deployment has no import method for this source
        │   └── StoreNotOffered     the deployment has no such store
        ├── ImportFailed            Glance refused the import, or it ended without success
        │   └── ImportUnfinished    the deadline passed first
        └── GlanceError             a request to Glance did not succeed
            ├── GlanceUnreachable   no whole answer came, or nobody could be asked
            ├── InvalidResponse     the response is not one of Glance
            ├── Unauthorized        401
            ├── Forbidden           403
            ├── NotFound            404
            ├── Conflict            409
            ├── PayloadTooLarge     413
            └── ServiceUnavailable  503, with ``retry_after`` if Glance says when

Any other status is a plain :class:`GlanceError`.
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

_NOTHING_BEGUN: Final = {
    error.code for error in (StoreUnavailable, SchemaMissing, SchemaOutdated, SchemaTooNew)
}
"""What the filter says before anything is begun; whatever else says 503 may have passed it on."""
_NEXT_STEPS: Final = {
    RecordingForbidden.code: "ask with an account that has the role for it",
    AdminOnly.code: "ask with an account that has the role for it",
    InstallationBound.code: "ask as a service user that it is registered with for this type",
    InstallationUnregistered.code: "ask again once it is registered",
}
"""By the code of the filter's errors, where the status alone does not tell what to do."""


class ClientError(RelatedImagesError):
    code = "client.failed"
    title = "The client could not do what it was asked"


class NotInstanceAware(ClientError):
    """:ivar image_id: the image that was created all the same, if one was"""

    code = "client.not-instance-aware"
    title = "The registry does not know about instances"

    def __init__(self, message: str, *, image_id: str | None = None) -> None:
        super().__init__(message)
        self.image_id = image_id


class ImageNotOfInstance(ClientError):
    """:ivar image_id: the image that was left alone"""

    code = "client.image-not-of-instance"
    title = "The image is not recorded as made of this instance"

    def __init__(self, message: str, *, image_id: str) -> None:
        super().__init__(message)
        self.image_id = image_id


class PolicyEmpty(ClientError):
    code = "retention.policy-empty"
    title = "The rules would keep no backup"


class PolicyInvalid(ClientError):
    code = "retention.policy-invalid"
    title = "A backup policy cannot be understood"


class InstallationAmbiguous(ClientError):
    code = "backups.installation-ambiguous"
    title = "Servers are known in several installations"


class UploadInvalid(ClientError):
    """The data is in no form in which it can be sent."""

    code = "upload.invalid"
    title = "The data cannot be sent"


class ImportInvalid(ClientError):
    """What was asked for can never be imported; nothing was created or sent."""

    code = "import.invalid"
    title = "The import cannot be asked for like this"


class ImportNotOffered(ClientError):
    """:ivar offered: the import methods that the deployment has"""

    code = "import.not-offered"
    title = "The deployment cannot import this"

    def __init__(self, message: str, *, offered: Iterable[str]) -> None:
        super().__init__(message)
        self.offered = tuple(offered)


class StoreNotOffered(ImportNotOffered):
    """:ivar offered: the stores of the deployment that can be written to"""

    code = "import.store-not-offered"
    title = "The deployment has no such store"


class ImportFailed(ClientError):
    """:ivar image_id: the image, left as Glance left it
    :ivar image_status: its status when it was last seen; ``None`` if it could not be looked at
    """

    code = "import.failed"
    title = "The import failed"

    def __init__(self, message: str, *, image_id: str, image_status: str | None) -> None:
        super().__init__(message)
        self.image_id = image_id
        self.image_status = image_status


class ImportUnfinished(ImportFailed):
    code = "import.unfinished"
    title = "The import did not end in time"


class GlanceError(ClientError):
    """A request did not succeed.

    :ivar code: the dotted word of the response if it is one of the filter's errors,
        else the one of the class
    :ivar request: method and path
    :ivar status: of the answer; ``None`` if there was none
    :ivar request_id: of the request in Glance's log
    :ivar retry_after: seconds after which Glance asks to try again
    :ivar doubtful: whether Glance may have done it although it failed
    :ivar said: why, in the words of whoever answered
    :ivar image_id: the image that it was about; ``None`` if no image was created, and none can have
        been
    """

    code = "glance.refused"
    title = "The registry refused the request"
    next_step = "its operator finds more under the request id in the registry's log"
    filter_says_what_to_do = False
    """Whether what the filter itself says already ends with the next step."""
    unanswered = "got no answer"

    def __init__(
        self,
        request: str,
        said: str,
        *,
        status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        self.request = request
        self.said = said.rstrip(". ")
        self.status = status
        self.code = code or type(self).code
        self.request_id = request_id
        self.retry_after = retry_after
        was_not_begun = status == HTTPStatus.SERVICE_UNAVAILABLE and code in _NOTHING_BEGUN
        self.doubtful = status is None or (status >= 500 and not was_not_begun)
        self.image_id: str | None = None
        super().__init__(self._message())

    @property
    def may_pass(self) -> bool:
        """Whether the same question may be answered later: no answer came, or a server failed."""
        return self.doubtful and (self.status is None or self.status >= 500)

    def _message(self) -> str:
        answered = f"answered {self.status}" if self.status else self.unanswered
        wait = "" if self.retry_after is None else f" after {self.retry_after} seconds"
        is_filters_own = self.code != type(self).code
        is_said = is_filters_own and self.filter_says_what_to_do
        next_step = _NEXT_STEPS.get(self.code, self.next_step)
        step = "" if is_said and self.code not in _NEXT_STEPS else f"; {next_step}{wait}"
        named = f" (request id {self.request_id})" if self.request_id else ""
        return f"{self.request} {answered}: {self.said}{step}{named}"


class GlanceUnreachable(GlanceError):
    code = "glance.unreachable"
    title = "The registry could not be asked"
    next_step = "check the endpoint, the network and the credentials"


class InvalidResponse(GlanceError):
    code = "glance.invalid-response"
    title = "The answer is not one of the registry"
    next_step = (
        "check that the endpoint is the registry's root or its /v2, and what stands between, "
        "such as a proxy"
    )

    def __init__(self, request: str, said: str, *, status: int, request_id: str | None) -> None:
        super().__init__(request, said, status=status, request_id=request_id)
        self.doubtful = True  # whatever its status says


class Unauthorized(GlanceError):
    code = "glance.unauthorized"
    title = "The registry does not accept the credentials"
    next_step = "authenticate again"
    unanswered = "was not sent, since Keystone does not accept the credentials"

    def __init__(self, request: str, said: str, **answer: Any) -> None:
        super().__init__(request, said, **answer)
        self.doubtful = False  # also if Keystone, not Glance, refused them


class Forbidden(GlanceError):
    code = "glance.forbidden"
    title = "The credentials do not allow this"
    next_step = "check which roles the caller has, whose the image is, and whether it is protected"
    filter_says_what_to_do = True


class NotFound(GlanceError):
    code = "glance.not-found"
    title = "There is no such thing for this caller"
    next_step = "check the id, and whether the project may see it"


class Conflict(GlanceError):
    code = "glance.conflict"
    title = "It contradicts the state of things"
    next_step = "look at what is there, then decide"
    filter_says_what_to_do = True


class PayloadTooLarge(GlanceError):
    code = "glance.too-large"
    title = "The request is larger than the registry or a quota allows"
    next_step = "send less, or ask for a larger quota"


class ServiceUnavailable(GlanceError):
    code = "glance.unavailable"
    title = "The registry cannot do this now"
    next_step = "try again"


BY_STATUS: dict[int, type[GlanceError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    413: PayloadTooLarge,
    503: ServiceUnavailable,
}
