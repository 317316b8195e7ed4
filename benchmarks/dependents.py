"""Time a page of dependents in each database, and compare it with a page of descendants.

Beside the time on the clock, which depends on what else the machine does, it prints the ratio of
the processor times: those of this process, and of the database server if there is one.

There are three images: one with 1,000,000 descendants, ten from each image, and a live server for
each image with descendants; one with a chain of 1,000 descendants; and one with 100,000 servers and
no descendants, whose pages are compared with the first page of the descendants of the first image.

Run: python -m benchmarks.dependents [DESCENDANTS]
"""

import glob
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from sqlalchemy import Connection, text

from benchmarks import filling
from benchmarks.measuring import in_turns
from related_images.db import dependent_summary, dependents, lineage, schema
from related_images.db.database import Database
from related_images.db.dependents import PagePosition
from related_images.db.lineage import TreePosition
from related_images.model import InstanceRef
from tests import servers

DESCENDANTS: Final = 1_000_000
GENERATIONS: Final = 1_000
SERVERS: Final = 100_000
LIMIT: Final = 100
ROUNDS: Final = 21
BOOTS: Final = 10_000_000
"""The keys of the relations with servers that were started from an image begin here."""
BATCH: Final = 100_000

_IMAGES: Final = "INSERT INTO related_image (id, uuid) SELECT i, {uuid} FROM {numbers}"
_MADE: Final = (
    "INSERT INTO related_relation (id, instance_ref, image_ref, kind, source, project_ref, "
    "created_at, claimed) SELECT i, {parent}, i, 1, 1, 1, 0, 0 FROM {numbers}"
)
_LINKS: Final = (
    "INSERT INTO related_descent (relation_ref, image_ref, parent_ref, project_ref, kind) "
    "SELECT i, i, {parent}, 1, 1 FROM {numbers}"
)
_SERVERS: Final = (
    "INSERT INTO related_instance (id, installation_ref, instance_id, project_ref) "
    "SELECT i, 1, {name}, 1 FROM {numbers}"
)
_STARTED: Final = (
    "INSERT INTO related_relation (id, instance_ref, image_ref, kind, source, project_ref, "  # noqa: S608
    f"created_at, claimed) SELECT {BOOTS} + i, i, {{image}}, 3, 1, 1, 0, 0 FROM {{numbers}}"
)


