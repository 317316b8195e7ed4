"""What is remembered of deletions, on each database."""

import pytest
from sqlalchemy.engine import make_url

from related_images.db import Database, NewRelation, deletions, schema
from related_images.db.recording import Speaker, attach
from related_images.errors import ImageGone
from related_images.validation import parse_time

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE = "10000000-0000-4000-8000-000000000001"
NOW = parse_time("now", "2026-01-31T12:00:00Z")
START = NewRelation(NOVA, "inst-1", IMAGE, "boot", None, "service", "demo", NOW)


@pytest.fixture
def database(database_url: str) -> Database:
    schema.upgrade(make_url(database_url))
    return Database(database_url, 20)


def deletion(database: Database) -> deletions.Begun:
    return deletions.begin(database, IMAGE, None, forced=False)


def test_no_instance_starts_from_what_was_deleted_however_often_that_is_asked(
    database: Database,
) -> None:
    deletions.deleted(database, deletion(database))
    deletions.withdraw(database, deletion(database))
    with pytest.raises(ImageGone):
        attach(database, START, Speaker(frozenset()))


def test_a_deletion_that_came_to_nothing_is_forgotten(database: Database) -> None:
    deletions.withdraw(database, deletion(database))
    row, created = attach(database, START, Speaker(frozenset()))
    assert created
    assert row.image_deleted_at is None
