"""A client of Glance for an administrator, which raises if a response is not reliable."""

from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from keystoneauth1.exceptions import ConnectFailure

from related_images import validation
from related_images.client.errors import (
    Forbidden,
    GlanceUnreachable,
    NotFound,
    ServiceUnavailable,
    Unauthorized,
)
from related_images.client.glance import HIDDEN, Answer, Glance
from related_images.db import ImageState
from related_images.errors import UntrustedGlanceAnswer
from related_images.manage import retries
from related_images.manage.rate_limit import RateLimit
from related_images.protocol.paths import IMAGES, INSTALLATIONS

ALL: Final = (("visibility", "all"),)
"""Without this filter Glance hides the community images of other projects."""

_ADMIN_ROUTES: Final = (("/tasks", "tasks"), (INSTALLATIONS, "installations"))
"""Routes for administrators only, and the key in their response; Glance's own route first."""


class GlanceAdmin(Glance):
    """Send rate-limited requests to Glance, and retry requests that may succeed later.

    A response with a short ``Retry-After`` is obeyed. A broken connection is retried with
    exponential backoff. Each method raises :exc:`~related_images.client.errors.GlanceError` for a
    response that is not a success or not in Glance's format.

    :param client: a keystoneauth1 ``Adapter``
    :param rate_limit: limits all requests, retries included
    """

    def __init__(self, client: Any, rate_limit: RateLimit) -> None:
        # the client's own retries would not respect the rate limit
        client.connect_retries = client.status_code_retries = 0
        super().__init__(client)
        self._rate_limit = rate_limit
        self._retrying = retries.retrying(rate_limit, _is_retriable)

    def require_administrator(self) -> None:
        """Raise unless the caller is an administrator, to whom Glance shows every image.

        :raises UntrustedGlanceAnswer: if the caller is not an administrator
        """
        for path, name in _ADMIN_ROUTES:
            try:
                self.request("GET", path, params={"limit": "1"}).read(itemgetter(name))
                return
            except NotFound:
                continue
            except (Forbidden, Unauthorized) as error:
                raise _not_administrator(str(error)) from error
        raise _not_administrator("Glance has no route that only administrators may use")

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        """Return the creation time and the owner of images, hidden ones included.

        :param image_ids: the images to look for
        :returns: the images that Glance lists, by ID
        """
        found: dict[str, ImageState] = {}
        for hidden in HIDDEN:
            if missing := sorted(set(image_ids) - found.keys()):
                query = (("id", f"in:{','.join(missing)}"), ("limit", str(len(missing))))
                pages = self.pages(IMAGES, (*ALL, *query, ("os_hidden", hidden)))
                for page in _limited(pages, len(missing)):
                    found |= page.read(_created)
                    if found.keys() >= set(missing):
                        break
        return found

    def is_gone(self, image_id: str) -> bool:
        """Return True if Glance itself responds that the image does not exist.

        :raises UntrustedGlanceAnswer: if another program sends the 404
        """
        try:
            self.request("GET", f"{IMAGES}/{image_id}").read(itemgetter("id"))
        except NotFound as error:
            if error.request_id is None:
                raise UntrustedGlanceAnswer(
                    f"a 404 does not come from Glance: {error}; check the endpoint and the proxies "
                    "in front of it"
                ) from error
            return True
        return False

    def is_empty(self) -> bool:
        """Return True if Glance lists no image, hidden ones included."""
        queries = ((*ALL, ("limit", "1"), ("os_hidden", hidden)) for hidden in HIDDEN)
        return not any(
            self.request("GET", IMAGES, params=query).read(_created) for query in queries
        )

    def request(self, method: str, path: str, **options: Any) -> Answer:
        """Send one request, with retries; see :meth:`Glance.request`."""
        return self._retrying(self._request_once, method, path, **options)

    def _request_once(self, method: str, path: str, **options: Any) -> Answer:
        self._rate_limit.wait()
        return super().request(method, path, **options)


def _limited(pages: Iterator[Answer], images: int) -> Iterator[Answer]:
    """Yield the pages, and raise if there are more pages than ``images``.

    Glance sends no ``next`` with an empty page. Another server could send pages without end.
    """
    for number, page in enumerate(pages):
        if number > images:
            raise page.invalid(f"there are more pages than the {images} requested images")
        yield page


def _is_retriable(error: BaseException) -> bool:
    """Return True if a retry may succeed soon. A timeout is not retried."""
    if isinstance(error, GlanceUnreachable):
        return isinstance(error.__cause__, ConnectFailure)
    return isinstance(error, ServiceUnavailable) and retries.is_soon(error.retry_after)


def _created(body: Mapping[str, Any]) -> dict[str, ImageState]:
    return {
        image["id"]: ImageState(
            validation.parse_time("created_at", image["created_at"]), image.get("owner")
        )
        for image in body["images"]
    }


def _not_administrator(reason: str) -> UntrustedGlanceAnswer:
    return UntrustedGlanceAnswer(
        f"Glance may hide images from this caller ({reason}): nothing was changed; use an "
        "account with the admin role"
    )
