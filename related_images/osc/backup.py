"""``openstack instance backup prune``: which backups may go."""

import argparse
import itertools
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import (
    Instance,
    InstanceRef,
    RegistryError,
    policies,
)
from related_images.client.retention import (
    COUNTED,
    Backup,
    Decision,
    Policy,
    not_empty,
    plan,
    unmatched,
)
from related_images.osc import arguments, carried, finding
from related_images.osc.backups import (
    DUE,
    FAILED,
    STOPPED,
    Shelf,
    Sweep,
    Verdict,
)
from related_images.osc.carried import Choose, Scope
from related_images.osc.commands import (
    PAGE,
    Counting,
    Table,
    TableCommand,
    shown_time,
    table,
    tell,
)

NAMED: Final = 20
"""How many labels or instances an error names."""


class PruneInstanceBackup(Counting, TableCommand):
    """Delete the backups that no rule keeps, of one instance, of a project, or of all.

    Each instance's backups with one label are a group. A rule keeps the newest of each of so many
    hours, days and so on, and while that many are not there, the oldest; what any rule keeps is
    kept. Only active backups count. Those that are protected, in use, made from another instance
    too, hidden, deactivated or not finished are kept and count for nothing, and with --project so
    are those of other projects. One active backup of each group always stays. If no backup has a
    label that --keep-label names, nothing is deleted.
    """

    exit_codes = (
        "Carries on after a failure. Exit codes: 0 all done, 1 some or all failed or were stopped, "
        "or a rule, --label or --installation matches no backup (stderr names each), 2 wrong usage."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_installation(parser)
        parser.add_argument(
            "instance_id",
            metavar="<instance-id>",
            nargs="?",
            type=validation.argument(validation.instance_id),
            help="the instance; or give --project or --all-projects",
        )
        arguments.add_scope(parser)
        arguments.add_label(parser)
        _add_rules(parser)
        parser.add_argument(
            "--orphans",
            action="store_true",
            help="prune also the backups of instances that are gone",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="delete nothing, only show what would be done"
        )

    def take_action(self, given: argparse.Namespace) -> Table:
        scope = self._scope(given)
        rules = _rules(given, scope)
        instances = self._instances(given, scope)
        choose = self._carried(scope, instances) if rules is None else lambda _: rules
        sweeps = self._sweeps(instances, given.label, choose)
        if rules is not None and not sweeps:
            self._must_apply(rules, [])
        self._must_match(given, scope, sweeps)
        if not given.dry_run:
            _carry_out(sweeps)
        verdicts = [verdict for sweep in sweeps for verdict in sweep.verdicts]
        failed = sum(verdict.outcome in (FAILED, STOPPED) for verdict in verdicts)
        if failed:
            self.log.error("backups that are due but were not removed: %d", failed)
        self.failures += failed
        return _shown(verdicts)

    def _sweeps(self, instances: list[Instance], label: str | None, choose: Choose) -> list[Sweep]:
        """What is decided of each instance; one that cannot be looked at keeps all it has."""
        shelf, now = Shelf(self.clients), datetime.now(UTC)
        found: list[tuple[Instance, list[Backup]]] = []
        for instance in instances:
            try:
                found.append((instance, shelf.backups(instance, label)))
            except RegistryError as error:
                self.log.error("%s: %s", instance.instance.instance_id, error)
                self.failures += 1
        judged = self._judged([(choose(instance), backups) for instance, backups in found], now)
        return [Sweep(shelf, instance, label, judged[instance.instance]) for instance, _ in found]

    def _judged(
        self, found: Iterable[tuple[Policy | str, list[Backup]]], now: datetime
    ) -> dict[InstanceRef, list[Verdict]]:
        """By instance. A policy is given all its backups at once: a label may be on any of them."""
        together: dict[Policy | str, list[Backup]] = defaultdict(list)
        for policy, backups in found:
            together[policy] += backups
        judged: dict[InstanceRef, list[Verdict]] = defaultdict(list)
        for policy, backups in together.items():
            self._must_apply(policy, backups)
            for decision in _decisions(backups, policy, now):
                judged[decision.backup.instance].append(Verdict.of(decision))
        return judged

    def _must_apply(self, policy: Policy | str, backups: list[Backup]) -> None:
        """Count it as a failure that a policy keeps a label which none of its backups has."""
        if isinstance(policy, str):
            return
        for label in unmatched((backup.group for backup in backups), policy):
            self.log.error(
                "no backup has the label %s that a rule keeps, so nothing is removed; instances "
                "that this rule is for: %s; labels of their backups: %s",
                label,
                _listed(backup.instance.instance_id for backup in backups),
                _listed(backup.label for backup in backups),
            )
            self.failures += 1

    def _must_match(self, given: argparse.Namespace, scope: Scope, sweeps: list[Sweep]) -> None:
        """Count it as a failure that there is no backup of an installation or label asked for."""
        names = [name for name in ("installation", "label") if getattr(given, name) is not None]
        if self.failures or not names or any(sweep.verdicts for sweep in sweeps):
            return
        there = self.clients.relations.relations(
            kind=model.BACKUP,
            installation_uuid=given.installation,
            instance_id=given.instance_id,
            project_id=scope.project_id,
            limit=PAGE,
        )
        self.log.error(
            "no backup matches %s; labels of the newest backups without --label: %s",
            " ".join(f"--{name} {getattr(given, name)}" for name in names),
            _listed(relation.label for relation in itertools.islice(there, PAGE)),
        )
        self.failures += 1

    def _carried(self, scope: Scope, instances: list[Instance]) -> Choose:
        """By what their servers carry."""
        known = carried.carried(self.app.client_manager, scope)
        carried.must_be_of_one_installation(instances, known)
        for fault in carried.faults(known):
            self.log.error("%s", fault)
            self.failures += 1
        return carried.stored(known)

    def _scope(self, given: argparse.Namespace) -> Scope:
        scopes = (given.instance_id, given.project, given.all_projects or None)
        if sum(scope is not None for scope in scopes) != 1:
            raise CommandError("give either an instance id, --project or --all-projects")
        project = finding.project(self.app.client_manager, given.project)
        return Scope(given.instance_id, project, given.all_projects)

    def _instances(self, given: argparse.Namespace, scope: Scope) -> list[Instance]:
        """Which are asked for; those that are gone come last."""
        relations = self.clients.relations
        if given.instance_id is not None:
            ref = finding.instance(relations, given.installation, given.instance_id)
            return [relations.instance(ref)]
        found = relations.instances(
            installation_uuid=given.installation,
            kind=model.BACKUP,
            label=given.label,
            project_id=scope.project_id,
            limit=PAGE,
        )
        return sorted(found, key=lambda instance: instance.ended_at is not None)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        choices=(carried.STORED,),
        help="stored: for each instance the rules that its server carries in the compute service, "
        "for images of the server's project alone; without any, nothing goes",
    )
    for rule in COUNTED:
        what = "last backups" if rule == "last" else f"{rule} backups"
        parser.add_argument(
            f"--keep-{rule}",
            metavar="<number>",
            type=validation.argument(policies.count),
            default=0,
            help=f"keep this many {what}, or unlimited",
        )
    parser.add_argument(
        "--keep-within",
        metavar="<span>",
        type=validation.argument(validation.parse_span),
        help="keep what was made within this span before the newest, such as 7d",
    )
    parser.add_argument(
        "--keep-label",
        metavar="<label>",
        action="append",
        default=[],
        type=validation.argument(validation.label),
        help="keep every backup with this label (repeat for several)",
    )
    parser.add_argument(
        "--timezone",
        metavar="<name>",
        type=validation.argument(policies.timezone),
        default=UTC,
        help="where the hours and days are those of, such as Europe/Berlin (default: UTC)",
    )


