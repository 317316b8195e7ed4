"""Base classes of the commands."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from cliff.columns import FormattableColumn
from osc_lib.command import command
from osc_lib.exceptions import CommandError

from related_images import validation
from related_images.errors import RelatedImagesError
from related_images.osc.names import Names
from related_images.osc.plugin import Clients
from related_images.osc.progress import progress_bar

Column = tuple[str, Callable[[Any], Any]]
"""The heading of a column, and a function that takes an item and returns the value."""

Table = tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]
"""Headings and rows, as cliff expects them."""


DELAY: Final = 1.0
"""The seconds after which a command shows its progress."""

STREAMED: Final = ("csv", "value")
"""The output formats whose rows are written one by one; others are written at the end."""


class GlanceCommand(command.Command):
    """A command that sends requests to Glance. Its help ends with its exit codes."""

    exit_codes = "Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage."

    def get_epilog(self) -> str:
        return self.exit_codes + super().get_epilog()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the arguments of this command; none unless overridden."""

    @property
    def clients(self) -> Clients:
        """The clients of Glance for the cloud and account of the command line."""
        manager: Any = self.app.client_manager
        clients: Clients = manager.related_images
        return clients

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Show the number of responses of Glance on stderr, if it is a terminal, after a second."""
        glance = self.clients.relations.glance
        with progress_bar(
            desc="Reading", unit=" responses", delay=DELAY, disable=None, leave=False
        ) as bar:
            before, glance.on_answer = glance.on_answer, bar.update
            try:
                yield
            finally:
                glance.on_answer = before


class Unset(FormattableColumn[None]):
    """A missing value: a word in tables, null in JSON. It is sorted after all other values.

    :param word: shown in a table, and with ``-f value``
    """

    def __init__(self, word: str) -> None:
        super().__init__(None)
        self.word = word

    def human_readable(self) -> str:
        return self.word

    def __lt__(self, other: object) -> bool:
        return False

    def __gt__(self, other: object) -> bool:
        return not isinstance(other, Unset)


class _UnsetText(Unset):
    """A missing value for ``-f value``, for which cliff calls ``machine_readable``."""

    def machine_readable(self) -> Any:
        return self.word


NO_VALUE: Final = Unset("-")
"""There is no value. The clients of Nova and Cinder show it the same way."""

UNKNOWN: Final = Unset("unknown")
"""There is a value, but this account is not permitted to see it."""


class TableCommand(GlanceCommand, command.Lister):
    """A command that shows a table. A missing value is one word in it, and null in JSON."""

    def produce_output(self, args: argparse.Namespace, names: Any, rows: Any) -> int:
        convert = _CONVERTERS.get(args.formatter, _null)
        converted = (tuple(convert(value) for value in row) for row in rows)
        return int(super().produce_output(args, names, converted))


def _cell(value: Any) -> Any:
    return NO_VALUE if value is None else value


def _text(value: Any) -> Any:
    cell = _cell(value)
    return _UnsetText(cell.word) if isinstance(cell, Unset) else cell


def _null(value: Any) -> Any:
    return None if isinstance(value, Unset) else value


_CONVERTERS: Final[dict[str, Callable[[Any], Any]]] = {"table": _cell, "value": _text}
"""Convert values for the output formats that people read."""


class ListCommand(TableCommand):
    """List the items of :meth:`find` in ``columns``, with ``--long`` also in ``long_columns``."""

    columns: tuple[Column, ...]
    long_columns: tuple[Column, ...]
    limit: int | None = None
    """The default of ``--limit``."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="List additional columns")
        parser.add_argument(
            "--limit",
            metavar="<number>",
            type=validation.argument(validation.number, "--limit"),
            default=self.limit,
            help=f"Maximum number of rows to list (default: {self.limit or 'all'})",
        )
        return parser

    def take_action(self, args: argparse.Namespace) -> Table:
        items = self.prepare(itertools.islice(self.find(args), args.limit))
        return table(self.shown_columns(args), items)

    def produce_output(self, args: argparse.Namespace, names: Any, rows: Any) -> int:
        """Write the rows. Show the progress until all are read; for csv or value, the first."""
        remaining = iter(rows)
        is_streamed = args.formatter in STREAMED and not args.sort_columns
        with self.reading():
            read = list(itertools.islice(remaining, 1 if is_streamed else None))
        return super().produce_output(args, names, itertools.chain(read, remaining))

    def shown_columns(self, args: argparse.Namespace) -> tuple[Column, ...]:
        """Return the columns to list with these arguments."""
        return self.columns + self.long_columns if args.long else self.columns

    def find(self, args: argparse.Namespace) -> Iterator[Any]:
        """Yield the items to list. Pages are read when their first item is needed."""
        raise NotImplementedError

    def prepare(self, items: Iterator[Any]) -> Iterator[Any]:
        """Yield the objects for the columns; the items themselves unless overridden."""
        return items


class ListWithNames(ListCommand):
    """List items about images with the names of the images and of their servers.

    Its columns take a :class:`~related_images.client.names.Named`.
    """

    def prepare(self, items: Iterator[Any]) -> Iterator[Any]:
        return Names(self.app.client_manager, self.log).add_to(items)


class PartialFailureCommand(GlanceCommand):
    """A command that continues after a failure, and then has the exit code 1."""

    failures = 0

    def run(self, args: argparse.Namespace) -> int:
        self.failures = 0
        return int(super().run(args) or self.failures > 0)


class MultiObjectCommand(PartialFailureCommand):
    """A command on several objects. It logs and counts failures, and processes all objects."""

    exit_codes = (
        "The command continues after a failure. Exit codes: 0 all done, 1 at least one failed "
        "(stderr lists and counts the failures), 2 wrong usage."
    )

    def for_each(self, names: list[str], action: Callable[[str], Any]) -> list[Any]:
        """Call ``action`` with each name, and return the results of the calls that succeed."""
        results = []
        for name in names:
            try:
                results.append(action(name))
            except (RelatedImagesError, CommandError) as error:
                self.failures += 1
                self.log.error("%s: %s", name, error)
        if self.failures:
            self.log.error("%d of %d failed", self.failures, len(names))
        return results


def table(columns: tuple[Column, ...], items: Iterable[Any]) -> Table:
    """Return the headings of ``columns``, and one row for each of ``items``."""
    names = tuple(name for name, _ in columns)
    return names, (tuple(value(item) for _, value in columns) for item in items)


def write_to_terminal(text: str) -> None:
    """Write to stderr if it is a terminal."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()
