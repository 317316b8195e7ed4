"""``openstack server backup run``: back up the servers that are due, and delete old backups."""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client.backups import due
from related_images.client.backups.due import Search, ServerRun
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.prune import DUE, REMOVED, Pruning
from related_images.client.backups.run import BackupRun, Limits
from related_images.client.backups.servers import Servers
from related_images.client.backups.stored_policy import Ages
from related_images.osc import arguments, backup_rules, resolve, services
from related_images.osc.monitoring import UNKNOWN, WARNING, MonitoringCommand
from related_images.osc.progress import counting_bar

Deletions = Mapping[str, list[str]]
"""The images of deleted backups, by server ID."""


class RunServerBackup(MonitoringCommand):
    """Back up the servers that are due, wait for the backups, then delete backups by rules.

    A server is due if its newest active backup with the label is older than --older-than, or if it
    has none. Servers on local disks and servers on volumes are backed up alike, with the filter in
    nova-api. If the backup of a server fails or is skipped, no backup of this server is deleted.
    The rules are those of `openstack server backup prune`.

    On a terminal, the command shows the progress, and a line for each server that was due.
    Otherwise it writes a line of JSON for each server.
    """

    exit_codes = (
        "Exit codes of monitoring plug-ins: 0 no server is overdue after the run, 1 a server is "
        "overdue, or a deletion failed, 2 a server is critical, or wrong usage, 3 the run failed, "
        "or there was no server to examine. An overdue server is critical if its newest backup is "
        "older than --critical or dated in the future, or if it has no backup."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument(
            "--label",
            metavar="<label>",
            required=True,
            type=validation.argument(validation.label),
            help="Label of the new backups, such as daily; only backups with this label count, and "
            "only these are deleted",
        )
        arguments.add_installation(
            parser, "Only servers of this installation (UUID of a Nova deployment)"
        )
        arguments.add_project_scope(parser, "Back up")
        for name, example, text in (
            ("--older-than", "20h", "A server is due if its newest backup is older than this"),
            (
                "--critical",
                "50h",
                "A server without a new backup is critical if its newest backup is older than this",
            ),
        ):
            parser.add_argument(
                name,
                metavar="<span>",
                type=validation.argument(validation.parse_span),
                help=f"{text}, such as {example}",
            )
        backup_rules.add(parser)
        _add_limits(parser)
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Show which servers are due, when the others are due next, and which backups the "
            "rules would delete now; back up and delete nothing",
        )

    def take_action(self, args: argparse.Namespace) -> None:
        manager = self.app.client_manager
        project = resolve.project(manager, args.project)
        backup_run = self._backup_run(args, project)
        with self.reading():
            found = backup_run.servers.list(
                project if project != backup_run.owner else None, all_projects=args.all_projects
            )
            runs = backup_run.plan(found)
        for fault in backup_run.faults:
            self._fail(fault)
        if not runs:
            self._fail("no server is in the scope of the run; check the arguments of the command")
        if not args.dry_run:
            self._back_up(backup_run, runs)
        with self.reading():
            pruning = backup_run.prune(runs)
        for fault in pruning.faults:
            self._warn(fault)
        if not args.dry_run:
            self._delete(pruning)
        self._show(runs, _deletions(pruning, DUE if args.dry_run else REMOVED), args.dry_run)
        self.report({state for run in runs if (state := run.lateness(backup_run.now))})

    def _backup_run(self, args: argparse.Namespace, project: str | None) -> BackupRun:
        manager = self.app.client_manager
        owner = manager.auth_ref.project_id if manager.auth_ref else None
        rules = backup_rules.read(args, project)
        if rules is None and (args.older_than or args.critical):
            raise CommandError(
                "--policy stored takes all ages from the policies of the servers; omit "
                "--older-than and --critical"
            )
        if rules is not None and args.older_than is None:
            raise CommandError("give --older-than, or --policy stored")
        nova = services.adapter(manager, "compute")
        if nova is None:
            raise CommandError("this cloud has no compute service (Nova), so it has no servers")
        inventory = Inventory(self.clients.relations, services.volume_snapshots(manager))
        return BackupRun(
            Search(inventory, args.label, project, args.installation),
            Servers(nova),
            None if rules is None else (Ages(args.older_than, args.critical), rules),
            owner,
            Limits(args.max_parallel, args.max_parallel_per_host, args.deadline),
        )

    def _back_up(self, backup_run: BackupRun, runs: list[ServerRun]) -> None:
        number = sum(run.state == due.DUE for run in runs)
        with counting_bar(number, "backup") as bar:
            for run in backup_run.run(runs):
                bar.update()
                if run.state != due.MADE:
                    self._warn(f"{run.server.id}: {run.reason}")

    def _delete(self, pruning: Pruning) -> None:
        with counting_bar(pruning.due, "deletion") as bar:
            for _ in pruning.run():
                bar.update()
        for verdict in pruning.verdicts:
            if verdict.fault:
                self._warn(f"{verdict.decision.backup.image_id}: {verdict.fault}")

    def _warn(self, message: str) -> None:
        self.log.error("%s", message)
        self.exit_code = max(self.exit_code, WARNING)

    def _fail(self, message: str) -> None:
        self.log.error("%s", message)
        self.exit_code = UNKNOWN

    def _show(self, runs: Iterable[ServerRun], deletions: Deletions, is_dry: bool) -> None:
        is_terminal = self.app.stdout.isatty()
        for run in runs:
            shown = _shown(run, deletions[run.server.id], is_dry)
            if not is_terminal:
                self.app.stdout.write(json.dumps(shown) + "\n")
            elif is_dry or run.state != due.NOT_DUE or deletions[run.server.id]:
                parts = (f"{name} {value}" for name, value in shown.items() if value)
                self.app.stdout.write(", ".join(parts) + "\n")


def _shown(run: ServerRun, deleted: list[str], is_dry: bool) -> dict[str, Any]:
    return {
        "server_id": run.server.id,
        "name": run.server.name,
        "project_id": run.server.project_id,
        "state": run.state,
        "reason": run.reason or None,
        "image_id": run.image_id,
        "newest_backup": validation.format_seconds(run.made_at),
        "next_due": validation.format_seconds(run.next_due),
        "to_delete" if is_dry else "deleted": deleted,
    }


def _deletions(pruning: Pruning, outcome: str) -> Deletions:
    found: dict[str, list[str]] = defaultdict(list)
    for verdict in pruning.verdicts:
        if verdict.outcome == outcome:
            backup = verdict.decision.backup
            found[backup.instance.instance_id].append(backup.image_id)
    return found


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = Limits()
    for name, default, where in (
        ("--max-parallel", limits.parallel, "in all"),
        ("--max-parallel-per-host", limits.per_host, "on one host"),
    ):
        parser.add_argument(
            name,
            metavar="<number>",
            type=validation.argument(validation.number, name),
            default=default,
            help=f"Maximum number of backups at the same time {where} (default: %(default)s)",
        )
    parser.add_argument(
        "--deadline",
        metavar="<span>",
        type=validation.argument(validation.parse_span),
        default=timedelta(hours=6),
        help="Time after which no backup begins, and the command stops waiting (default: 6h)",
    )
