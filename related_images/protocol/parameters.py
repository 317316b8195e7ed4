"""The query parameters of the filter's routes: parsers, descriptions and JSON schemas.

The filter parses queries with them. The client checks its arguments with them before a request.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from related_images import model, validation
from related_images.errors import LimitMalformed, ParameterMalformed, ParameterUnknown
from related_images.protocol import schemas

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
"""The largest number of rows of a page. A larger limit is reduced to this number, as in Glance."""

IMAGE_IDS_MAX: Final = 100
"""The largest number of images in one request for usages whose IDs are in the query."""
Parser = Callable[[Any], Any]
"""Parses a text; raises :exc:`BadInput` if it is malformed or of another type."""


def _project_id(text: str) -> str:
    return validation.text("project_id", text, ParameterMalformed)


def source(name: str) -> Parser:
    """Return the parser of a parameter with a source."""

    def parse(text: str) -> str:
        if text not in model.SOURCES:
            raise ParameterMalformed(
                f"{name}={validation.shown(text)} is unknown; allowed are: "
                f"{', '.join(model.SOURCES)}"
            )
        return text

    return parse


def time(name: str) -> Parser:
    """Return the parser of a parameter with a time."""
    return lambda text: validation.parse_time(name, text)


def boolean(name: str) -> Parser:
    """Return the parser of a parameter that is ``true`` or ``false``."""

    def parse(text: str) -> bool:
        if text not in ("true", "false"):
            raise ParameterMalformed(
                f"{name}={validation.shown(text)} is malformed; give true or false"
            )
        return text == "true"

    return parse


def _image_ids(text: str) -> list[str]:
    ids = text.split(",")
    if len(ids) > IMAGE_IDS_MAX:
        raise ParameterMalformed(
            f"image_ids has {len(ids)} IDs; give at most {IMAGE_IDS_MAX} in one request"
        )
    return [validation.image_id(id) for id in dict.fromkeys(ids)]


def _limit(text: str) -> int:
    return min(validation.number("limit", text, LimitMalformed), LIMIT_MAX)


def _depth(text: str) -> int:
    return validation.number("depth", text)


def _kind_made_from_server(text: str) -> str:
    return model.kind(text, model.MADE_FROM)


def _own_report(text: str) -> str:
    if text not in OWN_REPORTS:
        raise ParameterMalformed(
            f"own_report={validation.shown(text)} is unknown; allowed are: {', '.join(OWN_REPORTS)}"
        )
    return text


ATTACHMENT: Final = "attachment"
CREATION: Final = "creation"
OWN_REPORTS: Final = (ATTACHMENT, CREATION)


@dataclass(frozen=True)
class Filter:
    """A query parameter: its parser, its description and its JSON schema."""

    parse: Parser
    description: str
    schema: schemas.Json
    required: bool = False


Filters = dict[str, Filter]

FILTERS: Final[Filters] = {
    "installation_uuid": Filter(
        validation.installation_uuid, "Relations of this installation", schemas.ANY_UUID
    ),
    "resource_type": Filter(
        validation.resource_type, "Relations of resources of this type", schemas.RESOURCE_TYPE
    ),
    "instance_id": Filter(
        validation.instance_id, "Relations of the resources with this ID", schemas.INSTANCE_ID
    ),
    "image_id": Filter(validation.image_id, "Relations of this image", schemas.UUID),
    "project_id": Filter(_project_id, "Relations of this project", schemas.TEXT),
    "kind": Filter(model.kind, "Relations of this kind", schemas.KIND),
    "label": Filter(validation.label, "Relations with this label", schemas.LABEL),
    "source": Filter(source("source"), "Relations from this source", schemas.SOURCE),
    "created_after": Filter(
        time("created_after"), "Relations recorded after this time", schemas.TIME
    ),
    "created_before": Filter(
        time("created_before"), "Relations recorded before this time", schemas.TIME
    ),
    "in_use": Filter(
        boolean("in_use"),
        "true: `boot` relations of resources that are not recorded as deleted, and `use` relations "
        "with a live lease; false: all others",
        {"type": "boolean"},
    ),
    "leftover": Filter(
        boolean("leftover"),
        "true: `shelved` relations that ended although their image still exists; false: all others",
        {"type": "boolean"},
    ),
}
"""The filters of lists of relations and of instances."""

ORIGIN_FILTERS: Final[Filters] = {
    "installation_uuid": Filter(
        validation.installation_uuid,
        "Origins of resources of this installation",
        schemas.ANY_UUID,
    ),
    "resource_type": Filter(
        validation.resource_type, "Origins of resources of this type", schemas.RESOURCE_TYPE
    ),
    "instance_id": Filter(
        validation.instance_id, "Origins of the resources with this ID", schemas.INSTANCE_ID
    ),
    "project_id": Filter(_project_id, "Origins of resources of this project", schemas.TEXT),
    "created_after": Filter(
        time("created_after"), "Origins whose `since` is after this time", schemas.TIME
    ),
    "created_before": Filter(
        time("created_before"), "Origins whose `since` is before this time", schemas.TIME
    ),
}
"""The filters of the list of origins."""

LATEST_BEFORE: Final = "latest_before"
INSTANCE_FILTERS: Final[Filters] = {
    **FILTERS,
    LATEST_BEFORE: Filter(
        time(LATEST_BEFORE),
        "Resources without an image of this kind and label since this time",
        schemas.TIME,
    ),
}
IMAGE_FILTERS: Final[Filters] = {name: one for name, one in FILTERS.items() if name != "image_id"}

RESOURCE_TYPE: Final = "resource_type"
RESOURCE: Final[Filters] = {
    RESOURCE_TYPE: Filter(
        validation.resource_type,
        "The type of the resource in the path",
        {**schemas.RESOURCE_TYPE, "default": model.SERVER},
    )
}
"""The parameter of a route with the ID of a resource in its path."""

SINCE: Final = "since"
ORIGIN: Final[Filters] = {
    **RESOURCE,
    SINCE: Filter(
        time(SINCE), "`since` of the origin, as in the list of origins", schemas.TIME, required=True
    ),
}
"""The parameters that name one origin of the resource in the path."""

IMAGE_IDS: Final = "image_ids"
_ONE_ID: Final = schemas.UUID["pattern"].strip("^$")
USAGE_FILTERS: Final[Filters] = {
    IMAGE_IDS: Filter(
        _image_ids,
        f"1 to {IMAGE_IDS_MAX} image IDs, separated by commas",
        {"type": "string", "pattern": f"^{_ONE_ID}(,{_ONE_ID}){{0,{IMAGE_IDS_MAX - 1}}}$"},
        required=True,
    )
}

DESCENDANT_FILTERS: Final[Filters] = {
    "depth": Filter(_depth, "The number of generations to follow", schemas.COUNT),
    "kind": Filter(_kind_made_from_server, "Images of this kind", schemas.MADE_KIND),
}

BY_PROJECT: Final = "project"


def _group(text: str) -> str:
    if text != BY_PROJECT:
        raise ParameterMalformed(
            f"group_by={validation.shown(text)} is unknown; allowed are: {BY_PROJECT}"
        )
    return text


DEPENDENT_FILTERS: Final[Filters] = {
    "live": Filter(
        boolean("live"),
        "true: resources that depend on the image now; false: those that did before",
        {"type": "boolean", "default": True},
    ),
    "depth": Filter(
        _depth, "The number of generations of images; 1 for the image itself", schemas.COUNT
    ),
    "resource_type": Filter(
        validation.resource_type, "Resources of this type", schemas.RESOURCE_TYPE
    ),
    "project_id": Filter(_project_id, "Resources of this project", schemas.TEXT),
}
GROUP_BY: Final = "group_by"
DEPENDENT_GROUPS: Final[Filters] = {
    GROUP_BY: Filter(
        _group,
        "project: one row for each project, in pages, instead of the numbers of all",
        {"type": "string", "enum": [BY_PROJECT]},
    )
}

DETACHMENT: Final[Filters] = {
    **RESOURCE,
    "own_report": Filter(
        _own_report,
        "Roll back only the caller's own report: one attachment, or the creation of the image. "
        "Other reports of the relation stay",
        {"type": "string", "enum": list(OWN_REPORTS)},
    ),
    "created_at": Filter(
        time("created_at"),
        "With own_report=attachment: created_at of the relation in the response to the attachment",
        schemas.TIME,
    ),
}
"""The parameters that roll back the caller's own report instead of removing the relation."""

PAGE: Final[Filters] = {
    "limit": Filter(
        _limit,
        f"Rows of a page; a value above {LIMIT_MAX} is reduced to {LIMIT_MAX}",
        {**schemas.COUNT, "default": LIMIT_DEFAULT},
    ),
    "marker": Filter(str, "The marker in the next link of the previous page", {"type": "string"}),
}
"""The parameters of every list, in addition to its filters."""


def check_known(name: str, known: Filters) -> None:
    """Raise unless ``name`` is one of the ``known`` parameters.

    :raises ParameterUnknown: the message lists the known ones
    """
    if name not in known:
        allowed = f"allowed are: {', '.join(known)}" if known else "this route has no parameters"
        raise ParameterUnknown(
            f"the query parameter {validation.shown(name)} is unknown; {allowed}"
        )
