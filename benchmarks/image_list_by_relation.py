"""The image list by relation without an instance, compared with Glance's own lists."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from sqlalchemy import text

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, in_turns, ratio, scaled
from benchmarks.serving import ADMIN, Client, member, on
from benchmarks.sizes import Sizes
from related_images.db.column_types import KIND_CODES
from related_images.model import BACKUP, BOOT, SNAPSHOT

FEW: Final = 10
HALF: Final = "half of a project's images match"
AIMS: Final = {"few": Aim(1.15), HALF: Aim(3), "rare": Aim(10)}
LIMIT: Final = 100
PROPERTIES: Final = 2
OWNER: Final = filling.project_id(1)
RARE: Final = "rare"


def run(directory: Path, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    for kind, home, cloud in filling.clouds(directory, sizes):
        yield from _at(kind, home, cloud, sizes.rounds, databases)


def _at(
    kind: str, directory: Path, cloud: Cloud, rounds: int, databases: Databases
) -> Iterator[Result]:
    relations = databases.empty(kind)
    filling.fill(relations, cloud)
    chosen = _prepare_relations(relations, cloud)
    with on(kind, directory, databases, {"connection": relations}) as (served, url):
        filling.fill_glance(url, cloud, PROPERTIES)
        with filling.connected(url) as connection:
            connection.execute(text("UPDATE images SET owner = :owner"), {"owner": OWNER})
            filling.settle(connection)
        served.restart()  # at its start, it collects the statistics of SQLite
        yield from _compare(kind, Client(served), cloud, chosen, rounds)


def _prepare_relations(url: str, cloud: Cloud) -> list[int]:
    """Let all images belong to one project, half of them be backups, and few be boot images.

    :returns: the numbers of the boot images
    """
    chosen = [number * (cloud.relations // FEW) + 1 for number in range(FEW)]
    listed = ", ".join(map(str, chosen))
    kinds = {name: KIND_CODES[name] for name in (BACKUP, SNAPSHOT, BOOT)}
    changed = (
        "UPDATE related_relation SET project_ref = 1, "  # noqa: S608
        f"label = CASE WHEN id % 100 = 50 THEN '{RARE}' ELSE 'daily' END, "
        f"kind = CASE WHEN id IN ({listed}) THEN {kinds[BOOT]} "
        f"WHEN id % 2 = 0 THEN {kinds[BACKUP]} ELSE {kinds[SNAPSHOT]} END "
        "WHERE id > :after AND id <= :last"
    )
    with filling.connected(url) as connection:
        for after in range(0, cloud.relations, filling.BATCH):  # each within the timeout
            connection.execute(text(changed), {"after": after, "last": after + filling.BATCH})
        filling.settle(connection)
    return chosen


def _compare(
    kind: str, glance: Client, cloud: Cloud, chosen: list[int], rounds: int
) -> Iterator[Result]:
    size = f"{cloud.relations:,} images, {kind}"
    ids = ",".join(filling.image_id(number) for number in chosen)
    yield _measured(
        glance,
        f"image list by kind, {FEW} results, by an administrator",
        "?id=in: with the same IDs",
        size,
        {"ours": f"relation_kind={BOOT}", "theirs": f"id=in:{ids}"},
        ADMIN,
        10 * rounds,
        AIMS["few"],
    )
    middle = filling.image_id(cloud.relations // 2)
    for page, more in (("first", ""), ("middle", f"&marker={middle}")):
        yield _measured(
            glance,
            f"image list by kind, {HALF}, {page} page of {LIMIT}",
            "Glance's own page of the project",
            size,
            {
                "ours": f"relation_kind={BACKUP}&limit={LIMIT}{more}",
                "theirs": f"limit={LIMIT}{more}",
            },
            member(OWNER),
            rounds,
            AIMS[HALF],
        )
    yield _measured(
        glance,
        f"image list by label, 1 % match, sorted by name, page of {LIMIT}, by an administrator",
        "Glance's own page",
        size,
        {
            "ours": f"relation_label={RARE}&sort=name:asc&limit={LIMIT}",
            "theirs": f"sort=name:asc&limit={LIMIT}",
        },
        ADMIN,
        rounds,
        AIMS["rare"],
    )


def _measured(
    glance: Client,
    what: str,
    against: str,
    size: str,
    queries: Mapping[str, str],
    token: str,
    rounds: int,
    aim: Aim,
) -> Result:
    found = {side: glance.images(query, token) for side, query in queries.items()}
    if not all(found.values()):
        raise RuntimeError(f"{what}: a list is empty")
    sides = {side: lambda q=query: glance.images(q, token) for side, query in queries.items()}
    spent = in_turns(sides, rounds, 30)
    ours, theirs = spent["ours"], spent["theirs"]
    value = ratio(ours, theirs)
    return Result(
        *(what, against, size, "ms", scaled(ours, 1000), scaled(theirs, 1000), value), aim=aim
    )
