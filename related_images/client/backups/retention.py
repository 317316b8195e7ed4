"""Which backups to keep: rules as restic's users know them, as a pure function.

Rules are ORed: what one of them keeps is kept. Each is applied to each group of backups apart, that
is to one instance's backups with one label. Only active backups count; those that are protected, in
use, made from another instance too, deactivated, hidden or not finished are kept and count for
nothing, and so are those whose time lies in the future. One active backup of each group stays,
whatever the rules say. If a rule names a label that no backup has, all backups are kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any, Final

from related_images import validation
from related_images.client.errors import PolicyEmpty
from related_images.errors import ParameterMalformed
from related_images.model import InstanceRef

ACTIVE: Final = "active"
DEACTIVATED: Final = "deactivated"
UNLIMITED: Final = -1
NO_RULE: Final = "no rule keeps it"
LAST_RESORT: Final = "one active backup always stays"
GONE: Final = "the instance is gone"
FOREIGN: Final = "it belongs to another project"
OF_ANOTHER: Final = "made from another instance too"
FUTURE: Final = "its time lies in the future"
OTHERS: Final = "in use by another project"
USE_UNKNOWN: Final = "use unknown"
UNMATCHED: Final = "nothing is removed: no backup has the label {}"


@dataclass(frozen=True)
class Backup:
    """A backup as Glance shows it; ``created_at`` has a time zone.

    ``in_use``: live instances that the caller sees were started from it. ``used_by_others``: so
    were live instances of other projects than its owner; ``None`` if that is not known.
    ``orphan``: its instance is gone. ``of_another``: it is recorded as made from another instance
    too. ``project_id`` is whose it is.
    """

    image_id: str
    instance: InstanceRef
    label: str | None
    created_at: datetime
    status: str = ACTIVE
    protected: bool = False
    hidden: bool = False
    in_use: bool = False
    orphan: bool = False
    of_another: bool = False
    project_id: str | None = None
    used_by_others: bool | None = False

    @property
    def instant(self) -> datetime:
        """When it was made, in UTC: Python compares two times of one zone by their clocks alone."""
        return self.created_at.astimezone(UTC)

    @property
    def group(self) -> "Group":
        return Group(self.instance, self.label)


@dataclass(frozen=True)
class Group:
    """Backups that the rules are applied to together."""

    instance: InstanceRef
    label: str | None


@dataclass(frozen=True)
class Policy:
    """How many to keep; :data:`UNLIMITED` keeps one of every hour, day and so on.

    ``within`` keeps what is younger than that, seen from the newest backup of the group. ``labels``
    keeps all backups with one of these. Hours, days, weeks (ISO), months and years begin as they do
    in ``timezone``. Backups of instances that are gone are pruned with ``orphans`` alone. With a
    ``project_id``, those of other projects are neither counted nor deleted.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: timedelta | None = None
    labels: frozenset[str] = frozenset()
    timezone: tzinfo = UTC
    orphans: bool = False
    project_id: str | None = None

    @property
    def is_empty(self) -> bool:
        return not (self.within or self.labels or any(getattr(self, rule) for rule in COUNTED))


