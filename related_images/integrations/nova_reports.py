"""Send reports and heartbeats from nova-api to the filter in Glance.

A report has the token of the user and a service token, like Nova's own requests to Glance. A
heartbeat has the token of the service user alone.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from related_images import model, validation
from related_images.client import Forbidden, GlanceError, NotFound, Relation, RelationsClient
from related_images.client.glance import Glance
from related_images.client.relations import results
from related_images.errors import ImageBeingDeleted, ImageGone, ImageNotFound, RelationConflict
from related_images.integrations.coverage import Beat, Heartbeat
from related_images.integrations.limited_calls import LimitedCalls
from related_images.model import InstanceRef
from related_images.protocol import paths, schemas

LOG = logging.getLogger(__name__)

SECONDS: Final = 2.0
"""The longest time for which a report delays a request to Nova."""

HEARTBEAT_SECONDS: Final = 20.0
"""The longest time for which a heartbeat waits."""

THREADS: Final = 16
"""The largest number of reports that one process sends at the same time."""

WITNESS: Final = "nova-api"

MISSING: Final = (ImageNotFound.code, ImageGone.code, ImageBeingDeleted.code)
"""The codes of errors that say that the image does not exist, or soon does not."""

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


class Reports:
    """Sends the reports of one nova-api, from all its threads and processes.

    :param installation_uuid: the installation of this Nova
    :param has_service_user: whether Nova has a service user, without which there are no heartbeats
    """

    def __init__(self, installation_uuid: str, *, has_service_user: bool) -> None:
        self.installation_uuid = installation_uuid
        self._calls = LimitedCalls(THREADS)
        self._heartbeat = Heartbeat(self._beat) if has_service_user else None
        self._told: set[type[GlanceError]] = set()

    def begin(self) -> None:
        """Start the heartbeats of this process, if there are any and they are not started."""
        if self._heartbeat is not None:
            self._heartbeat.ensure_running()

    def send(self, context: Any, describe: Callable[[], Items]) -> Outcome:
        """Send a report. It takes at most :data:`SECONDS`, and raises nothing.

        A report that is lost ends the interval of the heartbeats.

        :param context: the context of the user's request to Nova
        :param describe: returns what to report
        """
        try:
            with self._heartbeat.coverage.report() if self._heartbeat else nullcontext():
                return _outcome(self._calls.call(SECONDS, partial(_record, context, describe)))
        except Exception as error:  # noqa: BLE001 - whatever fails, no server must fail by it
            self._log(error)
            return Outcome()

    def roll_back(self, context: Any, recorded: Sequence[Relation]) -> None:
        """Roll back the reported relations, because Nova did not do what was reported.

        It takes at most :data:`SECONDS`; the rest continues in the background.
        """
        if recorded:
            self._correct(partial(_roll_back, context, recorded))

    def end(self, context: Any, server: InstanceRef) -> None:
        """Report that a server was deleted. It takes at most :data:`SECONDS`."""
        self._correct(partial(_end, context, server))

    def _correct(self, send: Callable[[], None]) -> None:
        """Send a report without which an image counts as used for longer than it is."""
        try:
            self._calls.call(SECONDS, send)
        except Exception as error:  # noqa: BLE001 - as above
            LOG.warning("an image may count as used until a reconciliation: %s", error)

    def _log(self, error: Exception) -> None:
        if isinstance(error, Forbidden | NotFound):
            # this does not change from one request to the next
            if type(error) in self._told:
                return
            self._told.add(type(error))
        LOG.warning("the start of a server is not reported, which leaves a gap: %s", error)

    def _beat(self, beat: Beat) -> None:
        body = {
            "installation_uuid": self.installation_uuid,
            "witness": WITNESS,
            "process": beat.process,
            "from": validation.format_time(beat.since),
            "until": validation.format_time(beat.until),
        }
        self._calls.call(HEARTBEAT_SECONDS, partial(_send_heartbeat, body))


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


def _record(context: Any, describe: Callable[[], Items]) -> list[Relation | GlanceError]:
    given = {name: items for name, items in describe().items() if items}
    if not given:
        return []
    glance, found = _glance(context), list[Relation | GlanceError]()
    for name, items in given.items():
        for start in range(0, len(items), schemas.BATCH_MAX):
            body = {name: items[start : start + schemas.BATCH_MAX]}
            answer = _post(glance, f"/{name}", body, SECONDS)
            found += [one for one in results(answer, name, _recorded) if one is not None]
    return found


def _recorded(result: Mapping[str, Any]) -> Relation | None:
    shown = result.get("relation")
    return None if shown is None else Relation.from_json(shown)


def _roll_back(context: Any, recorded: Sequence[Relation]) -> None:
    client = RelationsClient(_client(context))
    for one in recorded:
        client.roll_back(one.instance, one.image_id, model.BOOT, one.created_at)


def _end(context: Any, server: InstanceRef) -> None:
    ids = {"installation_uuid": server.installation_uuid, "instance_id": server.instance_id}
    # it is unknown if nothing was reported of it
    with suppress(NotFound):
        _glance(context).request("DELETE", paths.INSTANCE.format(**ids), timeout=SECONDS)


def _send_heartbeat(body: schemas.Json) -> None:
    _post(_glance(_service_context()), paths.WITNESSES, body, HEARTBEAT_SECONDS)


def _post(glance: Glance, path: str, body: schemas.Json, seconds: float) -> Any:
    return glance.request("POST", path, json=body, timeout=seconds)


def _glance(context: Any) -> Glance:
    return Glance(_client(context))


def _client(context: Any) -> Any:
    """Return a glanceclient with the tokens that Nova sends with its requests to Glance."""
    from nova.image import glance

    endpoint = glance.generate_glance_url(context)
    return glance._glanceclient_from_endpoint(context, endpoint, 2)


def _service_context() -> Any:
    """Return a context of Nova in which requests have the token of the service user."""
    from nova import context, service_auth
    from nova.conf.service_token import SERVICE_USER_GROUP

    made = context.get_admin_context()
    made.user_auth_plugin = service_auth.get_service_auth_plugin(SERVICE_USER_GROUP)
    return made
