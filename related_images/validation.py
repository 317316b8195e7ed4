"""One parser for each type of value. All programs of the project accept the same forms.

- UUID: ``8-4-4-4-12`` hexadecimal digits in upper or lower case; without braces and ``urn:uuid:``.
- Installation: a UUID; kept in lower case.
- Image ID: a UUID in lower case, as Glance writes it.
- Server ID and label: up to 255 or 64 of ``A-Z a-z 0-9 . _ : -``.
- Text: 1 to 255 printable characters without a space at either end.
- Whole number: 1 to 999999999 or a smaller range, in decimal digits.
- Decimal number: decimal digits, also with a point and up to nine more digits.
- Time: ISO 8601; UTC if it has no zone.
- Span of time: whole hours, days or weeks such as ``26h``, or several together as in ``1d12h``.
- Block device mapping: a JSON list of Nova in an image property, with up to 100 volume snapshots.
"""

import argparse
import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeGuard, TypeVar, cast

from related_images.errors import (
    BadInput,
    FieldInvalid,
    ImageIdMalformed,
    KindUnknown,
    LabelMalformed,
    ParameterMalformed,
    ProjectMalformed,
    ResourceTypeUnknown,
    TupleMalformed,
)

TEXT_LENGTH: Final = 255
TEXT: Final = f"1 to {TEXT_LENGTH} printable characters without a space at either end"
INSTANCE_ID_LENGTH: Final = 255
LABEL_LENGTH: Final = 64
KIND_LENGTH: Final = 64
TYPE_LENGTH: Final = 64
LETTERS: Final = "A-Z a-z 0-9 . _ : -"
LARGEST: Final = 999_999_999
VOLUME_SNAPSHOTS: Final = 100
"""The largest number of volume snapshots of an image."""
LONGEST_PROPERTY: Final = 65_535
"""The largest length of a property of an image that MariaDB stores for Glance."""
LONGEST_SPAN: Final = timedelta(days=7305)
"""Twenty years. A longer span would lead to dates before any image, or before year 1."""

CLOCK_SKEW: Final = timedelta(minutes=5)
"""The largest difference of clocks in a deployment. A later date of an image is wrong."""

UUID_PATTERN: Final = "-".join(f"[0-9a-fA-F]{{{length}}}" for length in (8, 4, 4, 4, 12))
WORD_PATTERN: Final = "[A-Za-z0-9._:-]+"
_UUID = re.compile(UUID_PATTERN)
_WORD = re.compile(WORD_PATTERN)
_DECIMAL = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_SPAN = re.compile(r"(?:[0-9]{1,6}[hdw]){1,10}")
_UNITS: Final = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}

Value = TypeVar("Value")


def argument(read: Callable[..., Value], *before: Any, **options: Any) -> Callable[[str], Value]:
    """Return ``read`` as an argparse ``type``: a :exc:`BadInput` is then a usage error.

    :param before: its arguments before the text of the command line
    :param options: its keyword arguments
    """

    def value(text: str) -> Value:
        try:
            return read(*before, text, **options)
        except BadInput as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return value


def is_uuid(text: object) -> bool:
    """Return whether ``text`` is a UUID in its 8-4-4-4-12 form, in upper or lower case."""
    return isinstance(text, str) and _UUID.fullmatch(text) is not None


def is_image_id(text: object) -> TypeGuard[str]:
    """Return whether ``text`` is a UUID in lower case, as Glance writes the ID of an image."""
    return is_uuid(text) and text == str(text).lower()


def is_word(text: object, longest: int) -> bool:
    """Return whether ``text`` is 1 to ``longest`` of the characters of server IDs and labels."""
    return isinstance(text, str) and 0 < len(text) <= longest and bool(_WORD.fullmatch(text))


def is_text(value: object) -> TypeGuard[str]:
    """Return whether ``value`` is text that every database stores and compares exactly.

    MariaDB and MySQL ignore trailing spaces when they compare.
    """
    if not isinstance(value, str) or value != value.strip():
        return False
    return 0 < len(value) <= TEXT_LENGTH and value.isprintable()


