"""The registry as its administrator sees it, believed only where it leaves no doubt."""

import logging
from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final

from keystoneauth1.exceptions import ConnectFailure
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    wait_exponential,
)

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
from related_images.manage.rate_limit import RateLimit
from related_images.protocol.paths import IMAGES, INSTALLATIONS

LOG = logging.getLogger(__name__)

ATTEMPTS: Final = 4
"""How often one thing is asked while the registry asks to wait, or cannot be reached."""

LONGEST_WAIT: Final = 60
"""Seconds that are waited when the registry asks for it; who is asked for more comes again."""

_GROWING: Final = wait_exponential(multiplier=2)
"""How long is waited for one that cannot be reached: as a restart takes, all in all."""

ALL: Final = (("visibility", "all"),)
"""What is shown to an administrator only when asked for: the community images of others."""

_FOR_ADMINISTRATORS: Final = (("/tasks", "tasks"), (INSTALLATIONS, "installations"))
"""Routes that answer an administrator alone, and what their answer holds; Glance's own first."""


class GlanceAdmin(Glance):
    """Asks through ``client``, a keystoneauth1 ``Adapter``, as often as ``pace`` lets it.

    A registry that says when it can be asked again is asked again then, if that is soon; one that
    breaks the connection, after pauses that grow. Each method raises
    :exc:`~related_images.client.errors.GlanceError` for an answer that is no success or not in
    the registry's own form.
    """

    def __init__(self, client: Any, pace: RateLimit) -> None:
        # what the client sends again by itself is sent at a pace of its own
        client.connect_retries = client.status_code_retries = 0
        super().__init__(client)
        self._pace = pace
        self._patiently = Retrying(
            retry=retry_if_exception(_may_pass),
            wait=_wait,
            stop=stop_after_attempt(ATTEMPTS),
            sleep=pace.sleep,
            before_sleep=_tell,
            reraise=True,
        )

    def must_show_all(self) -> None:
        """Make sure that no image is hidden from this caller.

        :raises UntrustedGlanceAnswer: if the caller is no administrator of the registry
        """
        for path, name in _FOR_ADMINISTRATORS:
            try:
                self.ask("GET", path, params={"limit": "1"}).read(itemgetter(name))
                return
            except NotFound:
                continue
            except (Forbidden, Unauthorized) as error:
                raise _hidden(str(error)) from error
        raise _hidden("it has none of the routes by which that shows")

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        """When those images were created that Glance lists, hidden ones included, and for whom."""
        found: dict[str, ImageState] = {}
        for hidden in HIDDEN:
            if missing := sorted(set(image_ids) - found.keys()):
                asked = (("id", f"in:{','.join(missing)}"), ("limit", str(len(missing))))
                pages = self.pages(IMAGES, (*ALL, *asked, ("os_hidden", hidden)))
                for page in _with_something(pages, len(missing)):
                    found |= page.read(_created)
                    if found.keys() >= set(missing):
                        break
        return found

    def is_gone(self, image_id: str) -> bool:
        """Whether the registry itself says that it has no such image."""
        try:
            self.ask("GET", f"{IMAGES}/{image_id}").read(itemgetter("id"))
        except NotFound as error:
            if error.request_id is None:
                raise UntrustedGlanceAnswer(
                    f"a 404 came that is not the registry's own: {error}; check the endpoint and "
                    "the proxies on the way to it"
                ) from error
            return True
        return False

    def is_empty(self) -> bool:
        """Whether the registry lists no image at all, hidden ones included."""
        queries = ((*ALL, ("limit", "1"), ("os_hidden", hidden)) for hidden in HIDDEN)
        return not any(self.ask("GET", IMAGES, params=query).read(_created) for query in queries)

    def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Send one request, again after a while if that may help."""
        return self._patiently(self._ask_once, method, path, **options)

    def _ask_once(self, method: str, path: str, **options: Any) -> Answer:
        self._pace.keep()
        return super().ask(method, path, **options)


def _with_something(pages: Iterator[Answer], most: int) -> Iterator[Answer]:
    """The pages, of which there are no more than the ``most`` images that were asked for.

    Glance gives no ``next`` with an empty page. Who answers otherwise is not followed for ever.
    """
    for number, page in enumerate(pages):
        if number > most:
            raise page.unusable(f"more pages follow than the {most} images that were asked for")
        yield page


def _may_pass(error: BaseException) -> bool:
    """Whether asking again soon may help. Who did not answer in time is not waited for again."""
    if isinstance(error, GlanceUnreachable):
        return isinstance(error.__cause__, ConnectFailure)
    if not isinstance(error, ServiceUnavailable) or error.retry_after is None:
        return False
    return error.retry_after <= LONGEST_WAIT


def _wait(state: RetryCallState) -> float:
    error = state.outcome and state.outcome.exception()
    asked = getattr(error, "retry_after", None)
    return _GROWING(state) if asked is None else float(asked)


def _tell(state: RetryCallState) -> None:
    error = state.outcome and state.outcome.exception()
    LOG.info("asking again in %g seconds: %s", _wait(state), error)


def _created(body: Mapping[str, Any]) -> dict[str, ImageState]:
    return {
        image["id"]: ImageState(
            validation.parse_time("created_at", image["created_at"]), image.get("owner")
        )
        for image in body["images"]
    }


def _hidden(reason: str) -> UntrustedGlanceAnswer:
    return UntrustedGlanceAnswer(
        f"the registry may hide images from this caller ({reason}): nothing was changed. "
        "Administrator's rights are needed"
    )
