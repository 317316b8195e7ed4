"""Attach a relation to an image that exists: read the request body and ask Glance for the image."""

from datetime import UTC, datetime
from typing import Any, Final

from related_images import model, validation
from related_images.db import Database, NewRelation, Relation, Reporter, recording
from related_images.errors import ImageGone
from related_images.middleware import glance
from related_images.middleware.access import Caller
from related_images.middleware.environ import Environ
from related_images.middleware.responses import WSGIApp

REQUIRED_FIELDS: Final = ("installation_uuid", "instance_id", "image_id", "kind")
OPTIONAL_FIELDS: Final = ("resource_type", "label", "instance_project_id")
"""``instance_project_id`` is the project that owns the resource."""


def new_relation(
    body: dict[str, Any], app: WSGIApp, environ: Environ, caller: Caller
) -> NewRelation:
    """Return the relation that ``body`` describes.

    :param body: a body with all required fields and no unknown ones
    :raises BadInput: if a field is malformed
    :raises ImageNotFound: if the image does not exist or the caller cannot see it
    """
    resource_type = model.resource_type(body.get("resource_type", model.SERVER))
    ref = model.InstanceRef(body["installation_uuid"], body["instance_id"], resource_type)
    image_id, kind = validation.image_id(body["image_id"]), model.kind(body["kind"])
    label = None if body.get("label") is None else validation.label(body["label"])
    instance_project_id = _instance_project_id(body, kind, caller)
    image = glance.get_image(app, environ, image_id)
    return NewRelation(
        installation_uuid=ref.installation_uuid,
        instance_id=ref.instance_id,
        image_id=image_id,
        kind=kind,
        label=label,
        source=model.SERVICE,
        project_id=instance_project_id if kind == model.BOOT else image.get("owner"),
        created_at=datetime.now(UTC),
        instance_project_id=instance_project_id,
        image_state=glance.image_state(image),
        resource_type=ref.resource_type,
    )


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

    It is ``instance_project_id`` of the body. For a ``boot`` without it, it is the project of the
    user, if a service sends a user's token with its own service token. An administrator acts on
    resources of other projects, so the project of an administrator is not used.
    """
    project_id = body.get("instance_project_id")
    if project_id is not None:
        return validation.text("instance_project_id", project_id)
    is_user = caller.has_service_token and not (caller.has_recording_role or caller.is_admin)
    return caller.project_id if kind == model.BOOT and is_user else None
