"""Create an image of a resource: record the relation first, then let Glance create the image.

The relation is committed before the request goes to Glance. A process that is killed at any moment
therefore leaves no image without its relation. If Glance refuses the request, the relation is
rolled back. If Glance may have created the image (a 5xx status, an exception, a kill), the relation
stays until a reconciliation compares it with Glance.
"""

import json
import logging
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Final

from webob.response import iter_close

from related_images import failpoints, metrics, model, validation
from related_images.db import Database, NewRelation, Recorded, recording
from related_images.errors import BadInput, BodyMalformed, StoreUnavailable
from related_images.failpoints import Point
from related_images.middleware import failures, glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ, read_body, request_id
from related_images.middleware.policy import CREATE_IMAGE
from related_images.middleware.responses import Headers, StartResponse, WSGIApp
from related_images.protocol import headers

LOG = logging.getLogger(__name__)

CREATED: Final = "201"


def json_object(environ: Environ) -> dict[str, Any]:
    """Return the request body as a JSON object.

    :raises BodyMalformed: if it is not a JSON object in UTF-8
    :raises BodyTooLarge: if it is larger than 1 MiB
    :raises BodyIncomplete: if the connection ended before the whole body arrived
    """
    try:
        body = json.loads(read_body(environ).decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BodyMalformed(
            f"the body is not valid JSON in UTF-8: {error}; send a JSON object"
        ) from error
    if not isinstance(body, dict):
        raise BodyMalformed(f"the body is a JSON {type(body).__name__}; send a JSON object")
    return body


def create_image(
    app: WSGIApp,
    database: Database,
    environ: Environ,
    start_response: StartResponse,
    assertion: headers.Assertion,
    caller: Caller,
) -> Iterable[bytes]:
    """Record the relation and let Glance create the image.

    :returns: the body of Glance's response; on success the response has ``X-Relation-Recorded``
    :raises RecordingForbidden: if the caller has no recording role
    :raises BadInput: if the body or the kind is malformed
    :raises Forbidden: if the caller is not permitted to use the installation
    :raises StoreUnavailable: if the relation cannot be recorded; Glance gets no request then
    """
    caller.require(CREATE_IMAGE)
    reporter = caller.reporter(CREATE_IMAGE)
    body = json_object(environ)
    image_id = validation.image_id(body.setdefault("id", str(uuid.uuid4())))
    new = _relation(assertion, image_id, body, caller)
    _replace_body(environ, body)
    with metrics.RECORDING_SECONDS.time():
        recorded = recording.announce(database, new, reporter)
    creation = _ImageCreation(database, new, recorded, request_id(environ), start_response)
    return creation.respond(app(environ, creation.start_response))


def _owner(body: dict[str, Any], caller: Caller) -> str | None:
    """Return the future owner: ``owner`` of the body, which Glance takes from administrators."""
    owner = body.get("owner", caller.project_id)
    return None if owner is None else validation.text("owner", owner)


def _relation(
    assertion: headers.Assertion, image_id: str, body: dict[str, Any], caller: Caller
) -> NewRelation:
    owner = _owner(body, caller)
    kind = model.kind(assertion.kind or model.SNAPSHOT, model.MADE_FROM)
    model.resource_type(assertion.instance.resource_type)  # images of other types are not recorded
    return NewRelation(
        instance=assertion.instance,
        image_id=image_id,
        kind=kind,
        label=assertion.label,
        source=model.SERVICE,
        project_id=owner,
        created_at=datetime.now(UTC),
        instance_project_id=assertion.project_id,
        volume_snapshot_ids=_volume_snapshots(assertion.instance, image_id, body),
    )


def _volume_snapshots(
    ref: model.InstanceRef, image_id: str, body: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return the volume snapshots that Nova names in the properties of an image.

    Nova writes the mapping itself for an image of a server on volumes. For any other image of a
    server the mapping may come from the user; Nova writes ``image_type`` into each of these.

    :returns: none if the mapping is malformed
    """
    if ref.resource_type != model.SERVER or "image_type" in body:
        return ()
    mapping = body.get("block_device_mapping")
    if mapping is None:
        return ()
    try:
        return validation.volume_snapshot_ids(mapping)
    except BadInput as error:
        LOG.warning("volume snapshots of image %s are not recorded: %s", image_id, error)
        return ()


def _replace_body(environ: Environ, body: dict[str, Any]) -> None:
    """Pass the parsed body to Glance, since another parser may read the same bytes differently."""
    content = json.dumps(body).encode()
    environ["wsgi.input"] = BytesIO(content)
    environ["CONTENT_LENGTH"] = str(len(content))
    environ.pop("HTTP_TRANSFER_ENCODING", None)


@dataclass
class _ImageCreation:
    """Glance's response to a request whose relation is recorded.

    ``created`` is the status and the headers of a 201, held back until the body was read.
    ``body`` collects what Glance passes to ``write()`` and yields.
    """

    database: Database
    new: NewRelation
    recorded: Recorded
    request_id: str | None
    send: StartResponse
    holds_back: bool = True
    created: tuple[str, Headers] | None = None
    body: list[bytes] = field(default_factory=list)

    def start_response(self, status: str, given: Headers, exc_info: Any = None) -> Any:
        """Confirm the relation on 201, keep it on 5xx, roll it back on any other status."""
        self.created = None
        if status.startswith(CREATED):
            failpoints.reach(Point.CREATE_ANSWERED)
            given = [*given, (headers.RECORDED, self.new.kind)]
            self._log("recorded")
            metrics.RECORDED.labels(self.new.kind).inc()
            if self.holds_back:
                self.created = status, given
                return self.body.append
        elif status.startswith("5"):
            self._log(f"kept for reconciliation: Glance answered {status[:3]}")
        else:
            self._roll_back(status)
        return self.send(status, given, exc_info) if exc_info else self.send(status, given)

    def respond(self, pieces: Iterable[bytes]) -> Iterable[bytes]:
        """Return Glance's body, after recording the ``created_at`` that it contains.

        If Glance sends the status only with the first piece of the body, the body passes through
        unread, and a reconciliation records ``created_at``.
        """
        self.holds_back = False
        if self.created is None:
            return pieces
        try:
            # one list for write() and the iterable keeps the order of the pieces
            for piece in pieces:
                self.body.append(piece)
        finally:
            iter_close(pieces)
        body = b"".join(self.body)
        self._record_created_at(body)
        self.send(*self.created)
        return [body]

    def _record_created_at(self, body: bytes) -> None:
        state = glance.image_state(glance.parse_json(body))
        if state is None:
            return
        result = "created_at of image %s is left to reconciliation [%s]"
        with failures.logged(result, self.new.image_id, self.request_id):
            try:
                recording.created(self.database, self.new, self.recorded, state)
            except StoreUnavailable as error:
                self._log(f"created_at of the image is left to reconciliation: {error}")

    def _roll_back(self, status: str) -> None:
        failpoints.reach(Point.CREATE_REFUSED)
        result = "relation of image %s is kept for reconciliation: it cannot be rolled back [%s]"
        with failures.logged(result, self.new.image_id, self.request_id):
            try:
                recording.withdraw(self.database, self.recorded)
            except StoreUnavailable as error:
                self._log(
                    f"kept for reconciliation: Glance answered {status[:3]} and the relation "
                    f"cannot be rolled back: {error.for_log()}"
                )
            else:
                failpoints.reach(Point.CREATE_WITHDRAWN)
                self._log(f"rolled back: Glance answered {status[:3]}")

    def _log(self, event: str) -> None:
        LOG.info(
            "relation of image %s to %s (%s): %s [%s]",
            self.new.image_id,
            self.new.instance,
            self.new.kind,
            event,
            self.request_id,
        )
