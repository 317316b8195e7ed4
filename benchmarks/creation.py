"""Create images with and without instance headers, by one client and by several."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final
from uuid import uuid4

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.measuring import Aim, Result, in_turns, ratio, scaled
from benchmarks.serving import SERVICE, Client, on
from benchmarks.sizes import Sizes
from tests.servers import ServedGlance

AIMS: Final = {"sqlite": Aim(1.05), "mariadb": Aim(1.08), "postgresql": Aim(1.08)}
THROUGHPUT: Final = Aim(0.93, at_least=True)
CLIENTS: Final = (1, 2, 4, 8)
EACH: Final = 3
"""Images per client and round; few, so that the machine's load changes little within a round."""
INSTANCES: Final = 50
PATIENCE: Final = "60"
"""Seconds; on a busy disk, clients wait for SQLite longer than the default timeout."""


def run(directory: Path, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    for kind in sizes.databases:
        options = {"database_timeout": PATIENCE, "connection": databases.empty(kind)}
        with on(kind, directory / f"create-{kind}", databases, options) as (served, _):
            yield _one_client(served, kind, sizes.posts)
            for clients in CLIENTS:
                yield _throughput(served, kind, clients, sizes.posts)


def _with_headers() -> dict[str, str]:
    number = uuid4().int % INSTANCES
    return {
        "X-Auth-Token": SERVICE,
        "X-Installation-UUID": filling.INSTALLATION,
        "X-Instance-ID": filling.instance_id(number),
        "X-Relation-Kind": "backup",
    }


def _without_headers() -> dict[str, str]:
    return {"X-Auth-Token": SERVICE}


def _one_client(served: ServedGlance, kind: str, posts: int) -> Result:
    client = Client(served)
    taken = in_turns(
        {
            "with": lambda: client.create(_with_headers()),
            "without": lambda: client.create(_without_headers()),
        },
        4 * posts,
        25,
    )
    value = ratio(taken["with"], taken["without"])
    return Result(
        "create with the instance headers",
        "create without the headers",
        f"one client, {kind}",
        "ms",
        scaled(taken["with"], 1000),
        scaled(taken["without"], 1000),
        value,
        aim=AIMS[kind],
    )


def _throughput(served: ServedGlance, kind: str, clients: int, posts: int) -> Result:
    connections = [Client(served) for _ in range(clients)]

    def create(client: Client, headers: Callable[[], dict[str, str]]) -> None:
        for _ in range(EACH):
            client.create(headers())

    with ThreadPoolExecutor(clients) as threads:

        def all_create(headers: Callable[[], dict[str, str]]) -> None:
            list(threads.map(create, connections, [headers] * clients))

        sides = {
            "with": lambda: all_create(_with_headers),
            "without": lambda: all_create(_without_headers),
        }
        taken = in_turns(sides, posts, 20)
    per_post = 1000 / (EACH * clients)
    return Result(
        f"throughput of creates with the instance headers, {clients} at once",
        "creates without the headers",
        kind,
        "ms per create",
        scaled(taken["with"], per_post),
        scaled(taken["without"], per_post),
        ratio(taken["without"], taken["with"]),
        aim=THROUGHPUT,
        curve=(f"concurrent creates ({kind})", clients),
    )
