"""Send reports and heartbeats from the API of a service to the filter in Glance.

A report has the token of the user and a service token, like the service's own requests to Glance. A
heartbeat has the token of the service user alone.
"""

import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from related_images import model, validation
from related_images.client import (
    Forbidden,
    GlanceError,
    NotFound,
    Relation,
    RelationsClient,
    TupleHeaders,
)
from related_images.client.glance import Glance
from related_images.client.relations import results
from related_images.errors import ImageBeingDeleted, ImageGone, ImageNotFound, RelationConflict
from related_images.integrations.heartbeats import Heartbeat, ProcessHeartbeat
from related_images.integrations.limited_calls import LimitedCalls
from related_images.model import InstanceRef
from related_images.protocol import headers, paths, schemas

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

LOG = logging.getLogger(__name__)

SECONDS: Final = 2.0
"""The longest time for which a report delays a request to the service."""

HEARTBEAT_SECONDS: Final = 20.0
"""The longest time for which a heartbeat waits."""

THREADS: Final = 16
"""The largest number of reports that one process sends at the same time."""

MISSING: Final = (ImageNotFound.code, ImageGone.code, ImageBeingDeleted.code)
"""The codes of errors that say that the image does not exist, or soon does not."""

CREATION: Final = paths.API + paths.IMAGES

Items = Mapping[str, Sequence[schemas.Json]]
"""The new relations and origins of a report, by the name of their collection."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a report.

    :ivar recorded: the recorded relations
    :ivar is_missing: whether an image does not exist, or is being deleted
    """

    recorded: Sequence[Relation] = ()
    is_missing: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """How the API of one service sends requests to Glance.

    :ivar witness: the name of the API as a witness
    :ivar report: what a report states, for the log
    :ivar user_client: returns a glanceclient with the tokens that the service sends for a user; the
        argument is the context of the user's request
    :ivar service_client: returns a client of Glance with the token of the service user
    """

    witness: str
    report: str
    user_client: Callable[[Any], Any]
    service_client: Callable[[], Any]


class Reports:
    """Sends the reports of one API, from all its threads and processes.

    :param service: how requests are sent to Glance
    :param installation_uuid: the installation of the service
    :param has_service_user: whether it has a service user, without which there are no heartbeats
    """

    def __init__(self, service: Service, installation_uuid: str, *, has_service_user: bool) -> None:
        self.installation_uuid = installation_uuid
        self._service = service
        self._calls = LimitedCalls(THREADS)
        self._heartbeat = Heartbeat(self._beat) if has_service_user else None
        self._logged: set[type[GlanceError]] = set()

    def begin(self) -> None:
        """Start the heartbeats of this process, if there are any and they are not started."""
        if self._heartbeat is not None:
            self._heartbeat.ensure_running()

    def send(self, context: Any, describe: Callable[[], Items]) -> Outcome:
        """Send a report. It takes at most :data:`SECONDS`, and raises nothing.

        A report that is lost ends the interval of the heartbeats.

        :param context: the context of the user's request
        :param describe: returns what to report
        """
        try:
            with self._heartbeat.coverage.report() if self._heartbeat else nullcontext():
                return _outcome(self._calls.call(SECONDS, partial(self._record, context, describe)))
        except Exception as error:  # noqa: BLE001 - whatever fails, no request must fail by it
            self._log(error)
            return Outcome()

    def recording(self, context: Any) -> Mapping[str, bool]:
        """Return whether the filter can record now, and whether this request may.

        It takes at most :data:`SECONDS`.

        :returns: ``available`` and ``allowed``; empty if an older filter does not state it
        :raises NotFound: if Glance does not have the filter
        :raises Exception: if there is no such response in time
        """
        return self._calls.call(SECONDS, lambda: _recording(self._glance(context)))

    def roll_back(self, context: Any, recorded: Sequence[Relation]) -> None:
        """Roll back the reported relations, because what was reported did not happen.

        It takes at most :data:`SECONDS`; the rest continues in the background.
        """
        if recorded:
            self._correct(lambda: _roll_back(self._service.user_client(context), recorded))

    def end(self, context: Any, resource: InstanceRef) -> None:
        """Report that a resource was deleted. It takes at most :data:`SECONDS`."""
        self._correct(lambda: _end(self._glance(context), resource))

    def _record(self, context: Any, describe: Callable[[], Items]) -> list[Relation | GlanceError]:
        given = {name: items for name, items in describe().items() if items}
        found = list[Relation | GlanceError]()
        if not given:
            return found
        glance = self._glance(context)
        for name, items in given.items():
            for start in range(0, len(items), schemas.BATCH_MAX):
                body = {name: items[start : start + schemas.BATCH_MAX]}
                answer = _post(glance, f"/{name}", body, SECONDS)
                found += [one for one in results(answer, name, _recorded) if one is not None]
        return found

    def _correct(self, send: Callable[[], None]) -> None:
        """Send a report without which an image counts as used for longer than it is."""
        try:
            self._calls.call(SECONDS, send)
        except Exception as error:  # noqa: BLE001 - whatever fails, no request must fail by it
            LOG.warning("an image may count as used until a reconciliation: %s", error)

    def _log(self, error: Exception) -> None:
        if isinstance(error, Forbidden | NotFound):
            # this does not change from one request to the next
            if type(error) in self._logged:
                return
            self._logged.add(type(error))
        LOG.warning("%s is not reported, which leaves a gap: %s", self._service.report, error)

    def _beat(self, beat: ProcessHeartbeat) -> None:
        body = {
            "installation_uuid": self.installation_uuid,
            "witness": self._service.witness,
            "process": beat.process,
            "from": validation.format_time(beat.since),
            "until": validation.format_time(beat.until),
        }
        self._calls.call(HEARTBEAT_SECONDS, partial(self._send_heartbeat, body))

    def _send_heartbeat(self, body: schemas.Json) -> None:
        glance = Glance(self._service.service_client())
        _post(glance, paths.WITNESSES, body, HEARTBEAT_SECONDS)

    def _glance(self, context: Any) -> Glance:
        return Glance(self._service.user_client(context))


