"""Events of Nova's notifications, on each database, in any order and repeated."""

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, Table, func, select
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    Filters,
    NewRelation,
    Reporter,
    instances,
    lineage_walk,
    notifications,
    origins,
    relation_queries,
    relation_removal,
    relations,
    row_ids,
    schema,
)
from related_images.db.notifications import (
    Created,
    Ended,
    Event,
    ImageMade,
    Started,
    Transferred,
    store,
)
from related_images.db.recording import attach, image_deleted
from related_images.db.tables import installation, instance, project
from related_images.model import InstanceRef, NewOrigin, Recorded
from related_images.validation import parse_time
from tests.servers import DatabaseServer

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
BASE = "10000000-0000-4000-8000-000000000001"
MADE = "10000000-0000-4000-8000-000000000002"
START = parse_time("start", "2026-01-31T12:00:00Z")

INSTANCE = InstanceRef(NOVA, "inst-1")

STARTED = Started(INSTANCE, "demo", START, BASE)
BEGUN = ImageMade(INSTANCE, "demo", START + timedelta(minutes=1), MADE, "demo", "backup")
MADE_BACKUP = ImageMade(INSTANCE, "demo", START + timedelta(minutes=2), MADE, "demo", None)
ENDED = Ended(INSTANCE, "demo", START + timedelta(minutes=3))


@pytest.fixture
def database(database_url: str) -> Database:
    schema.upgrade(make_url(database_url))
    return Database(database_url, 20)


def state(database: Database) -> tuple[Any, ...]:
    rows = database.read(relation_queries.find, Filters(), 100)
    (instance,) = database.read(instances._find, Filters(), 10)
    relations = {(row.image_id, row.kind, row.source, row.project_id) for row in rows}
    return relations, instance.project_id, instance.boot_image_id, instance.ended_at


@pytest.mark.slow
def test_the_order_and_repetition_of_events_change_nothing(sqlite_url: str) -> None:
    expected = None
    for number, order in enumerate(itertools.permutations([STARTED, BEGUN, MADE_BACKUP, ENDED])):
        url = f"{sqlite_url}.{number}"
        schema.upgrade(make_url(url))
        database = Database(url, 20)
        for event in (*order, *order):
            store(database, [event])
        expected = expected or state(database)
        assert state(database) == expected, order
    assert expected == (
        {(BASE, "boot", "notification", "demo"), (MADE, "backup", "notification", "demo")},
        "demo",
        BASE,
        ENDED.at,
    )


def test_a_batch_on_each_database(database: Database) -> None:
    batch: list[Event] = [ENDED, MADE_BACKUP, BEGUN, STARTED]
    store(database, batch)
    store(database, batch)
    relations, *instance = state(database)
    assert {kind for _, kind, _, _ in relations} == {"boot", "backup"}
    assert instance == ["demo", BASE, ENDED.at]


FAILED = Ended(INSTANCE, None, START + timedelta(minutes=1))


def test_a_failed_creation_and_the_deletion_in_any_order(database: Database) -> None:
    """The service has reported the start, and the server has never run."""
    asked = NewRelation(INSTANCE, BASE, "boot", None, "service", "demo", START, "demo")
    deleted = Ended(INSTANCE, "demo", START + timedelta(minutes=2))
    for number, order in enumerate(itertools.permutations(["start", FAILED, deleted])):
        nova = f"{number:08}{NOVA[8:]}"
        server = InstanceRef(nova, "inst-1")
        for step in (*order, *order):
            if isinstance(step, Ended):
                store(database, [replace(step, instance=server)])
            else:
                attach(database, replace(asked, instance=server), Reporter(frozenset()))
        (found,) = database.read(instances._find, Filters(nova), 10)
        assert (found.ended_at, found.project_id) == (FAILED.at, "demo"), order
        assert found.boot_image_id == BASE


