"""``openstack server backup prune``: delete the backups that no rule keeps."""

import argparse
from collections.abc import Iterable
from dataclasses import replace

from osc_lib.exceptions import CommandError

from related_images import model, validation
from related_images.client import Instance
from related_images.client.backups.inventory import Inventory
from related_images.client.backups.prune import (
    Choose,
    Pruning,
    Verdict,
    decide,
    listed,
    without_image,
)
from related_images.client.backups.retention import Policy
from related_images.client.backups.server_policies import check_installation, faults, stored
from related_images.client.glance import PAGE
from related_images.osc import arguments, backup_rules, nova_metadata, resolve, services
from related_images.osc.base_commands import (
    PartialFailureCommand,
    Table,
    TableCommand,
    table,
)
from related_images.osc.nova_metadata import ServerScope
from related_images.osc.progress import counting_bar


class PruneServerBackup(PartialFailureCommand, TableCommand):
    """Delete the backups that no rule keeps, of one server, of a project or of all projects.

    The backups of a server with the same label are a group, and the rules apply to each group. A
    rule such as --keep-daily 7 keeps the newest backup of each of the last 7 days that have one. If
    there are fewer such days, it also keeps the oldest backup. A backup is kept if any rule keeps
    it.

    The rules count only active backups. They do not count backups that are protected, in use,
    recorded for another server too, hidden, deactivated, not finished or dated in the future. With
    --project, they do not count backups of other projects. The command keeps all these backups. It
    always keeps one active backup of each group. If no backup has the label of a --keep-label, it
    deletes nothing.

    If the command deletes a backup of a server on volumes, it also deletes the volume snapshots
    that are recorded with this backup. If only properties of the image refer to a volume snapshot,
    the command lists and keeps the volume snapshot, because users can change these properties. The
    command also deletes recorded volume snapshots of backups whose image was deleted before.
    """

    exit_codes = (
        "The command continues after a failure. Exit codes: 0 all done, 1 a deletion failed or was "
        "stopped, or a rule, --label or --installation matches no backup (stderr says which), 2 "
        "wrong usage."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        arguments.add_installation(
            parser,
            "Delete only backups of servers of this installation (UUID of a Nova deployment); with "
            "<server> needed only if several installations have a server with this ID",
        )
        parser.add_argument(
            "server",
            metavar="<server>",
            nargs="?",
            help=f"Server to delete backups of ({arguments.SERVER}); omit it with --project or "
            "--all-projects",
        )
        arguments.add_project_scope(parser, "Delete backups of")
        arguments.add_label(parser, "Delete only backups with this label, such as daily")
        backup_rules.add(parser)
        parser.add_argument(
            "--orphans",
            action="store_true",
            help="Also delete backups of deleted servers",
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="Show what would be deleted, and delete nothing"
        )

    def take_action(self, args: argparse.Namespace) -> Table:
        scope = self._scope(args)
        rules = backup_rules.read(args, scope.project_id, orphans=args.orphans)
        with self.reading():
            pruning = self._decide(args, scope, rules)
        self._log_failures(pruning.faults)
        self._check_filters(args, scope, pruning)
        if not args.dry_run:
            self._delete(pruning)
        return _table(pruning.verdicts)

    def _decide(
        self, args: argparse.Namespace, scope: ServerScope, rules: Policy | None
    ) -> Pruning:
        inventory = Inventory(
            self.clients.relations, services.volume_snapshots(self.app.client_manager)
        )
        instances = self._instances(inventory, args, scope)
        chosen = self._stored_policies(scope, instances) if rules is None else rules
        filters = {"label": args.label, "project_id": scope.project_id}
        pruning = decide(inventory, instances, chosen, **filters)
        left = inventory.without_image(
            server_id=scope.server_id, installation_uuid=args.installation, **filters
        )
        return replace(pruning, without_image=without_image(left))

    def _log_failures(self, faults: Iterable[str]) -> None:
        for fault in faults:
            self.log.error("%s", fault)
            self.failures += 1

    def _delete(self, pruning: Pruning) -> None:
        """Delete the backups, with a progress bar on stderr if it is a terminal."""
        with counting_bar(pruning.due, "backup") as bar:
            for _ in pruning.run():
                bar.update()
        failed = [verdict for verdict in pruning.verdicts if verdict.fault]
        for verdict in failed:
            self.log.error("%s: %s", verdict.decision.backup.image_id, verdict.fault)
        if failed:
            self.log.error("backups that no rule keeps, but that were not removed: %d", len(failed))
        self.failures += len(failed)

    def _check_filters(
        self, args: argparse.Namespace, scope: ServerScope, pruning: Pruning
    ) -> None:
        """Count a failure if no backup matches ``--installation`` and ``--label``."""
        names = [name for name in ("installation", "label") if getattr(args, name) is not None]
        if self.failures or not names or pruning.verdicts:
            return
        relations = self.clients.relations.relations(
            kind=model.BACKUP,
            resource_type=model.SERVER,
            installation_uuid=args.installation,
            instance_id=scope.server_id,
            project_id=scope.project_id,
            page_size=PAGE,
        )
        self.log.error(
            "no backup matches %s; labels of the newest backups without --label: %s",
            " ".join(f"--{name} {getattr(args, name)}" for name in names),
            listed(relation.label for relation in relations),
        )
        self.failures += 1

    def _stored_policies(self, scope: ServerScope, instances: list[Instance]) -> Choose:
        """Return the function that gives the policy of a server from its metadata."""
        policies = nova_metadata.stored_policies(self.app.client_manager, scope)
        check_installation(instances, policies)
        self._log_failures(faults(policies))
        return stored(policies)

    def _scope(self, args: argparse.Namespace) -> ServerScope:
        scopes = (args.server, args.project, args.all_projects or None)
        if sum(scope is not None for scope in scopes) != 1:
            raise CommandError("give either <server>, --project or --all-projects")
        manager = self.app.client_manager
        project = resolve.project(manager, args.project)
        server_id = None if args.server is None else resolve.server_id(manager, args.server)
        return ServerScope(server_id, project, args.all_projects)

    def _instances(
        self, inventory: Inventory, args: argparse.Namespace, scope: ServerScope
    ) -> list[Instance]:
        """Return the servers to prune, deleted ones last."""
        if scope.server_id is not None:
            relations = inventory.relations
            ref = resolve.recorded_resource(relations, args.installation, scope.server_id)
            return [relations.instance(ref)]
        found = inventory.instances(
            label=args.label,
            project_id=scope.project_id,
            installation_uuid=args.installation,
        )
        return sorted(found, key=lambda instance: instance.ended_at is not None)


def _table(verdicts: list[Verdict]) -> Table:
    return table(
        (
            ("Server ID", lambda verdict: verdict.decision.backup.instance.instance_id),
            ("Label", lambda verdict: verdict.decision.backup.label),
            ("Project ID", lambda verdict: verdict.decision.backup.project_id),
            ("Image ID", lambda verdict: verdict.decision.backup.image_id),
            (
                "Created At",
                lambda verdict: validation.format_seconds(verdict.decision.backup.created_at),
            ),
            ("Action", lambda verdict: verdict.outcome),
            ("Reasons", lambda verdict: ", ".join(verdict.reasons)),
        ),
        verdicts,
    )
