"""Pending deletions: removing the row of an image keeps them."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from sqlalchemy import Connection

from related_images.db import delete_protection, purge, reconcile, relation_removal, relations
from related_images.db.database import Database
from related_images.db.delete_protection import Deletion
from related_images.model import Recorded
from tests.db.samples import NOON, at, counts, image_id, new, record, server

NOW = datetime.now(UTC)


def begin(database: Database, image: str) -> Deletion:
    return database.write(delete_protection._begin, image, NOW)


def roll_back(database: Database, recorded: Recorded) -> None:
    assert database.write(relation_removal.roll_back, recorded)


def remove_announcement(database: Database, recorded: Recorded) -> None:
    assert database.write(reconcile._remove_announcements, recorded.image_ref, NOON, at(99))


REMOVALS = pytest.mark.parametrize("remove", [roll_back, remove_announcement])


@REMOVALS
def test_removing_an_announcement_keeps_a_pending_deletion(
    database: Database, remove: Callable[[Database, Recorded], None]
) -> None:
    wanted = new()
    (announced,) = record(database, wanted)
    begun = begin(database, wanted.image_id)
    remove(database, announced)
    assert counts(database).keys() == {"installation", "project", "image", "deletion"}
    database.write(delete_protection._withdraw, begun)
    assert counts(database).keys() == {"installation", "project"}


@REMOVALS
def test_removing_an_announcement_keeps_the_deletion_mark(
    database: Database, remove: Callable[[Database, Recorded], None]
) -> None:
    wanted = new()
    (announced,) = record(database, wanted)
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    remove(database, announced)
    assert database.read(delete_protection._is_marked, announced.image_ref)


def withdrawing_another_deletion(database: Database, image: str) -> Callable[[Database], None]:
    begun = begin(database, image)
    return lambda other: other.write(delete_protection._withdraw, begun)


def rolling_back(database: Database, image: str) -> Callable[[Database], None]:
    (announced,) = record(database, new(image=image))
    return lambda other: roll_back(other, announced)


def removing_an_announcement(database: Database, image: str) -> Callable[[Database], None]:
    (announced,) = record(database, new(image=image))
    return lambda other: remove_announcement(other, announced)


def purging(database: Database, image: str) -> Callable[[Database], None]:
    record(database, new(image=image))
    database.write(relation_removal.detach, server("vm-1"), image, "snapshot")

    def forget(other: Database) -> None:
        purge.purge(other, NOW)

    return forget


@pytest.mark.parametrize(
    "prepared", [withdrawing_another_deletion, rolling_back, removing_an_announcement, purging]
)
def test_a_deletion_that_begins_while_the_image_row_is_removed_is_kept(
    pair: tuple[Database, Database],
    prepared: Callable[[Database, str], Callable[[Database], None]],
) -> None:
    database, other = pair
    image = image_id()
    forget = prepared(database, image)
    forgetting = threading.Thread(target=forget, args=[other])

    def begin_meanwhile(connection: Connection) -> Deletion:
        begun = delete_protection._begin(connection, image, NOW)
        forgetting.start()
        # it waits for the end of this transaction, or has not reached the lock
        forgetting.join(1)
        return begun

    begun = database.write(begin_meanwhile)
    forgetting.join()
    assert database.read(delete_protection._is_pending, begun.image_ref, NOW)
