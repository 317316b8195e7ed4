"""Dependents: random graphs compared with a naive implementation, pages, and their limits."""

import os
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select

from related_images.db import dependent_summary, relations, resource_types, shelving
from related_images.db import dependents as subject
from related_images.db.database import Database
from related_images.db.dependents import PagePosition, Wanted
from related_images.db.tables import (
    descent,
    image,
    installation,
    instance,
    lease,
    origin,
    project,
    relation,
    relation_end,
)
from related_images.errors import MarkerUnknown
from related_images.model import BOOT, SHELVED, SOURCE_TYPES, USE, Dependent, InstanceRef
from tests import filters
from tests.db.samples import NOVA, at, empty
from tests.db.test_leases import expire, hold
from tests.db.test_origins import come, relate, volume

NUMBERS = {"server": 5, "volume": 5, "volume-snapshot": 2, "volume-backup": 1}
REFS = [InstanceRef(NOVA, str(n), type) for type, count in NUMBERS.items() for n in range(count)]
IMAGES = [f"00000000-0000-4000-8000-{number:012}" for number in range(6)]
PROJECTS = ("p-0", "p-1")
SPANS = (1, 2, 3, 5, 100)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a summary take as long as it needs."""
    monkeypatch.setattr(dependent_summary, "LONGEST", 600.0)


def pages(
    database: Database, wanted: Wanted, limit: int, most: int = 2000
) -> Iterator[subject.Dependents]:
    after: PagePosition | None = None
    for _ in range(most):
        page = subject.dependents(database, wanted, limit, after)
        assert len(page.items) <= limit
        yield page
        after = page.next
        if after is None:
            return
    raise AssertionError("no page is the last one")


def found(database: Database, wanted: Wanted, limit: int = 100) -> list[Dependent]:
    return [one for page in pages(database, wanted, limit) for one in page.items]


def ids(items: Collection[Dependent]) -> list[tuple[str, tuple[str, ...]]]:
    return [(one.instance_id, tuple(via.instance_id for via in one.via)) for one in items]


@dataclass(frozen=True)
class Start:
    """A resource directly below an image."""

    ref: int
    kind: str
    is_live: bool
    expires_at: datetime | None
    project: str | None


class Stored:
    """The rows of the database, read without the code that the tests are for."""

    def __init__(self, connection: Connection, now: datetime) -> None:
        def rows(query: Any) -> Sequence[Any]:
            return connection.execute(query).all()

        projects = {None: None, **{row.id: row.project_id for row in rows(select(project))}}
        homes = {row.id: (NOVA, row.resource_type) for row in rows(select(installation))}
        images = {row.id: row for row in rows(select(image))}
        self.images = {row.uuid: row.id for row in images.values()}
        self.uuids = {row.id: row.uuid for row in images.values()}
        self.resources = {
            row.id: InstanceRef(homes[row.installation_ref][0], row.instance_id, home[1])
            for row in rows(select(instance))
            for home in [homes[row.installation_ref]]
        }
        instances = {row.id: row for row in rows(select(instance))}
        self.ended = {ref: row.ended_at for ref, row in instances.items()}
        self.owners = {ref: projects[row.project_ref] for ref, row in instances.items()}
        self.links: dict[int, tuple[int, int, str | None]] = {}
        for row in rows(select(descent).order_by(descent.c.relation_ref)):
            link = (row.relation_ref, row.parent_ref, projects[row.project_ref])
            self.links.setdefault(row.image_ref, link)
        ends = {row.relation_ref for row in rows(select(relation_end))}
        leases = {row.relation_ref: row.expires_at for row in rows(select(lease))}
        self.starts: dict[int, list[Start]] = {}
        for row in rows(select(relation).order_by(relation.c.instance_ref, relation.c.kind)):
            if row.kind not in (BOOT, SHELVED, USE):
                continue
            is_live = instances[row.instance_ref].ended_at is None
            if row.kind == SHELVED:
                is_live &= row.id not in ends and images[row.image_ref].deleted_at is None
            expires_at = leases.get(row.id)
            if row.kind == USE:
                is_live &= expires_at is not None and expires_at > now
            start = Start(
                row.instance_ref, row.kind, is_live, expires_at, projects[row.project_ref]
            )
            self.starts.setdefault(row.image_ref, []).append(start)
        edges = {
            (r.source_ref, r.instance_ref, projects[r.project_ref]) for r in rows(select(origin))
        }
        self.edges = sorted(edge for edge in edges if edge[0] is not None)

    def dependents(self, wanted: Wanted) -> Iterator[Dependent]:
        for depth, ref in self._tree(wanted, self.images.get(wanted.image_id), 1):
            made: dict[int, Start] = {}
            for start in self.starts.get(ref, []):
                if wanted.visible_to in (None, start.project):
                    made.setdefault(start.ref, start)
            booted = {one.ref for one in made.values() if one.kind == BOOT}
            for start in made.values():
                for way in self._below(wanted, (start.ref,), booted):
                    yield from self._shown(wanted, ref, depth, start, way)

    def _tree(self, wanted: Wanted, ref: int | None, depth: int) -> Iterator[tuple[int, int]]:
        if ref is None or depth > wanted.depth:
            return
        yield depth, ref
        children = sorted(
            (link[0], child)
            for child, link in self.links.items()
            if link[1] == ref
            and wanted.visible_to in (None, link[2])
            and self.uuids[child] != wanted.image_id
        )
        for _, child in children:
            yield from self._tree(wanted, child, depth + 1)

    def _below(
        self, wanted: Wanted, way: tuple[int, ...], booted: Collection[int]
    ) -> Iterator[tuple[int, ...]]:
        yield way
        for source, ref, owner in self.edges:
            is_seen = wanted.visible_to in (None, owner)
            if source == way[-1] and is_seen and ref not in way and ref not in booted:
                yield from self._below(wanted, (*way, ref), booted)

    def _shown(
        self, wanted: Wanted, image_ref: int, depth: int, start: Start, way: tuple[int, ...]
    ) -> Iterator[Dependent]:
        ref, is_first = way[-1], len(way) == 1
        is_live = start.is_live if is_first else self.ended[ref] is None
        owner = self.owners[ref] if wanted.visible_to in (None, self.owners[ref]) else None
        one = Dependent(
            NOVA,
            self.resources[ref].instance_id,
            self.uuids[image_ref],
            start.kind,
            depth,
            tuple(self.resources[each] for each in way[:-1]),
            owner,
            self.ended[ref],
            start.expires_at if is_first else None,
            self.resources[ref].resource_type,
        )
        is_kept = start.kind != SHELVED or is_live
        types, owners = (None, one.resource_type), (None, one.project_id)
        is_wanted = wanted.resource_type in types and wanted.project_id in owners
        if is_kept and is_wanted and is_live == wanted.is_live:
            yield one


def owner(ref: InstanceRef) -> str:
    return PROJECTS[int(ref.instance_id) % 2]


def grow(database: Database, chance: random.Random) -> None:
    """Record a random graph: any that the types of the resources allow, with cycles."""
    events: list[Callable[[int], None]] = []

    def boot(ref: InstanceRef, base: str) -> Callable[[int], None]:
        more = {"project_id": owner(ref), "instance_project_id": owner(ref)}
        return lambda minutes: relate(database, ref, base, BOOT, created_at=at(minutes), **more)

    def make(ref: InstanceRef, made: str, kind: str) -> Callable[[int], None]:
        seen_by = owner(ref) if chance.random() < 0.8 else chance.choice(PROJECTS)
        more = {"project_id": seen_by}
        return lambda minutes: relate(database, ref, made, kind, created_at=at(minutes), **more)

    def originate(ref: InstanceRef) -> Callable[[int], None]:
        types = SOURCE_TYPES[ref.resource_type]
        sources = [one for one in REFS if one.resource_type in types and one != ref]
        source = chance.choice(sources)
        return lambda minutes: void(come(database, ref, source, minutes, owner(ref)))

    computers = [ref for ref in REFS if ref.resource_type in ("server", "volume")]
    for _ in range(chance.randint(0, 9)):
        events.append(boot(chance.choice(computers), chance.choice(IMAGES)))
    for made in IMAGES[1:]:
        if chance.random() < 0.7:
            events.append(make(chance.choice(computers), made, "snapshot"))
        if chance.random() < 0.2:
            servers = [ref for ref in REFS if ref.resource_type == "server"]
            events.append(make(chance.choice(servers), made, SHELVED))
    events += [originate(chance.choice(REFS)) for _ in range(chance.randint(0, 9))]
    chance.shuffle(events)
    for minutes, do in enumerate(events):
        do(minutes)
    stacks = chance.randint(0, 2)
    for number in range(stacks):
        hold(
            database, f"stack-{number}", chance.choice(IMAGES), instance_project_id=PROJECTS[number]
        )
    if stacks and chance.random() < 0.4:
        expire(database, "stack-0")
    for ref in chance.sample(REFS, chance.randint(0, 6)):
        database.write(relations.end_instance, ref, at(500))
    for ref in chance.sample(REFS[:5], 2):
        database.write(shelving.end, ref, at(400))
    for gone in chance.sample(IMAGES, chance.randint(0, 2)):
        database.write(relations.mark_deleted, gone, at(600))


def counted(
    live: Sequence[Dependent], ended: Sequence[Dependent]
) -> dict[str | None, dict[str, dict[str, int]]]:
    """Return the numbers by project and type, each resource once."""
    numbers: dict[str | None, dict[str, dict[str, int]]] = {}
    using = {one.instance for one in live}
    direct = {one.instance for one in live if one.depth == 1}
    for ref, project_id in {(one.instance, one.project_id) for one in (*live, *ended)}:
        of_project = numbers.setdefault(project_id, {})
        of_type = of_project.setdefault(
            ref.resource_type, dict.fromkeys(("live", "ended", "direct", "indirect"), 0)
        )
        of_type["live" if ref in using else "ended"] += 1
        if ref in using:
            of_type["direct" if ref in direct else "indirect"] += 1
    return numbers


def void(_: object) -> None:
    """Drop a result."""


def check(database: Database, chance: random.Random) -> None:
    """Compare the dependents in a random graph with what its rows say."""
    database.write(empty)
    resource_types.register(database, "stack")
    grow(database, chance)
    now = datetime.now(UTC)
    stored = database.read(Stored, now)
    for project_id in (None, *PROJECTS):
        for root in chance.sample(IMAGES, 3):
            more: dict[str, Any] = {"is_live": chance.random() < 0.7, "visible_to": project_id}
            if chance.random() < 0.3:
                more["depth"] = chance.randint(1, 3)
            if chance.random() < 0.2:
                more["resource_type"] = chance.choice(["server", "volume", "stack"])
            if chance.random() < 0.2:
                more["project_id"] = chance.choice(PROJECTS)
            wanted = Wanted(root, **more)
            expected = [*stored.dependents(wanted)]
            assert found(database, wanted, chance.choice(SPANS)) == expected, wanted
            live, ended = (
                [*stored.dependents(Wanted(root, is_live=is_live, visible_to=project_id))]
                for is_live in (True, False)
            )
            summary = dependent_summary.summary(database, root, project_id)
            numbers = {
                owner: {type: counts.as_json() for type, counts in of_owner.items()}
                for owner, of_owner in summary.by_project.items()
            }
            assert (numbers, summary.is_lower_bound) == (counted(live, ended), False)


def examples(number: int) -> settings:
    number = int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", number))
    return settings(
        max_examples=number,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@examples(10)
@given(chance=st.randoms(use_true_random=True))
def test_dependents_in_random_graphs(database: Database, chance: random.Random) -> None:
    check(database, chance)


@pytest.mark.slow
@examples(200)
@given(chance=st.randoms(use_true_random=True))
def test_dependents_in_many_random_graphs(alone: Database, chance: random.Random) -> None:
    check(alone, chance)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Database]:
    """A database of SQLite."""
    opened = Database(filters.migrated(tmp_path), 60)  # long, so that a busy machine fails no test
    yield opened
    opened.close()


def test_a_summary_that_ends_early_is_a_lower_bound(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(3):
        relate(database, InstanceRef(NOVA, f"vm-{number}"), IMAGES[0], BOOT)
    whole = dependent_summary.summary(database, IMAGES[0], None)
    assert (whole.by_type["server"].live, whole.is_lower_bound) == (3, False)
    monkeypatch.setattr(dependent_summary, "ROWS", 2)
    assert dependent_summary.summary(database, IMAGES[0], None) == whole
    monkeypatch.setattr(dependent_summary, "MOST", 2)
    cut = dependent_summary.summary(database, IMAGES[0], None)
    assert (cut.by_type["server"].live, cut.is_lower_bound) == (2, True)
    monkeypatch.setattr(dependent_summary, "LONGEST", -1.0)
    assert dependent_summary.summary(database, IMAGES[0], None).is_lower_bound


def test_a_page_has_at_most_two_round_trips(database: Database) -> None:
    for number in range(6):
        base, made, server = IMAGES[0], IMAGES[1 + number % 5], InstanceRef(NOVA, f"vm-{number}")
        relate(database, server, base, BOOT, created_at=at(number))
        relate(database, server, made, "snapshot", created_at=at(10 + number))
        relate(database, InstanceRef(NOVA, f"v-{number}", "volume"), made, BOOT)
        come(database, InstanceRef(NOVA, f"w-{number}", "volume"), volume(f"v-{number}"), 1)
    for limit in (1, 2, 5, 100):
        statements: list[str] = []
        ended: list[str] = []
        with sent(statements):
            for page in pages(database, Wanted(IMAGES[0]), limit):
                ended += [one.instance_id for one in page.items]
                assert len(statements) <= 2
                statements.clear()
        assert sorted(ended) == sorted(f"{kind}-{n}" for kind in ("vm", "v", "w") for n in range(6))


@contextmanager
def sent(statements: list[str]) -> Iterator[None]:
    """Append each statement that is sent meanwhile."""

    def note(*given: Any) -> None:
        statements.append(given[2])

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield
    finally:
        event.remove(Engine, "before_cursor_execute", note)


FORGED = [
    PagePosition(IMAGES[1], 0, inside=(volume("v-0"),)),
    PagePosition(IMAGES[1], 1, inside=()),
    PagePosition(IMAGES[0], 0, inside=(volume("none"),)),
    PagePosition(IMAGES[0], 0, after=volume("none")),
    PagePosition(IMAGES[5], 1, inside=None),
]


@pytest.mark.parametrize("place", FORGED)
def test_a_forged_place_is_refused(database: Database, place: PagePosition) -> None:
    relate(database, volume("v-0"), IMAGES[0], BOOT)
    with pytest.raises(MarkerUnknown, match="request the first page"):
        subject.dependents(database, Wanted(IMAGES[0]), 10, place)


def test_a_place_of_another_project_is_refused(database: Database) -> None:
    relate(database, volume("v-0"), IMAGES[0], BOOT, project_id="p-2", instance_project_id="p-2")
    relate(database, volume("v-0"), IMAGES[1], "snapshot", project_id="p-2", created_at=at(9))
    relate(database, volume("v-1"), IMAGES[0], BOOT, project_id="p-1", instance_project_id="p-1")
    for place in (
        PagePosition(IMAGES[0], 0, after=volume("v-0")),
        PagePosition(IMAGES[0], 0, inside=(volume("v-0"),)),
        PagePosition(IMAGES[1], 1),
        PagePosition(IMAGES[1], 1, inside=None),
    ):
        assert subject.dependents(database, Wanted(IMAGES[0]), 10, place)
        with pytest.raises(MarkerUnknown):
            subject.dependents(database, Wanted(IMAGES[0], visible_to="p-1"), 10, place)
