"""The base class of the commands with the exit codes of monitoring plug-ins."""

import argparse
from collections.abc import Set
from typing import Final

from related_images.client.backups.overdue import FUTURE
from related_images.osc.base_commands import GlanceCommand

WARNING, CRITICAL, UNKNOWN = 1, 2, 3
"""Exit codes of monitoring plug-ins."""

CRITICAL_STATES: Final = {"critical", FUTURE}


class MonitoringCommand(GlanceCommand):
    """A command with the exit codes of monitoring plug-ins."""

    auth_required = False
    """:meth:`run` authenticates: if an earlier authentication fails, the exit code is 1."""
    exit_code = 0

    def run(self, args: argparse.Namespace) -> int:
        self.exit_code = 0
        try:
            self._authenticate()
            super().run(args)
        except BrokenPipeError:
            raise
        except Exception as error:
            # the caller would exit with 1, which means that servers are overdue
            self.log.error("%s", error, exc_info=self.app.options.debug)
            return UNKNOWN
        return self.exit_code

    def report(self, states: Set[str]) -> None:
        """Set the exit code for the states of overdue servers.

        An error is worse than a warning, but must not hide a critical server.
        """
        code = CRITICAL if states & CRITICAL_STATES else WARNING if states else 0
        self.exit_code = code if code == CRITICAL else max(code, self.exit_code)

    def _authenticate(self) -> None:
        """Authenticate as python-openstackclient does before other commands."""
        self.auth_required = True
        self.app.prepare_to_run_command(self)
