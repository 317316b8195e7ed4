"""Origins: the stored graph, what follows from it, and what is kept."""

import itertools
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from related_images.db import (
    deletions,
    listing,
    origins,
    relations,
)
from related_images.db.database import Database
from related_images.db.tables import descent, image, project
from related_images.errors import ImageInUse
from related_images.model import (
    SOURCE_TYPES,
    InstanceRef,
    NewOrigin,
    Origin,
    Reporter,
    Usage,
)
from tests.db.samples import NOVA, at, empty, image_id, new, record

REPORTER = Reporter(frozenset({"cinder"}))
LATER = at(1000)


def volume(name: str) -> InstanceRef:
    return InstanceRef(NOVA, name, "volume")


def origin(
    ref: InstanceRef, source: InstanceRef | None, minutes: float = 0, project_id: str | None = "p-1"
) -> NewOrigin:
    return NewOrigin(ref, source, at(minutes), project_id, "service")


def come(database: Database, ref: InstanceRef, source: InstanceRef | None, *more: Any) -> Origin:
    return origins.record(database, origin(ref, source, *more), REPORTER)[0]


def relate(database: Database, ref: InstanceRef, image: str, kind: str, **more: Any) -> None:
    record(database, new(ref.instance_id, image, kind, resource_type=ref.resource_type, **more))


def links(connection: Connection) -> dict[str, tuple[str, str | None]]:
    """Return the parent of each image, and the project that sees the link."""
    parent = image.alias()
    query = (
        select(image.c.uuid, parent.c.uuid, project.c.project_id)
        .select_from(descent.join(image, image.c.id == descent.c.image_ref))
        .join(parent, parent.c.id == descent.c.parent_ref)
        .outerjoin(project, project.c.id == descent.c.project_ref)
    )
    return {row[0]: (row[1], row[2]) for row in connection.execute(query)}


@dataclass(frozen=True)
class Report:
    """A boot, an image made, an origin or an end of a resource."""

    what: str
    ref: InstanceRef
    minutes: int
    image: str = ""
    source: InstanceRef | None = None


