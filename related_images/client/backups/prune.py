"""Decide by rules which backups to delete, and delete them one by one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from related_images.client.backups.inventory import REMAIN, Inventory
from related_images.client.backups.retention import (
    Backup,
    Decision,
    Group,
    Policy,
    plan,
    unmatched,
)
from related_images.client.errors import ClientError, GlanceError, ServiceFailed
from related_images.client.glance import FEW
from related_images.model import Instance, InstanceRef

KEPT: Final = "keep"
DUE: Final = "remove"
REMOVED: Final = "removed"
FAILED: Final = "failed"
STOPPED: Final = "stopped"

WITHOUT_IMAGE: Final = "its image was deleted, and its volume snapshots remain"
"""The reason to delete the volume snapshots of a backup whose image is gone."""

NAMED_ONLY: Final = (
    "these volume snapshots are not deleted with the image, because only its properties refer to "
    "them: "
)

NAMED: Final = 20
"""Maximum number of labels or servers in an error message."""

Choose = Callable[[Instance], Policy | str]
"""Returns the policy for the backups of a server, or the reason to keep all of them."""


@dataclass(slots=True)
class Verdict:
    """The decision on a backup, and the result of its deletion.

    :ivar outcome: :data:`KEPT` or :data:`DUE` before the deletion, :data:`REMOVED`, :data:`FAILED`
        or :data:`STOPPED` after it
    :ivar fault: the reason for :data:`FAILED` or :data:`STOPPED`
    :ivar deleting: the volume snapshots that Cinder was asked to delete
    """

    decision: Decision
    outcome: str
    fault: str = ""
    deleting: tuple[str, ...] = ()

    @classmethod
    def of(cls, decision: Decision) -> "Verdict":
        """Return the verdict before the deletion."""
        return cls(decision, KEPT if decision.keep else DUE)

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons of the decision, and which volume snapshots a deletion leaves."""
        if named := self.decision.backup.named_volume_snapshot_ids:
            return (*self.decision.reasons, NAMED_ONLY + " ".join(named))
        return self.decision.reasons


@dataclass(frozen=True)
class Removal:
    """The backups to delete of one server.

    :ivar label: only backups with this label are included; ``None`` for all
    """

    inventory: Inventory
    instance: Instance
    label: str | None
    verdicts: list[Verdict]

    def run(self) -> Iterator[Verdict]:
        """Delete the due backups, the oldest first, and yield each verdict.

        If a backup of a group has changed since the decision, the rest of the group is kept.

        :returns: the verdicts of the due backups, with their results
        """
        for group in dict.fromkeys(verdict.decision.backup.group for verdict in self.verdicts):
            planned = [v for v in self.verdicts if v.decision.backup.group == group]
            due = [verdict for verdict in planned if verdict.outcome == DUE]
            if due and self._has_changed(group, planned):
                _stop(due)
            for verdict in reversed(due):
                if verdict.outcome == DUE:
                    self._delete(verdict, due)
                yield verdict

    def _has_changed(self, group: Group, planned: Iterable[Verdict]) -> bool:
        try:
            found = self.inventory.backups(self.instance, self.label)
        except ClientError:
            return True  # not known
        return {verdict.decision.backup for verdict in planned} != {
            backup for backup in found if backup.group == group
        }

    def _delete(self, verdict: Verdict, due: Iterable[Verdict]) -> None:
        backup = verdict.decision.backup
        try:
            if self.inventory.is_unchanged(backup):
                verdict.deleting = self.inventory.delete(backup)
                verdict.outcome = REMOVED
            else:
                _stop(due)
        except ClientError as error:
            verdict.outcome, verdict.fault = FAILED, str(error)


def _stop(due: Iterable[Verdict]) -> None:
    for verdict in due:
        if verdict.outcome == DUE:
            verdict.outcome = STOPPED
            verdict.fault = (
                "not removed, because a backup of the same server and label changed after the "
                "decision, or cannot be read; run the command again"
            )


