"""Read an origin in the body of a request."""

from typing import Any, Final

from related_images import model, validation
from related_images.errors import FieldInvalid, ParameterMalformed
from related_images.middleware import batches
from related_images.middleware.route_request import fields

REQUIRED_FIELDS: Final = ("installation_uuid", "instance_id", "source", "since", "project_id")
OPTIONAL_FIELDS: Final = ("resource_type",)
SOURCE_FIELDS: Final = ("installation_uuid", "instance_id")


def new_origin(item: Any) -> model.NewOrigin:
    """Return the origin that an item describes.

    :raises BadInput: if a field is missing, unknown or malformed
    :raises OriginRefused: if a resource of this type cannot come from a source of that type
    """
    found = fields(batches.json_item("the origin", item), REQUIRED_FIELDS, OPTIONAL_FIELDS)
    source, project_id = found["source"], found["project_id"]
    if source is not None:
        source = _resource(
            fields(batches.json_item("source", source), SOURCE_FIELDS, OPTIONAL_FIELDS)
        )
    try:
        since = validation.parse_time("since", found["since"])
    except ParameterMalformed as error:
        raise FieldInvalid(str(error)) from error
    return model.NewOrigin(
        instance=_resource(found),
        source=source,
        since=since,
        project_id=None if project_id is None else validation.text("project_id", project_id),
    )


def _resource(found: dict[str, Any]) -> model.InstanceRef:
    resource_type = model.resource_type(found.get("resource_type", model.SERVER))
    return model.InstanceRef(found["installation_uuid"], found["instance_id"], resource_type)
