"""Events of Cinder's notifications, and root volumes in Nova's, in any order and repeated."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, select

from related_images.db import Database, origins
from related_images.db.notifications import Created, Ended, Event, Started, Transferred, store
from related_images.db.tables import instance, project
from related_images.model import Filters, InstanceRef, NewOrigin, Origin, Reporter

CINDER = "5e2a4b3c-6f0d-4b57-9d3e-2f1c0a9b8d7e"
NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
AT = datetime(2026, 1, 31, 12, tzinfo=UTC)
VOLUME = InstanceRef(CINDER, "v-1", "volume")
SNAPSHOT = InstanceRef(CINDER, "s-1", "volume-snapshot")

TAKEN = Created(InstanceRef(CINDER, "s-1", "volume-snapshot"), "demo", AT, VOLUME)
STARTED = Started(InstanceRef(NOVA, "vm-1"), "demo", AT, None, VOLUME)
CREATED = Created(InstanceRef(CINDER, "v-1", "volume"), "demo", AT)
TRANSFERRED = Transferred(InstanceRef(CINDER, "v-1", "volume"), "other", AT)
ENDED = Ended(InstanceRef(CINDER, "v-1", "volume"), "demo", AT)


def recorded(database: Database) -> list[Origin]:
    return list(origins.page(database, Filters(), 10, None).items)


def resources(database: Database) -> dict[str, tuple[str | None, bool]]:
    """The owner of each resource, and whether it ended."""
    query = select(instance.c.instance_id, project.c.project_id, instance.c.ended_at)
    query = query.select_from(instance.outerjoin(project, instance.c.project_ref == project.c.id))

    def read(connection: Connection) -> dict[str, tuple[str | None, bool]]:
        rows = connection.execute(query).all()
        return {row.instance_id: (row.project_id, row.ended_at is not None) for row in rows}

    return database.read(read)


@pytest.mark.parametrize("events", [*itertools.permutations([TAKEN, STARTED, CREATED])])
def test_each_origin_is_recorded_once(database: Database, events: tuple[Event, ...]) -> None:
    for event in (*events, *events):
        store(database, [event])
    found = {(one.instance_id, one.source and one.source.instance_id) for one in recorded(database)}
    assert found == {("s-1", "v-1"), ("vm-1", "v-1")}
    assert {one.reported_by for one in recorded(database)} == {"notification"}


def test_a_volume_without_a_stated_source_stays_unknown(database: Database) -> None:
    store(database, [CREATED])
    assert recorded(database) == []
    assert resources(database) == {"v-1": ("demo", False)}


@pytest.mark.parametrize("known", [[], [CREATED]])
def test_a_transferred_volume_has_the_new_owner(database: Database, known: list[Event]) -> None:
    store(database, [*known, TRANSFERRED])
    assert resources(database) == {"v-1": ("other", False)}
    # a repeated notification of the creation
    store(database, [CREATED])
    assert resources(database) == {"v-1": ("other", False)}


@pytest.mark.parametrize("known", [[], [CREATED], [TAKEN]])
def test_a_deleted_volume_ends(database: Database, known: list[Event]) -> None:
    store(database, known)
    for _ in range(2):
        store(database, [ENDED])
    assert resources(database)["v-1"] == ("demo", True)


def test_an_origin_that_a_service_reported_is_not_repeated(database: Database) -> None:
    reported = NewOrigin(SNAPSHOT, VOLUME, AT - timedelta(minutes=5), "demo")
    origins.record(database, reported, Reporter(frozenset({"cinder"})))
    store(database, [TAKEN])
    (found,) = recorded(database)
    assert (found.since, found.reported_by) == (reported.since, "service")
