"""Reconciliation prefetches batches, and stores only the position of finished ones."""

import threading
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from related_images import failpoints
from related_images.db import Database, ImageState, reconcile, schema
from related_images.errors import StoreUnavailable
from related_images.failpoints import Point
from tests.db.samples import NOON, new, record

PATIENCE = 20


@pytest.fixture
def database(database_url: str, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database with three images and a batch size of one."""
    monkeypatch.setattr(reconcile, "BATCH", 1)
    schema.upgrade(make_url(database_url))
    opened = Database(database_url, PATIENCE)
    record(opened, *(new() for _ in range(3)))
    return opened


class FakeGlance:
    """A Glance that has every image; ``asked_ahead`` is set at the request for the second batch."""

    def __init__(self) -> None:
        self.batches = 0
        self.asked_ahead = threading.Event()

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        self.batches += 1
        if self.batches == 2:
            self.asked_ahead.set()
        return dict.fromkeys(image_ids, ImageState(NOON, "p-1"))

    def is_gone(self, image_id: str) -> bool:
        return False

    def is_empty(self) -> bool:
        return False


def run() -> reconcile.Run:
    now = datetime.now(UTC)
    return reconcile.Run(now - timedelta(days=1), now)


def test_the_next_batch_is_requested_while_one_is_corrected(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance, ahead = FakeGlance(), list[bool]()

    def written(point: Point) -> None:
        if point is Point.RECONCILE_WRITTEN:
            ahead.append(glance.asked_ahead.wait(PATIENCE / 4))

    monkeypatch.setattr(failpoints, "hook", written)
    reconcile.reconcile(database, glance, under_way := run(), False, lambda _: None)
    assert ahead == [True, True, True]
    assert under_way.counts.present == under_way.counts.checked == glance.batches == 3


def test_the_following_batch_is_read_while_one_is_requested(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance, read, ahead = FakeGlance(), threading.Semaphore(0), list[bool]()
    batch, created = reconcile._batch, glance.created

    def reading(*given: Any) -> Any:
        read.release()
        return batch(*given)

    def asked_for(image_ids: Collection[str]) -> Mapping[str, ImageState]:
        own_and_next = 1 if ahead else 2
        ahead.append(all(read.acquire(timeout=PATIENCE / 4) for _ in range(own_and_next)))
        return created(image_ids)

    monkeypatch.setattr(reconcile, "_batch", reading)
    monkeypatch.setattr(glance, "created", asked_for)
    reconcile.reconcile(database, glance, run(), False, lambda _: None)
    assert ahead == [True, True, True]


def test_a_prefetched_batch_does_not_advance_the_stored_position(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    glance = FakeGlance()

    def ended(point: Point) -> None:
        if point is Point.RECONCILE_SETTLED and glance.asked_ahead.wait(PATIENCE / 4):
            raise StoreUnavailable("the database is gone")

    monkeypatch.setattr(failpoints, "hook", ended)
    with pytest.raises(StoreUnavailable):
        reconcile.reconcile(database, glance, run(), False, lambda _: None)
    left = reconcile.begin(database, timedelta(0), is_new=False)
    assert (left.after, left.counts.checked) == (1, 1)
