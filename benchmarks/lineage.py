"""Time a page of lineage in each database: a chain of 1,000, trees of 100,000 descendants.

Run: python -m benchmarks.lineage
"""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, insert

from related_images.db import lineage_walk, schema
from related_images.db.database import Database
from related_images.db.lineage_walk import TreePosition
from related_images.db.tables import (
    descent,
    image,
    installation,
    instance,
    project,
    relation,
)
from tests import servers

GENERATIONS = 1_000
DESCENDANTS = 100_000
LIMIT = 100
ROUNDS = 15
NOW = datetime(2026, 11, 21, tzinfo=UTC)
Parent = Callable[[int], int]


def uuid(number: int) -> str:
    return str(UUID(int=number + 1))


def begin(connection: Connection) -> None:
    """Insert the installation and the project to which the rows of :func:`fill` refer."""
    _add(connection, installation, iter([{"id": 1, "uuid": uuid(10**9)}]))
    _add(connection, project, iter([{"id": 1, "project_id": "p"}]))


def fill(connection: Connection, first: int, size: int, parent: Parent) -> None:
    """Insert the root ``first`` and ``size`` descendants; ``parent`` gives the parent of each.

    Each parent has one instance, from which all children are made.
    """
    numbers = range(first, first + size + 1)
    _add(connection, image, ({"id": n + 1, "uuid": uuid(n)} for n in numbers))
    ran = sorted({first + parent(n) for n in range(1, size + 1)})
    named = ({"id": n + 1, "installation_ref": 1, "instance_id": f"vm-{n}"} for n in ran)
    _add(connection, instance, named)
    ids = iter(range(2 * first + 1, 2 * (first + size) + 10))
    _add(connection, relation, (_row(next(ids), n, n, "boot") for n in ran))
    made = [(next(ids), first + n, first + parent(n)) for n in range(1, size + 1)]
    _add(connection, relation, (_row(id, n, above, "snapshot") for id, n, above in made))
    known = (
        {
            "relation_ref": id,
            "image_ref": n + 1,
            "parent_ref": above + 1,
            "project_ref": 1,
            "kind": "snapshot",
        }
        for id, n, above in made
    )
    _add(connection, descent, known)


def settle(connection: Connection) -> None:
    """Commit, and collect statistics as servers do automatically."""
    if connection.dialect.name != "sqlite":
        tables = "related_descent, related_relation, related_image, related_instance"
        word = "ANALYZE TABLE" if connection.dialect.name == "mysql" else "ANALYZE"
        connection.exec_driver_sql(f"{word} {tables}")
    connection.commit()


def _row(id: int, image: int, instance: int, kind: str) -> dict[str, Any]:
    return {
        "id": id,
        "image_ref": image + 1,
        "instance_ref": instance + 1,
        "kind": kind,
        "source": "service",
        "project_ref": 1,
        "created_at": NOW,
    }


def _add(connection: Connection, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == 5000:
            connection.execute(insert(table), batch)
            batch = []
    if batch:
        connection.execute(insert(table), batch)


def timed(database: Database, task: Callable[..., Any], *given: Any, **more: Any) -> str:
    spent = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        rows = database.read(task, *given, **more)
        spent.append(time.perf_counter() - start)
    return f"{statistics.median(spent) * 1000:7.1f} ms ({len(rows)} rows)"


def measure(name: str, url: str) -> None:
    schema.upgrade(url)
    tree, star = GENERATIONS + 1, GENERATIONS + DESCENDANTS + 2
    with schema.connected(url) as connection:
        begin(connection)
        fill(connection, 0, GENERATIONS, lambda n: n - 1)
        fill(connection, tree, DESCENDANTS, lambda n: (n - 1) // 10)
        fill(connection, star, DESCENDANTS, lambda n: 0)
        settle(connection)
    database = Database(url, 120.0)
    for project_id in (None, "p"):
        print(f"{name}, seen by {project_id or 'all'}", flush=True)
        for number in (GENERATIONS, GENERATIONS // 2, LIMIT):
            spent = timed(database, lineage_walk.ancestry, uuid(number), LIMIT + 1, project_id)
            print(f"  chain upwards from generation {number:5}: {spent}", flush=True)
        for what, root, depth in (
            ("chain", 0, lambda n: n),
            ("tree", tree, _depth),
            ("star", star, lambda n: 1),
        ):
            size = GENERATIONS if what == "chain" else DESCENDANTS
            for number in (0, size // 2, size - LIMIT // 2):
                after = TreePosition(uuid(root + number), depth(number)) if number else None
                spent = timed(
                    database,
                    lineage_walk.descendants,
                    uuid(root),
                    LIMIT + 1,
                    after=after,
                    visible_to=project_id,
                )
                print(f"  {what} downwards behind image {number:6}: {spent}", flush=True)
    database.close()


def _depth(number: int) -> int:
    return 0 if number == 0 else 1 + _depth((number - 1) // 10)


def main() -> None:
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        measure("SQLite", f"sqlite:///{directory}/lineage.db")
        measure("MariaDB", stack.enter_context(servers.mariadb()).create())
        measure("PostgreSQL", stack.enter_context(servers.postgresql()).create())


if __name__ == "__main__":
    main()