@dataclass(frozen=True)
class Pruning:
    """The decisions on the backups of several servers.

    :ivar removals: one for each server
    :ivar faults: messages for the operator: servers that could not be read, and rules for labels
        that no backup has
    :ivar without_image: the deleted backups whose volume snapshots remain, for example because an
        earlier run was ended
    """

    inventory: Inventory
    removals: list[Removal]
    faults: list[str]
    without_image: list[Verdict] = field(default_factory=list)

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts."""
        of_images = (verdict for removal in self.removals for verdict in removal.verdicts)
        return [*of_images, *self.without_image]

    @property
    def due(self) -> int:
        """The number of backups to delete."""
        return sum(verdict.outcome == DUE for verdict in self.verdicts)

    def run(self) -> Iterator[Verdict]:
        """Delete the due backups one by one, and yield each verdict with its result.

        At the end, wait until Cinder has deleted their volume snapshots. A verdict is then
        :data:`FAILED` if some of them remain.

        :returns: the verdicts of the due backups
        """
        for removal in self.removals:
            yield from removal.run()
        for verdict in self.without_image:
            self._finish(verdict)
            yield verdict
        self._wait()

    def _finish(self, verdict: Verdict) -> None:
        backup = verdict.decision.backup
        try:
            if self.inventory.has_image(backup):
                verdict.outcome, verdict.fault = STOPPED, "not removed, because there is an image"
            else:
                verdict.deleting = self.inventory.delete(backup)
                verdict.outcome = REMOVED
        except ClientError as error:
            verdict.outcome, verdict.fault = FAILED, str(error)

    def _wait(self) -> None:
        removed = {id: verdict for verdict in self.verdicts for id in verdict.deleting}
        volume_snapshots = self.inventory.volume_snapshots
        if not removed or volume_snapshots is None:
            return
        try:
            remaining = volume_snapshots.remaining(removed)
        except ServiceFailed as error:
            remaining = dict.fromkeys(removed, str(error))
        for id, reason in remaining.items():
            removed[id].outcome, removed[id].fault = FAILED, f"{REMAIN}{id}: {reason}"


def decide(
    inventory: Inventory,
    instances: Iterable[Instance],
    rules: Policy | Choose,
    *,
    label: str | None = None,
    project_id: str | None = None,
    now: datetime | None = None,
) -> Pruning:
    """Decide which backups to delete. :meth:`Pruning.run` deletes them.

    If the backups of a single server cannot be read, all of them are kept.

    :param inventory: lists and deletes backups
    :param instances: the servers
    :param rules: the policy for all servers, or a function that returns the policy for one
    :param label: only backups with this label; default: all
    :param project_id: the project that owns all or most of the images; it limits what is read, not
        what is decided
    :param now: the current time, with a time zone; default: the time of the clock
    :returns: the decisions
    :raises PolicyEmpty: if a policy has no rule
    :raises GlanceError: if a page for many servers cannot be read
    """
    servers = list(instances)
    joined: Mapping[InstanceRef, list[Backup]] = {}
    if len(servers) > FEW:
        joined = inventory.backups_of_servers(servers, label, project_id)
    found: list[tuple[Instance, list[Backup]]] = []
    faults: list[str] = []
    for instance in servers:
        try:
            backups = joined.get(instance.instance)
            known = inventory.backups(instance, label) if backups is None else backups
            found.append((instance, known))
        except GlanceError as error:
            faults.append(f"{instance.instance_id}: {error}")
    # grouped by policy, because a rule for a label needs one backup with the label on any server
    by_policy: dict[Policy | str, list[Backup]] = defaultdict(list)
    if isinstance(rules, Policy):
        by_policy[rules] = []
    for instance, backups in found:
        by_policy[rules if isinstance(rules, Policy) else rules(instance)] += backups
    faults += [fault for policy, backups in by_policy.items() for fault in _faults(policy, backups)]
    verdicts = _verdicts(by_policy, now or datetime.now(UTC))
    removals = [
        Removal(inventory, instance, label, verdicts[instance.instance]) for instance, _ in found
    ]
    return Pruning(inventory, removals, faults)


def without_image(backups: Iterable[Backup]) -> list[Verdict]:
    """Return the verdicts on deleted backups whose volume snapshots remain.

    :param backups: the result of :meth:`Inventory.without_image`
    """
    return [Verdict(Decision(backup, False, (WITHOUT_IMAGE,)), DUE) for backup in backups]


def _verdicts(
    by_policy: dict[Policy | str, list[Backup]], now: datetime
) -> dict[InstanceRef, list[Verdict]]:
    verdicts: dict[InstanceRef, list[Verdict]] = defaultdict(list)
    for policy, backups in by_policy.items():
        if isinstance(policy, str):
            decisions = [Decision(backup, True, (policy,)) for backup in backups]
        else:
            decisions = plan(backups, policy, now)
        for decision in decisions:
            verdicts[decision.backup.instance].append(Verdict.of(decision))
    return verdicts


def _faults(policy: Policy | str, backups: list[Backup]) -> Iterator[str]:
    """Yield an error for each label in the rules that no backup has."""
    if isinstance(policy, str):
        return
    for label in unmatched((backup.group for backup in backups), policy):
        ids = listed(backup.instance.instance_id for backup in backups)
        yield (
            f"a rule keeps the label {label}, which no backup has, so nothing is removed; servers "
            f"of this rule: {ids}; labels of their backups: "
            f"{listed(backup.label for backup in backups)}"
        )


def listed(names: Iterable[str | None]) -> str:
    """Return the names for a message, sorted and without duplicates, at most :data:`NAMED`.

    :param names: the names; ``None`` is omitted
    :returns: the names, separated by commas, or ``none``
    """
    distinct = sorted({name for name in names if name is not None})
    more = ["..."] * (len(distinct) > NAMED)
    return ", ".join([*distinct[:NAMED], *more]) or "none"
