"""``openstack server backup overdue``: which servers lack a recent backup."""

import argparse
from typing import Final

from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.client.backups.overdue import FUTURE, OverdueSearch, OverdueServer, ages_of
from related_images.client.backups.server_policies import check_installation, faults
from related_images.client.backups.stored_policy import Ages
from related_images.osc import arguments, nova_metadata, resolve
from related_images.osc.commands import (
    Table,
    TableCommand,
    shown_time,
    table,
)
from related_images.osc.nova_metadata import Scope

WARNING, CRITICAL, UNKNOWN = 1, 2, 3
"""Exit codes as monitoring systems take them."""

ALARMS: Final = {"critical", FUTURE}


class OverdueServerBackup(TableCommand):
    """List servers whose newest active backup is too old, or that have none at all.

    Every server that is recorded with any image counts, also if it was only ever started; servers
    that are gone do not. With --policy stored it is every server that carries a policy with an age.
    A newest backup that is dated more than 5 minutes in the future does not count as recent.
    """

    exit_codes = (
        "Exit codes, as monitoring plug-ins give them: 0 none is overdue, 1 some are, 2 some are "
        "by more than --critical, have no backup, or have a newest backup dated in the future, or "
        "wrong usage, 3 it could not be found out, or no server was there to be examined."
    )
    auth_required = False
    """Not before :meth:`run`: of what fails earlier the program makes a 1."""
    worst = 0

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        limit = parser.add_mutually_exclusive_group(required=True)
        limit.add_argument(
            "--older-than",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="how old the newest backup may be, such as 26h",
        )
        limit.add_argument(
            "--policy",
            choices=(nova_metadata.STORED,),
            help="stored: how old each server says in the compute service that it may be",
        )
        parser.add_argument(
            "--critical",
            metavar="<span>",
            type=validation.argument(validation.parse_span),
            help="from which age on it is critical (default: only without any backup)",
        )
        arguments.add_label(parser)
        parser.add_argument(
            "--installation",
            metavar="<installation-uuid>",
            type=validation.argument(validation.installation_uuid),
            help="servers of this compute installation (Nova) only",
        )
        arguments.add_scope(parser)

    def run(self, given: argparse.Namespace) -> int:
        self.worst = 0
        try:
            self._authenticate()
            super().run(given)
        except BrokenPipeError:
            raise
        except Exception as error:
            # above is only the program, which makes a 1 of it: some are overdue
            self.log.error("%s", error, exc_info=self.app.options.debug)
            return UNKNOWN
        return self.worst

    def _authenticate(self) -> None:
        """As the program does it before other commands."""
        self.auth_required = True
        self.app.prepare_to_run_command(self)

    def take_action(self, given: argparse.Namespace) -> Table:
        late = self._late(given)
        states = {row.state for row in late}
        found = CRITICAL if states & ALARMS else WARNING if states else 0
        # that something could not be found out is worse than a warning, and never hides an alarm
        self.worst = found if found == CRITICAL else max(found, self.worst)
        return table(
            (
                ("Server ID", lambda row: row.instance_id),
                ("Installation UUID", lambda row: row.installation_uuid),
                ("Project ID", lambda row: row.project_id),
                ("Newest Backup", lambda row: row.image_id),
                ("Created At", lambda row: shown_time(row.made_at)),
                ("Age", lambda row: row.age and validation.format_span(row.age)),
                ("State", lambda row: row.state),
            ),
            late,
        )

    def _late(self, given: argparse.Namespace) -> list[OverdueServer]:
        project = resolve.project_in_scope(self.app.client_manager, given)
        search = OverdueSearch(self.clients.inventory, given.label, project, given.installation)
        if given.policy is None:
            return self._by_ages(search, Ages(given.older_than, given.critical))
        if given.critical is not None:
            raise CommandError("--policy stored takes every age from the servers: leave --critical")
        return self._by_policy(search, Scope(None, project, given.all_projects))

    def _by_ages(self, search: OverdueSearch, ages: Ages) -> list[OverdueServer]:
        late = list(search.overdue(ages))
        if not late and all(instance.ended_at for instance in search.instances()):
            self._examined_nothing(f"no live server is recorded for {_where(search)}")
        return late

    def _by_policy(self, search: OverdueSearch, scope: Scope) -> list[OverdueServer]:
        known = nova_metadata.carried(self.app.client_manager, scope)
        for fault in faults(known):
            self.log.error("%s", fault)
            self.worst = UNKNOWN
        instances = list(search.instances())
        check_installation(instances, known)
        if not ages_of(known):
            self._examined_nothing(
                f"no server of {_where(search)} carries a policy with older_than"
            )
        elif search.installation_uuid is not None and not instances:
            self._examined_nothing(f"no server is recorded for {_where(search)}")
        told = {it.instance_id for it in instances}
        return list(search.overdue_by_policy(known, told))

    def _examined_nothing(self, why: str) -> None:
        """A check of nothing is no success."""
        self.log.error("nothing was examined: %s; check what the command was asked for", why)
        self.worst = UNKNOWN


def _where(search: OverdueSearch) -> str:
    """Where it looks, for an error."""
    named = f"project {search.project_id}" if search.project_id else "all projects"
    installation = search.installation_uuid
    return f"{named} in installation {installation}" if installation else named
