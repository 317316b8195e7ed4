"""What the commands have in common."""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any, Final

from cliff.columns import FormattableColumn
from osc_lib.command import command
from osc_lib.exceptions import CommandError

from related_images.errors import RelatedImagesError
from related_images.osc import arguments
from related_images.osc.names import Names
from related_images.osc.plugin import Clients

Column = tuple[str, Callable[[Any], Any]]
Table = tuple[tuple[str, ...], Iterable[tuple[Any, ...]]]


class RelatedCommand(command.Command):
    """A command that asks Glance; it takes the arguments that :meth:`add_arguments` adds."""

    exit_codes = "Exit codes: 0 done, 1 failed (stderr says why), 2 wrong usage."

    def get_epilog(self) -> str:
        return self.exit_codes + super().get_epilog()

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        self.add_arguments(parser)
        return parser

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add what this command takes."""

    @property
    def clients(self) -> Clients:
        manager: Any = self.app.client_manager
        clients: Clients = manager.related_images
        return clients


class Unset(FormattableColumn[None]):
    """A value that is not there: ``word`` for people, null for programs; sorted behind all others.

    :param word: what stands in its place in a table, and with ``-f value``
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


class _Word(Unset):
    """The same for ``-f value``, for which cliff asks columns as for programs."""

    def machine_readable(self) -> Any:
        return self.word


NOTHING: Final = Unset("-")
"""There is no such value. Nova's and Cinder's own clients show it so."""

UNKNOWN: Final = Unset("unknown")
"""There is a value, which this account is not told."""


class TableCommand(RelatedCommand, command.Lister):
    """A command that shows a table, with one word for what is not set, which is null in JSON."""

    def produce_output(self, given: argparse.Namespace, names: Any, rows: Any) -> int:
        show = _SHOWN.get(given.formatter, _null)
        shown = (tuple(show(value) for value in row) for row in rows)
        return int(super().produce_output(given, names, shown))


def _cell(value: Any) -> Any:
    return NOTHING if value is None else value


def _word(value: Any) -> Any:
    cell = _cell(value)
    return _Word(cell.word) if isinstance(cell, Unset) else cell


def _null(value: Any) -> Any:
    return None if isinstance(value, Unset) else value


_SHOWN: Final[dict[str, Callable[[Any], Any]]] = {"table": _cell, "value": _word}
"""How a value is shown in the formats that people read."""


class RelatedLister(TableCommand):
    """Lists what :meth:`found` gives, in ``columns``, and in ``more`` too if they are asked for."""

    columns: tuple[Column, ...]
    more: tuple[Column, ...]
    limit: int | None = None
    """How many are listed unless ``--limit`` says so."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        parser = super().get_parser(prog_name)
        parser.add_argument("--long", action="store_true", help="list more columns")
        parser.add_argument(
            "--limit",
            metavar="<number>",
            type=arguments.positive,
            default=self.limit,
            help=f"list at most so many (default: {self.limit or 'all'})",
        )
        return parser

    def take_action(self, given: argparse.Namespace) -> Table:
        rows = self.shown(itertools.islice(self.found(given), given.limit))
        return table(self.columns + self.more if given.long else self.columns, rows)

    def found(self, given: argparse.Namespace) -> Iterator[Any]:
        """What is to be listed, page by page as it is read."""
        raise NotImplementedError

    def shown(self, rows: Iterator[Any]) -> Iterator[Any]:
        """What the columns are taken from, for ``rows`` of what is found."""
        return rows


class NamedLister(RelatedLister):
    """Lists rows about images with the names of the images and of their servers.

    Its columns are those of :class:`~related_images.osc.names.Named`.
    """

    def shown(self, rows: Iterator[Any]) -> Iterator[Any]:
        return Names(self.app.client_manager, self.log).beside(rows)


class Counting(RelatedCommand):
    """A command that carries on after a failure, and fails in the end if there were any."""

    failures = 0

    def run(self, given: argparse.Namespace) -> int:
        self.failures = 0
        return int(super().run(given) or self.failures > 0)


class OnSeveral(Counting):
    """A command on several objects: a failure is told and counted, and the others are done."""

    exit_codes = (
        "Carries on after a failure. Exit codes: 0 all done, 1 some or all failed (stderr names "
        "each and counts them), 2 wrong usage."
    )

    def each(self, names: list[str], deed: Callable[[str], Any]) -> list[Any]:
        """What ``deed`` gave for those it succeeded with."""
        done = []
        for name in names:
            try:
                done.append(deed(name))
            except (RelatedImagesError, CommandError) as error:
                self.failures += 1
                self.log.error("%s: %s", name, error)
        if self.failures:
            self.log.error("%d of %d failed", self.failures, len(names))
        return done


def table(columns: tuple[Column, ...], items: Iterable[Any]) -> Table:
    """The names of ``columns``, and for each of ``items`` what stands in them."""
    names = tuple(name for name, _ in columns)
    return names, (tuple(value(item) for _, value in columns) for item in items)


def tell(text: str) -> None:
    """Write what is for who sits at a terminal, and for nobody else."""
    if sys.stderr.isatty():
        sys.stderr.write(text)
        sys.stderr.flush()


def shown_time(time: datetime | None) -> str | None:
    """Return a time as Glance shows its own."""
    return None if time is None else f"{time:%Y-%m-%dT%H:%M:%SZ}"
