"""The images of one instance: by the tuple, by the property, and by their ids typed in."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from benchmarks import filling
from benchmarks.filling import Cloud
from benchmarks.measuring import Aim, Result, Spread, in_turns, ratio, scaled
from benchmarks.serving import Registry, member, of_instance
from benchmarks.sizes import Sizes
from tests.servers import ServedGlance

AIMS: Final = {100_000: Aim(40, at_least=True), 1_000_000: Aim(300, at_least=True)}
FLOOR: Final = Aim(1.10)
PROPERTIES: Final = 2
"""Of each image; a snapshot by Nova has more, which makes the property query slower."""

ASKED: Final = 7
"""The number of the instance whose images are asked for."""


def run(directory: Path, sizes: Sizes) -> Iterator[Result]:
    for images in sizes.images:
        yield from _at(directory / f"list-{images}", Cloud(images), sizes.rounds)


def _at(directory: Path, cloud: Cloud, rounds: int) -> Iterator[Result]:
    directory.mkdir()
    filling.fill(f"sqlite:///{directory}/related-images.db", cloud)
    with ServedGlance(directory) as served:
        database = directory / "glance.db"
        filling.fill_glance(database, 1, cloud.relations, cloud, PROPERTIES)
        yield from _compare(Registry(served), cloud, rounds)


def _compare(registry: Registry, cloud: Cloud, rounds: int) -> Iterator[Result]:
    sides = _sides(registry)
    answers = {name: side() for name, side in sides.items()}
    different = {name for name, found in answers.items() if found != answers["tuple"]}
    if different or len(answers["tuple"]) != cloud.per_instance:
        raise RuntimeError(f"these answers differ: {answers}")
    quick = in_turns({name: sides[name] for name in ("tuple", "ids")}, 10 * rounds, 20)
    all_ = in_turns(sides, rounds, 60)
    size = f"{cloud.relations:,} images"
    for name, against in (("admin", "?instance_uuid= by admin"), ("tenant", "the same by tenant")):
        aim = AIMS.get(cloud.relations) if name == "admin" else None
        yield _result(against, size, all_["tuple"], all_[name], aim, (name, cloud.relations))
    yield _result("?id=in: the floor", size, quick["tuple"], quick["ids"], FLOOR, None)


def _sides(registry: Registry) -> dict[str, Callable[[], set[str]]]:
    headers, named = of_instance(ASKED), f"instance_uuid={filling.instance_id(ASKED)}"
    tenant = member(filling.project_id(ASKED % filling.PROJECTS + 1))
    ids = ",".join(sorted(registry.images("", headers=headers)))
    return {
        "tuple": lambda: registry.images("", headers=headers),
        "admin": lambda: registry.images(named),
        "tenant": lambda: registry.images(named, tenant),
        "ids": lambda: registry.images(f"id=in:{ids}"),
    }


def _result(
    against: str,
    size: str,
    ours: Spread,
    theirs: Spread,
    aim: Aim | None,
    curve: tuple[str, int] | None,
) -> Result:
    faster = aim is FLOOR
    value = ratio(ours, theirs) if faster else ratio(theirs, ours)
    unit = "x" if faster else "x faster"
    return Result(
        "image list of an instance, 10 results",
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