def is_number(value: object, least: int = 1, most: int = LARGEST) -> bool:
    """Return whether ``value`` is a whole number in this range, or up to nine digits of one."""
    if isinstance(value, str):
        if not (value.isascii() and value.isdecimal() and len(value) < 10):
            return False
        value = int(value)
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def number(
    name: str,
    value: object,
    error: type[BadInput] = ParameterMalformed,
    *,
    least: int = 1,
    most: int = LARGEST,
) -> int:
    """Return a whole number from ``least`` to ``most``.

    :param name: the parameter it came in, for the error
    :param value: the number, or its decimal digits
    :raises BadInput: ``error``, if it is not a whole number in this range
    """
    if not is_number(value, least, most):
        raise error(f"{name}={shown(value)} is not a whole number from {least} to {most}")
    return int(cast(int | str, value))


def decimal(name: str, text: str, *, least: float, most: float) -> float:
    """Return a decimal number such as ``20`` or ``0.5``.

    :param name: the parameter it came in, for the error
    :raises ParameterMalformed: if it is not a decimal number from ``least`` to ``most``
    """
    if not _DECIMAL.fullmatch(text) or not least <= float(text) <= most:
        raise ParameterMalformed(
            f"{name}={shown(text)} is not a number such as 20 or 0.5, from {least:g} to {most:g}"
        )
    return float(text)


def flag(name: str, value: object) -> bool:
    """Return ``value`` if it is a bool. As a condition, the text ``"false"`` would be true.

    :raises ParameterMalformed: if it is not
    """
    if not isinstance(value, bool):
        raise ParameterMalformed(f"{name}={shown(value)} is neither True nor False")
    return value


def text(name: str, value: object, error: type[BadInput] = FieldInvalid) -> str:
    """Return ``value`` if it is text as :func:`is_text` defines it.

    :param name: the field, parameter or header it came in, for the error
    :raises BadInput: ``error``, if it is not
    """
    if not is_text(value):
        raise error(f"{name}={shown(value)} is malformed; give {TEXT}")
    return value


def project_id(header: str, value: str) -> str:
    """Return ``value`` of ``header``, a project ID.

    A comma is refused: WSGI servers join the values of a repeated header with commas.

    :raises ProjectMalformed: if it is not text, or has a comma
    """
    if "," in text(header, value, ProjectMalformed):
        raise ProjectMalformed(f"{header}={shown(value)} has a comma; give an ID without a comma")
    return value