@dataclass(frozen=True)
class Decision:
    """What becomes of a backup, and why."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


Bucket = Callable[[datetime, str], Any]
"""What a rule takes for one: it keeps the newest of each bucket."""

COUNTED: Final[dict[str, Bucket]] = {
    "last": lambda time, image_id: image_id,
    # the hour that the clocks are put back by is two hours
    "hourly": lambda time, _: (time.date(), time.hour, time.utcoffset()),
    "daily": lambda time, _: time.date(),
    "weekly": lambda time, _: time.isocalendar()[:2],
    "monthly": lambda time, _: (time.year, time.month),
    "yearly": lambda time, _: time.year,
}


def plan(backups: Iterable[Backup], policy: Policy, now: datetime) -> list[Decision]:
    """Decide for each backup whether to keep it: group by group, the newest first.

    :raises PolicyEmpty: if the policy has no rule, which would keep next to nothing
    :raises ParameterMalformed: if ``now`` or the time of a backup has no time zone
    """
    not_empty(policy)
    _must_have_zone("now", now)
    groups: dict[Group, list[Backup]] = defaultdict(list)
    for backup in backups:
        _must_have_zone(f"created_at of the backup {backup.image_id}", backup.created_at)
        groups[backup.group].append(backup)
    spared = [UNMATCHED.format(label) for label in unmatched(groups, policy)]
    now = now.astimezone(UTC)
    return [
        decision for group in groups.values() for decision in _decided(group, policy, now, spared)
    ]


def unmatched(groups: Iterable[Group], policy: Policy) -> list[str]:
    """The labels that the policy keeps and that no group has: each may be misspelt."""
    return sorted(policy.labels - {group.label for group in groups})


def _must_have_zone(what: str, time: datetime) -> None:
    if time.utcoffset() is None:
        raise ParameterMalformed(f"{what} is {time.isoformat()}, without a time zone; give it one")


def not_empty(policy: Policy) -> Policy:
    """The policy.

    :raises PolicyEmpty: if it has no rule
    """
    if policy.is_empty:
        raise PolicyEmpty("the policy has no rule that keeps anything; give at least one")
    return policy


def _decided(
    group: list[Backup], policy: Policy, now: datetime, spared: list[str]
) -> Iterator[Decision]:
    """``spared`` says why even those stay that no rule keeps."""
    newest_first = sorted(group, key=lambda b: (b.instant, b.image_id), reverse=True)
    exempt = {backup.image_id: _exemption(backup, policy, now) for backup in newest_first}
    counted = [backup for backup in newest_first if not exempt[backup.image_id]]
    reasons = _reasons(counted, policy)
    if counted and not any(reasons.values()):
        reasons[counted[0].image_id] = [LAST_RESORT]
    for backup in newest_first:
        why = exempt[backup.image_id] or reasons[backup.image_id] or spared
        yield Decision(backup, bool(why), tuple(why or [NO_RULE]))


def _exemption(backup: Backup, policy: Policy, now: datetime) -> list[str]:
    """Why a backup is neither counted nor deleted; nothing for one that the rules are for."""
    facts = [
        (backup.orphan and not policy.orphans, GONE),
        (policy.project_id not in (None, backup.project_id), FOREIGN),
        (backup.protected, "protected"),
        (backup.in_use, "in use"),
        (backup.used_by_others is True and not backup.in_use, OTHERS),
        (backup.used_by_others is None, USE_UNKNOWN),
        (backup.of_another, OF_ANOTHER),
        (backup.hidden, "hidden"),
        (backup.status == DEACTIVATED, "deactivated"),
        (backup.status not in (ACTIVE, DEACTIVATED), f"not finished: {backup.status}"),
        (backup.instant > now, FUTURE),
    ]
    return [reason for holds, reason in facts if holds]


def _reasons(newest_first: Sequence[Backup], policy: Policy) -> dict[str, list[str]]:
    reasons: dict[str, list[str]] = {backup.image_id: [] for backup in newest_first}
    for rule, bucket in COUNTED.items():
        for backup, reason in _counted(newest_first, policy, rule, bucket):
            reasons[backup.image_id].append(reason)
    for backup in newest_first:
        if policy.within and backup.instant > newest_first[0].instant - policy.within:
            reasons[backup.image_id].append(f"within {validation.format_span(policy.within)}")
        if backup.label in policy.labels:
            reasons[backup.image_id].append(f"label {backup.label}")
    return reasons


def _counted(
    newest_first: Sequence[Backup], policy: Policy, rule: str, bucket: Bucket
) -> Iterator[tuple[Backup, str]]:
    """What a rule keeps: the newest of each bucket, and while any is left to keep, the oldest."""
    left, before = getattr(policy, rule), object()
    for backup in newest_first:
        if left == 0:
            return
        this = bucket(backup.instant.astimezone(policy.timezone), backup.image_id)
        if this != before:
            yield backup, rule
        elif backup is newest_first[-1]:
            yield backup, f"oldest {rule}"
        else:
            continue
        left, before = left - 1, this
