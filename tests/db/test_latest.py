"""The times of the latest images of an instance follow all changes of its relations."""

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from related_images.db import (
    instances,
    latest_images,
    reconcile,
    relation_queries,
    relation_removal,
    relations,
)
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.listing import Page
from related_images.db.tables import instance
from related_images.model import Filters, Instance, InstancePosition
from tests.db.samples import NOON, NOVA, OTHER_NOVA, at, new, record, server

OLD = new(kind="backup", created_at=at(1))
LATE = new(kind="backup", created_at=at(2))
SNAPSHOT = new(created_at=at(3))


def latest(database: Database, instance_id: str = "vm-1") -> tuple[datetime, datetime]:
    """Return the time of the latest snapshot and of the latest backup."""
    asked = select(instance.c.latest_snapshot_at, instance.c.latest_backup_at)
    named = asked.where(instance.c.instance_id == instance_id)
    row = database.read(lambda connection: connection.execute(named).one())
    return row[0], row[1]


def refs(database: Database, image_id: str) -> list[int]:
    known, _ = database.read(reconcile._batch, 0, 100, at(99))
    return [image.ref for image in known if image.image_id == image_id]


def test_the_latest_of_each_kind_is_known(database: Database) -> None:
    record(database, LATE, OLD, SNAPSHOT)
    assert latest(database) == (at(3), at(2))


def test_a_start_does_not_count_as_an_image(database: Database) -> None:
    record(database, new(kind="boot"))
    assert latest(database) == (EPOCH, EPOCH)


def test_a_repeated_report_changes_nothing(database: Database) -> None:
    record(database, OLD, new(image=OLD.image_id, kind="backup", created_at=at(9)))
    assert latest(database) == (EPOCH, at(1))


def detach(database: Database) -> None:
    database.write(relation_removal.detach, server("vm-1"), LATE.image_id, "backup")


def mark_deleted(database: Database) -> None:
    database.write(relations.mark_deleted, LATE.image_id, at(9))


def reconciled(database: Database) -> None:
    database.write(reconcile._mark_deleted, refs(database, LATE.image_id), at(9), at(8))


def withdraw(database: Database) -> None:
    (ref,) = refs(database, LATE.image_id)
    database.write(reconcile._remove_announcements, ref, NOON, at(99))


@pytest.mark.parametrize("remove", [detach, mark_deleted, reconciled, withdraw])
def test_a_removed_image_is_not_the_latest(
    database: Database, remove: Callable[[Database], Any]
) -> None:
    record(database, OLD, LATE)
    remove(database)
    assert latest(database) == (EPOCH, at(1))


def test_a_rolled_back_image_is_not_the_latest(database: Database) -> None:
    _, late = record(database, OLD, LATE)
    database.write(relation_removal.roll_back, late)
    assert latest(database) == (EPOCH, at(1))


def test_a_restored_image_counts_again(database: Database) -> None:
    record(database, OLD, LATE)
    mark_deleted(database)
    database.write(reconcile._restore, refs(database, LATE.image_id))
    assert latest(database) == (EPOCH, at(2))


def test_a_time_that_an_older_version_did_not_update_is_found(database: Database) -> None:
    record(database, *(new(f"vm-{n}", kind="backup", created_at=at(n)) for n in range(5)))
    unaware = update(instance).where(instance.c.instance_id.in_(["vm-1", "vm-4"]))
    database.write(lambda connection: connection.execute(unaware.values(latest_backup_at=EPOCH)))
    first, last = database.read(latest_images.find_wrong, 0, 3)
    second, end = database.read(latest_images.find_wrong, last or 0, 3)
    assert (len(first), len(second)) == (1, 1)
    assert database.read(latest_images.find_wrong, end or 0, 3) == ((), None)
    database.write(latest_images.refresh, [*first, *second])
    assert latest(database, "vm-4") == (EPOCH, at(4))
    assert database.read(latest_images.find_wrong, 0, 9) == ([], end)


def test_an_image_recorded_again_counts_for_all_its_instances(database: Database) -> None:
    record(database, LATE)
    mark_deleted(database)
    again = new("vm-2", LATE.image_id, created_at=at(5))
    database.write(relations.record, again, relied_on=True)
    assert latest(database) == (EPOCH, at(2))
    mark_deleted(database)
    assert latest(database) == (EPOCH, EPOCH)


