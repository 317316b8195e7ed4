"""A merged installation is as if everything had been recorded under the new UUID."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, select

from related_images import failpoints
from related_images.db import (
    backfill,
    installations,
    instances,
    latest_images,
    lineage,
    merge,
    notifications,
    origins,
    parent_links,
    recording,
    relation_queries,
    relation_removal,
    relations,
    usages,
)
from related_images.db.database import Database
from related_images.db.row_ids import shown_installation
from related_images.db.tables import (
    descent,
    image,
    installation,
    instance,
    metadata,
    project,
    rebuild,
    relation,
    relation_end,
)
from related_images.errors import InstallationConflict, InstallationNotFound
from related_images.failpoints import Point
from related_images.model import (
    BACKFILL,
    BOOT,
    KINDS,
    NOTIFICATION,
    SERVER,
    SERVICE,
    SHELVED,
    USES,
    VOLUME,
    Filters,
    InstanceRef,
    Merged,
    NewOrigin,
    NewRelation,
    Reporter,
    ServiceUser,
)
from tests.db.samples import NOVA, OTHER_NOVA, at, empty, image_id, new, record, server, shown

OLD, NEW = OTHER_NOVA, NOVA
IMAGES = [f"10000000-0000-4000-8000-{number:012}" for number in range(4)]
ANYBODY = Reporter(frozenset())


@dataclass(frozen=True)
class Fact:
    """A report about a resource; ``kind`` is ``None`` for its deletion.

    :ivar is_old: whether it names the old installation
    """

    is_old: bool
    resource: tuple[str, str]
    image: int
    kind: str | None
    source: str
    names_owner: bool

    def store(self, database: Database, number: int, *, is_split: bool) -> None:
        """Record the fact, which is the one with this number in the order of time.

        :param is_split: whether there are two installations, or only the new one
        """
        installation_uuid = OLD if is_split and self.is_old else NEW
        resource_type, instance_id = self.resource
        owner = f"owner-of-{instance_id}"
        if self.kind is None:
            ended = notifications.Ended(
                InstanceRef(installation_uuid, instance_id), owner, at(number)
            )
            notifications.store(database, [ended])
            return
        wanted = NewRelation(
            InstanceRef(installation_uuid, instance_id, resource_type),
            IMAGES[self.image],
            self.kind,
            "daily" if self.image == 1 and self.kind != BOOT else None,
            self.source,
            owner if self.kind in USES else f"owner-of-vm-{self.image % 2}",
            at(number),
            owner if self.names_owner else None,
        )
        database.write(relations.record, wanted, relied_on=self.source != SERVICE)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.is_old, self.resource, self.image, self.kind, self.source


def facts() -> st.SearchStrategy[list[Fact]]:
    """Return lists of facts. A source other than notifications reports each start once.

    Only notifications state when an instance was started. A repeated report of a start by another
    source may be recorded or not, depending on what was recorded in the same installation before.
    The end of a server is reported once for each installation: of a repeated one, only the first
    time is recorded, and a ``shelved`` relation between both times would end by the second.
    """
    resources = [(SERVER, "vm-0"), (SERVER, "vm-1"), ("volume", "vm-0")]
    one = st.builds(
        Fact,
        st.booleans(),
        st.sampled_from(resources),
        st.integers(0, len(IMAGES) - 1),
        st.sampled_from([*KINDS, BOOT]),
        st.sampled_from([SERVICE, NOTIFICATION, BACKFILL]),
        st.booleans(),
    ).filter(lambda fact: fact.kind != SHELVED or fact.resource[0] == SERVER)
    end = st.builds(
        Fact,
        st.booleans(),
        st.sampled_from(resources[:2]),
        st.just(0),
        st.none(),
        st.just(NOTIFICATION),
        st.just(True),
    )
    return st.lists(one | one | one | end, max_size=14).map(_once)


def _once(given: list[Fact]) -> list[Fact]:
    kept: dict[Any, Fact] = {}
    for number, fact in enumerate(given):
        is_repeatable = fact.source == NOTIFICATION and fact.kind is not None
        kept.setdefault(number if is_repeatable else (*fact.key[:4], "once"), fact)
    return list(kept.values())


_resource = (
    shown_installation(),
    installation.c.resource_type,
    instance.c.instance_id,
)
_resources = instance.join(installation, installation.c.id == instance.c.installation_ref)
_related = relation.join(_resources, instance.c.id == relation.c.instance_ref).join(
    image, image.c.id == relation.c.image_ref
)
_owner, _parent = project.alias(), image.alias()
STATE = {
    "resources": select(
        *_resource,
        project.c.project_id,
        instance.c.ended_at,
        instance.c.latest_snapshot_at,
        instance.c.latest_backup_at,
    ).select_from(_resources.outerjoin(project, project.c.id == instance.c.project_ref)),
    "relations": select(
        *_resource,
        image.c.uuid,
        *(relation.c[name] for name in ("kind", "label", "source", "created_at")),
        project.c.project_id,
    ).select_from(_related.outerjoin(project, project.c.id == relation.c.project_ref)),
    "rebuilds": select(*_resource, image.c.uuid, relation.c.kind, rebuild.c.started_at).select_from(
        _related.join(rebuild, rebuild.c.relation_ref == relation.c.id)
    ),
    "ends": select(*_resource, image.c.uuid, relation_end.c.ended_at).select_from(
        _related.join(relation_end, relation_end.c.relation_ref == relation.c.id)
    ),
    "links": select(
        *_resource, image.c.uuid, descent.c.kind, _parent.c.uuid, _owner.c.project_id
    ).select_from(
        _related.join(descent, descent.c.relation_ref == relation.c.id)
        .join(_parent, _parent.c.id == descent.c.parent_ref)
        .outerjoin(_owner, _owner.c.id == descent.c.project_ref)
    ),
}
"""What is recorded, without primary keys and claims."""


def state(database: Database) -> dict[str, list[tuple[Any, ...]]]:
    def read(connection: Connection) -> dict[str, list[tuple[Any, ...]]]:
        return {
            name: sorted((tuple(row) for row in connection.execute(query)), key=repr)
            for name, query in STATE.items()
        }

    return database.read(read)


def claims(database: Database) -> dict[tuple[Any, ...], int]:
    query = select(*_resource, image.c.uuid, relation.c.kind, relation.c.claimed)
    rows = database.read(lambda connection: connection.execute(query.select_from(_related)).all())
    return {tuple(row)[:-1]: row.claimed for row in rows}


def register(database: Database, *users: ServiceUser) -> None:
    for uuid, name in ((OLD, "old"), (NEW, "new")):
        installations.register(database, uuid, name, users)


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(reported=facts(), size=st.sampled_from([1, 2, 1000]))
def test_a_merge_is_as_if_all_was_recorded_for_the_new_installation(
    database: Database, reported: list[Fact], size: int
) -> None:
    database.write(empty)
    register(database)
    for number, fact in enumerate(reported):
        fact.store(database, number, is_split=False)
    expected, supported = state(database), claims(database)
    database.write(empty)
    register(database)
    for number, fact in enumerate(reported):
        fact.store(database, number, is_split=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merge, "BATCH", size)
        counted, merged = merge.count(database, OLD, NEW), merge.merge(database, OLD, NEW)
    assert state(database) == expected
    assert merged == replace(counted, left=0)
    assert counted.left == merged.moved + merged.united
    for key, claimed in claims(database).items():
        assert claimed % relations.NO_CREATOR >= supported[key] % relations.NO_CREATOR
        assert claimed < relations.NO_CREATOR
    assert [one.uuid for one in installations.registered(database)] == [NEW]
    assert merge.merge(database, OLD, NEW) == Merged(0, 0, 0, 0)


def test_a_merge_that_is_interrupted_anywhere_is_completed_by_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(Exception):
        """The process ended."""

    def kill(point: Point) -> None:
        reached.append(point)
        raise Killed

    reached: list[Point] = []
    monkeypatch.setattr(merge, "BATCH", 2)
    register(database)
    images = [image_id() for _ in range(3)]
    for uuid in (OLD, NEW):
        for name, count in (("vm-1", 3), ("vm-2", 1), (f"vm-{uuid}", 2)):
            for made in images[:count]:
                record(database, new(name, made, installation_uuid=uuid))
    attempts = 0
    monkeypatch.setattr(failpoints, "hook", kill)
    while len(installations.registered(database)) == 2:
        attempts += 1
        if attempts == 20:
            monkeypatch.setattr(failpoints, "hook", None)
        try:
            merge.merge(database, OLD, NEW)
        except Killed:
            continue
    assert {Point.MERGE_MOVED, Point.MERGE_UNITED} >= set(reached)
    assert shown(database, "vm-1") == sorted(images)
    assert shown(database, "vm-2") == images[:1]
    assert shown(database, f"vm-{OLD}") == shown(database, f"vm-{NEW}") == sorted(images[:2])


def test_the_earlier_relation_remains_with_the_label_and_the_claims_of_both(
    database: Database,
) -> None:
    made = image_id()
    first = new("vm-1", made, "backup", installation_uuid=OLD, source=NOTIFICATION)
    record(database, first)
    moved = InstanceRef(NEW, "vm-1")
    later = replace(first, instance=moved, label="daily", source=SERVICE, created_at=at(5))
    announced = recording.announce(database, later, ANYBODY)
    recording.attach(database, later, ANYBODY)
    assert merge.merge(database, OLD, NEW) == Merged(0, 1, 1, 0)
    (row,) = state(database)["relations"]
    assert row[3:8] == (made, "backup", "daily", NOTIFICATION, first.created_at)
    # the notification relies on the relation for good
    recording.withdraw(database, announced)
    recording.revoke(database, server("vm-1"), made, "backup", ANYBODY, first.created_at)
    assert shown(database) == [made]


def test_the_announcement_of_each_installation_is_rolled_back_alone(database: Database) -> None:
    made = image_id()
    for uuid in (NEW, OLD):
        recording.announce(database, new("vm-1", made, installation_uuid=uuid), ANYBODY)
    merge.merge(database, OLD, NEW)
    assert set(claims(database).values()) == {1}
    (kept,) = record(database, new("vm-1", made))
    for remains in ([made], [made], []):
        assert shown(database) == [made]
        database.write(relation_removal.roll_back, kept)
        assert shown(database) == remains


@pytest.mark.parametrize(
    ("kept", "dropped", "expected"),
    [
        ((0, SERVICE), (0, SERVICE), 1),
        ((0, SERVICE), (10_002, SERVICE), 2),
        ((10_002, SERVICE), (10_002, SERVICE), 10_004),
        ((10_002, SERVICE), (0, SERVICE), 10_003),
        ((10_002, SERVICE), (2, NOTIFICATION), 4),
        ((2, BACKFILL), (2, NOTIFICATION), 4),
        ((0, SERVICE), (10_000, SERVICE), 0),
        ((8_999, SERVICE), (8_000, SERVICE), 9_000),
    ],
)
def test_claims_are_added(kept: tuple[int, str], dropped: tuple[int, str], expected: int) -> None:
    @dataclass
    class Row:
        claimed: int
        source: str

    assert merge._claims(Row(*kept), Row(*dropped)) == expected


def test_the_later_start_from_the_same_image_is_a_rebuild_if_another_was_between(
    database: Database,
) -> None:
    one, other, made = image_id(), image_id(), image_id()
    record(
        database,
        new("vm-1", one, BOOT, created_at=at(1), installation_uuid=OLD),
        new("vm-1", other, BOOT, created_at=at(2), installation_uuid=OLD),
        new("vm-1", one, BOOT, created_at=at(3)),
        new("vm-1", made, created_at=at(4)),
    )
    merge.merge(database, OLD, NEW)
    assert [row[5] for row in state(database)["rebuilds"]] == [at(3)]
    assert [row[5] for row in state(database)["links"]] == [one]


def test_reports_that_arrive_later_are_counted_and_keep_the_registration(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def report(point: Point) -> None:
        reached.append(point)
        if len(reached) == 2:  # after the last batch, which is empty
            record(database, new("vm-1", late, installation_uuid=OLD))

    reached: list[Point] = []

    first, late = image_id(), image_id()
    record(database, new("vm-1", first, installation_uuid=OLD))
    register(database, ServiceUser("nova"))
    backfill.remember(database, OLD, "somewhere")
    monkeypatch.setattr(failpoints, "hook", report)
    assert merge.merge(database, OLD, NEW) == Merged(1, 0, 0, 1)
    assert len(installations.registered(database)) == 2
    assert merge.merge(database, OLD, NEW) == Merged(0, 1, 0, 0)
    assert [one.name for one in installations.registered(database)] == ["new"]
    assert backfill.position(database, OLD) is None
    assert shown(database) == sorted([first, late])


def test_concurrent_reports_on_both_installations_are_not_lost(
    pair: tuple[Database, Database],
) -> None:
    database, other = pair
    images = [image_id() for _ in range(90)]
    register(database)

    def report(writer: int) -> None:
        for number, made in list(enumerate(images))[writer::3]:
            uuid, name = (OLD, NEW)[number % 2], f"vm-{number % 4}"
            kind = KINDS[number % 3]
            record(other, new(name, made, kind, installation_uuid=uuid, created_at=at(number)))

    with ThreadPoolExecutor(3) as pool:
        reports = [pool.submit(report, writer) for writer in range(3)]
        while not all(one.done() for one in reports):
            merge.merge(database, OLD, NEW)
        for one in reports:
            one.result()
    assert merge.merge(database, OLD, NEW).left == 0
    rows = state(database)
    assert {row[0] for row in rows["relations"]} == {NEW}
    assert sorted(row[3] for row in rows["relations"]) == sorted(images)
    wrong, _ = database.read(latest_images.find_wrong, 0, 100)
    assert list(wrong) == []
    links = rows["links"]
    for ref in database.read(lambda connection: connection.execute(select(instance.c.id))).all():
        database.write(parent_links.refresh, ref.id)
    assert state(database)["links"] == links


def test_an_installation_is_not_merged_into_itself_or_an_unknown_one(database: Database) -> None:
    record(database, new())
    with pytest.raises(InstallationConflict, match="cannot be merged into itself"):
        merge.merge(database, NEW, NEW)
    for pair in ((OLD, NEW), (NEW, OLD)):
        for task in (merge.merge, merge.count):
            with pytest.raises(InstallationNotFound, match=f"{OLD} is neither registered nor"):
                task(database, *pair)


def test_resources_of_a_newer_type_move_too(database: Database) -> None:
    record(database, new("s-1", resource_type="stack", installation_uuid=OLD))
    register(database)
    assert merge.merge(database, OLD, NEW) == Merged(1, 0, 0, 0)
    assert state(database)["resources"][0][:3] == (NEW, "stack", "s-1")


def test_every_table_that_refers_to_a_resource_or_a_relation_is_merged() -> None:
    refers = {
        (table.name, key.parent.name)
        for table in metadata.tables.values()
        for key in table.foreign_keys
        if key.column.table in (instance, relation)
    }
    assert refers == {
        ("related_relation", "instance_ref"),
        ("related_rebuild", "relation_ref"),
        ("related_relation_end", "relation_ref"),
        ("related_descent", "relation_ref"),
        ("related_origin", "instance_ref"),
        ("related_origin", "source_ref"),
        ("related_lease", "relation_ref"),
        ("related_volume_snapshot", "relation_ref"),
    }


def test_the_volume_snapshots_of_a_relation_remain(database: Database) -> None:
    made = image_id()
    record(database, new("vm-1", made))
    one = replace(new("vm-1", made, installation_uuid=OLD), volume_snapshot_ids=("s-1", "s-2"))
    recording.announce(database, one, ANYBODY)
    merge.merge(database, OLD, NEW)
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert (row.installation_uuid, row.volume_snapshot_ids) == (NEW, ("s-1", "s-2"))


def ended_at(database: Database) -> datetime | None:
    query = select(instance.c.ended_at)
    at_: datetime | None = database.read(lambda connection: connection.execute(query).scalar_one())
    return at_


@pytest.mark.parametrize("ends", [(None, None), (1, None), (None, 1), (1, 2), (2, 1)])
def test_the_earlier_end_remains(database: Database, ends: tuple[int | None, ...]) -> None:
    for uuid, end in zip((OLD, NEW), ends, strict=True):
        record(database, new("vm-1", installation_uuid=uuid))
        if end:
            database.write(relations.end_instance, InstanceRef(uuid, "vm-1"), at(end))
    merge.merge(database, OLD, NEW)
    assert ended_at(database) == (at(1) if any(ends) else None)


def test_origins_move_with_the_resources(database: Database) -> None:
    base, made = image_id(), image_id()

    def volume(id: str, installation: str) -> InstanceRef:
        return InstanceRef(installation, id, VOLUME)

    def come(ref: InstanceRef, source: InstanceRef | None, minute: int) -> None:
        new_origin = NewOrigin(ref, source, at(minute), "p-1", SERVICE)
        origins.record(database, new_origin, ANYBODY)

    record(database, new("v-1", base, BOOT, resource_type=VOLUME, created_at=at(0)))
    come(volume("v-1", OLD), None, 1)
    come(volume("v-2", OLD), volume("v-1", OLD), 2)
    come(volume("v-2", NEW), volume("v-0", NEW), 2)
    come(volume("v-3", NEW), volume("v-1", OLD), 3)
    come(volume("v-4", OLD), volume("v-4", NEW), 4)
    relation = new("v-3", made, resource_type=VOLUME, created_at=at(5))
    record(database, relation)
    assert lineage.ancestry(database, made, 10, None, None).links == []
    assert merge.merge(database, OLD, NEW).left == 0
    found = origins.page(database, Filters(), 10, None).items
    assert [(it.instance, it.source) for it in reversed(found)] == [
        (volume("v-1", NEW), None),
        (volume("v-2", NEW), volume("v-0", NEW)),
        (volume("v-3", NEW), volume("v-1", NEW)),
    ]
    (link,) = lineage.ancestry(database, made, 10, None, None).links
    assert link.parent_image_id == base
    (usage,) = usages.usages(database, [base], None)
    assert (usage.instances, usage.live_instances) == (2, 2)


def test_a_rollback_after_a_merge_corrects_the_latest_time(database: Database) -> None:
    """The merge unites the servers while Glance handles the request."""
    record(database, new("vm-1", kind="backup", created_at=at(0)))
    record(database, new("vm-1", kind="backup", created_at=at(0), installation_uuid=OLD))
    announced = recording.announce(
        database, new("vm-1", kind="backup", created_at=at(9), installation_uuid=OLD), ANYBODY
    )
    merge.merge(database, OLD, NEW)
    assert recording.withdraw(database, announced)
    late = Filters(kind="backup")
    assert len(instances.page(database, late, 10, None, at(1)).items) == 1
    assert instances.page(database, late, 10, None, at(-1)).items == []


def test_a_bound_installation_is_not_merged_into_an_unbound_one(database: Database) -> None:
    installations.register(database, OLD, "old", [ServiceUser("nova")])
    record(database, new("vm-1", installation_uuid=OLD), new("vm-1"))
    for task in (merge.count, merge.merge):
        with pytest.raises(InstallationConflict, match="is bound to service users and"):
            task(database, OLD, NEW)
    installations.register(database, NEW, "new", [ServiceUser("nova")])
    assert merge.merge(database, OLD, NEW).left == 0


def test_an_installation_is_not_merged_into_one_that_was_merged_away(database: Database) -> None:
    record(database, new("vm-1", installation_uuid=OLD), new("vm-2"))
    merge.merge(database, OLD, NEW)
    with pytest.raises(InstallationNotFound, match="is neither registered nor recorded"):
        merge.merge(database, NEW, OLD)
    assert merge.merge(database, OLD, NEW).moved == 0
