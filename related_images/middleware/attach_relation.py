"""Attach a relation to an image that exists: read the request body and ask Glance for the image."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from related_images import model, validation
from related_images.db import Database, NewRelation, Relation, Reporter, recording
from related_images.errors import FieldInvalid, ImageGone
from related_images.middleware import batches, glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.responses import WSGIApp
from related_images.middleware.route_request import fields
from related_images.protocol import schemas


def new_relation(
    given: Any, get_image: Callable[[str], dict[str, Any]], caller: Caller
) -> NewRelation:
    """Return the relation that ``given`` describes.

    :param given: the body of the request, or an item of it
    :param get_image: returns the image with an ID as Glance shows it to the caller, or raises
        :exc:`ImageNotFound`
    :raises BadInput: if a field is missing, unknown or malformed
    :raises ImageNotFound: if the image does not exist or the caller cannot see it
    """
    body = fields(batches.json_item("the relation", given), schemas.COMPONENTS["new_relation"])
    image_id, kind = validation.image_id(body["image_id"]), model.kind(body["kind"])
    resource_type = model.resource_type_for(kind, body.get("resource_type", model.SERVER))
    ref = model.InstanceRef(body["installation_uuid"], body["instance_id"], resource_type)
    label = None if body.get("label") is None else validation.label(body["label"])
    instance_project_id = _instance_project_id(body, kind, caller)
    expires_at = _expires_at(body, kind)
    image = get_image(image_id)
    return NewRelation(
        instance=ref,
        image_id=image_id,
        kind=kind,
        label=label,
        source=model.SERVICE,
        project_id=instance_project_id if kind in model.USES else image.get("owner"),
        created_at=datetime.now(UTC),
        instance_project_id=instance_project_id,
        image_state=glance.image_state(image),
        expires_at=expires_at,
    )


def _expires_at(body: dict[str, Any], kind: str) -> datetime | None:
    """Return the end of the lease; a relation of another kind has none."""
    expires_at = body.get("expires_at")
    if (expires_at is not None) != (kind == model.USE):
        problem = "missing" if kind == model.USE else "not allowed"
        raise FieldInvalid(
            f"the field expires_at is {problem}; a relation of the kind {model.USE} needs it, and "
            "no other has it"
        )
    if expires_at is None:
        return None
    return validation.time_field("expires_at", expires_at)


def attach(
    new: NewRelation, app: WSGIApp, environ: Environ, database: Database, reporter: Reporter
) -> tuple[Relation, bool]:
    """Record a relation.

    :returns: the relation as recorded, and whether it is new
    :raises ImageNotFound: if the image was deleted after :func:`new_relation` read it
    """
    try:
        return recording.attach(database, new, reporter)
    except ImageGone:
        glance.get_image(app, environ, new.image_id)
        return recording.attach(database, new, reporter, confirmed_by_glance=True)


def _instance_project_id(body: dict[str, Any], kind: str, caller: Caller) -> str | None:
    """Return the project that owns the resource, or ``None`` if the request does not name it.

    It is ``instance_project_id`` of the body. For one of :data:`related_images.model.USES` without
    it, it is the project of the user, if a service sends a user's token with its own service token.
    An administrator acts on resources of other projects, so the project of an administrator is not
    taken.
    """
    project_id = body.get("instance_project_id")
    if project_id is not None:
        return validation.text("instance_project_id", project_id)
    is_user = caller.has_service_token and not (caller.has_recording_role or caller.is_admin)
    return caller.project_id if kind in model.USES and is_user else None