def _decisions(backups: list[Backup], policy: Policy | str, now: datetime) -> list[Decision]:
    if isinstance(policy, str):
        return [Decision(backup, True, (policy,)) for backup in backups]
    return plan(backups, policy, now)


def _listed(names: Iterable[str | None]) -> str:
    """The different names, the first of them if they are many."""
    known = sorted({name for name in names if name is not None})
    more = ["..."] * (len(known) > NAMED)
    return ", ".join([*known[:NAMED], *more]) or "none"


def _rules(given: argparse.Namespace, scope: Scope) -> Policy | None:
    """The rules of the command line; ``None`` where the servers have them.

    A project's instances may have backups that others own: those are not for its rules.
    """
    rules = Policy(
        **{rule: getattr(given, f"keep_{rule}") for rule in COUNTED},
        within=given.keep_within,
        labels=frozenset(given.keep_label),
        timezone=given.timezone,
        orphans=given.orphans,
    )
    if given.policy is None:
        return replace(not_empty(rules), project_id=scope.project_id)
    if rules != Policy():
        raise CommandError(
            "--policy stored takes every rule from the servers: leave --keep-*, --timezone and "
            "--orphans out"
        )
    return None


def _carry_out(sweeps: list[Sweep]) -> None:
    """Delete what is due; at a terminal a bar on stderr tells how far it is."""
    total = sum(verdict.outcome == DUE for sweep in sweeps for verdict in sweep.verdicts)
    steps = itertools.chain.from_iterable(sweep.run() for sweep in sweeps)
    for done, _ in enumerate(steps, start=1):
        bar = "#" * (30 * done // total)
        tell(f"\r[{bar:<30}] {done}/{total}" + "\n" * (done == total))


def _shown(verdicts: list[Verdict]) -> Table:
    return table(
        (
            ("Instance ID", lambda verdict: verdict.decision.backup.instance.instance_id),
            ("Label", lambda verdict: verdict.decision.backup.label),
            ("Project ID", lambda verdict: verdict.decision.backup.project_id),
            ("Image ID", lambda verdict: verdict.decision.backup.image_id),
            ("Created At", lambda verdict: shown_time(verdict.decision.backup.created_at)),
            ("Action", lambda verdict: verdict.outcome),
            ("Reasons", lambda verdict: ", ".join(verdict.decision.reasons)),
        ),
        verdicts,
    )
