"""A request that makes an image of an instance: first the relation, then the image.

The relation is committed before the registry is asked, so that a process which is killed at any
moment leaves no image without it. What the registry refuses is taken back; what it may or may not
have made (a 5xx, an exception, a kill) is left, and reconciled with the registry later.
"""

import json
import logging
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

from webob.response import iter_close

from related_images import failpoints, metrics, model, validation
from related_images.db import Database, NewRelation, Recorded, recording
from related_images.errors import BodyMalformed, StoreUnavailable
from related_images.failpoints import Point
from related_images.middleware import glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, read_body, request_id
from related_images.middleware.responses import Headers, StartResponse, WSGIApp
from related_images.protocol import headers

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
    """Record the relation, let Glance make the image, and acknowledge."""
    caller.must_record()
    body = json_object(environ)
    image_id = validation.image_id(body.setdefault("id", str(uuid.uuid4())))
    new = _relation(assertion, image_id, _owner(body, caller))
    _replace_body(environ, body)
    with metrics.RECORDING_SECONDS.time():
        recorded = recording.announce(database, new, caller.reporter())
    outcome = _Outcome(database, new, recorded, request_id(environ), start_response)
    return outcome.answer(app(environ, outcome.start_response))


def _owner(body: dict[str, Any], caller: Caller) -> str | None:
    """Whose the image will be: as the body says, which the registry lets administrators say."""
    owner = body.get("owner", caller.project_id)
    return None if owner is None else validation.text("owner", owner)


def _relation(assertion: headers.Assertion, image_id: str, owner: str | None) -> NewRelation:
    return NewRelation(
        installation_uuid=assertion.instance.installation_uuid,
        instance_id=assertion.instance.instance_id,
        image_id=image_id,
        kind=model.kind(assertion.kind or model.SNAPSHOT, model.MADE_FROM),
        label=assertion.label,
        source=model.SERVICE,
        project_id=owner,
        created_at=datetime.now(UTC),
        instance_project_id=assertion.project_id,
    )


def _replace_body(environ: Environ, body: dict[str, Any]) -> None:
    """Let the registry read what was read here, and not its own idea of the same bytes."""
    content = json.dumps(body).encode()
    environ["wsgi.input"] = BytesIO(content)
    environ["CONTENT_LENGTH"] = str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


@dataclass
class _Outcome:
    """What Glance makes of a request whose relation is already recorded.

    ``made`` is the answer that it made the image, kept back until its body is read; ``written`` is
    what of that body comes by itself.
    """

    database: Database
    new: NewRelation
    recorded: Recorded
    request_id: str | None
    respond: StartResponse
    keeps_back: bool = True
    made: tuple[str, Headers] | None = None
    written: list[bytes] = field(default_factory=list)

    def start_response(self, status: str, given: Headers, exc_info: Any = None) -> Any:
        self.made = None
        if status.startswith(CREATED):
            failpoints.reach(Point.CREATE_ANSWERED)
            given = [*given, (headers.RECORDED, self.new.kind)]
            self._log("recorded")
            metrics.RECORDED.labels(self.new.kind).inc()
            if self.keeps_back:
                self.made = status, given
                return self.written.append
        elif status.startswith("5"):
            self._log(f"in doubt after {status[:3]}, left to be reconciled")
        else:
            self._withdraw(status)
        return self.respond(status, given, exc_info) if exc_info else self.respond(status, given)

    def answer(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """Answer with what Glance did; which image it made is read from the body, and noted.

        A body of which even the status is still to come goes through: a reconciliation learns it.
        """
        self.keeps_back = False
        if self.made is None:
            return pieces
        try:
            # what Glance writes and what it yields come in the order of its doing so
            for piece in pieces:
                self.written.append(piece)
        finally:
            iter_close(pieces)
        body = b"".join(self.written)
        self._learn(body)
        self.respond(*self.made)
        return [body]

    def _learn(self, body: bytes) -> None:
        seen = glance.seen(glance.json_of(body))
        if seen is None:
            return
        try:
            recording.created(self.database, self.new, self.recorded, seen)
        except StoreUnavailable as error:
            self._log(f"when its image was made is left to be reconciled: {error}")

    def _withdraw(self, status: str) -> None:
        failpoints.reach(Point.CREATE_REFUSED)
        try:
            recording.withdraw(self.database, self.recorded)
        except StoreUnavailable as error:
            self._log(f"refused with {status[:3]}, left to be reconciled: {error.for_log()}")
        else:
            failpoints.reach(Point.CREATE_WITHDRAWN)
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
