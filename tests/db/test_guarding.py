"""Delete protection, on each database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    NewRelation,
    Reporter,
    delete_protection,
    relations,
    schema,
    tables,
)
from related_images.db.recording import attach
from related_images.errors import ImageBeingDeleted, ImageGone, ImageInUse
from related_images.model import InstanceRef
from related_images.validation import parse_time

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
IMAGE = "10000000-0000-4000-8000-000000000001"
OTHER_IMAGE = "10000000-0000-4000-8000-000000000002"
NOW = parse_time("now", "2026-01-31T12:00:00Z")
START = NewRelation(InstanceRef(NOVA, "inst-1"), IMAGE, "boot", None, "service", "demo", NOW)


@pytest.fixture
def database(database_url: str) -> Database:
    schema.upgrade(make_url(database_url))
    return Database(database_url, 20)


def deletion(database: Database) -> delete_protection.StartedDeletion:
    return delete_protection.begin(database, IMAGE, None, forced=False)


def test_a_start_from_a_deleted_image_is_refused_after_another_deletion(
    database: Database,
) -> None:
    delete_protection.deleted(database, deletion(database))
    delete_protection.withdraw(database, deletion(database))
    with pytest.raises(ImageGone):
        attach(database, START, Reporter(frozenset()))


def test_a_failed_deletion_does_not_prevent_a_start(database: Database) -> None:
    delete_protection.withdraw(database, deletion(database))
    row, created = attach(database, START, Reporter(frozenset()))
    assert created
    assert row.image_deleted_at is None


def start(
    database: Database, number: int, project: str = "demo", kind: str = "boot", image: str = IMAGE
) -> None:
    ref = InstanceRef(NOVA, f"inst-{number}")
    attach(
        database,
        replace(START, instance=ref, project_id=project, kind=kind, image_id=image),
        Reporter(frozenset()),
    )


def refusal(database: Database, visible_to: str | None) -> str:
    with pytest.raises(ImageInUse) as caught:
        delete_protection.begin(database, IMAGE, visible_to, forced=False)
    return str(caught.value)


def test_a_refusal_counts_all_servers_and_lists_the_first(database: Database) -> None:
    for number in range(delete_protection.LISTED + 1):
        start(database, number)
    said = refusal(database, None)
    assert "6 live servers (inst-0 of " in said
    assert f"inst-4 of {NOVA}, ...)" in said
    assert "inst-5" not in said


def test_a_refusal_lists_a_single_server(database: Database) -> None:
    start(database, 1)
    assert f": it is used by 1 live server (inst-1 of {NOVA}); " in refusal(database, "demo")


def test_a_refusal_lists_only_servers_of_the_callers_project(database: Database) -> None:
    start(database, 1, "demo")
    start(database, 2, "other")
    said = refusal(database, "demo")
    assert f"1 live server (inst-1 of {NOVA}) and live resources of other projects" in said
    assert "inst-2" not in said
    said = refusal(database, "third")
    assert said.startswith(
        f"the image {IMAGE} cannot be deleted: it is used by live resources of other projects"
    )
    assert "inst-" not in said


def test_a_refused_deletion_is_not_pending(database: Database) -> None:
    start(database, 1)
    refusal(database, None)
    start(database, 2)
    assert "2 live servers" in refusal(database, None)


def test_a_forced_deletion_returns_the_number_of_live_servers(database: Database) -> None:
    start(database, 1)
    start(database, 2)
    begun = delete_protection.begin(database, IMAGE, None, forced=True)
    assert (begun.image_id, begun.in_use) == (IMAGE, 2)
    with pytest.raises(ImageBeingDeleted):
        start(database, 3)


@pytest.mark.parametrize("kind", ["snapshot", "backup"])
def test_a_server_does_not_use_the_images_made_from_it(database: Database, kind: str) -> None:
    start(database, 1, kind=kind)
    assert deletion(database).in_use == 0


def test_only_live_servers_of_the_image_count_as_use(database: Database) -> None:
    start(database, 1)
    start(database, 2, image=OTHER_IMAGE)
    database.write(relations.end_instance, START.instance, NOW)
    assert deletion(database).in_use == 0


def test_a_pending_deletion_refuses_only_starts_from_its_image(database: Database) -> None:
    begun = deletion(database)
    with pytest.raises(ImageBeingDeleted):
        start(database, 1)
    start(database, 1, kind="snapshot")
    start(database, 2, image=OTHER_IMAGE)
    delete_protection.withdraw(database, begun)
    start(database, 1)


def test_an_unfinished_deletion_expires_after_its_lease(database: Database) -> None:
    left = datetime.now(UTC) - delete_protection.LONGEST_DELETION
    database.write(delete_protection._begin, IMAGE, left + timedelta(minutes=1))
    with pytest.raises(ImageBeingDeleted):
        start(database, 1)
    database.write(delete_protection._begin, OTHER_IMAGE, left - timedelta(seconds=1))
    start(database, 2, image=OTHER_IMAGE)


def test_a_deletion_removes_expired_ones(database: Database) -> None:
    now = datetime.now(UTC)
    database.write(
        delete_protection._begin,
        OTHER_IMAGE,
        now - delete_protection.LONGEST_DELETION - timedelta(seconds=1),
    )
    kept = deletion(database).deletion.ref
    left = database.read(lambda asked: asked.execute(select(tables.deletion.c.id)).scalars().all())
    assert left == [kept]
