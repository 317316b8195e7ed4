"""Purge: rows that are removed, and rows that are kept."""

from typing import Any

import pytest
from sqlalchemy import Connection

from related_images.db import purge, relation_removal, relations
from related_images.db.database import Database
from related_images.model import Purged
from tests.db.samples import at, counts, found, image_id, new, record, server

LATER = at(60)


def delete(database: Database, *image_ids: str, when: float = 1) -> None:
    for one in image_ids:
        database.write(relations.mark_deleted, one, at(when))


def end(database: Database, instance_id: str, when: float = 1) -> None:
    database.write(relations.end_instance, server(instance_id), at(when))


def forget(database: Database) -> Purged:
    """Purge completely; assert that the rows that ``due`` counts are removed."""
    expected = purge.due(database, LATER)
    gone = purge.purge(database, LATER)
    for name in ("relations", "images", "instances"):
        assert getattr(gone, name) >= getattr(expected, name)
    assert purge.due(database, LATER) == Purged()
    return gone


def test_an_image_deleted_long_ago_is_removed_with_its_relations(database: Database) -> None:
    kept, gone = new(), new()
    record(database, kept, gone, new(image=gone.image_id, kind="backup"))
    delete(database, gone.image_id)
    assert purge.due(database, LATER) == Purged(relations=2)
    assert forget(database) == Purged(relations=2, images=1)
    assert found(database) == [("vm-1", "snapshot")]


def test_a_recently_deleted_image_is_kept(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    delete(database, wanted.image_id, when=61)
    assert forget(database) == Purged()


def test_an_ended_instance_is_removed_with_its_last_image(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    delete(database, wanted.image_id)
    end(database, "vm-1")
    assert forget(database) == Purged(relations=1, images=1, instances=1)
    assert counts(database).keys() == {"installation", "project"}


def test_live_and_recently_ended_instances_are_kept(database: Database) -> None:
    live, late = new("live"), new("late")
    record(database, live, late)
    delete(database, live.image_id, late.image_id)
    end(database, "late", when=61)
    assert forget(database) == Purged(relations=2, images=2)
    assert counts(database)["instance"] == 2


def test_an_image_without_relations_is_removed(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    database.write(relation_removal.detach, server("vm-1"), wanted.image_id, "snapshot")
    assert purge.due(database, LATER) == Purged(images=1)
    assert forget(database) == Purged(images=1)


def test_the_boot_image_of_a_live_instance_is_kept(database: Database) -> None:
    image = image_id()
    record(database, new("parent", image), new("child", image, "boot"))
    delete(database, image)
    end(database, "parent")
    assert forget(database) == Purged()
    assert sorted(found(database)) == [("child", "boot"), ("parent", "snapshot")]


def test_the_boot_image_of_an_instance_with_an_image_is_kept(database: Database) -> None:
    image = image_id()
    record(database, new("parent", image), new("child", image, "boot"), new("child"))
    delete(database, image)
    end(database, "child")
    assert forget(database) == Purged()
    assert len(found(database)) == 3


def test_a_lineage_is_removed_from_its_leaves(database: Database) -> None:
    images = [image_id() for _ in range(4)]
    for n, image in enumerate(images):
        record(database, new(f"vm-{n}", image), new(f"vm-{n + 1}", image, "boot"))
        end(database, f"vm-{n}")
    delete(database, *images)
    end(database, "vm-4")
    assert purge.due(database, LATER) == Purged(relations=1)
    assert forget(database) == Purged(relations=8, images=4, instances=5)
    assert counts(database).keys() == {"installation", "project"}


def test_the_ancestors_of_a_kept_image_are_kept(database: Database) -> None:
    images = [image_id() for _ in range(3)]
    for n, image in enumerate(images):
        record(database, new(f"vm-{n}", image), new(f"vm-{n + 1}", image, "boot"))
        end(database, f"vm-{n}")
    delete(database, *images)
    assert forget(database) == Purged()


def test_a_purge_works_in_small_transactions(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purge, "BATCH", 3)
    gone = [new() for _ in range(7)]
    record(database, *gone)
    delete(database, *(one.image_id for one in gone))
    assert forget(database) == Purged(relations=7, images=7)


def test_a_transaction_examines_its_own_rows_only(database: Database) -> None:
    image = image_id()
    recorded = record(database, *(new(f"vm-{n}", image) for n in range(5)))
    delete(database, image)
    numbers = [one.relation_ref for one in recorded]
    assert database.write(purge._forget_relations, LATER, numbers[1], numbers[3]) == 3
    assert sorted(found(database)) == [("vm-0", "snapshot"), ("vm-4", "snapshot")]


def test_an_image_restored_concurrently_keeps_its_relations(
    database: Database, shared: str
) -> None:
    other = Database(shared, 10.0)
    wanted = new("vm-back")
    (recorded,) = record(database, wanted)
    delete(database, wanted.image_id)

    def revived_then_purged(connection: Connection, *args: Any) -> int:
        if not shared.startswith("sqlite"):  # in SQLite, a write transaction excludes others
            again = new("vm-other", wanted.image_id)
            other.write(relations.record, again, relied_on=True)
        return purge._forget_relations(connection, LATER, 1, recorded.relation_ref)

    gone = database.write(revived_then_purged)
    assert gone == (1 if shared.startswith("sqlite") else 0)
    purge.purge(database, LATER)
    other.close()
