"""The image list of one instance: by instance headers, by property, and by image IDs."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks import filling
from benchmarks.databases import Databases
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, Spread, in_turns, ratio, scaled
from benchmarks.serving import Client, member, of_instance, on
from benchmarks.sizes import Sizes

AIMS: Final = {100_000: Aim(40, at_least=True), 1_000_000: Aim(300, at_least=True)}
BY_ID: Final = {"sqlite": Aim(1.05), "mariadb": Aim(1.08), "postgresql": Aim(1.08)}
PROPERTIES: Final = 2
"""Properties of each image; a snapshot by Nova has more, with which queries are slower."""

ASKED: Final = 7
"""The number of the instance whose images are listed."""


def run(directory: Path, sizes: Sizes, databases: Databases) -> Iterator[Result]:
    for kind, home, cloud in filling.clouds(directory, sizes):
        yield from _at(kind, home, cloud, sizes.rounds, databases)


def _at(
    kind: str, directory: Path, cloud: Cloud, rounds: int, databases: Databases
) -> Iterator[Result]:
    options = {"connection": databases.filled(kind, cloud)}
    with on(kind, directory, databases, options) as (served, url):
        filling.fill_glance(url, cloud, PROPERTIES)
        served.restart()  # at its start, it collects the statistics of SQLite
        yield from _compare(kind, Client(served), cloud, rounds)


def _compare(kind: str, glance: Client, cloud: Cloud, rounds: int) -> Iterator[Result]:
    sides = _sides(glance)
    answers = {name: side() for name, side in sides.items()}
    different = {name for name, found in answers.items() if found != answers["headers"]}
    if different or len(answers["headers"]) != cloud.per_instance:
        raise RuntimeError(f"these answers differ: {answers}")
    quick = in_turns({name: sides[name] for name in ("headers", "ids")}, 10 * rounds, 20)
    all_ = in_turns(sides, rounds, 60)
    size = f"{cloud.relations:,} images, {kind}"
    for name, against in (
        ("admin", "?instance_uuid= by an administrator"),
        ("member", "the same by a project member"),
    ):
        aim = AIMS.get(cloud.relations) if name == "admin" else None
        yield _result(
            against, size, all_["headers"], all_[name], aim, (f"{name}, {kind}", cloud.relations)
        )
    yield _result(
        "?id=in: with the same IDs", size, quick["headers"], quick["ids"], BY_ID[kind], None
    )


def _sides(glance: Client) -> dict[str, Callable[[], set[str]]]:
    headers, named = of_instance(ASKED), f"instance_uuid={filling.instance_id(ASKED)}"
    token = member(filling.project_id(ASKED % filling.PROJECTS + 1))
    ids = ",".join(sorted(glance.images("", headers=headers)))
    return {
        "headers": lambda: glance.images("", headers=headers),
        "admin": lambda: glance.images(named),
        "member": lambda: glance.images(named, token),
        "ids": lambda: glance.images(f"id=in:{ids}"),
    }


def _result(
    against: str,
    size: str,
    ours: Spread,
    theirs: Spread,
    aim: Aim | None,
    curve: tuple[str, int] | None,
) -> Result:
    is_by_id = aim in BY_ID.values()
    value = ratio(ours, theirs) if is_by_id else ratio(theirs, ours)
    unit = "x" if is_by_id else "x faster"
    return Result(
        "image list of a server, 10 results",
        against,
        size,
        "ms",
        scaled(ours, 1000),
        scaled(theirs, 1000),
        value,
        unit,
        aim,
        curve=curve,
    )
