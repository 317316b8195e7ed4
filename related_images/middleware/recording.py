"""A request that makes an image of an instance: first the relation, then the image.

The relation is committed before the registry is asked, so that a process which is killed at any
moment leaves no image without it. What the registry refuses is taken back; what it may or may not
have made (a 5xx, an exception, a kill) is left, and reconciled with the registry later.
"""

import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

from related_images import faults, metrics
from related_images.errors import BodyMalformed, StoreUnavailable
from related_images.faults import Point
from related_images.metrics import Metric
from related_images.middleware.answers import Headers, StartResponse, WSGIApp
from related_images.middleware.environ import Environ, read_body, request_id
from related_images.middleware.identity import Caller
from related_images.queries import Database, NewRelation, Recorded, recording
from related_images.wire import headers, words

LOG = logging.getLogger(__name__)

CREATED: Final = "201"


def json_object(environ: Environ) -> dict[str, Any]:
    """The body as a JSON object.

    :raises BodyMalformed: if it is anything else
    """
    try:
        body = json.loads(read_body(environ).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BodyMalformed(f"the body cannot be read as JSON: {error}") from error
    if not isinstance(body, dict):
        raise BodyMalformed(f"the body is a JSON {type(body).__name__}, an object is needed")
    return body


def create_image(
    app: WSGIApp,
    database: Database,
    environ: Environ,
    start_response: StartResponse,
    assertion: headers.Assertion,
    caller: Caller,
) -> Iterable[bytes]:
    """Record the relation, let the registry make the image, and acknowledge."""
    body = json_object(environ)
    image_id = words.image_id(body.setdefault("id", str(uuid.uuid4())))
    new = _relation(assertion, image_id, _owner(body, caller))
    _replace_body(environ, body)
    recorded = recording.announce(database, new, caller.speaker())
    outcome = _Outcome(database, new, recorded, request_id(environ), start_response)
    return app(environ, outcome.start_response)


def _owner(body: dict[str, Any], caller: Caller) -> str | None:
    """Whose the image will be: as the body says, which the registry lets administrators say."""
    owner = body.get("owner", caller.project_id)
    return None if owner is None else words.text("owner", owner)


def _relation(assertion: headers.Assertion, image_id: str, owner: str | None) -> NewRelation:
    return NewRelation(
        installation_uuid=assertion.instance.installation_uuid,
        instance_id=assertion.instance.instance_id,
        image_id=image_id,
        kind=words.kind(assertion.kind or words.SNAPSHOT, words.MADE_FROM),
        label=assertion.label,
        source=words.SERVICE,
        project_id=owner,
        created_at=datetime.now(UTC),
    )


def _replace_body(environ: Environ, body: dict[str, Any]) -> None:
    """Let the registry read what was read here, and not its own idea of the same bytes."""
    content = json.dumps(body).encode()
    environ["wsgi.input"] = BytesIO(content)
    environ["CONTENT_LENGTH"] = str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


@dataclass(frozen=True)
class _Outcome:
    """What the registry makes of a request whose relation is already recorded."""

    database: Database
    new: NewRelation
    recorded: Recorded
    request_id: str | None
    respond: StartResponse

    def start_response(self, status: str, given: Headers, exc_info: Any = None) -> Any:
        if status.startswith(CREATED):
            faults.reach(Point.CREATE_ANSWERED)
            given = [*given, (headers.RECORDED, self.new.kind)]
            self._log("recorded")
            metrics.add(Metric.RECORDED, self.new.kind)
        elif status.startswith("5"):
            self._log(f"in doubt after {status[:3]}, left to be reconciled")
        else:
            self._withdraw(status)
        return self.respond(status, given, exc_info) if exc_info else self.respond(status, given)

    def _withdraw(self, status: str) -> None:
        faults.reach(Point.CREATE_REFUSED)
        try:
            recording.withdraw(self.database, self.recorded)
        except StoreUnavailable as error:
            self._log(f"refused with {status[:3]}, left to be reconciled: {error.for_log()}")
        else:
            faults.reach(Point.CREATE_WITHDRAWN)
            self._log(f"refused with {status[:3]}, taken back")

    def _log(self, what: str) -> None:
        LOG.info(
            "relation of image %s with instance %s of %s (%s): %s [%s]",
            self.new.image_id,
            self.new.instance_id,
            self.new.installation_uuid,
            self.new.kind,
            what,
            self.request_id,
        )
