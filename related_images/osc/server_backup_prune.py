"""``openstack server backup prune``: which backups may go."""

import argparse
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC

from osc_lib.exceptions import CommandError
from tqdm import tqdm

from related_images import model, validation
from related_images.client import Instance
from related_images.client.backups import stored_policy
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.prune import Choose, Pruning, Verdict, decide, listed
from related_images.client.backups.retention import COUNTED, Policy, not_empty
from related_images.client.backups.server_policies import check_installation, faults, stored
from related_images.client.glance import PAGE
from related_images.osc import arguments, nova_metadata, resolve
from related_images.osc.commands import (
    Counting,
    Table,
    TableCommand,
    shown_time,
    table,
)
from related_images.osc.nova_metadata import Scope


class PruneServerBackup(Counting, TableCommand):
    """Delete the backups that no rule keeps, of one server, of a project, or of all.

    Each server's backups with one label are a group. A rule keeps the newest of each of so many
    hours, days and so on, and while that many are not there, the oldest; what any rule keeps is
    kept. Only active backups count. Those that are protected, in use, made from another server
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
            "server",
            metavar="<server>",
            nargs="?",
            help=f"the server ({arguments.SERVER}); or give --project or --all-projects",
        )
        arguments.add_scope(parser)
        arguments.add_label(parser)
        _add_rules(parser)
        parser.add_argument(
            "--orphans",
            action="store_true",
            help="prune also the backups of servers that are gone",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="delete nothing, only show what would be done"
        )

    def take_action(self, given: argparse.Namespace) -> Table:
        scope = self._scope(given)
        rules = _rules(given, scope)
        inventory = self.clients.inventory
        instances = self._instances(inventory, given, scope)
        chosen = self._carried(scope, instances) if rules is None else rules
        pruning = decide(inventory, instances, chosen, label=given.label)
        self._tell_all(pruning.faults)
        self._must_match(given, scope, pruning)
        if not given.dry_run:
            self._carry_out(pruning)
        return _shown(pruning.verdicts)

    def _tell_all(self, faults: Iterable[str]) -> None:
        for fault in faults:
            self.log.error("%s", fault)
            self.failures += 1

    def _carry_out(self, pruning: Pruning) -> None:
        """Delete what is due; at a terminal a bar on stderr tells how far it is."""
        # None: only at a terminal
        disable = None if pruning.due else True
        with tqdm(total=pruning.due, unit="backup", disable=disable) as bar:
            for _ in pruning.run():
                bar.update()
        failed = [verdict for verdict in pruning.verdicts if verdict.fault]
        for verdict in failed:
            self.log.error("%s: %s", verdict.decision.backup.image_id, verdict.fault)
        if failed:
            self.log.error("backups that are due but were not removed: %d", len(failed))
        self.failures += len(failed)

    def _must_match(self, given: argparse.Namespace, scope: Scope, pruning: Pruning) -> None:
        """Count it as a failure that there is no backup of an installation or label asked for."""
        names = [name for name in ("installation", "label") if getattr(given, name) is not None]
        if self.failures or not names or pruning.verdicts:
            return
        there = self.clients.relations.relations(
            kind=model.BACKUP,
            installation_uuid=given.installation,
            instance_id=scope.server_id,
            project_id=scope.project_id,
            page_size=PAGE,
        )
        self.log.error(
            "no backup matches %s; labels of the newest backups without --label: %s",
            " ".join(f"--{name} {getattr(given, name)}" for name in names),
            listed(relation.label for relation in there),
        )
        self.failures += 1

    def _carried(self, scope: Scope, instances: list[Instance]) -> Choose:
        """By what their servers carry."""
        known = nova_metadata.carried(self.app.client_manager, scope)
        check_installation(instances, known)
        self._tell_all(faults(known))
        return stored(known)

    def _scope(self, given: argparse.Namespace) -> Scope:
        scopes = (given.server, given.project, given.all_projects or None)
        if sum(scope is not None for scope in scopes) != 1:
            raise CommandError("give either a server, --project or --all-projects")
        manager = self.app.client_manager
        project = resolve.project(manager, given.project)
        server_id = None if given.server is None else resolve.server_id(manager, given.server)
        return Scope(server_id, project, given.all_projects)

    def _instances(
        self, inventory: Inventory, given: argparse.Namespace, scope: Scope
    ) -> list[Instance]:
        """Which are asked for; those that are gone come last."""
        if scope.server_id is not None:
            relations = inventory.relations
            ref = resolve.recorded(relations, given.installation, scope.server_id)
            return [relations.instance(ref)]
        found = inventory.instances(
            label=given.label,
            project_id=scope.project_id,
            installation_uuid=given.installation,
        )
        return sorted(found, key=lambda instance: instance.ended_at is not None)


def _add_rules(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--policy",
        choices=(nova_metadata.STORED,),
        help="stored: for each server the rules that it carries in the compute service, "
        "for images of the server's project alone; without any, nothing goes",
    )
    for rule in COUNTED:
        what = "last backups" if rule == "last" else f"{rule} backups"
        parser.add_argument(
            f"--keep-{rule}",
            metavar="<number>",
            type=validation.argument(stored_policy.count),
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
        type=validation.argument(stored_policy.timezone),
        default=UTC,
        help="where the hours and days are those of, such as Europe/Berlin (default: UTC)",
    )


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


def _shown(verdicts: list[Verdict]) -> Table:
    return table(
        (
            ("Server ID", lambda verdict: verdict.decision.backup.instance.instance_id),
            ("Label", lambda verdict: verdict.decision.backup.label),
            ("Project ID", lambda verdict: verdict.decision.backup.project_id),
            ("Image ID", lambda verdict: verdict.decision.backup.image_id),
            ("Created At", lambda verdict: shown_time(verdict.decision.backup.created_at)),
            ("Action", lambda verdict: verdict.outcome),
            ("Reasons", lambda verdict: ", ".join(verdict.decision.reasons)),
        ),
        verdicts,
    )
