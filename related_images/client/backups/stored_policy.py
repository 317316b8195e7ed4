"""Backup policies as they are written, on a command line or beside a server, and read again.

A server carries its policy among its metadata in Nova, as JSON: whoever may change it there may
also delete the backups, and it goes with the server.
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
"""Where a server carries its policy."""
METADATA_WRITER: Final = "related_images:backup_policy_by"
"""Where it says who wrote that policy, for the writer alone."""

TEXT_LENGTH: Final = 255
"""Characters that Nova keeps of one item of metadata."""


def count(text: str) -> int:
    """A whole number from 0, or ``unlimited``.

    :raises ParameterMalformed: if it is neither
    """
    if text in ("unlimited", str(UNLIMITED)):
        return UNLIMITED
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ParameterMalformed(
            f"{validation.shown(text)} is neither a whole number nor unlimited"
        )
    return int(text)


def timezone(text: str) -> ZoneInfo:
    """A timezone by its name, such as ``Europe/Berlin``.

    :raises ParameterMalformed: if none of that name is known here
    """
    try:
        return ZoneInfo(text)
    except (LookupError, ValueError, OSError) as error:
        raise ParameterMalformed(f"{validation.shown(text)} is no timezone known here") from error


def labels(value: Any) -> list[str]:
    """A list of labels.

    :raises BadInput: if it is none
    """
    if not isinstance(value, list):
        raise ParameterMalformed(f"{validation.shown(value)} is no list of labels")
    return [validation.label(label) for label in value]


def _written(read: Callable[[str], Any]) -> Callable[[Any], Any]:
    """``read`` for what may be a number in JSON."""

    def reading(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise ParameterMalformed(f"{validation.shown(value)} is neither a number nor text")
        return read(str(value))

    return reading


WITHIN: Final = "keep_within"
LABELS: Final = "keep_labels"
TIMEZONE: Final = "timezone"
OLDER_THAN: Final = "older_than"
CRITICAL: Final = "critical"

READERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **{f"keep_{rule}": _written(count) for rule in COUNTED},
    WITHIN: _written(validation.parse_span),
    LABELS: labels,
    TIMEZONE: _written(timezone),
    OLDER_THAN: _written(validation.parse_span),
    CRITICAL: _written(validation.parse_span),
}
"""What may stand in a policy, and how each is read."""


@dataclass(frozen=True)
class Ages:
    """How old the newest backup may be, and from which age on that is critical."""

    older_than: timedelta
    critical: timedelta | None = None


@dataclass(frozen=True)
class StoredPolicy:
    """The rules by which backups are kept, and how old the newest may be; one may be missing."""

    retention: Policy
    ages: Ages | None


def write(rules: Mapping[str, Any]) -> str:
    """The text that a server carries for these rules, those that are ``None`` or empty left out.

    :raises PolicyInvalid: if :func:`read` would refuse it, or Nova would, for its length
    """
    given = {name: value for name, value in rules.items() if value not in (None, [], "")}
    _policy(given)
    text = json.dumps(given, separators=(",", ":"), sort_keys=True)
    if len(text) > TEXT_LENGTH:
        raise PolicyInvalid(
            f"the policy has {len(text)} characters and Nova keeps {TEXT_LENGTH}; name fewer labels"
        )
    return text


def read(text: str) -> StoredPolicy:
    """Read what :func:`write` wrote; what is not understood is not left out but refused.

    :raises PolicyInvalid: if it is no policy, or not wholly understood
    """
    try:
        given = json.loads(text, object_pairs_hook=_once)
    except ValueError as error:
        raise PolicyInvalid(f"{validation.shown(text)} is not JSON") from error
    if not isinstance(given, dict):
        raise PolicyInvalid(f"{validation.shown(text)} is no JSON object")
    return _policy(given)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The object: of a name that stands in it twice, JSON would take the last one only."""
    given = dict(pairs)
    if len(given) < len(pairs):
        raise PolicyInvalid("a name stands in the policy twice; give each once")
    return given


def _policy(given: Mapping[str, Any]) -> StoredPolicy:
    known = {name: _value(name, value) for name, value in given.items()}
    kept = {rule: known.get(f"keep_{rule}", 0) for rule in COUNTED}
    retention = Policy(**kept, within=known.get(WITHIN), labels=frozenset(known.get(LABELS, ())))
    if TIMEZONE in known:
        retention = replace(retention, timezone=known[TIMEZONE])
    ages = _ages(known.get(OLDER_THAN), known.get(CRITICAL))
    if retention.is_empty and ages is None:
        raise PolicyInvalid(f"the policy says nothing; give at least one of {', '.join(READERS)}")
    return StoredPolicy(retention, ages)


def _value(name: str, value: Any) -> Any:
    if name not in READERS:
        raise PolicyInvalid(
            f"{validation.shown(name)} is not known in a policy: {', '.join(READERS)}"
        )
    try:
        return READERS[name](value)
    except BadInput as error:
        raise PolicyInvalid(f"{name}: {error}") from error


def _ages(older_than: timedelta | None, critical: timedelta | None) -> Ages | None:
    if critical is not None and (older_than is None or critical < older_than):
        raise PolicyInvalid("critical needs an older_than that is not longer")
    return None if older_than is None else Ages(older_than, critical)