def test_a_relation_recorded_by_a_service_is_not_changed(database: Database) -> None:
    at = START
    told = NewRelation(INSTANCE, MADE, "backup", "daily", "service", "demo", at)
    attach(database, told, Reporter(frozenset()))
    asked = ImageMade(INSTANCE, "demo", at, MADE, "demo", "snapshot")
    store(database, [MADE_BACKUP, asked])
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert (row.kind, row.label, row.source) == ("backup", "daily", "service")


def test_a_relation_that_a_notification_reports_outlasts_a_rollback(database: Database) -> None:
    attached = NewRelation(INSTANCE, MADE, "backup", None, "service", "demo", START)
    database.write(relations.record, attached, relied_on=True, revocable=True)
    store(database, [BEGUN])
    ids = (attached.instance, MADE, "backup")
    assert database.write(relation_removal.revoke, *ids, attached.created_at) is False


def test_a_deleted_image_stays_deleted(database: Database) -> None:
    store(database, [BEGUN])
    image_deleted(database, MADE)
    other = ImageMade(InstanceRef(NOVA, "inst-2"), "demo", START, MADE, "demo", None)
    store(database, [MADE_BACKUP, other])
    rows = database.read(relation_queries.find, Filters(), 10)
    assert len(rows) == 2
    assert all(row.image_deleted_at is not None for row in rows)


def test_an_administrators_snapshot_belongs_to_the_administrator(database: Database) -> None:
    store(
        database,
        [ImageMade(INSTANCE, "demo", START, MADE, "administration", None)],
    )
    (row,) = database.read(relation_queries.find, Filters(), 10)
    (instance,) = database.read(instances._find, Filters(), 10)
    assert (row.project_id, instance.project_id) == ("administration", "demo")


OTHER_NOVA = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


def test_ends_of_unknown_instances_consume_no_keys(database: Database) -> None:
    for number in range(5):
        store(database, [Ended(InstanceRef(NOVA, f"inst-{number}"), "demo", START)])
    store(database, [Ended(InstanceRef(OTHER_NOVA, "inst-1"), "elsewhere", START)])
    last = select(
        select(func.max(installation.c.id)).scalar_subquery(),
        select(func.max(project.c.id)).scalar_subquery(),
    )
    assert database.read(lambda connection: tuple(connection.execute(last).one())) == (2, 2)