@dataclass
class Graph:
    """What the reports say, and what follows from it, computed without a database."""

    reports: Sequence[Report]
    boots: dict[InstanceRef, list[tuple[int, str]]] = field(default_factory=dict)
    origins: dict[InstanceRef, list[tuple[int, InstanceRef | None]]] = field(default_factory=dict)
    ends: dict[InstanceRef, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for one in self.reports:
            if one.what == "boot":
                self.boots.setdefault(one.ref, []).append((one.minutes, one.image))
            elif one.what == "origin":
                self.origins.setdefault(one.ref, []).append((one.minutes, one.source))
            elif one.what == "end":
                self.ends[one.ref] = one.minutes

    def owner(self, ref: InstanceRef) -> str | None:
        """Return the reported owner; made images do not report one."""
        return owner(ref) if ref in self.boots or ref in self.origins else None

    def users(self, image: str) -> set[InstanceRef]:
        found = {ref for ref, boots in self.boots.items() if image in dict(boots).values()}
        while more := {
            ref
            for ref, sources in self.origins.items()
            if ref not in found and any(source in found for _, source in sources)
        }:
            found |= more
        return found

    def usage(self, image: str, project_id: str | None) -> Usage:
        users = self.users(image)
        seen = {ref for ref in users if project_id in (None, self.owner(ref))}
        live = seen - self.ends.keys()
        ended = [self.ends[ref] for ref in seen - live]
        last = at(max(ended)) if ended and not live else None
        return Usage(image, len(seen), len(live), last)

    def others(self, image: str, project_id: str) -> bool:
        live = self.users(image) - self.ends.keys()
        return any(self.owner(ref) != project_id for ref in live)

    def parent(self, one: Report) -> tuple[str, str | None] | None:
        ref, minutes, passed = one.ref, one.minutes, [one.ref]
        owners: set[str | None] = {owner(one.ref)}
        while True:
            owners.add(self.owner(ref))
            if ref in self.boots:
                (project,) = owners if len(owners) == 1 else (None,)
                return in_force(self.boots[ref], minutes)[1], project
            if ref not in self.origins:
                return None
            since, source = in_force(self.origins[ref], minutes)
            if source is None or source in passed:
                return None
            if ref.resource_type != "server":
                minutes = since
            ref = source
            passed.append(ref)


def in_force(events: list[tuple[int, Any]], minutes: int) -> tuple[int, Any]:
    before = [event for event in events if event[0] <= minutes]
    return max(before, key=first) if before else min(events, key=first)


def first(event: tuple[int, Any]) -> int:
    return event[0]


def owner(ref: InstanceRef) -> str:
    return f"p-{int(ref.instance_id) % 2}"


NUMBERS = {"server": 2, "volume": 4, "volume-snapshot": 2, "volume-backup": 1}
REFS = [InstanceRef(NOVA, str(n), type) for type, count in NUMBERS.items() for n in range(count)]
IMAGES = [f"00000000-0000-4000-8000-{number:012}" for number in range(4)]


def any_origin(chance: random.Random, ref: InstanceRef, minutes: int) -> Report:
    types = SOURCE_TYPES[ref.resource_type]
    sources = [one for one in REFS if one.resource_type in types and one != ref]
    source = None if chance.random() < 0.1 else chance.choice(sources)
    return Report("origin", ref, minutes, source=source)


def any_reports(chance: random.Random) -> list[Report]:
    """Return reports at different times: any graph that the types allow, with cycles."""
    found = [any_origin(chance, chance.choice(REFS), at) for at in range(chance.randint(0, 9))]
    images = [image_id() for _ in range(chance.randint(0, 3))]
    count = itertools.count(len(found))
    images += IMAGES[: chance.randint(0, 4)]
    found += [Report("made", chance.choice(REFS), next(count), id) for id in images]
    pairs = itertools.product([one for one in REFS if one.resource_type != "server"], IMAGES)
    booted = chance.sample([*pairs], chance.randint(0, 3))
    found += [Report("boot", ref, next(count), id) for ref, id in booted]
    if chance.random() < 0.3:
        found.append(Report("boot", REFS[0], next(count), chance.choice(IMAGES)))
    found += [Report("end", ref, next(count)) for ref in chance.sample(REFS, chance.randint(0, 6))]
    times = chance.sample(range(len(found)), len(found))
    return [replace(one, minutes=minutes) for one, minutes in zip(found, times, strict=True)]


def store(database: Database, one: Report) -> bool:
    if one.what == "end":
        return database.write(relations.end_instance, one.ref, at(one.minutes))
    if one.what == "origin":
        come(database, one.ref, one.source, one.minutes, owner(one.ref))
        return True
    more: dict[str, Any] = {"created_at": at(one.minutes), "project_id": owner(one.ref)}
    kind = "boot" if one.what == "boot" else "snapshot"
    relate(database, one.ref, one.image, kind, **more)
    return True


def is_protected(database: Database, image: str) -> bool:
    try:
        begun = deletions.begin(database, image, None, forced=False)
    except ImageInUse:
        return True
    deletions.withdraw(database, begun)
    return False


@settings(
    max_examples=int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "60")),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(chance=st.randoms(use_true_random=True))
def test_use_guard_and_parents_follow_the_origins_in_any_order_of_reports(
    database: Database, chance: random.Random
) -> None:
    database.write(empty)
    found = any_reports(chance)
    told = chance.sample(found, len(found)) + chance.sample(found, len(found) // 3)
    # the end of a resource that is not recorded is refused, so it is reported again
    late = [one for one in told if not store(database, one)]
    unknown = {one for one in late if not store(database, one)}
    graph = Graph([one for one in found if one not in unknown])
    for project_id in (None, "p-0", "p-1"):
        assert listing.usages(database, IMAGES, project_id) == [
            graph.usage(image, project_id) for image in IMAGES
        ]
    for project_id in ("p-0", "p-1"):
        others = database.read(listing._used_by_others, dict.fromkeys(IMAGES, project_id))
        assert others == {image: True for image in IMAGES if graph.others(image, project_id)}
    assert {image: is_protected(database, image) for image in IMAGES} == {
        image: graph.usage(image, None).live_instances > 0 for image in IMAGES
    }
    parents = {one.image: graph.parent(one) for one in found if one.what == "made"}
    assert database.read(links) == {image: link for image, link in parents.items() if link}
