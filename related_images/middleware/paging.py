"""Query parameters of our own routes: filters, limit and marker."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import parse_qsl

from related_images import model, validation
from related_images.db import Instance, Place, Position, Relation
from related_images.errors import (
    BadInput,
    LimitMalformed,
    MarkerUnknown,
    ParameterMalformed,
    ParameterUnknown,
    TupleMalformed,
)

LIMIT_DEFAULT: Final = 100
LIMIT_MOST: Final = 1000
"""Rows of a page; a larger limit is taken for this one, as the registry does with its own."""

IDS_MOST: Final = 100
"""Images whose usage is told at once: their ids are in the query."""

NO_TIME: Final = "-"
"""Stands in a marker where an instance has no time."""

Read = Callable[[str], Any]


def _instance_id(text: str) -> str:
    if not validation.is_word(text, validation.INSTANCE_ID_LENGTH):
        raise TupleMalformed(f"the instance id {validation.shown(text)} is malformed")
    return text


def _project_id(text: str) -> str:
    if not validation.is_text(text):
        raise ParameterMalformed(f"project_id={validation.shown(text)} is not {validation.TEXT}")
    return text


def _source(text: str) -> str:
    if text not in model.SOURCES:
        raise ParameterMalformed(
            f"source={validation.shown(text)} is not one of {', '.join(model.SOURCES)}"
        )
    return text


def _time(name: str) -> Read:
    return lambda text: validation.parse_time(name, text)


def _truth(name: str) -> Read:
    def read(text: str) -> bool:
        if text not in ("true", "false"):
            raise ParameterMalformed(f"{name}={validation.shown(text)} is neither true nor false")
        return text == "true"

    return read


def _image_ids(text: str) -> list[str]:
    ids = text.split(",")
    if len(ids) > IDS_MOST:
        raise ParameterMalformed(
            f"image_ids has {len(ids)} ids and at most {IDS_MOST} may be asked"
        )
    return [validation.image_id(id) for id in dict.fromkeys(ids)]


FILTERS: Final[Mapping[str, Read]] = {
    "installation_uuid": validation.installation_uuid,
    "instance_id": _instance_id,
    "image_id": validation.image_id,
    "project_id": _project_id,
    "kind": model.kind,
    "label": validation.label,
    "source": _source,
    "created_after": _time("created_after"),
    "created_before": _time("created_before"),
    "in_use": _truth("in_use"),
}
"""The filters of relations and instances, and how each is read."""

LATEST_BEFORE: Final = "latest_before"
INSTANCE_FILTERS: Final = {**FILTERS, LATEST_BEFORE: _time(LATEST_BEFORE)}
IMAGE_FILTERS: Final = {name: read for name, read in FILTERS.items() if name != "image_id"}

IMAGE_IDS: Final = "image_ids"
USAGE_FILTERS: Final[Mapping[str, Read]] = {IMAGE_IDS: _image_ids}

ATTACHMENT: Final = "attachment"
CREATION: Final = "creation"
OWN_REPORTS: Final = (ATTACHMENT, CREATION)


def _own_report(text: str) -> str:
    if text not in OWN_REPORTS:
        raise ParameterMalformed(
            f"own_report={validation.shown(text)} is not one of {', '.join(OWN_REPORTS)}"
        )
    return text


DETACHMENT: Final[Mapping[str, Read]] = {
    "own_report": _own_report,
    "created_at": _time("created_at"),
}
"""What says that not the relation is removed, but one's own report of it taken back."""


@dataclass(frozen=True)
class Query:
    """A query as it was understood: ``kept`` is what links repeat."""

    filters: dict[str, Any]
    limit: int
    marker: str | None
    kept: list[tuple[str, str]]


def read(query: str, known: Mapping[str, Read]) -> Query:
    """Read a query string whose filters are the ``known`` ones.

    :raises ParameterUnknown: naming what is known
    :raises BadInput: if a value is malformed or a parameter is repeated
    """
    given = _given(query, [*known, "limit", "marker"])
    return Query(
        filters=_filters(given, known),
        limit=_limit(given.get("limit", str(LIMIT_DEFAULT))),
        marker=given.get("marker"),
        kept=[(name, text) for name, text in given.items() if name != "marker"],
    )


