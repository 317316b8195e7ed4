"""What several commands take and say. Nothing heavy is imported here, so that help is quick."""

import argparse
from pathlib import Path
from typing import Final

from cliff.command import Command

from related_images import validation


class Operation(Command):
    """A command whose help ends with its exit codes."""

    exit_codes = "Exit codes: 0 done, 1 failed (one line on stderr says why), 2 wrong usage."

    def get_epilog(self) -> str:
        # cliff's own looks through everything that is installed, at each start
        return self.exit_codes

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what this command alone takes; nothing unless overridden."""


_DATABASE: Final = (
    "--connection or the section in --paste wins over the variable OS_RELATED_IMAGES__CONNECTION, "
    "which wins over [related_images] of configuration files. If nothing names a database, it is "
    "sqlite:///related-images.db."
)


class OnDatabase(Operation):
    """A command that works on a database, to be mixed into one of cliff's."""

    configuration = "a configuration file with [related_images], such as glance-api.conf"

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        group = parser.add_argument_group("which database", _DATABASE)
        named = group.add_mutually_exclusive_group()
        named.add_argument(
            "--connection",
            metavar="URL",
            help="SQLAlchemy URL, such as mysql+pymysql://user:password@host/database",
        )
        named.add_argument(
            "--paste",
            metavar="FILE",
            type=Path,
            help="the paste file of Glance: the database of the filter in it, with glance-api.conf "
            "beside it or where Glance finds it",
        )
        group.add_argument(
            "--config-file",
            metavar="FILE",
            action="append",
            default=[],
            help=f"{self.configuration}; may be repeated, a later file wins",
        )
        group.add_argument(
            "--config-dir",
            metavar="DIR",
            action="append",
            default=[],
            help="a directory: its *.conf files are read after those of --config-file",
        )
        return parser


def short_text(text: str) -> str:
    """An argument of a few printable characters."""
    if not validation.is_text(text):
        raise argparse.ArgumentTypeError(f"{validation.TEXT} are needed")
    return text
