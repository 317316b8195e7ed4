"""Deciding by rules which backups go, and deleting them one by one."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from related_images.client.backups.inventory import Inventory
from related_images.client.backups.retention import (
    Backup,
    Decision,
    Group,
    Policy,
    plan,
    unmatched,
)
from related_images.client.errors import ClientError, GlanceError
from related_images.model import Instance, InstanceRef

KEPT: Final = "keep"
DUE: Final = "remove"
REMOVED: Final = "removed"
FAILED: Final = "failed"
STOPPED: Final = "stopped"

NAMED: Final = 20
"""How many labels or instances an error names."""

Choose = Callable[[Instance], Policy | str]
"""The policy for the backups of an instance, or why all of them stay."""


@dataclass
class Verdict:
    """What was decided on a backup and what came of it.

    :ivar outcome: :data:`KEPT`, :data:`DUE`, and once it was to be deleted :data:`REMOVED`,
        :data:`FAILED` or :data:`STOPPED`
    :ivar fault: why it failed or was stopped
    """

    decision: Decision
    outcome: str
    fault: str = ""

    @classmethod
    def of(cls, decision: Decision) -> "Verdict":
        return cls(decision, KEPT if decision.keep else DUE)


@dataclass(frozen=True)
class Removal:
    """One instance's verdicts, carried out group by group."""

    inventory: Inventory
    instance: Instance
    label: str | None
    verdicts: list[Verdict]

    def run(self) -> Iterator[Verdict]:
        """Delete what is due, giving each; a group that has changed is left alone."""
        for group in dict.fromkeys(verdict.decision.backup.group for verdict in self.verdicts):
            planned = [v for v in self.verdicts if v.decision.backup.group == group]
            due = [verdict for verdict in planned if verdict.outcome == DUE]
            if due and self._has_changed(group, planned):
                _stop(due)
            for verdict in reversed(due):
                if verdict.outcome == DUE:
                    self._carry_out(verdict, due)
                yield verdict

    def _has_changed(self, group: Group, planned: Iterable[Verdict]) -> bool:
        try:
            found = self.inventory.backups(self.instance, self.label)
        except ClientError:
            return True  # at least it cannot be told
        return {verdict.decision.backup for verdict in planned} != {
            backup for backup in found if backup.group == group
        }

    def _carry_out(self, verdict: Verdict, due: Iterable[Verdict]) -> None:
        backup = verdict.decision.backup
        try:
            if self.inventory.is_unchanged(backup):
                self.inventory.delete(backup)
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
                "not removed, since a backup of the same instance and label is not as it was when "
                "this was decided, or cannot be looked at; run it again"
            )


@dataclass(frozen=True)
class Pruning:
    """What is decided of the backups of several instances.

    :ivar faults: what kept some from being decided, or removed, as errors for the operator
    """

    sweeps: list[Removal]
    faults: list[str]

    @property
    def verdicts(self) -> list[Verdict]:
        return [verdict for sweep in self.sweeps for verdict in sweep.verdicts]

    @property
    def due(self) -> int:
        """How many backups are to be deleted."""
        return sum(verdict.outcome == DUE for verdict in self.verdicts)

    def run(self) -> Iterator[Verdict]:
        """Delete what is due, one by one, giving each with what came of it."""
        for sweep in self.sweeps:
            yield from sweep.run()


def decide(
    inventory: Inventory,
    instances: Iterable[Instance],
    rules: Policy | Choose,
    *,
    label: str | None = None,
    now: datetime | None = None,
) -> Pruning:
    """Decide what goes; nothing is deleted before :meth:`Pruning.run`.

    An instance that cannot be looked at keeps all it has.

    :param rules: for all instances, or what gives those of an instance
    :param label: only backups with this label
    :raises PolicyEmpty: if a policy has no rule
    """
    found: list[tuple[Instance, list[Backup]]] = []
    faults: list[str] = []
    for instance in instances:
        try:
            found.append((instance, inventory.backups(instance, label)))
        except GlanceError as error:
            faults.append(f"{instance.instance_id}: {error}")
    # a policy is given all its backups at once: a label may be on any of them
    together: dict[Policy | str, list[Backup]] = defaultdict(list)
    if isinstance(rules, Policy):
        together[rules] = []
    for instance, backups in found:
        together[rules if isinstance(rules, Policy) else rules(instance)] += backups
    faults += [fault for policy, backups in together.items() for fault in _faults(policy, backups)]
    judged = _judged(together, now or datetime.now(UTC))
    sweeps = [
        Removal(inventory, instance, label, judged[instance.instance]) for instance, _ in found
    ]
    return Pruning(sweeps, faults)


def _judged(
    together: dict[Policy | str, list[Backup]], now: datetime
) -> dict[InstanceRef, list[Verdict]]:
    judged: dict[InstanceRef, list[Verdict]] = defaultdict(list)
    for policy, backups in together.items():
        if isinstance(policy, str):
            decisions = [Decision(backup, True, (policy,)) for backup in backups]
        else:
            decisions = plan(backups, policy, now)
        for decision in decisions:
            judged[decision.backup.instance].append(Verdict.of(decision))
    return judged


def _faults(policy: Policy | str, backups: list[Backup]) -> Iterator[str]:
    """That a policy keeps a label which none of its backups has."""
    if isinstance(policy, str):
        return
    for label in unmatched((backup.group for backup in backups), policy):
        ids = listed(backup.instance.instance_id for backup in backups)
        yield (
            f"no backup has the label {label} that a rule keeps, so nothing is removed; instances "
            f"that this rule is for: {ids}; labels of their backups: "
            f"{listed(backup.label for backup in backups)}"
        )


def listed(names: Iterable[str | None]) -> str:
    """The different names, the first of them if they are many."""
    known = sorted({name for name in names if name is not None})
    more = ["..."] * (len(known) > NAMED)
    return ", ".join([*known[:NAMED], *more]) or "none"