def read_all(query: str, needed: Mapping[str, Read]) -> dict[str, Any]:
    """Read a query string that has the ``needed`` parameters and no other.

    :raises ParameterUnknown: naming what is known
    :raises BadInput: if a value is malformed, missing, or given twice
    """
    given = _given(query, [*needed])
    for name in needed:
        if name not in given:
            raise ParameterMalformed(f"{name} is needed here")
    return _filters(given, needed)


def read_detachment(query: str) -> tuple[str | None, datetime | None]:
    """Which report of one's own is to be taken back, and of a relation that was recorded when.

    :raises ParameterUnknown: naming what is known
    :raises BadInput: if a value is malformed, or one is given that does not belong to the other
    """
    said = _filters(_given(query, [*DETACHMENT]), DETACHMENT)
    own_report, recorded_at = said.get("own_report"), said.get("created_at")
    if (own_report == ATTACHMENT) != (recorded_at is not None):
        raise ParameterMalformed(
            "own_report=attachment and created_at, the time of the relation that the attachment "
            "was answered with, belong together: give both or neither"
        )
    return own_report, recorded_at


def _given(query: str, known: list[str]) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    given = dict(pairs)
    for name in given:
        if name not in known:
            raise ParameterUnknown(
                f"{validation.shown(name)} is not known here; known are {', '.join(known)}"
            )
    if len(given) < len(pairs):
        raise ParameterMalformed("a parameter is given twice; give each once")
    return given


def _filters(given: Mapping[str, str], known: Mapping[str, Read]) -> dict[str, Any]:
    return {name: known[name](text) for name, text in given.items() if name in known}


def refuse(query: str) -> None:
    """Raise :exc:`ParameterUnknown` if a query string has any parameter."""
    for name, _ in parse_qsl(query, keep_blank_values=True):
        raise ParameterUnknown(f"{validation.shown(name)} is not known here; leave the query out")


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise LimitMalformed(
            f"limit={validation.shown(text)} is not a whole number from 1 to {LIMIT_MOST}"
        )
    return min(number, LIMIT_MOST)


def relation_marker(last: Relation) -> str:
    """The marker of a page that ends with this relation: what is in it, the caller has seen."""
    created = validation.format_time(last.created_at)
    return mark(str(created), last.image_id, last.installation_uuid, last.instance_id, last.kind)


def relation_position(marker: str | None) -> Position | None:
    """Where a marker of :func:`relation_marker` points.

    :raises MarkerUnknown: if it was not made by it
    """
    if marker is None:
        return None
    created_at, image_id, installation, instance, kind = marked(
        marker,
        _time("marker"),
        validation.image_id,
        validation.installation_uuid,
        _instance_id,
        model.kind,
    )
    return Position(created_at, installation, instance, image_id, kind)


def instance_marker(last: Instance) -> str:
    """The marker of a page that ends with this instance."""
    latest = validation.format_time(last.latest_at) or NO_TIME
    return mark(last.installation_uuid, last.instance_id, latest)


def instance_position(marker: str | None) -> Place | None:
    """The instance that a marker of :func:`instance_marker` names.

    :raises MarkerUnknown: if it was not made by it
    """
    if marker is None:
        return None
    return Place(*marked(marker, validation.installation_uuid, _instance_id, _time_or_none))


def _time_or_none(text: str) -> datetime | None:
    return None if text == NO_TIME else validation.parse_time("marker", text)


def mark(*parts: str) -> str:
    """A marker of these ``parts``, none of which the caller has not seen."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def marked(marker: str, *reads: Read) -> list[Any]:
    """The parts of a marker, each as one of ``reads`` reads it.

    :raises MarkerUnknown: if it was not made by :func:`mark` of such parts
    """
    try:
        padded = marker + "=" * (-len(marker) % 4)
        parts = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split("|")
        return [read(part) for read, part in zip(reads, parts, strict=True)]
    except (ValueError, BadInput) as error:
        raise MarkerUnknown(
            "the marker is not one of this list; ask for the first page, without a marker"
        ) from error
