"""Read the origins in the body of a request."""

from typing import Any, Final

from related_images import model, validation
from related_images.errors import FieldInvalid
from related_images.middleware.route_request import fields
from related_images.protocol import schemas

REQUIRED_FIELDS: Final = ("installation_uuid", "instance_id", "source", "since", "project_id")
OPTIONAL_FIELDS: Final = ("resource_type",)
SOURCE_FIELDS: Final = ("installation_uuid", "instance_id")


def items(body: dict[str, Any]) -> list[Any]:
    """Return the items of the body, which are not yet validated.

    :raises FieldInvalid: if ``origins`` is missing or is not a list of 1 to
        :data:`related_images.protocol.schemas.ORIGINS_MAX` items
    """
    found = fields(body, required=("origins",), optional=())["origins"]
    if not isinstance(found, list) or not 1 <= len(found) <= schemas.ORIGINS_MAX:
        raise FieldInvalid(
            f"the field origins is not a list of 1 to {schemas.ORIGINS_MAX} origins; send more "
            "in several requests"
        )
    return found


def new_origin(item: Any) -> model.NewOrigin:
    """Return the origin that an item describes.

    :raises BadInput: if a field is missing, unknown or malformed
    :raises OriginRefused: if such a resource cannot come from such a source
    """
    found = fields(_object("the origin", item), REQUIRED_FIELDS, OPTIONAL_FIELDS)
    source, project_id = found["source"], found["project_id"]
    if source is not None:
        source = _resource(fields(_object("source", source), SOURCE_FIELDS, OPTIONAL_FIELDS))
    since = validation.time_field("since", found["since"])
    return model.NewOrigin(
        instance=_resource(found),
        source=source,
        since=since,
        project_id=None if project_id is None else validation.text("project_id", project_id),
        reported_by=model.SERVICE,
    )


def _object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FieldInvalid(f"{name} is {validation.shown(value)}; send a JSON object")
    return value


def _resource(found: dict[str, Any]) -> model.InstanceRef:
    resource_type = model.resource_type(found.get("resource_type", model.SERVER))
    return model.InstanceRef(found["installation_uuid"], found["instance_id"], resource_type)
