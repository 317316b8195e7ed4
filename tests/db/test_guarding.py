"""What is remembered of deletions, on each database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from related_images.db import Database, NewRelation, Reporter, deletions, relations, schema, tables
from related_images.db.recording import attach
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.validation import parse_time

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE = "10000000-0000-4000-8000-000000000001"
OTHER_IMAGE = "10000000-0000-4000-8000-000000000002"
NOW = parse_time("now", "2026-01-31T12:00:00Z")
START = NewRelation(NOVA, "inst-1", IMAGE, "boot", None, "service", "demo", NOW)


@pytest.fixture
def database(database_url: str) -> Database:
    schema.upgrade(make_url(database_url))
    return Database(database_url, 20)


def deletion(database: Database) -> deletions.StartedDeletion:
    return deletions.begin(database, IMAGE, None, forced=False)


def test_no_instance_starts_from_what_was_deleted_however_often_that_is_asked(
    database: Database,
) -> None:
    deletions.deleted(database, deletion(database))
    deletions.withdraw(database, deletion(database))
    with pytest.raises(ImageGone):
        attach(database, START, Reporter(frozenset()))


def test_a_deletion_that_came_to_nothing_is_forgotten(database: Database) -> None:
    deletions.withdraw(database, deletion(database))
    row, created = attach(database, START, Reporter(frozenset()))
    assert created
    assert row.image_deleted_at is None


def start(
    database: Database, number: int, project: str = "demo", kind: str = "boot", image: str = IMAGE
) -> None:
    attach(
        database,
        replace(START, instance_id=f"inst-{number}", project_id=project, kind=kind, image_id=image),
        Reporter(frozenset()),
    )


def refusal(database: Database, visible_to: str | None) -> str:
    with pytest.raises(ImageInUse) as caught:
        deletions.begin(database, IMAGE, visible_to, forced=False)
    return str(caught.value)


def test_a_refusal_counts_all_instances_and_names_the_first(database: Database) -> None:
    for number in range(deletions.NAMED + 1):
        start(database, number)
    said = refusal(database, None)
    assert "6 live instances (inst-0 of " in said
    assert f"inst-4 of {NOVA}, ...)" in said
    assert "inst-5" not in said


def test_a_refusal_names_one_instance(database: Database) -> None:
    start(database, 1)
    assert f": 1 live instance (inst-1 of {NOVA}) had been" in refusal(database, "demo")


def test_a_refusal_names_to_a_project_its_own_instances_alone(database: Database) -> None:
    start(database, 1, "demo")
    start(database, 2, "other")
    said = refusal(database, "demo")
    assert f"1 live instance (inst-1 of {NOVA}) and live instances of other projects" in said
    assert "inst-2" not in said
    said = refusal(database, "third")
    assert said.startswith(f"the image {IMAGE} cannot be deleted: live instances of other projects")
    assert "inst-" not in said


def test_a_refused_deletion_leaves_nothing_on_its_way(database: Database) -> None:
    start(database, 1)
    refusal(database, None)
    start(database, 2)
    assert "2 live instances" in refusal(database, None)


def test_a_forced_deletion_begins_and_tells_how_many_instances_are_live(database: Database) -> None:
    start(database, 1)
    start(database, 2)
    begun = deletions.begin(database, IMAGE, None, forced=True)
    assert (begun.image_id, begun.in_use) == (IMAGE, 2)
    with pytest.raises(ImageBeingDeleted):
        start(database, 3)


@pytest.mark.parametrize("kind", ["snapshot", "backup"])
def test_an_image_made_of_an_instance_is_not_in_use_by_it(database: Database, kind: str) -> None:
    start(database, 1, kind=kind)
    assert deletion(database).in_use == 0


def test_an_instance_that_ended_or_has_another_image_keeps_none(database: Database) -> None:
    start(database, 1)
    start(database, 2, image=OTHER_IMAGE)
    database.write(relations.end_instance, NOVA, "inst-1", NOW)
    assert deletion(database).in_use == 0


def test_only_starts_wait_for_a_deletion_on_its_way(database: Database) -> None:
    begun = deletion(database)
    with pytest.raises(ImageBeingDeleted):
        start(database, 1)
    start(database, 1, kind="snapshot")
    start(database, 2, image=OTHER_IMAGE)
    deletions.withdraw(database, begun)
    start(database, 1)


def test_a_deletion_that_nobody_ended_counts_until_its_lease_is_over(database: Database) -> None:
    left = datetime.now(UTC) - deletions.LEASE
    database.write(deletions._begin, IMAGE, left + timedelta(minutes=1))
    with pytest.raises(ImageBeingDeleted):
        start(database, 1)
    database.write(deletions._begin, OTHER_IMAGE, left - timedelta(seconds=1))
    start(database, 2, image=OTHER_IMAGE)


def test_the_next_deletion_removes_those_whose_lease_is_over(database: Database) -> None:
    now = datetime.now(UTC)
    database.write(deletions._begin, OTHER_IMAGE, now - deletions.LEASE - timedelta(seconds=1))
    kept = deletion(database).deletion.ref
    left = database.read(lambda asked: asked.execute(select(tables.deletion.c.id)).scalars().all())
    assert left == [kept]
