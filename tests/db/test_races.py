"""Concurrent operations from several processes with several threads each."""

import multiprocessing
import os
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from multiprocessing.pool import Pool
from typing import Any

import pytest
from sqlalchemy import Connection, func, select, text

from related_images.db import (
    notifications,
    purge,
    recording,
    relation_queries,
    relation_removal,
    relations,
    schema,
)
from related_images.db.column_types import EPOCH
from related_images.db.database import Database
from related_images.db.notifications import ImageMade
from related_images.db.tables import LATEST, instance, relation
from related_images.model import MADE_FROM, Filters, Recorded, Reporter
from tests import servers
from tests.db.samples import NOON, at, counts, found, image_id, new, server, shown

PROCESSES = 2
THREADS = 4

AtOnce = Callable[[Callable[[Database, int], Any], int], list[Any]]


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        yield pool


@pytest.fixture
def at_once(processes: Pool, shared: str) -> AtOnce:
    """Run a function for the numbers below ``times`` in all threads of all processes."""

    def run(work: Callable[[Database, int], Any], times: int) -> list[Any]:
        shares = [(shared, work, range(start, times, PROCESSES)) for start in range(PROCESSES)]
        return [one for results in processes.starmap(_share, shares, 1) for one in results]

    return run


def _share(url: str, work: Callable[[Database, int], Any], numbers: Iterable[int]) -> list[Any]:
    database = Database(url, 30.0)
    with ThreadPoolExecutor(THREADS) as threads:
        results = list(threads.map(partial(work, database), numbers))
    database.close()
    return results


@dataclass(frozen=True)
class RecordOne:
    image: str

    def __call__(self, database: Database, number: int) -> Recorded:
        return database.write(relations.record, new(image=self.image, label=f"l{number}"))


@dataclass(frozen=True)
class Announce:
    """Announce an image of one server: the same one, or another one for each number."""

    image: str | None = None

    def __call__(self, database: Database, number: int) -> Recorded:
        return recording.announce(database, new(image=self.image), Reporter(frozenset()))


@pytest.mark.parametrize("work", [RecordOne, Announce])
def test_concurrent_records_of_one_relation_create_one_row(
    at_once: AtOnce, database: Database, work: Callable[[str], Any]
) -> None:
    recorded = at_once(work(image_id()), 36)
    assert sum(one.created for one in recorded) == 1
    assert len({one.relation_ref for one in recorded}) == 1
    assert counts(database) == {
        "installation": 1,
        "project": 1,
        "instance": 1,
        "image": 1,
        "relation": 1,
    }


def test_concurrent_announcements_of_images_of_a_server_cause_no_deadlock(
    at_once: AtOnce, database: Database
) -> None:
    """Every image is recorded at once: MariaDB reads the row of the server without a lock."""

    def deadlocks(connection: Connection) -> int:
        status = text("SHOW GLOBAL STATUS LIKE 'Innodb_deadlocks'")
        is_mariadb = connection.dialect.name == "mysql"
        return int(connection.execute(status).one()[1]) if is_mariadb else 0

    Announce()(database, 0)
    before = database.read(deadlocks)
    assert len({one.image_ref for one in at_once(Announce(), 80)}) == 80
    assert database.read(deadlocks) == before


@dataclass(frozen=True)
class RecordAndRollBack:
    """Record; odd numbers roll back, as after Glance's response 409."""

    image: str

    def __call__(self, database: Database, number: int) -> bool:
        recorded = database.write(relations.record, new(image=self.image))
        if number % 2:
            return not database.write(relation_removal.roll_back, recorded)
        return True


def test_concurrent_rollbacks_keep_a_relation_on_which_others_rely(
    at_once: AtOnce, database: Database
) -> None:
    for _ in range(3):
        image = image_id()
        kept = at_once(RecordAndRollBack(image), 24)
        assert image in shown(database)
        assert len(kept) == 24


@dataclass(frozen=True)
class AttachAndRevoke:
    """Attach, and revoke the attachment, except for the numbers in ``stays``."""

    image: str
    stays: tuple[int, ...]

    def __call__(self, database: Database, number: int) -> None:
        database.write(relations.record, new(image=self.image), relied_on=True, revocable=True)
        if number not in self.stays:
            database.write(relation_removal.revoke, server("vm-1"), self.image, "snapshot", NOON)


@pytest.mark.parametrize("stays", [(), (7,)])
def test_concurrent_revocations_remove_a_relation_with_its_last_report(
    at_once: AtOnce, database: Database, stays: tuple[int, ...]
) -> None:
    image = image_id()
    at_once(AttachAndRevoke(image, stays), 24)
    assert shown(database) == [image] * len(stays)