def shown(value: object) -> str:
    """Return ``value`` for an error message: quoted, printable ASCII, at most 80 characters."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


def word(what: str, text: object, longest: int, error: type[BadInput]) -> str:
    """Return ``text`` if :func:`is_word`.

    :param what: what it is, for the error message
    :raises BadInput: ``error``, if it is not
    """
    if not is_word(text, longest):
        raise error(
            f"the {what} {shown(text)} is malformed; give 1 to {longest} of the characters "
            f"{LETTERS}"
        )
    return str(text)


def instance_id(text: object) -> str:
    """Return ``text``, a server ID.

    :raises TupleMalformed: if it is malformed
    """
    return word("server ID", text, INSTANCE_ID_LENGTH, TupleMalformed)


def installation_uuid(text: object) -> str:
    """Return ``text``, the UUID of an installation, in lower case.

    :raises TupleMalformed: if it is not a UUID
    """
    if not is_uuid(text):
        raise TupleMalformed(
            f"the installation UUID {shown(text)} is not a UUID such as "
            "0f8fad5b-d9cb-469f-a165-70867728950e; "
            "`related-images generate-installation-uuid` creates one"
        )
    return str(text).lower()


def resource_type(text: object) -> str:
    """Return ``text``, a resource type. It may be a type that only a newer version knows.

    :raises ResourceTypeUnknown: if it is malformed
    """
    return word("resource type", text, TYPE_LENGTH, ResourceTypeUnknown)


def kind(text: object) -> str:
    """Return ``text``, a kind. It may be a kind that only a newer version knows.

    :raises KindUnknown: if it is malformed
    """
    return word("relation kind", text, KIND_LENGTH, KindUnknown)


def label(text: object) -> str:
    """Return ``text``, a label.

    :raises LabelMalformed: if it is malformed
    """
    return word("relation label", text, LABEL_LENGTH, LabelMalformed)


def image_id(text: object) -> str:
    """Return ``text``, an image ID.

    Upper case is refused: Glance stores an ID as it is given, so two spellings are two images.

    :raises ImageIdMalformed: if it is not a UUID in lower case
    """
    if not is_image_id(text):
        raise ImageIdMalformed(
            f"the image ID {shown(text)} is not a UUID in lower case; give the ID as Glance shows "
            "it, or create the image without an ID"
        )
    return text


def volume_snapshot_ids(mapping: object) -> tuple[str, ...]:
    """Return the volume snapshots in ``block_device_mapping``, a property of an image.

    :param mapping: the value of the property, which any user may have written
    :raises ParameterMalformed: if it is not a mapping as Nova writes it, or has more than
        :data:`VOLUME_SNAPSHOTS` volume snapshots
    """
    try:
        found = _snapshots(mapping)
        ids = tuple(dict.fromkeys(image_id(one["snapshot_id"]) for one in found))
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError, BadInput) as error:
        raise ParameterMalformed(
            f"block_device_mapping={shown(mapping)} is not a mapping as Nova writes it: {error!r}"
        ) from error
    if len(ids) > VOLUME_SNAPSHOTS:
        raise ParameterMalformed(
            f"block_device_mapping has {len(ids)} volume snapshots, and {VOLUME_SNAPSHOTS} are "
            "allowed"
        )
    return ids


def _snapshots(mapping: Any) -> list[Mapping[str, Any]]:
    """Return the items of a mapping that name volume snapshots.

    :raises ValueError: if it is too long, or no JSON
    """
    if len(mapping) > LONGEST_PROPERTY:
        raise ValueError(f"it has {len(mapping)} characters")
    return [one for one in json.loads(mapping) if one.get("source_type") == "snapshot"]


def format_time(time: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC with microseconds and ``Z``, or ``None`` for ``None``."""
    return _format_time(time, "microseconds")


def format_seconds(time: datetime | None) -> str | None:
    """Return a time as Glance does: :func:`format_time` without fractions of a second."""
    return _format_time(time, "seconds")


def _format_time(time: datetime | None, timespec: str) -> str | None:
    if time is None:
        return None
    # strftime does not pad the years before 1000
    return time.astimezone(UTC).isoformat(timespec=timespec).removesuffix("+00:00") + "Z"


def parse_time(name: str, text: object) -> datetime:
    """Return an ISO 8601 time as a datetime in UTC. A time without a zone is in UTC.

    :param name: the name of the parameter, for the error message
    :raises ParameterMalformed: if it is not a time
    """
    try:
        time = datetime.fromisoformat(text if isinstance(text, str) else "")
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ParameterMalformed(
            f"{name}={shown(text)} is not an ISO 8601 time such as 2026-01-31T12:00:00Z"
        ) from error


def time_field(field: str, value: object) -> datetime:
    """Return the ISO 8601 time in the body field ``field``, as :func:`parse_time` does.

    :raises FieldInvalid: if it is not a time
    """
    try:
        return parse_time(field, value)
    except ParameterMalformed as error:
        raise FieldInvalid(f"the field {error}") from error


def parse_span(text: str) -> timedelta:
    """Return a span such as ``26h``, ``7d`` or ``2w``, or several together as in ``1d12h``.

    :raises ParameterMalformed: if it is malformed or longer than :data:`LONGEST_SPAN`
    """
    if not _SPAN.fullmatch(text):
        raise ParameterMalformed(
            f"{shown(text)} is not a span such as 26h, 7d, 2w or 1d12h; give whole hours, days or "
            "weeks"
        )
    parts = re.findall(r"([0-9]+)([hdw])", text)
    span = sum((int(number) * _UNITS[unit] for number, unit in parts), timedelta())
    if span > LONGEST_SPAN:
        raise ParameterMalformed(
            f"{shown(text)} is longer than {LONGEST_SPAN.days} days; give a shorter span"
        )
    return span


def format_span(span: timedelta) -> str:
    """Return a span as text in whole days or hours, which :func:`parse_span` parses."""
    hours = span // timedelta(hours=1)
    return f"{hours // 24}d" if hours % 24 == 0 else f"{hours}h"