class Filled:
    """The images in a database: the numbers of the roots, and of the first server of the star."""

    def __init__(self, connection: Connection, descendants: int) -> None:
        self._connection = connection
        self._dialect = filling.DIALECTS[connection.dialect.name]
        self.descendants = descendants
        self.chain = descendants + 2
        self.star = self.chain + GENERATIONS + 1
        self.first_server = self.star + 1

    def fill(self) -> None:
        filling.begin(self._connection)
        hex = filling.INSTALLATION.replace("-", "")
        installation = self._dialect.uuid.format(hex=hex)
        for statement in (
            f"INSERT INTO related_installation (id, uuid) VALUES (1, {installation})",  # noqa: S608
            "INSERT INTO related_project (id, project_id) VALUES (1, 'p')",
        ):
            self._connection.execute(text(statement))
        tree, chain = self.descendants, self.chain
        below = "CAST((i - i % 10) / 10 AS {}) + CASE WHEN i % 10 < 2 THEN 0 ELSE 1 END"
        number = {"mysql": "SIGNED"}.get(self._connection.dialect.name, "INTEGER")
        parent = f"({below.format(number)})"
        self._run(_IMAGES, 1, self.star)
        self._run(_SERVERS, 1, self.first_server + SERVERS)
        for first, last, of in ((2, tree + 1, parent), (chain + 1, self.star - 1, "i - 1")):
            self._run(_MADE, first, last, parent=of)
            self._run(_LINKS, first, last, parent=of)
        self._run(_STARTED, 1, tree // 10, image="i")
        self._run(_STARTED, chain, self.star - 2, image="i")
        self._run(_STARTED, self.first_server, self.first_server + SERVERS - 1, image=self.star)
        filling.settle(self._connection)

    def _run(self, statement: str, first: int, last: int, **more: object) -> None:
        for start in range(first, last + 1, BATCH):
            numbers = self._dialect.numbers.format(first=start, last=min(start + BATCH - 1, last))
            name = self._dialect.instance_id.format(i="i")
            values = {"uuid": self._dialect.image_uuid, "numbers": numbers, "name": name, **more}
            self._connection.execute(text(statement.format(**values)))

    def depth(self, number: int) -> int:
        """Return the generation of an image of the tree."""
        depth = 0
        while number > 1:
            number, depth = number // 10 + (number % 10 > 1), depth + 1
        return depth


def measure(name: str, url: str, descendants: int) -> None:
    schema.upgrade(url)
    with filling.connected(url) as connection:
        filled = Filled(connection, descendants)
        filled.fill()
    database = Database(url, 120.0)
    tree, chain, star = 1, filled.chain, filled.star
    places = [
        (f"{descendants} descendants", tree, number, filled.depth(number))
        for number in (0, descendants // 2, descendants + 1 - LIMIT)
    ]
    places += [("chain", chain, number, number) for number in (0, GENERATIONS // 2, 990)]
    for what, root, number, depth in places:
        image = number if root == tree else root + number
        key = filling.image_id(image)
        compare(database, f"{name}, {what}", root, number and PagePosition(key, depth, inside=None))
    for number in (0, SERVERS // 2, SERVERS - LIMIT):
        server = filling.instance_id(filled.first_server + number)
        last = InstanceRef(filling.INSTALLATION, server)
        place = PagePosition(filling.image_id(star), 0, after=last)
        compare(database, f"{name}, {SERVERS} servers", star, number and place, beside=tree)
    database.close()


def compare(
    database: Database,
    what: str,
    root: int,
    after: PagePosition | int,
    *,
    beside: int | None = None,
) -> None:
    """Print the times of the pages after a place, and of the summary.

    :param beside: the image whose first page of descendants is compared, if ``root`` has none
    """
    image, place = filling.image_id(root), after or None
    assert not isinstance(place, int)
    is_image = place is not None and place.depth > 0
    position = TreePosition(place.key, place.depth) if place and is_image else None
    wanted = dependents.Wanted(image)
    tree = lineage.Wanted(filling.image_id(beside or root))
    found = len(dependents.dependents(database, wanted, LIMIT, place).items)
    below = len(lineage.descendants(database, tree, LIMIT, position).branches)

    def descendants() -> None:
        branches = lineage.descendants(database, tree, LIMIT, position).branches
        lineage.via(database, [step.link for step in branches])  # a page has these too

    sides = {
        "dependents": lambda: dependents.dependents(database, wanted, LIMIT, place),
        "descendants": descendants,
    }
    where = "first page" if place is None else f"after {place.after or place.key}"
    print(f"{what}, {where}: {found} dependents, {below} descendants", flush=True)
    on_clock = _medians(sides, time.perf_counter)
    here, there = _medians(sides, time.process_time), _medians(sides, _seconds_of_servers)
    spent = {side: here[side] + there[side] for side in sides}
    for name, times in (("on the clock", on_clock), ("of the processors", spent)):
        ours, theirs = times["dependents"], times["descendants"]
        print(f"  ms {name}: {ours:.1f} : {theirs:.1f} = {ours / theirs:.2f}", flush=True)
    if place is None:
        taken = in_turns({"it": lambda: dependent_summary.summary(database, image, None)}, 3)["it"]
        counted = dependent_summary.summary(database, image, None)
        print(
            f"  summary {taken.median * 1000:.0f} ms (least {taken.minimum * 1000:.0f}), "
            f"{counted.by_type}, lower bound: {counted.is_lower_bound}",
            flush=True,
        )


def _medians(
    sides: Mapping[str, Callable[[], object]], clock: Callable[[], float]
) -> dict[str, float]:
    taken = in_turns(sides, ROUNDS, clock=clock)
    return {side: spread.median * 1000 for side, spread in taken.items()}


def _seconds_of_servers() -> float:
    """Return the processor time of the database servers, which this process started."""
    return sum(_seconds_below(f"/proc/{os.getpid()}"))


def _seconds_below(process: str) -> Iterator[float]:
    for path in glob.glob(f"{process}/task/*/children"):
        for child in Path(path).read_text().split():
            for thread in glob.glob(f"/proc/{child}/task/*/schedstat"):
                with suppress(OSError):  # it has ended
                    yield int(Path(thread).read_text().split()[0]) / 1e9
            yield from _seconds_below(f"/proc/{child}")


def main() -> None:
    descendants = int(sys.argv[1]) if len(sys.argv) > 1 else DESCENDANTS
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        measure("SQLite", f"sqlite:///{directory}/dependents.db", descendants)
        for name, start in (("MariaDB", servers.mariadb), ("PostgreSQL", servers.postgresql)):
            measure(name, stack.enter_context(start()).create(), descendants)


if __name__ == "__main__":
    main()
