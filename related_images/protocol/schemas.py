"""The JSON shapes: what an answer holds, and the schemas published for it."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final, get_args, get_origin
from urllib.parse import urlencode

from related_images import model, validation
from related_images.errors import RelatedImagesError
from related_images.jsonform import but_none, types_of
from related_images.model import Instance, Relation
from related_images.protocol import paths

Json = dict[str, Any]


def linked(item: Relation | Instance) -> Json:
    """The JSON form of ``item``, with the links to it and to its schema."""
    name, path = (
        ("relation", paths.RELATION) if isinstance(item, Relation) else ("instance", paths.INSTANCE)
    )
    shown = item.as_json()
    return {
        **shown,
        "self": paths.href(path, **shown),
        "schema": paths.href(paths.SCHEMA, name=name),
    }


def fault(status: int, error: RelatedImagesError, request_id: str | None) -> Json:
    """The body of an answer that is an error of ours.

    One object at the top, with a ``message``: python-glanceclient reads that of each value at the
    top and fails on one that is no object, and openstacksdk looks for it there too.
    """
    shown = {
        "status": status,
        "code": error.code,
        "title": error.title,
        "message": str(error),
        "request_id": request_id,
    }
    return {"error": shown}


def page(
    name: str,
    items: Iterable[Json],
    path: str,
    query: Iterable[tuple[str, str]],
    marker: str | None,
) -> Json:
    """A page of a collection with ``first`` and, if there is a ``marker``, ``next``.

    :param query: the caller's own parameters, without the marker
    """
    kept = list(query)
    body: Json = {name: list(items), "first": link(path, kept)}
    if marker is not None:
        body["next"] = link(path, [*kept, ("marker", marker)])
    body["schema"] = paths.href(paths.SCHEMA, name=name)
    return body


def link(path: str, query: Iterable[tuple[str, str]]) -> str:
    encoded = urlencode(list(query))
    return f"{path}?{encoded}" if encoded else path


_WORD: Final = {"type": "string", "pattern": "^[A-Za-z0-9._:-]+$", "minLength": 1}
_UUID: Final = {
    "type": "string",
    "pattern": "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$",
}
_LINKS: Final = {"self": {"type": "string"}, "schema": {"type": "string"}}

_OF_TYPE: Final[Mapping[Any, Json]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    model.InstallationUuid: _UUID,
    model.InstanceId: _WORD | {"maxLength": validation.INSTANCE_ID_LENGTH},
    model.ImageId: _UUID,
    model.Kind: {"type": "string", "enum": list(model.KINDS)},
    model.Label: _WORD | {"maxLength": validation.LABEL_LENGTH},
    model.Source: {"type": "string", "enum": list(model.SOURCES)},
    model.Count: {"type": "integer", "minimum": 1},
}


def properties(shape: type) -> Json:
    """The schemas of the properties that the JSON form of ``shape`` has, from their types."""
    return {name: _of_type(kind) for name, kind in types_of(shape).items()}


def _of_type(kind: Any) -> Json:
    if optional := but_none(kind):
        schema = _of_type(optional)
        return schema | {"type": [schema["type"], "null"]}
    if get_origin(kind) is Mapping:
        by_kind = dict.fromkeys(model.KINDS, _of_type(get_args(kind)[1]))
        return {"type": "object", "properties": by_kind, "additionalProperties": False}
    return _OF_TYPE.get(kind) or {"type": "object", "properties": properties(kind)}


def _thing(name: str, shown: Json) -> Json:
    return {
        "name": name,
        "properties": shown,
        "required": sorted(shown),
        "additionalProperties": False,
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "describedby", "href": "{schema}"}],
    }


def _collection(name: str, thing: Json) -> Json:
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": thing},
            "first": {"type": "string"},
            "next": {"type": "string"},
            "schema": {"type": "string"},
        },
        "required": [name, "first", "schema"],
        "links": [
            {"rel": "first", "href": "{first}"},
            {"rel": "next", "href": "{next}"},
            {"rel": "describedby", "href": "{schema}"},
        ],
    }


SCHEMAS: Final[dict[str, Json]] = {
    "relation": (_relation := _thing("relation", properties(Relation) | _LINKS)),
    "relations": _collection("relations", _relation),
    "instance": (_instance := _thing("instance", properties(Instance) | _LINKS)),
    "instances": _collection("instances", _instance),
}
"""The schemas by the name under which ``/v2/schemas`` publishes them."""