def test_an_end_is_recorded_although_the_instance_is_rolled_back_concurrently(
    postgresql: DatabaseServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgresql.create()
    schema.upgrade(make_url(url))
    database, other = Database(url, 20), Database(url, 20)
    store(database, [Ended(InstanceRef(NOVA, "inst-0"), "demo", START)])
    announced = NewRelation(INSTANCE, MADE, "backup", None, "service", "demo", START)
    overtaken: list[Recorded] = []

    def overtake(
        connection: Connection, table: Table, key: dict[str, Any], **others: Any
    ) -> tuple[int, bool]:
        if table is not instance or overtaken:
            return row_ids.get_or_create(connection, table, key, **others)
        overtaken.append(other.write(relations.record, announced))
        reached = row_ids.get_or_create(connection, table, key, **others)
        other.write(relation_removal.roll_back, *overtaken)
        return reached

    monkeypatch.setattr(notifications, "get_or_create", overtake)
    store(database, [Ended(INSTANCE, "demo", START)])
    (ended,) = database.read(instances._find, Filters(instance_id="inst-1"), 10)
    assert overtaken
    assert ended.ended_at == START


OTHER_BASE = "10000000-0000-4000-8000-000000000003"
REBUILT = Started(INSTANCE, "demo", START + timedelta(minutes=1), OTHER_BASE)
REBUILT_BACK = Started(INSTANCE, "demo", START + timedelta(minutes=2), BASE)
MADE_BETWEEN = ImageMade(
    INSTANCE,
    "demo",
    START + timedelta(seconds=90),
    OTHER_BASE[:-1] + "4",
    "demo",
    "snapshot",
)
MADE_AFTER = ImageMade(INSTANCE, "demo", START + timedelta(minutes=3), MADE, "demo", "backup")


@pytest.mark.slow
def test_a_rebuild_to_the_first_image_counts_in_any_order(sqlite_url: str) -> None:
    events: list[Event] = [STARTED, REBUILT, REBUILT_BACK, MADE_BETWEEN, MADE_AFTER]
    for number, order in enumerate(itertools.permutations(events)):
        url = f"{sqlite_url}.{number}"
        schema.upgrade(make_url(url))
        database = Database(url, 20)
        store(database, [*order, *order])
        assert state(database)[2] == BASE, order
        for made, base in ((MADE_BETWEEN, OTHER_BASE), (MADE_AFTER, BASE)):
            (link,) = database.read(lineage_walk.ancestry, made.image_id, 1, None)
            assert link.parent_image_id == base, order
        database.close()


def test_the_first_and_last_start_are_found_in_any_order(database: Database) -> None:
    store(database, [REBUILT_BACK])
    store(database, [REBUILT])
    store(database, [STARTED])
    (found,) = database.read(instances._find, Filters(), 10)
    boots = found.images["boot"]
    assert (boots.oldest_at, boots.latest_at) == (STARTED.at, REBUILT_BACK.at)
    assert boots.latest_image_id == BASE


VOLUME = InstanceRef(NOVA, "vol-1", "volume")
CLONED = InstanceRef(NOVA, "snap-1", "volume-snapshot")


def created(minutes: float, source: InstanceRef | None = CLONED) -> Created:
    time = START + timedelta(minutes=minutes)
    return Created(InstanceRef(NOVA, "vol-1", "volume"), "demo", time, source)


TRANSFERRED = Transferred(
    InstanceRef(NOVA, "vol-1", "volume"), "other", START + timedelta(minutes=5)
)


def owner(database: Database) -> str:
    query = select(project.c.project_id).join(instance, instance.c.project_ref == project.c.id)
    named = query.where(instance.c.instance_id == "vol-1")
    return str(database.read(lambda connection: connection.execute(named).scalar_one()))


@pytest.mark.parametrize("source", [CLONED, None])
@pytest.mark.parametrize("is_late", [True, False])
def test_a_creation_does_not_change_a_known_owner(
    database: Database, source: InstanceRef | None, is_late: bool
) -> None:
    event = created(0, source)
    for one in [TRANSFERRED, event] if is_late else [event, TRANSFERRED, event]:
        store(database, [one])
    assert owner(database) == "other"


def test_the_notification_of_a_creation_names_the_owner_of_a_known_source(
    database: Database,
) -> None:
    below = InstanceRef(NOVA, "vol-2", "volume")
    origins.record(database, NewOrigin(below, VOLUME, START), Reporter(frozenset()))
    store(database, [created(0, None)])
    assert owner(database) == "demo"


@pytest.mark.slow
def test_the_time_of_a_service_or_else_of_the_first_notification_counts(
    sqlite_url: str,
) -> None:
    service = NewOrigin(VOLUME, CLONED, START + timedelta(minutes=2), "demo")
    first, second = created(1), created(3)
    reports = [first, second, service]
    orders = [*itertools.permutations(reports), *itertools.permutations(reports[:2])]
    for number, order in enumerate(orders):
        schema.upgrade(make_url(f"{sqlite_url}.{number}"))
        database = Database(f"{sqlite_url}.{number}", 20)
        for one in order:
            if isinstance(one, NewOrigin):
                origins.record(database, one, Reporter(frozenset()))
            elif isinstance(one, Event):
                store(database, [one])
        (found,) = origins.page(database, Filters(), 10, None).items
        expected = (service.since, "service") if service in order else (first.at, "notification")
        assert (found.since, found.reported_by) == expected, order
        database.close()