def _outcome(found: Sequence[Relation | GlanceError]) -> Outcome:
    """Return the outcome for the results of all items.

    :raises GlanceError: if an item is not recorded, although its image is not missing
    """
    errors = [one for one in found if isinstance(one, GlanceError)]
    is_missing = any(one.code in MISSING for one in errors)
    lost = [one for one in errors if one.code != RelationConflict.code]
    if lost and not is_missing:
        raise lost[0]
    return Outcome([one for one in found if isinstance(one, Relation)], is_missing)


def _recorded(result: Mapping[str, Any]) -> Relation | None:
    shown = result.get("relation")
    return None if shown is None else Relation.from_json(shown)


def _recording(glance: Glance) -> Mapping[str, bool]:
    answer = glance.request("GET", paths.INFO, timeout=SECONDS)
    return answer.read(lambda shown: dict(shown.get("recording", {})))


def _roll_back(user_client: Any, recorded: Sequence[Relation]) -> None:
    client = RelationsClient(user_client)
    for one in recorded:
        client.roll_back(one.instance, one.image_id, model.BOOT, one.created_at)


def _end(glance: Glance, resource: InstanceRef) -> None:
    path = paths.INSTANCE.format(
        installation_uuid=resource.installation_uuid, instance_id=resource.instance_id
    )
    query = dict(paths.type_query(resource.resource_type))
    # Glance does not know the resource if nothing was reported of it
    with suppress(NotFound):
        glance.request("DELETE", path, params=query, timeout=SECONDS)


def _post(glance: Glance, path: str, body: schemas.Json, seconds: float) -> Any:
    return glance.request("POST", path, json=body, timeout=seconds)


def boot(resource: InstanceRef, image_id: str, project_id: str | None) -> schemas.Json:
    """Return the item for a resource that is made from an image."""
    return {
        **_named(resource),
        # the services take the UUID in any case, Glance's is in lower case
        "image_id": image_id.lower(),
        "kind": model.BOOT,
        "instance_project_id": project_id,
    }


def origin(
    resource: InstanceRef, source: InstanceRef | None, project_id: str | None
) -> schemas.Json:
    """Return the item for a resource that comes from another one since now, or from none."""
    return {
        **_named(resource),
        "source": None if source is None else source.as_json(),
        "since": validation.format_time(datetime.now(UTC)),
        "project_id": project_id,
    }


def _named(resource: InstanceRef) -> schemas.Json:
    ids = {
        "installation_uuid": resource.installation_uuid,
        "instance_id": resource.instance_id,
    }
    return ids | dict(paths.type_query(resource.resource_type))


def begin_with_requests(reports: Reports | None, app: "WSGIApplication") -> "WSGIApplication":
    """Return the application; its first request in each process starts the heartbeats."""
    if reports is None:
        return app

    def begin(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        reports.begin()
        return app(environ, start_response)

    return begin


def check_response(post: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the ``post`` of a client that sends the instance headers.

    The process warns once if Glance creates an image and does not confirm its relation.
    """

    @functools.wraps(post)
    def wrapper(url: str, *args: Any, **kwargs: Any) -> Any:
        response, body = post(url, *args, **kwargs)
        is_sent = headers.INSTALLATION_UUID in TupleHeaders()
        if url == CREATION and is_sent and headers.RECORDED not in response.headers:
            _warn_without_filter()
        return response, body

    return wrapper


@functools.cache
def _warn_without_filter() -> None:
    LOG.warning(
        "Glance does not confirm that it recorded the server or volume of an image: related-images "
        "is not in its pipeline, and image lists of a server or volume will be empty"
    )
