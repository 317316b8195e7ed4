"""The query parameters of the filter's routes: filters, ``limit`` and ``marker``."""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from related_images import model, validation
from related_images.db import Instance, InstancePosition, Relation, RelationPosition
from related_images.errors import (
    BadInput,
    LimitMalformed,
    MarkerUnknown,
    ParameterMalformed,
    ParameterUnknown,
    TupleMalformed,
)
from related_images.protocol import schemas

LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 1000
"""Rows of a page. A larger limit is reduced to this one, as Glance does with its own."""

IMAGE_IDS_MAX: Final = 100
"""The largest number of images in one request for usages: their IDs are in the query."""

NO_TIME: Final = "-"
"""In a marker: the instance has no ``latest_at``."""

Parser = Callable[[str], Any]
Parameters = Sequence[tuple[str, str]]
"""The names and values of the parameters of a query."""


def _instance_id(text: str) -> str:
    if not validation.is_word(text, validation.INSTANCE_ID_LENGTH):
        raise TupleMalformed(
            f"instance_id={validation.shown(text)} is malformed; give 1 to "
            f"{validation.INSTANCE_ID_LENGTH} of the characters {validation.LETTERS}"
        )
    return text


def _project_id(text: str) -> str:
    if not validation.is_text(text):
        raise ParameterMalformed(
            f"project_id={validation.shown(text)} is malformed; give {validation.TEXT}"
        )
    return text


def _source(text: str) -> str:
    if text not in model.SOURCES:
        raise ParameterMalformed(
            f"source={validation.shown(text)} is unknown; allowed are: {', '.join(model.SOURCES)}"
        )
    return text


def _time(name: str) -> Parser:
    return lambda text: validation.parse_time(name, text)


def _boolean(name: str) -> Parser:
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
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise LimitMalformed(
            f"limit={validation.shown(text)} is malformed; give a whole number from 1 to "
            f"{LIMIT_MAX}"
        )
    return min(number, LIMIT_MAX)


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
    "instance_id": Filter(_instance_id, "Relations of this server", schemas.INSTANCE_ID),
    "image_id": Filter(validation.image_id, "Relations of this image", schemas.UUID),
    "project_id": Filter(_project_id, "Relations of this project", schemas.TEXT),
    "kind": Filter(model.kind, "Relations of this kind", schemas.KIND),
    "label": Filter(validation.label, "Relations with this label", schemas.LABEL),
    "source": Filter(_source, "Relations from this source", schemas.SOURCE),
    "created_after": Filter(
        _time("created_after"), "Relations recorded after this time", schemas.TIME
    ),
    "created_before": Filter(
        _time("created_before"), "Relations recorded before this time", schemas.TIME
    ),
    "in_use": Filter(
        _boolean("in_use"),
        "true: `boot` relations of servers that are not recorded as deleted; false: all others",
        {"type": "boolean"},
    ),
}
"""The filters of lists of relations and of instances."""

LATEST_BEFORE: Final = "latest_before"
INSTANCE_FILTERS: Final[Filters] = {
    **FILTERS,
    LATEST_BEFORE: Filter(
        _time(LATEST_BEFORE),
        "Servers without an image of this kind and label since this time",
        schemas.TIME,
    ),
}
IMAGE_FILTERS: Final[Filters] = {name: one for name, one in FILTERS.items() if name != "image_id"}

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

