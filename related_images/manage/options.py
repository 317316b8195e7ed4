"""Base classes and arguments of the commands. Imports are few, so that ``--help`` is fast."""

import argparse
from pathlib import Path
from typing import Final

from cliff.command import Command


class OperatorCommand(Command):
    """A command whose help ends with its exit codes."""

    exit_codes = "Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage."

    def get_epilog(self) -> str:
        # the method of cliff searches all installed packages at each start
        return self.exit_codes

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this command; none unless overridden."""


_DATABASE: Final = (
    "The first of these that sets the database is used: --connection or the filter section of "
    "--paste; the environment variable OS_RELATED_IMAGES__CONNECTION; [related_images] of "
    "configuration files. The default is sqlite:///related-images.db."
)


class DatabaseCommand(OperatorCommand):
    """A command on the database of the filter; a mixin for the command classes of cliff."""

    configuration = "configuration file with [related_images], such as glance-api.conf"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        group = parser.add_argument_group("database", _DATABASE)
        exclusive = group.add_mutually_exclusive_group()
        exclusive.add_argument(
            "--connection",
            metavar="URL",
            help="SQLAlchemy URL of the database, such as mysql+pymysql://user:password@host/database",
        )
        exclusive.add_argument(
            "--paste",
            metavar="FILE",
            type=Path,
            help="paste file of Glance: use the database of its filter. glance-api.conf is read "
            "too, from the same directory, or else from where Glance finds it",
        )
        group.add_argument(
            "--config-file",
            metavar="FILE",
            action="append",
            default=[],
            help=f"{self.configuration}; may be repeated, a later file takes precedence",
        )
        group.add_argument(
            "--config-dir",
            metavar="DIR",
            action="append",
            default=[],
            help="directory of *.conf files, which are read after those of --config-file",
        )
        return parser