def record_different(database: Database, number: int) -> str:
    wanted = new(f"vm-{number % 5}", project_id=f"p-{number % 3}", kind="backup")
    database.write(relations.record, wanted)
    return wanted.image_id


def test_concurrent_records_lose_nothing(at_once: AtOnce, database: Database) -> None:
    wanted = at_once(record_different, 120)
    rows = database.read(relation_queries.find, Filters(), 1000)
    assert sorted(row.image_id for row in rows) == sorted(wanted)
    left = counts(database)
    assert (left["installation"], left["project"], left["instance"]) == (1, 3, 5)


@dataclass(frozen=True)
class RandomOperations:
    """Apply all operations to a few relations, in a random order for each number."""

    images: tuple[str, ...]

    def __call__(self, database: Database, number: int) -> None:
        chance = random.Random(f"{number} {os.getpid()}")
        for _ in range(6):
            self._do(database, chance)

    def _do(self, database: Database, chance: random.Random) -> None:
        image, instance = chance.choice(self.images), f"vm-{chance.randrange(2)}"
        kind, minute = chance.choice(MADE_FROM), chance.randrange(9)
        deed = chance.randrange(6)
        if deed <= 2:
            wanted = new(instance, image, kind, created_at=at(minute))
            recorded = database.write(relations.record, wanted)
            if deed == 2:
                database.write(relation_removal.roll_back, recorded)
        elif deed == 3:
            database.write(relation_removal.detach, server(instance), image, kind)
        elif deed == 4:
            database.write(relations.mark_deleted, image, at(-99))
        else:
            database.write(purge._forget_relations, NOON, 0, sys.maxsize)


@pytest.mark.slow
def test_concurrent_operations_leave_consistent_rows(at_once: AtOnce, database: Database) -> None:
    images = tuple(image_id() for _ in range(3))
    at_once(RandomOperations(images), 48)
    key = (relation.c.image_ref, relation.c.instance_ref, relation.c.kind)
    twice = select(*key).group_by(*key).having(func.count() > 1)
    assert database.read(lambda connection: connection.execute(twice).all()) == []
    # each remaining row is found with the rows to which it refers
    assert len(found(database)) == counts(database).get("relation", 0)
    assert noted_latest(database) == actual_latest(database)


def noted_latest(database: Database) -> dict[tuple[str, str], datetime]:
    asked = select(instance.c.instance_id, *LATEST.values())
    rows = database.read(lambda connection: connection.execute(asked).all())
    noted = {(id, kind): at for id, *times in rows for kind, at in zip(LATEST, times, strict=True)}
    return {key: at for key, at in noted.items() if at != EPOCH}


def actual_latest(database: Database) -> dict[tuple[str, str], datetime]:
    rows = database.read(relation_queries.find, Filters(), 1000)
    alive = [row for row in rows if row.image_deleted_at is None and row.kind in LATEST]
    # sorted by time, newest first
    return {(row.instance_id, row.kind): row.created_at for row in reversed(alive)}


@dataclass(frozen=True)
class ReportTwice:
    """Report each image twice: with a known kind, and with a guessed one."""

    images: tuple[str, ...]

    def __call__(self, database: Database, number: int) -> None:
        image, kind = self.images[number // 2], None if number % 2 else "backup"
        ref = server(f"vm-{number // 20}")
        notifications.store(database, [ImageMade(ref, "p-1", NOON, image, "p-1", kind)])


def test_a_known_kind_replaces_a_guessed_one(at_once: AtOnce, database: Database) -> None:
    images = tuple(image_id() for _ in range(60))
    at_once(ReportTwice(images), 2 * len(images))
    assert [kind for _, kind in found(database)] == ["backup"] * len(images)


def test_a_lock_timeout_is_tried_again(postgresql: servers.DatabaseServer) -> None:
    """PostgreSQL detects a deadlock after a second; the default lock timeout is shorter."""
    url = postgresql.create()
    schema.upgrade(url)
    database = Database(url, 8.0)
    wanted = new(kind="backup")
    database.write(relations.record, wanted)
    tries: list[int] = []
    with schema.connected(url) as other:
        other.execute(select(instance.c.id).with_for_update())

        def record(connection: Connection) -> Recorded:
            tries.append(len(tries))
            if len(tries) == 2:
                other.rollback()
            return relations.record(connection, replace(wanted, image_id=image_id()))

        assert database.write(record).created
    assert tries == [0, 1]
    database.close()
