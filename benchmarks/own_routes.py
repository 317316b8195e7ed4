"""The filter's own routes for one instance and for overdue instances, by size of the cloud."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from sqlalchemy import text

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, in_turns, ratio, scaled
from benchmarks.sizes import Sizes
from related_images.db import schema
from related_images.db.column_types import EPOCH, MICROSECOND
from related_images.validation import format_time
from tests import filters

FLAT: Final = Aim(1.3)
PAGE: Final = Aim(2.0)
LIMIT: Final = 100
ASKED: Final = 7
INSTANCE: Final = f"{filling.INSTALLATION}/{filling.instance_id(ASKED)}"
ROUTES: Final = {
    "GET /v2/relations of a server": (
        "/v2/relations",
        f"installation_uuid={filling.INSTALLATION}&instance_id={filling.instance_id(ASKED)}",
    ),
    "GET /v2/instances/… of a server": (f"/v2/instances/{INSTANCE}", ""),
    "GET /v2/relations, the newest 100": ("/v2/relations", ""),
}
STALE: Final = (0.001, 0.1)
"""The shares of instances without a recent backup."""


def run(directory: Path, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    for kind in sizes.databases:
        yield from _flatness(kind, sizes, databases)
        yield from _overdue(kind, sizes, databases)


class Asked:
    """The filter in this process, with the generated relations at ``url``."""

    def __init__(self, url: str) -> None:
        options = {"database_timeout": "30"}
        self._app = filters.filtering(filters.StubGlance(), url, **options)

    def __call__(self, path: str, query: str = "") -> Any:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "SCRIPT_NAME": "",
            "HTTP_X_IDENTITY_STATUS": "Confirmed",
            "HTTP_X_ROLES": "admin",
        }
        status: list[str] = []
        body = b"".join(self._app(environ, lambda line, *_: status.append(line)))
        if not status[0].startswith("200"):
            raise RuntimeError(f"{path}?{query} was answered with {status[0]}: {body!r}")
        return json.loads(body)


def _flatness(kind: str, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    numbers = sizes.relations
    asked = {count: Asked(databases.filled(kind, Cloud(count))) for count in numbers}
    for what, (path, query) in ROUTES.items():
        sides = {str(count): partial(ask, path, query) for count, ask in asked.items()}
        taken = in_turns(sides, 10 * sizes.rounds, 15)
        first = numbers[0]
        for count in numbers[1:]:
            yield Result(
                what,
                f"the same at {first:,} relations",
                f"{count:,} relations, {kind}",
                "ms",
                scaled(taken[str(count)], 1000),
                scaled(taken[str(first)], 1000),
                ratio(taken[str(count)], taken[str(first)]),
                aim=FLAT,
                curve=(f"{what} ({kind})", count),
            )


def _overdue(kind: str, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    cloud = Cloud(sizes.overdue, per_instance=1)
    url = databases.filled(kind, cloud)
    ask = Asked(url)
    for share in STALE:
        since = _since(url, int(share * cloud.instances))
        query = {"kind": "backup", "latest_before": since}
        for where, after in _places(ask, query, int(share * cloud.instances)).items():
            which = f"{where} page, {share:.1%} overdue"
            yield _page(ask, query, after, which, cloud, kind, sizes)


def _page(
    ask: Asked,
    query: dict[str, str],
    marker: dict[str, str],
    where: str,
    cloud: Cloud,
    kind: str,
    sizes: Sizes,
) -> Result:
    overdue = urlencode({"limit": LIMIT, **query, **marker})
    rows = len(ask("/v2/instances", overdue)["instances"])
    plain = ask("/v2/instances", f"limit={rows}")["next"].partition("?")[2]
    taken = in_turns(
        {
            "overdue": partial(ask, "/v2/instances", overdue),
            "plain": partial(ask, "/v2/instances", plain),
        },
        3 * sizes.rounds,
        5,
    )
    return Result(
        f"GET /v2/instances?kind=backup&latest_before=…, {where}",
        "a page of the same size without filters",
        f"{cloud.instances:,} servers, {kind}",
        "ms",
        scaled(taken["overdue"], 1000),
        scaled(taken["plain"], 1000),
        ratio(taken["overdue"], taken["plain"]),
        aim=PAGE,
    )


def _since(url: str, stale: int) -> str:
    """Return the time since which all but ``stale`` of the instances with backups have one."""
    asked = (
        "SELECT latest_backup_at FROM related_instance WHERE latest_backup_at > 0 "
        "ORDER BY latest_backup_at LIMIT 1 OFFSET :stale"
    )
    with schema.connected(url) as connection:
        found: int = connection.execute(text(asked), {"stale": stale}).scalar_one()
    return str(format_time(EPOCH + found * MICROSECOND))


def _places(ask: Asked, query: dict[str, str], stale: int) -> dict[str, dict[str, str]]:
    """Return the parameters of the first page, a middle one and the last one."""
    pages: list[dict[str, str]] = [{}]
    step = {"limit": str(1000), **query}
    for _ in range(max(1, stale // 1000)):
        answer = ask("/v2/instances", urlencode(step | pages[-1]))
        if "next" not in answer:
            break
        pages.append({"marker": answer["next"].rpartition("marker=")[2]})
    return {"first": pages[0], "middle": pages[len(pages) // 2], "last": pages[-1]}
