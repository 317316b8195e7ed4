"""Compare layouts of the relations: bytes, and the time of queries and of recording.

Run: python -m benchmarks.layouts [--relations N] [--databases NAME ...] [--layouts NAME ...]

Commits do not wait for the disk, which takes equally long in every layout.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from itertools import count
from tempfile import TemporaryDirectory
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Connection

from benchmarks import filling
from benchmarks.filling import BEGIN, INSTALLATION, PROJECTS, STEP, Cloud
from benchmarks.measuring import Spread, in_turns
from benchmarks.space import bytes_on_disk
from benchmarks.table_layouts import LAYOUTS, QUESTIONS, Layout
from tests import servers

ROUNDS: Final = 31
RECORDED: Final = 300
SECONDS: Final = 120.0
"""The longest time in seconds for measuring one query, or recording."""
POOL: Final = "4G"
"""MariaDB's buffer pool; with the default of 128 MiB, filling is limited by the disk."""

_SERVERS: Final[dict[str, Callable[[], AbstractContextManager[servers.DatabaseServer]]]] = {
    "mariadb": partial(servers.mariadb, options=[f"--innodb-buffer-pool-size={POOL}"]),
    "postgresql": servers.postgresql,
}
DATABASES: Final = ("sqlite", *_SERVERS)

Given = Mapping[str, Any]


class Side:
    """A layout in a filled database of its own."""

    def __init__(self, layout: Layout, url: str, cloud: Cloud) -> None:
        self._layout = layout
        layout.make(url)
        begun = time.monotonic()
        with filling.connected(url) as connection:
            layout.fill(connection, cloud)
        self.filled_in = time.monotonic() - begun
        self.bytes = bytes_on_disk(url) / cloud.relations
        self._open = ExitStack()
        self.connection = self._open.enter_context(filling.connected(url))
        if self.connection.dialect.name == "sqlite":
            self.connection.exec_driver_sql("PRAGMA foreign_keys=ON")
            self.connection.exec_driver_sql("PRAGMA synchronous=OFF")

    def close(self) -> None:
        self._open.close()

    def asking(self, question: str, given: Sequence[Given]) -> Callable[[], object]:
        """Return a function that runs the query with the next of the ``given`` values."""
        return partial(next, map(partial(self._layout.ask, self.connection, question), given))

    def recording(self, given: Sequence[Given]) -> Callable[[], object]:
        return partial(next, map(partial(self._layout.record, self.connection), given))

    def answers(self, given: Given) -> dict[str, list[tuple[Any, ...]]]:
        """Return the result of each query, in a form that is equal for all layouts."""
        asked = {
            question: self._layout.ask(self.connection, question, given) for question in QUESTIONS
        }
        return {
            question: sorted((_named(row) for row in rows), key=repr)
            for question, rows in asked.items()
        }


def _named(row: Sequence[Any]) -> tuple[Any, ...]:
    """Replace the primary key of an instance, if it is the whole row, with the server ID."""
    is_number = len(row) == 1 and isinstance(row[0], int)
    return (filling.instance_id(row[0]),) if is_number else tuple(row)


@contextmanager
def filled(kind: str, names: Sequence[str], cloud: Cloud) -> Iterator[dict[str, Side]]:
    """Yield the named layouts, each in a database of its own."""
    with _urls(kind) as new_url, ExitStack() as stack:
        sides = {}
        for name in names:
            print(f"filling {kind}: {name}", file=sys.stderr, flush=True)
            sides[name] = Side(LAYOUTS[name], new_url(), cloud)
            stack.callback(sides[name].close)
        yield sides


@contextmanager
def _urls(kind: str) -> Iterator[Callable[[], str]]:
    if kind in _SERVERS:
        with _SERVERS[kind]() as server:
            yield server.create
    else:
        with TemporaryDirectory() as directory:
            numbers = count()
            yield lambda: f"sqlite:///{directory}/{next(numbers)}.db"


def given(connection: Connection, cloud: Cloud, number: int) -> Given:
    """Return the values of the relation with this number, for inserts and queries."""
    installation = UUID(INSTALLATION)
    instance = number * STEP % cloud.instances + 1
    return {
        "number": number,
        "installation": installation if _has_uuids(connection) else installation.bytes,
        "instance": filling.instance_id(instance),
        "project": filling.project_id(instance % PROJECTS + 1),
        "image": filling.image_uuid(connection, number),
        "at": BEGIN + number * 1_000_000,
    }


def _has_uuids(connection: Connection) -> bool:
    return connection.dialect.name == "postgresql"


def differing(sides: Mapping[str, Side], asked_of: Given) -> list[str]:
    """Return the layouts whose results differ from those of the first."""
    answers = {name: side.answers(asked_of) for name, side in sides.items()}
    first = next(iter(answers.values()))
    return [name for name, answer in answers.items() if answer != first]


def _times(sides: Mapping[str, Side], cloud: Cloud) -> list[dict[str, Spread]]:
    """Return the time in seconds of each side for each query, and finally for recording."""
    connection = next(iter(sides.values())).connection
    known = [given(connection, cloud, n) for n in _scattered(cloud)]
    new = [given(connection, cloud, cloud.relations + n + 1) for n in range(RECORDED + 1)]
    if wrong := differing(sides, known[-1]):
        raise RuntimeError(f"not the same answers: {', '.join(wrong)}")
    asked = [
        in_turns({name: side.asking(one, known) for name, side in sides.items()}, ROUNDS, SECONDS)
        for one in QUESTIONS
    ]
    for side in sides.values():
        side.connection.rollback()
    record = {name: side.recording(new) for name, side in sides.items()}
    return [*asked, in_turns(record, RECORDED, SECONDS)]


def _scattered(cloud: Cloud) -> list[int]:
    """Return the numbers of evenly distributed relations."""
    return [1 + n * (cloud.relations - 1) // ROUNDS for n in range(ROUNDS + 1)]


def _rows(kind: str, names: Sequence[str], cloud: Cloud) -> Iterator[list[str]]:
    with filled(kind, names, cloud) as sides:
        times = _times(sides, cloud)
        for name, side in sides.items():
            spent = [f"{one[name].median * 1000:.2f}" for one in times]
            yield [name, kind, f"{side.bytes:.0f}", *spent, f"{side.filled_in:.0f}"]


def _print(cells: Sequence[str]) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--relations", type=int, default=1_000_000)
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--layouts", nargs="+", choices=LAYOUTS, default=list(LAYOUTS))
    chosen = parser.parse_args(arguments)
    columns = ["layout", "database", "bytes", *QUESTIONS, "recording", "filled in s"]
    _print(columns)
    _print(["---"] * len(columns))
    for kind in chosen.databases:
        for row in _rows(kind, chosen.layouts, Cloud(chosen.relations)):
            _print(row)


if __name__ == "__main__":
    main()
