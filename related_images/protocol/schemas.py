"""The JSON bodies of requests and responses, and their schemas."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, get_args, get_origin
from urllib.parse import urlencode

from related_images import model, validation
from related_images.errors import RelatedImagesError
from related_images.jsonform import but_none, types_of
from related_images.model import (
    Ancestor,
    Coverage,
    Dependent,
    DependentSummary,
    Descendant,
    Gap,
    Heartbeat,
    Installation,
    Instance,
    InstanceRef,
    Interval,
    Origin,
    ProjectDependents,
    RegisteredType,
    Relation,
    Usage,
)
from related_images.protocol import paths

Json = dict[str, Any]


def linked(item: Relation | Instance) -> Json:
    """Return the JSON of ``item`` with links to itself and to its schema."""
    name, path = (
        ("relation", paths.RELATION) if isinstance(item, Relation) else ("instance", paths.INSTANCE)
    )
    body = item.as_json()
    body["self"] = link(paths.href(path, **body), paths.type_query(item.resource_type))
    body["schema"] = _schema_link(name)
    return body


@cache
def _schema_link(name: str) -> str:
    return paths.href(paths.SCHEMA, name=name)


def fault(status: int, error: RelatedImagesError, request_id: str | None) -> Json:
    """Return the body of an error response.

    The only top-level value is an object with a ``message``: python-glanceclient
    (``glanceclient.exc.from_response``) and openstacksdk (``raise_from_response``) read ``message``
    of top-level objects, and glanceclient fails on a list.

    :param status: the HTTP status
    """
    shown = {"status": status, **described(error), "request_id": request_id}
    return {"error": {**shown, **error.details}}


FAULT: Final = ("code", "title", "message")
"""The keys of the object that :func:`described` returns."""


def described(error: RelatedImagesError) -> Json:
    """Return the code, the title and the message of an error."""
    return dict(zip(FAULT, (error.code, error.title, str(error)), strict=True))


def page(
    name: str,
    items: Iterable[Json],
    path: str,
    query: Iterable[tuple[str, str]],
    marker: str | None,
) -> Json:
    """Return a page of a collection with ``first`` and, if there is a ``marker``, ``next``.

    :param name: the key of the items, and the name of the schema, if there is one
    :param query: the caller's query parameters without ``marker``
    :param marker: the marker of the next page, or ``None`` on the last page
    """
    kept = list(query)
    body: Json = {name: list(items), "first": link(path, kept)}
    if marker is not None:
        body["next"] = link(path, [*kept, ("marker", marker)])
    if name in SCHEMAS:
        body["schema"] = _schema_link(name)
    return body


def link(path: str, query: Sequence[tuple[str, str]]) -> str:
    """Return ``path`` with the encoded query, if there is one."""
    return f"{path}?{urlencode(query)}" if query else path


TIME: Final = {"type": "string", "format": "date-time"}
_MAYBE_TIME: Final = {"type": ["string", "null"], "format": "date-time"}
_MAYBE_TEXT: Final = {"type": ["string", "null"]}
TEXT: Final = {"type": "string", "minLength": 1, "maxLength": validation.TEXT_LENGTH}
_MAYBE_OWN_TEXT: Final = TEXT | {"type": ["string", "null"]}
UUID: Final = {
    "type": "string",
    "pattern": f"^{validation.UUID_PATTERN}$".replace("a-fA-F", "a-f"),
}
"""A UUID in lower case: in responses, and everywhere for the ID of an image."""
ANY_UUID: Final = {"type": "string", "pattern": f"^{validation.UUID_PATTERN}$"}
"""A UUID in lower or upper case: in requests."""
_WORD: Final = {"type": "string", "pattern": f"^{validation.WORD_PATTERN}$", "minLength": 1}
INSTANCE_ID: Final = _WORD | {"maxLength": validation.INSTANCE_ID_LENGTH}
LABEL: Final = _WORD | {"maxLength": validation.LABEL_LENGTH}
_MAYBE_LABEL: Final = LABEL | {"type": ["string", "null"]}
RESOURCE_TYPE: Final = _WORD | {"maxLength": validation.TYPE_LENGTH}
_BUILT_IN_TYPE: Final = {"type": "string", "enum": list(model.RESOURCE_TYPES)}
KIND: Final = {"type": "string", "enum": list(model.KINDS)}
MADE_KIND: Final = {"type": "string", "enum": list(model.MADE_FROM)}
SOURCE: Final = {"type": "string", "enum": list(model.SOURCES)}
WITNESS: Final = {"type": "string", "enum": list(model.WITNESSES)}
COUNT: Final = {"type": "integer", "minimum": 1, "maximum": validation.LARGEST}
_LINKS: Final = {"self": {"type": "string"}, "schema": {"type": "string"}}

IDS: Final[dict[str, Json]] = {
    "image_id": UUID,
    "installation_uuid": ANY_UUID,
    "instance_id": INSTANCE_ID,
    "kind": KIND,
    "name": RESOURCE_TYPE,
    "uuid": ANY_UUID,
}
"""The schemas of the path parameters."""

_OF_TYPE: Final[Mapping[Any, Json]] = {
    str: {"type": "string"},
    int: {"type": "integer"},
    bool: {"type": "boolean"},
    datetime: TIME,
    model.InstallationUuid: UUID,
    model.InstanceId: INSTANCE_ID,
    model.ResourceType: RESOURCE_TYPE,
    model.ImageId: UUID,
    model.Kind: KIND,
    model.Label: LABEL,
    model.Source: SOURCE,
    model.Witness: WITNESS,
    model.State: {"type": "string", "enum": list(model.STATES)},
    model.Count: {"type": "integer", "minimum": 1},
}


def properties(shape: type) -> Json:
    """Return the schemas of the properties of a dataclass's JSON, from the types of its fields."""
    return {name: _of_type(kind) for name, kind in types_of(shape).items()}


