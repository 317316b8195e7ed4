"""Queries of our own routes: reading their parameters, and the markers of pages."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from related_images import model, validation
from related_images.db import Instance, InstancePosition, Relation, RelationPosition
from related_images.errors import (
    BadInput,
    MarkerUnknown,
    ParameterMalformed,
)
from related_images.protocol import parameters

NO_TIME: Final = "-"
"""Stands in a marker where an instance has no time."""

Given = Sequence[tuple[str, str]]
"""The parameters of a query."""


@dataclass(frozen=True)
class Query:
    """A query as it was understood: ``kept`` is what links repeat."""

    filters: dict[str, Any]
    limit: int
    marker: str | None
    kept: list[tuple[str, str]]


def read(query: Given, known: parameters.Filters) -> Query:
    """Read a query whose parameters are the ``known`` ones.

    :raises ParameterUnknown: naming what is known
    :raises BadInput: if a value is malformed or missing, or a parameter is repeated
    """
    given = dict(query)
    for name in given:
        parameters.check_known(name, known)
    if len(given) < len(query):
        raise ParameterMalformed("a parameter is given twice; give each once")
    for name, one in known.items():
        if one.needed and name not in given:
            raise ParameterMalformed(f"{name} is needed here")
    values = {name: known[name].read(text) for name, text in given.items()}
    return Query(
        limit=values.pop("limit", parameters.LIMIT_DEFAULT),
        marker=values.pop("marker", None),
        filters=values,
        kept=[(name, text) for name, text in given.items() if name != "marker"],
    )


def own_report(filters: Mapping[str, Any]) -> tuple[str | None, datetime | None]:
    """Which report of one's own is to be taken back, and of a relation that was recorded when.

    :raises ParameterMalformed: if one of the two is given that does not belong to the other
    """
    report, recorded_at = filters.get("own_report"), filters.get("created_at")
    if (report == parameters.ATTACHMENT) != (recorded_at is not None):
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
        partial(validation.parse_time, "marker"),
        validation.image_id,
        validation.installation_uuid,
        validation.instance_id,
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
        *marked(marker, validation.installation_uuid, validation.instance_id, _time_or_none)
    )


def _time_or_none(text: str) -> datetime | None:
    return None if text == NO_TIME else validation.parse_time("marker", text)


def mark(*parts: str) -> str:
    """A marker of these ``parts``, none of which the caller has not seen."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def marked(marker: str, *reads: parameters.Read) -> list[Any]:
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
