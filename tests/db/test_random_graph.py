"""Random graphs of images and resources: what follows from them, in any order of the reports.

The answers of the database are compared with those of :class:`Graph`, which computes them from the
list of reports without a database.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select, update

from related_images.config import GUARD_COUNTS
from related_images.db import (
    delete_protection,
    instances,
    lineage,
    listing,
    notifications,
    origins,
    recording,
    relations,
    resource_types,
    usages,
)
from related_images.db.database import Database
from related_images.db.tables import LATEST, image, installation, instance, lease, relation
from related_images.errors import ImageInUse
from related_images.model import (
    BOOT,
    MADE_FROM,
    SERVER,
    SOURCE_TYPES,
    UNUSED,
    USE,
    USED,
    Filters,
    InstanceRef,
    Leases,
    NewOrigin,
    NewRelation,
    Reporter,
    Usage,
)
from tests.db.samples import NOVA, at, empty
from tests.db.test_origins import links

NUMBERS: Final = {"server": 2, "volume": 3, "volume-snapshot": 1, "volume-backup": 1, "stack": 2}
REFS: Final = [
    InstanceRef(NOVA, f"{type}-{n}", type) for type, count in NUMBERS.items() for n in range(count)
]
IMAGES: Final = [f"00000000-0000-4000-8000-{number:012}" for number in range(7)]
PROJECTS: Final = ("p-0", "p-1")
ANYBODY: Final = Reporter(frozenset())
TODAY: Final = datetime.now(UTC)
LONG_AGO: Final = at(-1000)
"""When the expired leases ended."""


@dataclass(frozen=True)
class Report:
    """A report, at the time ``minutes``.

    :ivar what: a kind of relation, ``origin``, ``created``, ``transferred``, ``running``, ``ended``
        or ``deleted``, which is the deletion of an image
    :ivar notified: whether a notification reports it, instead of a service
    :ivar project: the project that owns the resource, if the report names it
    """

    what: str
    minutes: int
    ref: InstanceRef = REFS[0]
    image: str = ""
    source: InstanceRef | None = None
    notified: bool = False
    project: str | None = None

    @property
    def needs_image(self) -> bool:
        """Whether the service can only send it while the image exists."""
        return bool(self.image) and self.what != "deleted" and not self.notified


def owner_of(ref: InstanceRef) -> str:
    """Return the project that creates a resource."""
    return PROJECTS[REFS.index(ref) % 2]


def image_owner(image_id: str) -> str:
    return PROJECTS[IMAGES.index(image_id) % 2]


def refs(*types: str) -> list[InstanceRef]:
    return [ref for ref in REFS if ref.resource_type in types]


class Story:
    """Draws reports of things that can happen, each at a time of its own."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.reports: list[Report] = []
        # the others have links through origins only
        self.started = chance.sample(refs(SERVER, "volume"), chance.randint(1, 3))

    def happen(self, what: str, ref: InstanceRef, **more: Any) -> Report:
        given = {"project": owner_of(ref), **more}
        report = Report(what, len(self.reports), ref, **given)
        self.reports.append(report)
        return report

    def tell(self) -> list[Report]:
        acts = [self.create, self.lease, self.run, self.end]
        acts += 2 * [self.start, self.make, self.come, self.come]
        for _ in range(self.chance.randint(0, 30)):
            self.chance.choice(acts)()
        for image_id in self.chance.sample(IMAGES, self.chance.randint(0, 3)):
            self.happen("deleted", REFS[0], image=image_id)
        times = self.chance.sample(range(len(self.reports)), len(self.reports))
        return [replace(one, minutes=time) for one, time in zip(self.reports, times, strict=True)]

    def start(self) -> None:
        """A server is started or rebuilt, or the data of a volume come from an image."""
        ref = self.chance.choice(self.started)
        image_id = self.chance.choice(IMAGES)
        is_notified = ref.resource_type == SERVER and self.chance.random() < 0.7
        before = [
            one.notified
            for one in self.reports
            if (one.what, one.ref, one.image) == (BOOT, ref, image_id)
        ]
        # only a notification states that a server was rebuilt from the same image
        if not before or (is_notified and all(before)):
            self.happen(BOOT, ref, image=image_id, notified=is_notified)

    def make(self) -> None:
        """An image is made from a resource, once."""
        image_id = self.chance.choice(IMAGES)
        if not any(one.image == image_id and one.what in MADE_FROM for one in self.reports):
            ref = self.chance.choice(refs(SERVER, SERVER, "volume"))
            kinds = MADE_FROM if ref.resource_type == SERVER else ("snapshot", "backup")
            kind = self.chance.choice(kinds)
            is_notified = ref.resource_type == SERVER and kind != "shelved"
            is_notified = is_notified and self.chance.random() < 0.5
            project = owner_of(ref) if is_notified else None
            self.happen(kind, ref, image=image_id, notified=is_notified, project=project)

    def come(self) -> None:
        """A service reports an origin, or a notification, or both with different times."""
        ref = self.chance.choice(refs(*SOURCE_TYPES))
        types = SOURCE_TYPES[ref.resource_type]
        sources = [one for one in refs(*types) if one != ref]
        sources += 2 * [one for one in sources if one in self.started]
        source = None if self.chance.random() < 0.1 else self.chance.choice(sources)
        is_notified = source is not None and self.chance.random() < 0.4
        self.happen("origin", ref, source=source, notified=is_notified, project=self.project(ref))
        if source is not None and self.chance.random() < 0.4:
            self.happen("origin", ref, source=source, notified=self.chance.random() < 0.7)

    def create(self) -> None:
        """Cinder notifies the creation or the transfer of a resource."""
        ref = self.chance.choice(refs("volume", "volume-snapshot", "volume-backup"))
        if self.chance.random() < 0.5:
            self.happen("created", ref, notified=True)
        elif not any((one.what, one.ref) == ("transferred", ref) for one in self.reports):
            other = PROJECTS[owner_of(ref) == PROJECTS[0]]
            self.happen("transferred", ref, notified=True, project=other)

    def lease(self) -> None:
        self.happen(USE, self.chance.choice(refs("stack")), image=self.chance.choice(IMAGES))

    def run(self) -> None:
        self.happen("running", self.chance.choice(refs(SERVER)), notified=True)

    def end(self) -> None:
        self.happen("ended", self.chance.choice(REFS), notified=True)

    def project(self, ref: InstanceRef) -> str | None:
        return owner_of(ref) if self.chance.random() < 0.8 else None