DETACHMENT: Final[Filters] = {
    "own_report": Filter(
        _own_report,
        "Roll back the caller's own report alone: one attachment, or the creation of the image. "
        "Other reports of the relation stay",
        {"type": "string", "enum": list(OWN_REPORTS)},
    ),
    "created_at": Filter(
        _time("created_at"),
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


@dataclass(frozen=True)
class Query:
    """A parsed query. ``kept`` are the parameters that the links of a page repeat."""

    filters: dict[str, Any]
    limit: int
    marker: str | None
    kept: list[tuple[str, str]]


def read(query: Parameters, known: Filters) -> Query:
    """Parse a query whose parameters are among the ``known`` ones.

    :raises ParameterUnknown: if a parameter is unknown; the message names the known ones
    :raises BadInput: if a value is malformed or missing, or a parameter is repeated
    """
    given = dict(query)
    for name in given:
        if name not in known:
            allowed = (
                f"allowed are: {', '.join(known)}" if known else "this route has no parameters"
            )
            raise ParameterUnknown(
                f"the query parameter {validation.shown(name)} is unknown; {allowed}"
            )
    if len(given) < len(query):
        raise ParameterMalformed("a query parameter is given twice; give each once")
    for name, one in known.items():
        if one.required and name not in given:
            raise ParameterMalformed(f"the query parameter {name} is missing; give it")
    values = {name: known[name].parse(text) for name, text in given.items()}
    return Query(
        limit=values.pop("limit", LIMIT_DEFAULT),
        marker=values.pop("marker", None),
        filters=values,
        kept=[(name, text) for name, text in given.items() if name != "marker"],
    )


def report_to_roll_back(filters: Mapping[str, Any]) -> tuple[str | None, datetime | None]:
    """Return the report to roll back, and ``created_at`` of its relation for an attachment.

    :returns: two times ``None`` if the relation is to be removed
    :raises ParameterMalformed: if ``created_at`` is given without ``own_report=attachment``, or
        missing with it
    """
    report, recorded_at = filters.get("own_report"), filters.get("created_at")
    if (report == ATTACHMENT) != (recorded_at is not None):
        raise ParameterMalformed(
            "give both own_report=attachment and created_at, or neither; created_at is that of the "
            "relation in the response to the attachment"
        )
    return report, recorded_at


def relation_marker(last: Relation) -> str:
    """Return the marker of a page whose last relation is ``last``."""
    created = validation.format_time(last.created_at)
    return encode_marker(
        str(created), last.image_id, last.installation_uuid, last.instance_id, last.kind
    )


def relation_position(marker: str | None) -> RelationPosition | None:
    """Return the position in a marker of :func:`relation_marker`; ``None`` for no marker.

    :raises MarkerUnknown: if it is not such a marker
    """
    if marker is None:
        return None
    created_at, image_id, installation, instance, kind = decode_marker(
        marker,
        _time("marker"),
        validation.image_id,
        validation.installation_uuid,
        _instance_id,
        model.kind,
    )
    return RelationPosition(created_at, installation, instance, image_id, kind)


def instance_marker(last: Instance) -> str:
    """Return the marker of a page whose last instance is ``last``."""
    latest = validation.format_time(last.latest_at) or NO_TIME
    return encode_marker(last.installation_uuid, last.instance_id, latest)


def instance_position(marker: str | None) -> InstancePosition | None:
    """Return the position in a marker of :func:`instance_marker`; ``None`` for no marker.

    :raises MarkerUnknown: if it is not such a marker
    """
    if marker is None:
        return None
    return InstancePosition(
        *decode_marker(marker, validation.installation_uuid, _instance_id, _time_or_none)
    )


def _time_or_none(text: str) -> datetime | None:
    return None if text == NO_TIME else validation.parse_time("marker", text)


def encode_marker(*parts: str) -> str:
    """Return a marker that holds ``parts``. It is readable: pass only what the caller may see."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def decode_marker(marker: str, *parsers: Parser) -> list[Any]:
    """Return the parts of a marker of :func:`encode_marker`, parsed by ``parsers`` in order.

    :raises MarkerUnknown: if it is not such a marker
    """
    try:
        padded = marker + "=" * (-len(marker) % 4)
        parts = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split("|")
        return [parse(part) for parse, part in zip(parsers, parts, strict=True)]
    except (ValueError, BadInput) as error:
        raise MarkerUnknown(
            "the marker is invalid; request the first page, without a marker, and follow next"
        ) from error
