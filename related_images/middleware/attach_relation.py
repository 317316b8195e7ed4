"""Attaching a relation to an image that exists: what the body says, checked with the registry."""

from datetime import UTC, datetime
from typing import Any, Final

from related_images import model, validation
from related_images.db import Database, NewRelation, Relation, Reporter, recording
from related_images.errors import ImageGone
from related_images.middleware import glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.responses import WSGIApp

NEEDED: Final = ("installation_uuid", "instance_id", "image_id", "kind")
OPTIONAL: Final = ("label", "instance_project_id")
"""``instance_project_id`` tells whose the instance is, where the service knows."""


def relation_of(
    body: dict[str, Any], app: WSGIApp, environ: Environ, caller: Caller
) -> NewRelation:
    """The relation that ``body`` asks for.

    :raises BadInput: if a field is malformed
    :raises ImageNotFound: if the image is not there for the caller
    """
    ref = model.InstanceRef(body["installation_uuid"], body["instance_id"])
    image_id, kind = validation.image_id(body["image_id"]), model.kind(body["kind"])
    label = None if body.get("label") is None else validation.label(body["label"])
    told = _instance_project(body, kind, caller)
    image = glance.image(app, environ, image_id)
    return NewRelation(
        installation_uuid=ref.installation_uuid,
        instance_id=ref.instance_id,
        image_id=image_id,
        kind=kind,
        label=label,
        source=model.SERVICE,
        project_id=told if kind == model.BOOT else image.get("owner"),
        created_at=datetime.now(UTC),
        instance_project_id=told,
        seen=glance.seen(image),
    )


def attach(
    new: NewRelation, app: WSGIApp, environ: Environ, database: Database, reporter: Reporter
) -> tuple[Relation, bool]:
    """Record the relation; say whether it was not there before.

    :raises ImageNotFound: if the image was deleted since it was looked at
    """
    try:
        return recording.attach(database, new, reporter)
    except ImageGone:
        glance.image(app, environ, new.image_id)
        return recording.attach(database, new, reporter, vouched=True)


def _instance_project(body: dict[str, Any], kind: str, caller: Caller) -> str | None:
    """Whose the instance is: as told, or for a boot the project of the user behind the service.

    An administrator acts on the instances of every project.
    """
    told = body.get("instance_project_id")
    if told is not None:
        return validation.text("instance_project_id", told)
    is_users = caller.is_backed_by_service and not (caller.is_service or caller.is_admin)
    return caller.project_id if kind == model.BOOT and is_users else None