def any_possible_order(chance: random.Random, reports: Sequence[Report]) -> list[Report]:
    """Return the reports in any order, some of them twice.

    A service that creates or uses an image reports it while the image exists. So does Nova's API
    when it shelves a server, before it can be unshelved. A lease begins while its resource exists.
    """
    told = chance.sample(reports, len(reports)) + chance.sample(reports, len(reports) // 3)
    last: dict[str | InstanceRef, float] = {}
    for place, one in enumerate(told):
        if one.needs_image and one.what != "shelved":
            last[one.image] = place
        if one.what == USE:
            last[one.ref] = place

    def place_of(pair: tuple[int, Report]) -> float:
        place, one = pair
        if one.what == "shelved":
            return -1
        if one.what == "deleted":
            return max(place, last.get(one.image, -1) + 0.5)
        return max(place, last.get(one.ref, -1) + 0.5) if one.what == "ended" else place

    return [one for _, one in sorted(enumerate(told), key=place_of)]


@dataclass(frozen=True)
class Graph:
    """What follows from reports.

    :ivar told: the reports in the order in which they arrived
    :ivar expired: the leases that have expired
    :ivar removed: the origins, with their times, and the relations that were removed afterwards
    """

    told: Sequence[Report]
    expired: Set[tuple[InstanceRef, str]]
    removed: Set[Any] = frozenset()

    def happened(self, *what: str) -> list[Report]:
        return [one for word in what for one in self._by_word.get(word, ())]

    @cached_property
    def _by_word(self) -> dict[str, list[Report]]:
        found: dict[str, list[Report]] = {}
        for one in dict.fromkeys(self.told):
            found.setdefault(one.what, []).append(one)
        return found

    def related(self, kind: str) -> list[Report]:
        return self._by_kind[kind]

    @cached_property
    def _by_kind(self) -> dict[str, list[Report]]:
        return {
            kind: [
                one for one in self.happened(kind) if (one.ref, one.image, kind) not in self.removed
            ]
            for kind in (BOOT, USE, *MADE_FROM)
        }

    @cached_property
    def made(self) -> list[Report]:
        return [one for kind in MADE_FROM for one in self.related(kind)]

    @cached_property
    def relations(self) -> set[tuple[InstanceRef, str, str]]:
        return {
            (one.ref, one.image, kind)
            for kind in (BOOT, USE, *MADE_FROM)
            for one in self.related(kind)
        }

    @cached_property
    def origins(self) -> dict[tuple[InstanceRef, int], InstanceRef | None]:
        """The origins that are recorded, by resource and time."""
        services = [one for one in self.happened("origin") if not one.notified]
        reported = {(one.ref, one.source) for one in services}
        notified: dict[Any, int] = {}
        for one in self.happened("origin"):
            key = one.ref, one.source
            if key not in reported:
                notified[key] = min(one.minutes, notified.get(key, one.minutes))
        found = {(one.ref, one.minutes): one.source for one in services}
        found |= {(ref, minutes): source for (ref, source), minutes in notified.items()}
        return {key: source for key, source in found.items() if key not in self.removed}

    @cached_property
    def owners(self) -> dict[InstanceRef, str]:
        """The projects of the resources: those that were reported last.

        The notification of a creation, and of what a resource was made from, states the first one.
        """
        found: dict[InstanceRef, str] = {}
        for one in self.told:
            is_first = one.what in ("origin", "created") and one.notified
            is_owner = one.what not in ("deleted", "running") and one.project is not None
            if is_owner and not (is_first and one.ref in found):
                found[one.ref] = str(one.project)
        return found

    @cached_property
    def ends(self) -> dict[InstanceRef, int]:
        found: dict[InstanceRef, int] = {}
        for one in self.happened("ended"):
            found[one.ref] = min(one.minutes, found.get(one.ref, one.minutes))
        return found

    @cached_property
    def deleted(self) -> set[str]:
        return {one.image for one in self.happened("deleted")}

    def users(self, image_id: str) -> set[InstanceRef]:
        """Return the resources that were made from the image, directly or through origins."""
        found = {one.ref for one in self.related(BOOT) if one.image == image_id}
        while more := {ref for (ref, _), source in self.origins.items() if source in found} - found:
            found |= more
        return found

    def leases(self, image_id: str) -> dict[InstanceRef, datetime]:
        """Return the ends of all leases of an image."""
        found: dict[InstanceRef, datetime] = {}
        for one in self.related(USE):
            if one.image == image_id:
                end = LONG_AGO if (one.ref, image_id) in self.expired else lease_end(one)
                found[one.ref] = max(end, found.get(one.ref, end))
        return found

    def live_leases(self, image_id: str) -> dict[InstanceRef, datetime]:
        return {
            ref: end
            for ref, end in self.leases(image_id).items()
            if end != LONG_AGO and ref not in self.ends
        }

    def is_shelved(self, one: Report) -> bool:
        ends = [event.minutes for event in self.happened("running") if event.ref == one.ref]
        is_unshelved = any(end > one.minutes for end in ends)
        return not (is_unshelved or one.ref in self.ends or one.image in self.deleted)

    def shelved(self, image_id: str) -> list[Report]:
        """Return the shelving of the servers that are shelved now and need the image."""
        return [
            one for one in self.related("shelved") if one.image == image_id and self.is_shelved(one)
        ]

    def shelved_until(self) -> dict[tuple[InstanceRef, str], datetime | None]:
        """Return the end of each shelving."""
        found = {}
        for one in self.related("shelved"):
            times = [
                event.minutes
                for event in self.happened("running")
                if event.ref == one.ref and event.minutes > one.minutes
            ]
            times += [self.ends[one.ref]] if one.ref in self.ends else []
            times += [it.minutes for it in self.happened("deleted") if it.image == one.image]
            found[one.ref, one.image] = at(min(times)) if times else None
        return found

    def leftovers(self) -> set[str]:
        """Return the images of servers that are not shelved, which Nova left behind."""
        events = self.happened("running", "ended")
        return {
            one.image
            for one in self.related("shelved")
            if one.image not in self.deleted
            and any(event.ref == one.ref and event.minutes > one.minutes for event in events)
        }

    def usage(self, image_id: str, project_id: str | None) -> Usage:
        owners, ends = self.owners, self.ends
        is_all = project_id is None
        is_owner = is_all or image_owner(image_id) == project_id
        users = {ref for ref in self.users(image_id) if is_all or owners.get(ref) == project_id}
        live = users - ends.keys()
        last = [at(ends[ref]) for ref in users - live] if not live else []
        seen = {
            ref: end
            for ref, end in self.leases(image_id).items()
            if is_owner or owners[ref] == project_id
        }
        held = {ref: seen[ref] for ref in self.live_leases(image_id).keys() & seen.keys()}
        for ref in seen.keys() - held.keys():
            last.append(min(seen[ref], at(ends[ref]) if ref in ends else seen[ref]))
        shelved = [
            one
            for one in self.shelved(image_id)
            if is_all or project_id in (image_owner(image_id), owners.get(one.ref))
        ]
        used_by_others = is_owner and self.is_used_by_others(image_id)
        is_used = bool(live or held or shelved or used_by_others)
        made_from = {one.ref for one in self.made if one.image == image_id and is_owner}
        return Usage(
            image_id,
            instances=len(users),
            live_instances=len(live),
            unused_since=None if live or held else max(last, default=None),
            used_by_others=used_by_others,
            leases=Leases(len(held), max(held.values(), default=None)),
            state=USED if is_used else UNUSED,
            made_from=len(made_from),
            shelved=len(shelved),
        )

    def is_used_by_others(self, image_id: str) -> bool:
        live = self.users(image_id) - self.ends.keys() | self.live_leases(image_id).keys()
        return any(self.owners.get(ref) != image_owner(image_id) for ref in live)

    def protecting(self, image_id: str, counts: Iterable[str]) -> list[InstanceRef]:
        """Return the resources because of which the guard refuses to delete the image."""
        live = self.users(image_id) - self.ends.keys()
        servers = {ref for ref in live if ref.resource_type == SERVER}
        found = {
            SERVER: servers,
            "volume": live - servers,
            "lease": self.live_leases(image_id).keys(),
            "shelved": {one.ref for one in self.shelved(image_id)},
        }
        return [ref for name in counts for ref in found[name]]

    def link(self, made: Report) -> tuple[str, str | None] | None:
        """Return the parent of an image, and the project that sees the link."""
        ref, minutes, passed = made.ref, made.minutes, {made.ref}
        seen_by = {image_owner(made.image)}
        while True:
            seen_by.add(self.owners.get(ref, "nobody"))
            starts = {one.minutes: one.image for one in self.related(BOOT) if one.ref == ref}
            if starts:
                viewer = seen_by.pop() if len(seen_by) == 1 else None
                return starts[in_force(starts, minutes)], viewer
            sources = {time: source for (of, time), source in self.origins.items() if of == ref}
            if not sources:
                return None
            since = in_force(sources, minutes)
            source = sources[since]
            if source is None or source in passed:
                return None
            # a server shares the content of its root volume
            minutes = minutes if ref.resource_type == SERVER else since
            ref = source
            passed.add(source)

    def links(self, project_id: str | None) -> dict[str, str]:
        """Return the parent of each image of which the project sees it."""
        return {
            image_id: link[0]
            for image_id, link in self.all_links.items()
            if link and project_id in (None, link[1])
        }

    @cached_property
    def all_links(self) -> dict[str, tuple[str, str | None] | None]:
        return {one.image: self.link(one) for one in self.made}

    def ancestry(self, image_id: str, project_id: str | None) -> list[str]:
        links, found = self.links(project_id), [image_id]
        while (parent := links.get(found[-1])) and parent not in found:
            found.append(parent)
        return found[1:]

    def descendants(self, image_id: str, project_id: str | None) -> set[str]:
        links = self.links(project_id)
        found = {image_id}
        while more := {child for child, parent in links.items() if parent in found} - found:
            found |= more
        return found - {image_id}

    def sees(self, project_id: str | None, of: tuple[InstanceRef, str, str]) -> bool:
        ref, image_id, kind = of
        owner = image_owner(image_id) if kind in MADE_FROM else self.owners.get(ref)
        return project_id in (None, owner)

    def is_in_use(self, of: tuple[InstanceRef, str, str]) -> bool:
        ref, image_id, kind = of
        if kind == USE:
            return ref in self.live_leases(image_id)
        return kind == BOOT and ref not in self.ends

    def latest(self, ref: InstanceRef, kind: str) -> datetime:
        times = [
            at(one.minutes)
            for one in self.related(kind)
            if one.ref == ref and one.image not in self.deleted
        ]
        return max(times, default=datetime(1970, 1, 1, tzinfo=UTC))


def in_force(events: Mapping[int, Any], minutes: int) -> int:
    """Return the time of the last event until then, or else of the first one."""
    before = [time for time in events if time <= minutes]
    return max(before) if before else min(events)


def lease_end(one: Report) -> datetime:
    return TODAY + timedelta(days=1, minutes=one.minutes)


def store(database: Database, one: Report) -> None:
    ref, time = one.ref, at(one.minutes)
    if one.what == "deleted":
        database.write(delete_image, one.image, time)
    elif one.notified:
        notifications.store(database, [event_of(one)])
    elif one.what == "origin":
        origins.record(database, NewOrigin(ref, one.source, time, one.project), ANYBODY)
    else:
        project_id = image_owner(one.image) if one.what in MADE_FROM else one.project
        new = NewRelation(
            *(ref, one.image, one.what, None, "service", project_id, time, one.project),
            expires_at=lease_end(one) if one.what == USE else None,
        )
        record = recording.announce if one.what in MADE_FROM else recording.attach
        record(database, new, ANYBODY)


def delete_image(connection: Connection, image_id: str, time: datetime) -> None:
    """Record a deletion, as the filter does with delete protection."""
    relations.lock_image(connection, image_id, None, time)
    relations.mark_deleted(connection, image_id, time)


def event_of(one: Report) -> notifications.Event:
    head: dict[str, Any] = {"instance": one.ref, "project_id": one.project, "at": at(one.minutes)}
    if one.what in MADE_FROM:
        owner = image_owner(one.image)
        return notifications.ImageMade(**head, image_id=one.image, owner=owner, kind=one.what)
    if one.what == BOOT:
        return notifications.Started(**head, image_id=one.image)
    if one.what == "running":
        return notifications.Running(**head)
    if one.what == "origin" and one.ref.resource_type == SERVER:
        return notifications.Started(**head, image_id=None, root_volume=one.source)
    if one.what in ("origin", "created"):
        return notifications.Created(**head, origin=one.source)
    if one.what == "transferred":
        return notifications.Transferred(**head)
    return notifications.Ended(**head)


def expire(connection: Connection, expired: Iterable[tuple[InstanceRef, str]]) -> None:
    """Let leases end in the past, as if that time had passed."""
    for ref, image_id in expired:
        own = (
            select(relation.c.id)
            .join(image, image.c.id == relation.c.image_ref)
            .join(instance, instance.c.id == relation.c.instance_ref)
            .where(image.c.uuid == image_id, instance.c.instance_id == ref.instance_id)
            .where(relation.c.kind == USE)
        )
        found = connection.execute(own).scalars().all()
        connection.execute(
            update(lease).where(lease.c.relation_ref.in_(found)).values(expires_at=LONG_AGO)
        )


def remove_some(database: Database, graph: Graph, chance: random.Random) -> Graph:
    """Remove some of the origins and relations, as wrong ones are removed."""
    every: list[Any] = [*graph.origins, *sorted(graph.relations, key=str)]
    removed = chance.sample(every, len(every) // 2)
    for one in removed:
        if one in graph.origins:
            origins.remove(database, one[0], at(one[1]), ANYBODY)
        else:
            ref, image_id, kind = one
            recording.detach(database, ref, image_id, kind, ANYBODY)
    return replace(graph, removed=frozenset(removed))


def check(database: Database, graph: Graph, chance: random.Random) -> None:
    for project_id in (None, *PROJECTS):
        check_usages(database, graph, project_id)
        check_lists(database, graph, project_id)
    check_lineage(database, graph, chance.choice(IMAGES), chance.choice((None, *PROJECTS)))
    counts = chance.sample(GUARD_COUNTS, chance.randint(1, len(GUARD_COUNTS)))
    for image_id in IMAGES:
        found = delete_protection.check_deactivation(
            database, image_id, None, forced=True, counts=counts
        )
        assert found == len(graph.protecting(image_id, counts))
    check_guard(database, graph, chance.choice(IMAGES), counts, chance.choice(PROJECTS))
    assert database.read(latest_images) == {
        (ref, kind): graph.latest(ref, kind) for ref, kind in database.read(latest_images)
    }


def check_usages(database: Database, graph: Graph, project_id: str | None) -> None:
    owners: dict[str, str | None] = {
        one: image_owner(one) for one in IMAGES if project_id in (None, image_owner(one))
    }
    found = usages.usages(database, IMAGES, project_id, owners)
    assert found == [graph.usage(one, project_id) for one in IMAGES], project_id


def check_lists(database: Database, graph: Graph, project_id: str | None) -> None:
    expected = {one for one in graph.relations if graph.sees(project_id, one)}
    assert listed(database, visible_to=project_id) == expected
    for is_used in (True, False):
        assert listed(database, visible_to=project_id, in_use=is_used) == {
            one for one in expected if graph.is_in_use(one) == is_used
        }
    left = {one for one in expected if one[1] in graph.leftovers() and one[2] == "shelved"}
    assert listed(database, visible_to=project_id, leftover=True) == left
    if project_id is None:
        shelved = listing.relations(database, Filters(kind="shelved"), 1000, None).items
        ends = {(one.instance, one.image_id): one.ended_at for one in shelved}
        assert ends == graph.shelved_until()
    owners = graph.owners

    def is_own(ref: InstanceRef | None) -> bool:
        return project_id is None or (ref is not None and owners.get(ref) == project_id)

    page = origins.page(database, Filters(visible_to=project_id), 1000, None)
    assert {(one.instance, one.since, one.has_source, one.source) for one in page.items} == {
        (ref, at(time), source is not None, source if is_own(source) else None)
        for (ref, time), source in graph.origins.items()
        if is_own(ref)
    }
    rows = instances.page(database, Filters(visible_to=project_id), 1000, None, None).items
    related = {ref for ref, *_ in expected}
    found = {
        one.instance: (one.project_id, one.ended_at)
        for one in rows
        # callers who see all projects also get resources without a relation
        if project_id is not None or one.instance in related
    }
    assert found == {
        ref: (owners.get(ref), at(graph.ends[ref]) if ref in graph.ends else None)
        if is_own(ref)
        else (None, None)
        for ref in related
    }


def listed(database: Database, **filters: Any) -> set[tuple[InstanceRef, str, str]]:
    page = listing.relations(database, Filters(**filters), 1000, None)
    return {(one.instance, one.image_id, one.kind) for one in page.items}


def check_lineage(database: Database, graph: Graph, image_id: str, project_id: str | None) -> None:
    """Check the links of all images, and the walks from one of them."""
    assert database.read(links) == {one: link for one, link in graph.all_links.items() if link}
    chain = lineage.ancestry(database, image_id, 100, None, project_id)
    found = [one.parent_image_id for one in chain.links]
    assert found == graph.ancestry(image_id, project_id), (image_id, project_id)
    wanted = lineage.Wanted(image_id, visible_to=project_id)
    tree = lineage.descendants(database, wanted, 100, None)
    below = {one.link.image_id for one in tree.branches}
    assert below == graph.descendants(image_id, project_id), (image_id, project_id)


def check_guard(
    database: Database, graph: Graph, image_id: str, counts: Sequence[str], project_id: str
) -> None:
    protecting = graph.protecting(image_id, counts)

    def begin(visible_to: str | None, *, forced: bool) -> int:
        begun = delete_protection.begin(
            database, image_id, visible_to, forced=forced, counts=counts
        )
        delete_protection.withdraw(database, begun)
        return begun.in_use

    assert begin(None, forced=True) == len(protecting)
    if not protecting:
        assert begin(project_id, forced=False) == 0
        return
    with pytest.raises(ImageInUse) as caught:
        begin(project_id, forced=False)
    named = {ref for ref in REFS if f"{ref.instance_id} of " in str(caught.value)}
    visible = {ref for ref in protecting if graph.owners.get(ref) == project_id}
    if image_owner(image_id) == project_id and "shelved" in counts:
        visible |= {one.ref for one in graph.shelved(image_id)}
    assert named <= visible
    assert len(named) >= min(len(visible), delete_protection.LISTED)


def latest_images(connection: Connection) -> dict[tuple[InstanceRef, str], datetime]:
    """Return the stored times of the latest image of each kind."""
    query = select(installation.c.resource_type, instance).join(
        installation, installation.c.id == instance.c.installation_ref
    )
    return {
        (InstanceRef(NOVA, row.instance_id, row.resource_type), kind): row._mapping[column]
        for row in connection.execute(query)
        for kind, column in LATEST.items()
    }


def any_graph(examples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        limited = settings(
            max_examples=examples,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        )
        return limited(given(chance=st.randoms(use_true_random=False))(test))

    return decorate


def compare(database: Database, chance: random.Random) -> None:
    database.write(empty)
    resource_types.register(database, "stack")
    told = any_possible_order(chance, Story(chance).tell())
    for one in told:
        store(database, one)
    leased = sorted({(one.ref, one.image) for one in told if one.what == USE}, key=str)
    graph = Graph(told, frozenset(chance.sample(leased, len(leased) // 2)))
    database.write(expire, graph.expired)
    check(database, graph, chance)
    check(database, remove_some(database, graph, chance), chance)


@pytest.fixture
def patient(shared: str) -> Iterator[Database]:
    """A database that responds in time on a busy machine, too."""
    opened = Database(shared, 120.0)
    yield opened
    opened.write(empty)
    opened.close()


@any_graph(10)
def test_answers_equal_a_recomputation_from_the_reports(
    patient: Database, chance: random.Random
) -> None:
    compare(patient, chance)


@pytest.mark.slow
@any_graph(int(os.environ.get("RELATED_IMAGES_FUZZ_EXAMPLES", "60")))
def test_answers_equal_a_recomputation_from_many_reports(
    patient: Database, chance: random.Random
) -> None:
    compare(patient, chance)
