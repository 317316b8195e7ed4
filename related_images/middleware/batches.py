"""Requests that record several things, with one result for each."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from related_images import validation
from related_images.errors import BadInput, Conflict, FieldInvalid, Forbidden, NotFound
from related_images.middleware.responses import status_of
from related_images.middleware.route_request import fields
from related_images.protocol import schemas


def items(body: dict[str, Any], schema: schemas.Json, things: str | None = None) -> list[Any]:
    """Return the items of the body, which are not yet validated.

    :param schema: the schema of the body, whose only field is a list
    :param things: what the items are, for the message, if that is not the name of the field
    :raises FieldInvalid: if the field is missing or is not a list of the allowed length
    """
    ((name, shape),) = schema["properties"].items()
    found, most = fields(body, schema)[name], shape["maxItems"]
    if not isinstance(found, list) or not 1 <= len(found) <= most:
        raise FieldInvalid(
            f"the field {name} is not a list of 1 to {most} {things or name}; send more in "
            "several requests"
        )
    return found


def results(
    name: str, record: Callable[[Any], tuple[schemas.Json, bool]], given: list[Any]
) -> list[schemas.Json]:
    """Record the items, and return one result for each, in their order.

    :param name: the name of a recorded item in its result
    :param record: takes an item, returns what is recorded and whether it is new
    :raises StoreUnavailable: if the database is unavailable; the items before stay recorded
    """
    return [_result(name, record, item) for item in given]


def _result(
    name: str, record: Callable[[Any], tuple[schemas.Json, bool]], item: Any
) -> schemas.Json:
    try:
        recorded, created = record(item)
    except (BadInput, Forbidden, NotFound, Conflict) as error:
        return {"status": status_of(error), "error": schemas.described(error)}
    return {"status": HTTPStatus.CREATED if created else HTTPStatus.OK, name: recorded}


def json_item(name: str, value: Any) -> dict[str, Any]:
    """Return the value, which must be a JSON object.

    :raises FieldInvalid: if it is not
    """
    if not isinstance(value, dict):
        raise FieldInvalid(f"{name} is {validation.shown(value)}; send a JSON object")
    return value
