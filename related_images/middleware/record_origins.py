"""Read an origin in the body of a request."""

from typing import Any

from related_images import model, validation
from related_images.errors import FieldInvalid, ParameterMalformed
from related_images.middleware import batches
from related_images.middleware.route_request import fields
from related_images.protocol import schemas


def new_origin(item: Any) -> model.NewOrigin:
    """Return the origin that an item describes.

    :raises BadInput: if a field is missing, unknown or malformed
    :raises OriginRefused: if a resource of this type cannot come from a source of that type
    """
    found = fields(batches.json_item("the origin", item), schemas.NEW_ORIGIN)
    source, project_id = found["source"], found["project_id"]
    if source is not None:
        shape = schemas.NEW_ORIGIN["properties"]["source"]
        source = _resource(fields(batches.json_item("source", source), shape))
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
