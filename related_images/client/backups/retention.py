"""Decide which backups to keep, by rules like those of ``restic forget``. A pure function.

A backup is kept if at least one rule keeps it. Rules are applied to each group of backups: the
backups of one server with one label. Only active backups count. Backups are kept and do not count
if they are protected, in use, hidden, deactivated, not finished, also made from another server, or
have a time in the future. One active backup of each group is always kept. If a rule keeps a label
that no backup has, all backups are kept.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
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
GONE: Final = "the server was deleted"
FOREIGN: Final = "it belongs to another project"
OF_ANOTHER: Final = "also made from another server"
FUTURE: Final = "its time is in the future"
OTHERS: Final = "in use by another project"
USE_UNKNOWN: Final = "use unknown"
UNMATCHED: Final = "nothing is removed: no backup has the label {}"


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup of a server.

    :ivar created_at: creation time, with a time zone
    :ivar in_use: live servers that the caller may see were started from it
    :ivar orphan: its server was deleted
    :ivar of_another: it is also recorded as made from another server
    :ivar project_id: ID of the project that owns the image
    :ivar used_by_others: live servers of other projects were started from it; ``None`` if that is
        not known
    :ivar volume_snapshot_ids: the recorded volume snapshots of a backup of a server on volumes
    :ivar named_volume_snapshot_ids: volume snapshots to which only a property of the image refers;
        they decide nothing, because users can change the property
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
    volume_snapshot_ids: tuple[str, ...] = ()
    named_volume_snapshot_ids: tuple[str, ...] = field(default=(), compare=False)

    @property
    def instant(self) -> datetime:
        """The creation time in UTC.

        Python compares two times in the same time zone without their UTC offsets, which is wrong
        when the clocks are put back.
        """
        return self.created_at.astimezone(UTC)

    @property
    def group(self) -> "Group":
        """The group that the rules are applied to."""
        return Group(self.instance, self.label)


@dataclass(frozen=True, slots=True)
class Group:
    """The backups of one server with one label."""

    instance: InstanceRef
    label: str | None


@dataclass(frozen=True)
class Policy:
    """The retention rules.

    :ivar last: number of newest backups to keep
    :ivar hourly: number of hours of which the newest backup is kept; ``daily``, ``weekly`` (ISO
        weeks), ``monthly`` and ``yearly`` likewise; :data:`UNLIMITED` for no limit
    :ivar within: keep the backups created within this time before the newest one of the group
    :ivar labels: keep all backups with one of these labels
    :ivar timezone: time zone of the hours, days, weeks, months and years
    :ivar orphans: ``True`` to also delete backups of deleted servers
    :ivar project_id: ID of a project; backups of others are not counted and not deleted
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
        """True if the policy has no rule."""
        return not (self.within or self.labels or any(getattr(self, rule) for rule in COUNTED))


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision on a backup, with its reasons."""

    backup: Backup
    keep: bool
    reasons: tuple[str, ...]


Period = Callable[[datetime, str], Any]
"""Returns the hour, day or other period of a local time and an image ID.

A rule keeps the newest backup of each period.
"""

COUNTED: Final[dict[str, Period]] = {
    "last": lambda time, image_id: image_id,
    # with the UTC offset, because an hour occurs twice when the clocks are put back
    "hourly": lambda time, _: (time.date(), time.hour, time.utcoffset()),
    "daily": lambda time, _: time.date(),
    "weekly": lambda time, _: time.isocalendar()[:2],
    "monthly": lambda time, _: (time.year, time.month),
    "yearly": lambda time, _: time.year,
}


def plan(backups: Iterable[Backup], policy: Policy, now: datetime) -> list[Decision]:
    """Decide for each backup if it is kept.

    :param backups: the backups of any servers
    :param policy: the rules
    :param now: the current time, with a time zone
    :returns: the decisions, group by group, the newest backup first
    :raises PolicyEmpty: if the policy has no rule
    :raises ParameterMalformed: if ``now`` or the time of a backup has no time zone
    """
    not_empty(policy)
    _check_time_zone("now", now)
    groups: dict[Group, list[Backup]] = defaultdict(list)
    for backup in backups:
        _check_time_zone(f"created_at of the backup {backup.image_id}", backup.created_at)
        groups[backup.group].append(backup)
    kept_by_label = [UNMATCHED.format(label) for label in unmatched(groups, policy)]
    now = now.astimezone(UTC)
    return [
        decision
        for group in groups.values()
        for decision in _decide(group, policy, now, kept_by_label)
    ]


def unmatched(groups: Iterable[Group], policy: Policy) -> list[str]:
    """Return the labels of the policy that no group has. They may be misspelled.

    :param groups: the groups of all backups
    :param policy: the rules
    """
    return sorted(policy.labels - {group.label for group in groups})


def _check_time_zone(name: str, time: datetime) -> None:
    if time.utcoffset() is None:
        raise ParameterMalformed(f"{name} is {time.isoformat()} and must have a time zone")


def not_empty(policy: Policy) -> Policy:
    """Return the policy unchanged.

    :param policy: the rules
    :raises PolicyEmpty: if it has no rule
    """
    if policy.is_empty:
        raise PolicyEmpty("the policy has no rule that keeps a backup; set at least one")
    return policy


def _decide(
    group: list[Backup], policy: Policy, now: datetime, kept_by_label: list[str]
) -> Iterator[Decision]:
    """Yield the decisions on one group.

    :param kept_by_label: reasons to keep backups that no rule keeps
    """
    newest_first = sorted(group, key=lambda b: (b.instant, b.image_id), reverse=True)
    exempt = {backup.image_id: _exemption(backup, policy, now) for backup in newest_first}
    counted = [backup for backup in newest_first if not exempt[backup.image_id]]
    reasons = _reasons(counted, policy)
    if counted and not any(reasons.values()):
        reasons[counted[0].image_id] = [LAST_RESORT]
    for backup in newest_first:
        why = exempt[backup.image_id] or reasons[backup.image_id] or kept_by_label
        yield Decision(backup, bool(why), tuple(why or [NO_RULE]))


def _exemption(backup: Backup, policy: Policy, now: datetime) -> list[str]:
    """Return the reasons to neither count nor delete a backup; empty if the rules apply."""
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
    for rule, period in COUNTED.items():
        for backup, reason in _counted(newest_first, policy, rule, period):
            reasons[backup.image_id].append(reason)
    for backup in newest_first:
        if policy.within and backup.instant > newest_first[0].instant - policy.within:
            reasons[backup.image_id].append(f"within {validation.format_span(policy.within)}")
        if backup.label in policy.labels:
            reasons[backup.image_id].append(f"label {backup.label}")
    return reasons


def _counted(
    newest_first: Sequence[Backup], policy: Policy, rule: str, period: Period
) -> Iterator[tuple[Backup, str]]:
    """Yield the backups that a rule keeps, with the reason.

    They are the newest of each period, and the oldest backup if the number is not reached.
    """
    left, previous = getattr(policy, rule), object()
    for backup in newest_first:
        if left == 0:
            return
        current = period(backup.instant.astimezone(policy.timezone), backup.image_id)
        if current != previous:
            yield backup, rule
        elif backup is newest_first[-1]:
            yield backup, f"oldest {rule}"
        else:
            continue
        left, previous = left - 1, current
