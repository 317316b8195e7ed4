"""What several commands take and say. Nothing heavy is imported here, so that help is quick."""

import argparse
from pathlib import Path

from cliff.command import Command

from related_images import validation
from related_images.config import DEFAULT_CONNECTION


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


class OnDatabase(Operation):
    """A command that works on a database, to be mixed into one of cliff's."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        group = parser.add_argument_group("which database").add_mutually_exclusive_group()
        group.add_argument(
            "--connection",
            metavar="URL",
            help="SQLAlchemy URL, such as mysql+pymysql://user:password@host/database "
            f"(default: {DEFAULT_CONNECTION})",
        )
        group.add_argument(
            "--paste",
            metavar="FILE",
            type=Path,
            help="the paste file of the registry: the database of the filter in it is taken",
        )
        return parser


def short_text(text: str) -> str:
    """An argument of a few printable characters."""
    if not validation.is_text(text):
        raise argparse.ArgumentTypeError(f"{validation.TEXT} are needed")
    return text
