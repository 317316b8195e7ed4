"""Parse and format backup policies of command lines and of server metadata.

The policy of a server is in its metadata in Nova, as JSON. Users who may change it there may also
delete the backups, and Nova deletes it with the server.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final
from zoneinfo import ZoneInfo

from related_images import validation
from related_images.client.backups.retention import COUNTED, UNLIMITED, Policy
from related_images.client.errors import PolicyInvalid
from related_images.errors import BadInput, ParameterMalformed

METADATA_KEY: Final = "related_images:backup_policy"
"""The metadata key with the policy of a server."""
METADATA_WRITER: Final = "related_images:backup_policy_by"
"""The metadata key with the writer of the policy, which only the writer reads."""

TEXT_LENGTH: Final = 255
"""Maximum number of characters of a metadata value in Nova."""


def count(text: str) -> int:
    """Return the number in ``text``, which is a whole number from 0 or ``unlimited``.

    :returns: the number, or :data:`UNLIMITED`
    :raises ParameterMalformed: if it is neither
    """
    if text in ("unlimited", str(UNLIMITED)):
        return UNLIMITED
    if not validation.is_number(text, least=0):
        raise ParameterMalformed(
            f"{validation.shown(text)} is neither a whole number nor unlimited"
        )
    return int(text)


def timezone(text: str) -> ZoneInfo:
    """Return the time zone with this name, such as ``Europe/Berlin``.

    :raises ParameterMalformed: if this host does not know the name
    """
    try:
        return ZoneInfo(text)
    except (LookupError, ValueError, OSError) as error:
        raise ParameterMalformed(
            f"{validation.shown(text)} is not a time zone that this host knows"
        ) from error


def labels(value: Any) -> list[str]:
    """Return the checked labels.

    :param value: a list of texts
    :raises ParameterMalformed: if the value is not a list
    :raises LabelMalformed: if a label is malformed
    """
    if not isinstance(value, list):
        raise ParameterMalformed(f"{validation.shown(value)} is not a list of labels")
    return [validation.label(label) for label in value]


def _accept_numbers(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Wrap ``read``, so that it also accepts JSON numbers."""

    def wrapper(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ParameterMalformed(f"{validation.shown(value)} is neither a number nor text")
        return read(str(value))

    return wrapper


WITHIN: Final = "keep_within"
LABELS: Final = "keep_labels"
TIMEZONE: Final = "timezone"
OLDER_THAN: Final = "older_than"
CRITICAL: Final = "critical"

READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{f"keep_{rule}": _accept_numbers(count) for rule in COUNTED},
    WITHIN: _accept_numbers(validation.parse_span),
    LABELS: labels,
    TIMEZONE: _accept_numbers(timezone),
    OLDER_THAN: _accept_numbers(validation.parse_span),
    CRITICAL: _accept_numbers(validation.parse_span),
}
"""The parsers of the values in a policy, by key."""


@dataclass(frozen=True)
class Ages:
    """The maximum age of the newest backup, and the age that is critical."""

    older_than: timedelta
    critical: timedelta | None = None


@dataclass(frozen=True)
class StoredPolicy:
    """The retention rules of a server, which may be empty, and the ages, which may be ``None``."""

    retention: Policy
    ages: Ages | None


def write(rules: Mapping[str, Any]) -> str:
    """Return a policy as JSON.

    :param rules: the values by key; those that are ``None`` or empty are omitted
    :raises PolicyInvalid: if the policy is invalid, or too long for Nova
    """
    values = {name: value for name, value in rules.items() if value not in (None, [], "")}
    _policy(values)
    text = json.dumps(values, separators=(",", ":"), sort_keys=True)
    if len(text) > TEXT_LENGTH:
        raise PolicyInvalid(
            f"the policy has {len(text)} characters, and Nova stores at most {TEXT_LENGTH}; set "
            "fewer labels"
        )
    return text


def read(text: str) -> StoredPolicy:
    """Parse the result of :func:`write`.

    :param text: the policy as JSON
    :raises PolicyInvalid: if it is not a valid policy; unknown keys are not ignored
    """
    try:
        values = json.loads(text, object_pairs_hook=_unique_keys)
    except ValueError as error:
        raise PolicyInvalid(f"{validation.shown(text)} is not JSON") from error
    if not isinstance(values, dict):
        raise PolicyInvalid(f"{validation.shown(text)} is not a JSON object")
    return _policy(values)


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; ``json`` would ignore all but the last value of a repeated key."""
    values = dict(pairs)
    if len(values) < len(pairs):
        raise PolicyInvalid("the policy has a key twice; set each key once")
    return values


def _policy(values: Mapping[str, Any]) -> StoredPolicy:
    known = {name: _value(name, value) for name, value in values.items()}
    counts = {rule: known.get(f"keep_{rule}", 0) for rule in COUNTED}
    retention = Policy(**counts, within=known.get(WITHIN), labels=frozenset(known.get(LABELS, ())))
    if TIMEZONE in known:
        retention = replace(retention, timezone=known[TIMEZONE])
    ages = _ages(known.get(OLDER_THAN), known.get(CRITICAL))
    if retention.is_empty and ages is None:
        raise PolicyInvalid(f"the policy is empty; set at least one of {', '.join(READERS)}")
    return StoredPolicy(retention, ages)


def _value(name: str, value: Any) -> Any:
    if name not in READERS:
        raise PolicyInvalid(
            f"{validation.shown(name)} is not a key of a policy; allowed are {', '.join(READERS)}"
        )
    try:
        return READERS[name](value)
    except BadInput as error:
        raise PolicyInvalid(f"{name}: {error}") from error


def _ages(older_than: timedelta | None, critical: timedelta | None) -> Ages | None:
    if critical is not None and (older_than is None or critical < older_than):
        raise PolicyInvalid("critical needs an older_than that is not longer than critical")
    return None if older_than is None else Ages(older_than, critical)
