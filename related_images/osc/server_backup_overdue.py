"""``openstack server backup overdue``: list the servers without a recent backup."""

import argparse

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client.backups.overdue import OverdueSearch, OverdueServer, ages_of
from related_images.client.backups.server_policies import check_installation, faults
from related_images.client.backups.stored_policy import Ages
from related_images.osc import arguments, nova_metadata, resolve
from related_images.osc.base_commands import (
    Table,
    TableCommand,
    table,
)
from related_images.osc.monitoring import UNKNOWN, MonitoringCommand
from related_images.osc.nova_metadata import ServerScope


class OverdueServerBackup(MonitoringCommand, TableCommand):
    """List servers that have no active backup, or whose newest active backup is too old.

    With --older-than, the command checks all servers that are not deleted and have a relation of
    any kind. With --policy stored, it checks all servers that have a policy with older_than. A
    backup dated more than 5 minutes in the future does not count as recent.
    """

    exit_codes = (
        "Exit codes of monitoring plug-ins: 0 no server is overdue, 1 a server is overdue, 2 a "
        "server is critical, or wrong usage, 3 the check failed, or there was no server to check. "
        "An overdue server is critical if its newest backup is older than --critical or dated in "
        "the future, or if it has no backup."
    )

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        limit = parser.add_mutually_exclusive_group(required=True)
        limit.add_argument(
            "--older-than",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="Maximum age of the newest backup, such as 26h",
        )
        limit.add_argument(
            "--policy",
            choices=(nova_metadata.STORED,),
            help="stored: use the ages in the policy of each server (metadata in Nova)",
        )
        parser.add_argument(
            "--critical",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="A server is critical if its newest backup is older than this, such as 32h. A "
            "server without a backup is always critical",
        )
        arguments.add_label(parser, "Check only backups with this label, such as daily")
        arguments.add_installation(
            parser, "Check only servers of this installation (UUID of a Nova deployment)"
        )
        arguments.add_project_scope(parser, "Check")

    def take_action(self, args: argparse.Namespace) -> Table:
        with self.reading():
            overdue = self._overdue(args)
        self.report({row.state for row in overdue})
        return table(
            (
                ("Server ID", lambda row: row.instance_id),
                ("Installation UUID", lambda row: row.installation_uuid),
                ("Project ID", lambda row: row.project_id),
                ("Newest Backup", lambda row: row.image_id),
                ("Created At", lambda row: validation.format_seconds(row.made_at)),
                ("Age", lambda row: row.age and validation.format_span(row.age)),
                ("State", lambda row: row.state),
            ),
            overdue,
        )

    def _overdue(self, args: argparse.Namespace) -> list[OverdueServer]:
        project = resolve.project_in_scope(self.app.client_manager, args)
        search = OverdueSearch(self.clients.inventory, args.label, project, args.installation)
        if args.policy is None:
            return self._by_ages(search, Ages(args.older_than, args.critical))
        if args.critical is not None:
            raise CommandError(
                "--policy stored takes all ages from the policies of the servers; omit --critical"
            )
        return self._by_policy(search, ServerScope(None, project, args.all_projects))

    def _by_ages(self, search: OverdueSearch, ages: Ages) -> list[OverdueServer]:
        overdue = list(search.overdue(ages))
        if not overdue and all(instance.ended_at for instance in search.instances()):
            self._no_server_checked(f"no live server is recorded for {_scope_of(search)}")
        return overdue

    def _by_policy(self, search: OverdueSearch, scope: ServerScope) -> list[OverdueServer]:
        policies = nova_metadata.stored_policies(self.app.client_manager, scope)
        for fault in faults(policies):
            self.log.error("%s", fault)
            self.exit_code = UNKNOWN
        instances = list(search.instances())
        check_installation(instances, policies)
        if not ages_of(policies):
            self._no_server_checked(
                f"no server of {_scope_of(search)} has a policy with older_than"
            )
        elif search.installation_uuid is not None and not instances:
            self._no_server_checked(f"no server is recorded for {_scope_of(search)}")
        recorded = {instance.instance_id for instance in instances}
        return list(search.overdue_by_policy(policies, recorded))

    def _no_server_checked(self, reason: str) -> None:
        """Log an error, and exit with 3: a check of no server must not succeed."""
        self.log.error("nothing was examined: %s; check the arguments of the command", reason)
        self.exit_code = UNKNOWN


def _scope_of(search: OverdueSearch) -> str:
    """Return the project and installation of the search, for a message."""
    project = f"project {search.project_id}" if search.project_id else "all projects"
    installation = search.installation_uuid
    return f"{project} in installation {installation}" if installation else project