def test_an_image_with_a_used_id_counts_for_its_own_instance(
    database: Database,
) -> None:
    record(database, LATE)
    mark_deleted(database)
    (recorded,) = record(database, new("vm-2", LATE.image_id, created_at=at(5)))
    assert (latest(database), latest(database, "vm-2")) == ((EPOCH, EPOCH), (at(5), EPOCH))
    database.write(relation_removal.roll_back, recorded)
    assert latest(database) == (EPOCH, EPOCH)


def overdue(
    database: Database, limit: int, after: InstancePosition | None, **more: Any
) -> Page[Instance]:
    asked = Filters(kind="backup", **more)
    return instances.page(database, asked, limit, after, latest_before=at(5), until=at(60))


@pytest.mark.parametrize("limit", [1, 2, 3, 11, 12, 99])
def test_the_longest_overdue_come_first_over_all_pages(database: Database, limit: int) -> None:
    record(database, *(new(f"vm-{n}", kind="backup", created_at=at(n % 7)) for n in range(14)))
    record(database, new("never"), new("other", installation_uuid=OTHER_NOVA))
    ahead = [new(f"ahead-{n}", kind="backup", created_at=at(99 - n // 2)) for n in range(4)]
    record(database, *ahead, new("ahead-0", kind="backup", created_at=at(6)))
    seen: list[str] = []
    place, more = None, True
    while more:
        page = overdue(database, limit, place, installation_uuid=NOVA)
        more, last = page.more, page.items[-1]
        place = InstancePosition(last.installation_uuid, last.instance_id, last.latest_at)
        seen += [row.instance_id for row in page.items]
    overdue_first = ["never", *(f"vm-{n + m}" for n in range(5) for m in (0, 7))]
    assert seen == [*overdue_first, "ahead-2", "ahead-3", "ahead-1"]


def test_a_backup_between_two_pages_hides_no_other_instance(database: Database) -> None:
    record(database, *(new(f"vm-{n}", kind="backup", created_at=at(n)) for n in range(4)))
    (last,) = overdue(database, 1, None).items
    record(database, new(last.instance_id, kind="backup", created_at=at(9)))
    rest = overdue(database, 9, InstancePosition(NOVA, last.instance_id, last.latest_at)).items
    assert [row.instance_id for row in rest] == ["vm-1", "vm-2", "vm-3"]


@pytest.mark.parametrize(
    "narrowed", [{"visible_to": "p-1"}, {"label": "daily"}, {"kind": None}, {"kind": "boot"}]
)
def test_narrower_filters_do_not_use_the_stored_times(narrowed: dict[str, Any]) -> None:
    assert instances._knows_latest(Filters(kind="backup", installation_uuid=NOVA))
    assert not instances._knows_latest(Filters(**({"kind": "backup"} | narrowed)))


def test_an_image_marked_deleted_during_recording_counts(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    database, other = pair
    record(database, new(image=LATE.image_id, kind="boot"))
    known = relations._image

    def marked_meanwhile(*given: Any) -> Any:
        mark_deleted(other)
        return known(*given)

    monkeypatch.setattr(relations, "_image", marked_meanwhile)
    record(database, LATE)
    (row,) = database.read(relation_queries.find, Filters(kind="backup"), 10)
    assert row.image_deleted_at is None
    assert latest(database) == (EPOCH, at(2))


def test_an_older_image_counts_if_the_latest_is_removed_concurrently(
    pair: tuple[Database, Database],
) -> None:
    database, other = pair
    record(database, LATE)
    remover = threading.Thread(target=mark_deleted, args=[other])

    def record_older(connection: Connection) -> None:
        relations.record(connection, OLD)
        remover.start()
        # it waits for the end of this transaction, or has not read the relations yet
        remover.join(1)

    database.write(record_older)
    remover.join()
    assert latest(database) == (EPOCH, at(1))


def test_an_upgrade_fills_the_times_of_the_latest_images(url: str) -> None:
    from related_images.db import schema

    opened = Database(url, 10.0)
    record(opened, OLD, LATE, SNAPSHOT)
    mark_deleted(opened)
    schema.downgrade(url, "0002")
    schema.upgrade(url)
    assert latest(opened) == (at(3), at(1))
    opened.close()