def _of_type(kind: Any) -> Json:
    if optional := but_none(kind):
        schema = _of_type(optional)
        return schema | {"type": [schema["type"], "null"]}
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _of_type(get_args(kind)[0])}
    if get_origin(kind) is Mapping:
        key, value = get_args(kind)
        if key is not model.Kind:
            return {"type": "object", "additionalProperties": _of_type(value)}
        by_kind = dict.fromkeys(model.KINDS, _of_type(value))
        return {"type": "object", "properties": by_kind, "additionalProperties": False}
    return _OF_TYPE.get(kind) or {"type": "object", "properties": properties(kind)}


_RELATION: Final = properties(Relation) | _LINKS
_INSTANCE: Final = properties(Instance) | _LINKS


def _item_schema(name: str, properties: Json) -> Json:
    return {
        "name": name,
        "properties": properties,
        "required": sorted(properties),
        "additionalProperties": False,
        "links": [{"rel": "self", "href": "{self}"}, {"rel": "describedby", "href": "{schema}"}],
    }


def _collection_schema(name: str, item: Json) -> Json:
    return {
        "name": name,
        "properties": {
            name: {"type": "array", "items": item},
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
    "relation": (_relation := _item_schema("relation", _RELATION)),
    "relations": _collection_schema("relations", _relation),
    "instance": (_instance := _item_schema("instance", _INSTANCE)),
    "instances": _collection_schema("instances", _instance),
}
"""The schemas that ``/v2/schemas/{name}`` returns, by name."""


def reference(name: str) -> Json:
    """Return a reference to a schema of :data:`COMPONENTS` in the OpenAPI document."""
    return {"$ref": f"#/components/schemas/{name}"}


def _object(properties: Json, optional: Iterable[str] = (), *, closed: bool = True) -> Json:
    made = {
        "type": "object",
        "properties": properties,
        "required": sorted(properties.keys() - set(optional)),
    }
    return made | {"additionalProperties": False} if closed else made


def _list(name: str, item: Json, **others: Json) -> Json:
    return _object({name: {"type": "array", "items": item}, **others}, ("next", "cycle"))


_PAGE: Final = {"first": {"type": "string"}, "next": {"type": "string"}}
_RESOURCE: Final = properties(InstanceRef)
_RESOURCES: Final = {"type": "array", "items": _object(_RESOURCE)}
_MADE: Final = {"via": _RESOURCES | {"minItems": 1}, "kind": MADE_KIND}
_ANCESTOR: Final = _object(properties(Ancestor) | _MADE)
_DESCENDANT: Final = _object(
    properties(Descendant) | _MADE | {"depth": {"type": "integer", "minimum": 1}}
)
_LINEAGE: Final = {"image_id": UUID, **_PAGE, "cycle": {"type": "boolean"}}
_DEPENDENT: Final = _object(properties(Dependent) | {"via": _RESOURCES, "depth": COUNT})
_ORIGIN: Final = _object(
    properties(Origin) | {"source": _object(_RESOURCE) | {"type": ["object", "null"]}}
)
IMAGE_IDS_MAX: Final = 1000
"""The largest number of images in one request for usages whose IDs are in the body."""
BATCH_MAX: Final = 100
"""The largest number of origins or relations to record in one request."""

_NEW_RESOURCE: Final = {
    "installation_uuid": ANY_UUID,
    "instance_id": INSTANCE_ID,
    "resource_type": {**_BUILT_IN_TYPE, "default": model.SERVER},
}
NEW_ORIGIN: Final = _object(
    {
        **_NEW_RESOURCE,
        "source": _object(_NEW_RESOURCE, ("resource_type",))
        | {
            "type": ["object", "null"],
            "description": "The other resource; null if the resource is known to have no source",
        },
        "since": TIME,
        "project_id": _MAYBE_OWN_TEXT
        | {"description": "The project that owns the resource; null if it is unknown"},
    },
    ("resource_type",),
)
_GAP: Final = _object(properties(Gap))
_USAGE: Final = properties(Usage) | {"gaps": {"type": "array", "items": _GAP}}
_USAGE_DESCRIPTIONS: Final[dict[str, Json]] = {
    "instances": {
        "minimum": 0,
        "description": "Number of servers and volumes ever made from the image",
    },
    "live_instances": {
        "minimum": 0,
        "description": "Number of these resources that are not recorded as deleted",
    },
    "unused_since": {
        "description": "When the last of these was deleted, or the last lease ended; null while "
        "one is live, or if there never was one"
    },
    "used_by_others": {
        "description": "Whether live servers or volumes of projects other than the image's owner "
        "were made from the image, or such a project has a live lease of it. Always false if the "
        "caller neither owns the image nor sees all projects; null if Glance did not return the "
        "owner",
    },
    "state": {
        "description": "used: a live server or volume is known; unused: it is certain that no live "
        "server or volume was made from the image; unknown: a witness may have missed one. For a "
        "caller that neither owns the image nor sees all projects, this is about its own servers "
        "and volumes"
    },
    "gaps": {
        "maxItems": model.GAPS_SHOWN,
        "description": "The oldest times in which a witness may have missed a use of the image; "
        "until is null while the gap lasts",
    },
    "more_gaps": {"minimum": 0, "description": "Number of later gaps"},
    "made_from": {
        "minimum": 0,
        "description": "Number of resources that the image was made from, as far as the caller "
        "sees them",
    },
    "shelved": {
        "minimum": 0,
        "description": "Number of servers that are shelved now and need the image",
    },
}
_INFO: Final = {
    "version": {"type": "string"},
    "kinds": {"type": "array", "items": {"type": "string"}},
    "resource_types": {"type": "array", "items": {"type": "string"}},
    "sources": {"type": "array", "items": {"type": "string"}},
    "limits": {"type": "object", "additionalProperties": {"type": "integer"}},
    "require_registered_installation": {"type": "boolean"},
    "guard": {"type": "string"},
    "guard_counts": {"type": "array", "items": {"type": "string"}},
    "guard_actions": {"type": "array", "items": {"type": "string"}},
    "lease_types": {
        "type": ["array", "null"],
        "items": _object(properties(RegisteredType)),
        "description": "The registered types of resources; null while the database is down",
    },
    "nova_rotation": {"type": "string"},
    "database": {"type": "string", "enum": ["up", "down"]},
    "recording": _object(
        {
            "available": {
                "type": "boolean",
                "description": "Whether the database accepts recordings, as far as is known",
            },
            "allowed": {
                "type": "boolean",
                "description": "Whether the caller has a recording role",
            },
        }
    ),
    "last_reconciliation": {"type": ["object", "null"]},
    "unreconciled": {"type": ["integer", "null"]},
    "coverage": {
        "type": ["array", "null"],
        "items": _object(
            properties(Coverage)
            | {"intervals": {"type": "array", "items": _object(properties(Interval))}}
        ),
        "description": "The times that each witness covered; null if the database is unavailable",
    },
}
_NEW_HEARTBEAT: Final = properties(Heartbeat) | {
    "installation_uuid": ANY_UUID,
    "process": _WORD
    | {
        "maxLength": model.PROCESS_LENGTH,
        "description": "The name of the process; another one after a restart",
    },
    "from": TIME | {"description": "The time since which the process has lost nothing"},
    "until": TIME | {"description": "The time until which it has reported everything"},
}
_NEW_RELATION: Final = {
    "installation_uuid": ANY_UUID,
    "instance_id": INSTANCE_ID,
    "image_id": UUID,
    "kind": KIND,
    "resource_type": {
        **RESOURCE_TYPE,
        "default": model.SERVER,
        "description": "A registered type for the kind use, else a built-in one",
    },
    "label": _MAYBE_LABEL,
    "instance_project_id": _MAYBE_OWN_TEXT
    | {"description": "The project that owns the resource, if the service knows it"},
    "expires_at": _MAYBE_TIME
    | {"description": "The end of the lease; for the kind use, which needs it"},
}
SERVICE_USER: Final = _object(
    {
        "user_id": TEXT,
        "resource_types": {
            "type": ["array", "null"],
            "minItems": 1,
            "items": RESOURCE_TYPE,
            "description": "Built-in or registered types; null for all types",
        },
    },
    ("resource_types",),
)
_SERVICE_USERS: Final = {
    "type": "array",
    "maxItems": model.SERVICE_USERS_LIMIT,
    "items": SERVICE_USER,
    "description": "The only service users that may report on resources of the installation; "
    "if empty, every caller with a recording role may report",
}
_ERROR: Final = {
    "status": {"type": "integer"},
    "code": {"type": "string", "pattern": "^[a-z.-]+$"},
    "title": {"type": "string"},
    "message": {"type": "string"},
    "request_id": _MAYBE_TEXT,
    "dependents": {
        **reference("dependent_summary"),
        "description": "Of the code image.in-use: the numbers of the dependents, as the caller "
        "sees them",
    },
}

_LEASE_DAYS: Final = {
    "type": "integer",
    "minimum": 1,
    "maximum": model.LONGEST_LEASE_DAYS_MAX,
    "default": model.LONGEST_LEASE_DAYS,
    "description": "How many days in the future a lease may end",
}


def _batch(name: str, item: Json) -> Json:
    return _object({name: {"type": "array", "items": item, "minItems": 1, "maxItems": BATCH_MAX}})


def _results(name: str, item_name: str, item: Json) -> Json:
    result = {
        "status": {"type": "integer"},
        item_name: item,
        "error": _object({name: _ERROR[name] for name in FAULT}),
    }
    return _list(name, _object(result, (item_name, "error")))


def _either(*names: str) -> Json:
    return {"oneOf": [reference(name) for name in names]}


COMPONENTS: Final[dict[str, Json]] = {
    "relation": _object(_RELATION),
    "relations": _list("relations", reference("relation"), **_PAGE, schema={"type": "string"}),
    "instance": _object(_INSTANCE),
    "instances": _list("instances", reference("instance"), **_PAGE, schema={"type": "string"}),
    "ancestry": _list("ancestry", _ANCESTOR, **_LINEAGE),
    "descendants": _list("descendants", _DESCENDANT, **_LINEAGE),
    "dependents": _list("dependents", _DEPENDENT, image_id=UUID, **_PAGE),
    "dependent_summary": _object(
        properties(DependentSummary) | {"gaps": {"type": "array", "items": _GAP}}
    ),
    "dependent_projects": _list(
        "projects",
        _object(properties(ProjectDependents)),
        **_PAGE,
        image_id=UUID,
        lower_bound={"type": "boolean"},
    ),
    "dependent_summary_or_projects": _either("dependent_summary", "dependent_projects"),
    "usages": _list(
        "usages",
        _object(
            {name: shape | _USAGE_DESCRIPTIONS.get(name, {}) for name, shape in _USAGE.items()}
        ),
        all_projects={
            "type": "boolean",
            "description": "Whether the resources of all projects are counted, or only those that "
            "the caller sees",
        },
    ),
    "image_ids": _object(
        {
            "image_ids": {
                "type": "array",
                "items": UUID,
                "minItems": 1,
                "maxItems": IMAGE_IDS_MAX,
            }
        }
    ),
    "origins": _list("origins", _ORIGIN, **_PAGE),
    "new_origins": _batch("origins", NEW_ORIGIN),
    "recorded_origins": _results("origins", "origin", _ORIGIN),
    "resource_type": _object(properties(RegisteredType)),
    "resource_types": _list("resource_types", reference("resource_type")),
    "new_resource_type": _object(
        {"name": RESOURCE_TYPE, "longest_lease_days": _LEASE_DAYS}, ("longest_lease_days",)
    ),
    "heartbeat": _object(properties(Heartbeat)),
    "new_heartbeat": _object(_NEW_HEARTBEAT),
    "installation": _object(properties(Installation) | {"name": TEXT}),
    "installations": _list("installations", reference("installation")),
    "info": _object(_INFO, closed=False),
    "new_relation": _object(
        _NEW_RELATION, ("resource_type", "label", "instance_project_id", "expires_at")
    ),
    "new_relations": _batch("relations", reference("new_relation")),
    "one_or_more_new_relations": _either("new_relation", "new_relations"),
    "recorded_relations": _results("relations", "relation", reference("relation")),
    "relation_or_recorded_relations": _either("relation", "recorded_relations"),
    "new_installation": _object(
        {
            "uuid": ANY_UUID,
            "name": TEXT,
            "service_users": _SERVICE_USERS,
            "witnesses": {
                "type": "array",
                "items": WITNESS,
                "description": "The witnesses that are expected to report on the installation",
            },
        },
        ("service_users", "witnesses"),
    ),
    "json_schema": {"type": "object"},
    "error": _object({"error": _object(_ERROR, ("dependents",))}),
}
"""The schemas of request and response bodies in the OpenAPI document, by name."""
