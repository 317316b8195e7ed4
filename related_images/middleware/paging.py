"""Query parameters of our own routes: filters, limit and marker, how each is read and described."""

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
LIMIT_MOST: Final = 1000
"""Rows of a page; a larger limit is taken for this one, as the registry does with its own."""

IDS_MOST: Final = 100
"""Images whose usage is told at once: their ids are in the query."""

NO_TIME: Final = "-"
"""Stands in a marker where an instance has no time."""

Read = Callable[[str], Any]
Given = Sequence[tuple[str, str]]
"""The parameters of a query."""


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


def _limit(text: str) -> int:
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if number < 1:
        raise LimitMalformed(
            f"limit={validation.shown(text)} is not a whole number from 1 to {LIMIT_MOST}"
        )
    return min(number, LIMIT_MOST)


def _own_report(text: str) -> str:
    if text not in OWN_REPORTS:
        raise ParameterMalformed(
            f"own_report={validation.shown(text)} is not one of {', '.join(OWN_REPORTS)}"
        )
    return text


ATTACHMENT: Final = "attachment"
CREATION: Final = "creation"
OWN_REPORTS: Final = (ATTACHMENT, CREATION)


@dataclass(frozen=True)
class Filter:
    """A query parameter: how it is read, what it means, and its JSON schema.

    ``needed`` is whether it must be given.
    """

    read: Read
    means: str
    schema: schemas.Json
    needed: bool = False


Filters = dict[str, Filter]

FILTERS: Final[Filters] = {
    "installation_uuid": Filter(
        validation.installation_uuid, "Relations of this installation", schemas.ANY_UUID
    ),
    "instance_id": Filter(_instance_id, "Relations of this instance", schemas.INSTANCE_ID),
    "image_id": Filter(validation.image_id, "Relations of this image", schemas.UUID),
    "project_id": Filter(_project_id, "Relations of this project", schemas.TEXT),
    "kind": Filter(model.kind, "Relations of this kind", schemas.KIND),
    "label": Filter(validation.label, "Relations with this label", schemas.LABEL),
    "source": Filter(_source, "Relations that this source reports", schemas.SOURCE),
    "created_after": Filter(
        _time("created_after"), "Relations recorded after this time", schemas.TIME
    ),
    "created_before": Filter(
        _time("created_before"), "Relations recorded before this time", schemas.TIME
    ),
    "in_use": Filter(
        _truth("in_use"),
        "Whether the relation tells from which image a live instance was started",
        {"type": "boolean"},
    ),
}
"""The filters of relations and instances."""

LATEST_BEFORE: Final = "latest_before"
INSTANCE_FILTERS: Final[Filters] = {
    **FILTERS,
    LATEST_BEFORE: Filter(
        _time(LATEST_BEFORE),
        "Instances without an image of the kind and label since this time",
        schemas.TIME,
    ),
}
IMAGE_FILTERS: Final[Filters] = {name: one for name, one in FILTERS.items() if name != "image_id"}

IMAGE_IDS: Final = "image_ids"
_ONE_ID: Final = schemas.UUID["pattern"].strip("^$")
USAGE_FILTERS: Final[Filters] = {
    IMAGE_IDS: Filter(
        _image_ids,
        f"1 to {IDS_MOST} ids, separated by commas",
        {"type": "string", "pattern": f"^{_ONE_ID}(,{_ONE_ID}){{0,{IDS_MOST - 1}}}$"},
        needed=True,
    )
}

DETACHMENT: Final[Filters] = {
    "own_report": Filter(
        _own_report,
        "Take only one's own report of the relation back: one attachment, or the creation of the "
        "image",
        {"type": "string", "enum": list(OWN_REPORTS)},
    ),
    "created_at": Filter(
        _time("created_at"),
        "created_at of the relation with which the attachment was answered",
        schemas.TIME,
    ),
}
"""What says that not the relation is removed, but one's own report of it taken back."""

PAGE: Final[Filters] = {
    "limit": Filter(
        _limit,
        f"Rows of a page; more than {LIMIT_MOST} are taken for {LIMIT_MOST}",
        {**schemas.COUNT, "default": LIMIT_DEFAULT},
    ),
    "marker": Filter(str, "Where the page before ended, from its next link", {"type": "string"}),
}
"""What every list takes besides its filters."""


@dataclass(frozen=True)
class Query:
    """A query as it was understood: ``kept`` is what links repeat."""

    filters: dict[str, Any]
    limit: int
    marker: str | None
    kept: list[tuple[str, str]]


def read(query: Given, known: Filters) -> Query:
    """Read a query whose parameters are the ``known`` ones.

    :raises ParameterUnknown: naming what is known
    :raises BadInput: if a value is malformed or missing, or a parameter is repeated
    """
    given = dict(query)
    for name in given:
        if name not in known:
            allowed = f"known are {', '.join(known)}" if known else "leave the query out"
            raise ParameterUnknown(f"{validation.shown(name)} is not known here; {allowed}")
    if len(given) < len(query):
        raise ParameterMalformed("a parameter is given twice; give each once")
    for name, one in known.items():
        if one.needed and name not in given:
            raise ParameterMalformed(f"{name} is needed here")
    values = {name: known[name].read(text) for name, text in given.items()}
    return Query(
        limit=values.pop("limit", LIMIT_DEFAULT),
        marker=values.pop("marker", None),
        filters=values,
        kept=[(name, text) for name, text in given.items() if name != "marker"],
    )


def own_report(filters: Mapping[str, Any]) -> tuple[str | None, datetime | None]:
    """Which report of one's own is to be taken back, and of a relation that was recorded when.

    :raises ParameterMalformed: if one of the two is given that does not belong to the other
    """
    report, recorded_at = filters.get("own_report"), filters.get("created_at")
    if (report == ATTACHMENT) != (recorded_at is not None):
        raise ParameterMalformed(
            "own_report=attachment and created_at, the time of the relation that the attachment "
            "was answered with, belong together: give both or neither"
        )
    return report, recorded_at


def relation_marker(last: Relation) -> str:
    """The marker of a page that ends with this relation: what is in it, the caller has seen."""
    created = validation.format_time(last.created_at)
    return mark(str(created), last.image_id, last.installation_uuid, last.instance_id, last.kind)


def relation_position(marker: str | None) -> RelationPosition | None:
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
    return RelationPosition(created_at, installation, instance, image_id, kind)


def instance_marker(last: Instance) -> str:
    """The marker of a page that ends with this instance."""
    latest = validation.format_time(last.latest_at) or NO_TIME
    return mark(last.installation_uuid, last.instance_id, latest)


def instance_position(marker: str | None) -> InstancePosition | None:
    """The instance that a marker of :func:`instance_marker` names.

    :raises MarkerUnknown: if it was not made by it
    """
    if marker is None:
        return None
    return InstancePosition(
        *marked(marker, validation.installation_uuid, _instance_id, _time_or_none)
    )


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
