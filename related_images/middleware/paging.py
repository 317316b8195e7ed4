"""The queries of the filter's routes, and the markers of their pages."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

from related_images import model, validation
from related_images.db import (
    Instance,
    InstancePosition,
    Origin,
    OriginPosition,
    Relation,
    RelationPosition,
)
from related_images.errors import (
    BadInput,
    MarkerUnknown,
    ParameterMalformed,
)
from related_images.protocol import parameters

NO_TIME: Final = "-"
"""In a marker: the instance has no ``latest_at``."""

UPWARDS: Final = "r"
"""The state in a marker: all images below were listed, and the walk goes back up."""

marker_number = partial(validation.number, "marker", least=0)
"""The parser of a whole number in a marker."""

Parameters = Sequence[tuple[str, str]]
"""The names and values of the parameters of a query."""


@dataclass(frozen=True)
class Query:
    """A parsed query. ``kept`` are the parameters that the links of a page repeat."""

    filters: dict[str, Any]
    limit: int
    marker: str | None
    kept: list[tuple[str, str]]


def read(query: Parameters, known: parameters.Filters) -> Query:
    """Parse a query whose parameters are among the ``known`` ones.

    :raises ParameterUnknown: if a parameter is unknown; the message names the known ones
    :raises BadInput: if a value is malformed or missing, or a parameter is repeated
    """
    given = dict(query)
    for name in given:
        parameters.check_known(name, known)
    if len(given) < len(query):
        raise ParameterMalformed("a query parameter is given twice; give each once")
    for name, one in known.items():
        if one.required and name not in given:
            raise ParameterMalformed(f"the query parameter {name} is missing; give it")
    values = {name: known[name].parse(text) for name, text in given.items()}
    return Query(
        limit=values.pop("limit", parameters.LIMIT_DEFAULT),
        marker=values.pop("marker", None),
        filters=values,
        kept=[(name, text) for name, text in given.items() if name != "marker"],
    )


def report_to_roll_back(filters: Mapping[str, Any]) -> tuple[str | None, datetime | None]:
    """Return the report to roll back, and ``created_at`` of its relation for an attachment.

    :returns: ``None`` twice if the whole relation must be removed
    :raises ParameterMalformed: if ``created_at`` is given without ``own_report=attachment``, or
        missing with it
    """
    report, recorded_at = filters.get("own_report"), filters.get("created_at")
    if (report == parameters.ATTACHMENT) != (recorded_at is not None):
        raise ParameterMalformed(
            "give both own_report=attachment and created_at, or neither; created_at is that of the "
            "relation in the response to the attachment"
        )
    return report, recorded_at


def relation_marker(last: Relation) -> str:
    """Return the marker of a page whose last relation is ``last``."""
    created = validation.format_time(last.created_at)
    return encode_marker(
        str(created),
        last.image_id,
        last.installation_uuid,
        last.instance_id,
        last.kind,
        *_type_part(last.resource_type),
    )


def relation_position(marker: str | None) -> RelationPosition | None:
    """Return the position in a marker of :func:`relation_marker`; ``None`` for no marker.

    :raises MarkerUnknown: if the marker is malformed
    """
    if marker is None:
        return None
    created_at, image_id, installation, instance, kind, *resource_type = decode_marker(
        marker,
        partial(validation.parse_time, "marker"),
        validation.image_id,
        validation.installation_uuid,
        validation.instance_id,
        validation.kind,
        optional=validation.resource_type,
    )
    return RelationPosition(created_at, installation, instance, image_id, kind, *resource_type)


def origin_marker(last: Origin) -> str:
    """Return the marker of a page whose last origin is ``last``."""
    return encode_marker(
        str(validation.format_time(last.since)),
        last.installation_uuid,
        last.instance_id,
        *_type_part(last.resource_type),
    )


def origin_position(marker: str | None) -> OriginPosition | None:
    """Return the position in a marker of :func:`origin_marker`; ``None`` for no marker.

    :raises MarkerUnknown: if the marker is malformed
    """
    if marker is None:
        return None
    return OriginPosition(
        *decode_marker(
            marker,
            partial(validation.parse_time, "marker"),
            validation.installation_uuid,
            validation.instance_id,
            optional=validation.resource_type,
        )
    )


def instance_marker(last: Instance) -> str:
    """Return the marker of a page whose last instance is ``last``."""
    latest = validation.format_time(last.latest_at) or NO_TIME
    return encode_marker(
        last.installation_uuid, last.instance_id, latest, *_type_part(last.resource_type)
    )


def _type_part(resource_type: str) -> list[str]:
    """Return the last part of a marker; servers have none, as before there were other types."""
    return [] if resource_type == model.SERVER else [resource_type]


def instance_position(marker: str | None) -> InstancePosition | None:
    """Return the position in a marker of :func:`instance_marker`; ``None`` for no marker.

    :raises MarkerUnknown: if the marker is malformed
    """
    if marker is None:
        return None
    return InstancePosition(
        *decode_marker(
            marker,
            validation.installation_uuid,
            validation.instance_id,
            _time_or_none,
            optional=validation.resource_type,
        )
    )


def _time_or_none(text: str) -> datetime | None:
    return None if text == NO_TIME else validation.parse_time("marker", text)


def encode_marker(*parts: str) -> str:
    """Return a marker with ``parts``. It is readable: pass only values that the caller sees."""
    return base64.urlsafe_b64encode("|".join(parts).encode()).decode().rstrip("=")


def decode_marker(
    marker: str, *parsers: parameters.Parser, optional: parameters.Parser | None = None
) -> list[Any]:
    """Return the parts of a marker of :func:`encode_marker`, parsed by ``parsers`` in order.

    :param optional: the parser of one more part, which may be missing
    :raises MarkerUnknown: if the marker is malformed
    """
    try:
        padded = marker + "=" * (-len(marker) % 4)
        parts = base64.b64decode(padded, altchars=b"-_", validate=True).decode("ascii").split("|")
        if optional is not None and len(parts) > len(parsers):
            parsers = (*parsers, optional)
        return [parse(part) for parse, part in zip(parsers, parts, strict=True)]
    except (ValueError, BadInput) as error:
        raise MarkerUnknown(
            "the marker is invalid; request the first page, without a marker, and follow next"
        ) from error
