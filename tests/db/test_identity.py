"""Images that had the same ID, and owners of images and instances, on each database."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from related_images.config import GUARD_COUNTS
from related_images.db import (
    Reporter,
    delete_protection,
    image_owners,
    lineage_walk,
    purge,
    reconcile,
    recording,
    relation_queries,
    relation_removal,
    relations,
)
from related_images.db.database import Database
from related_images.db.tables import image, project
from related_images.model import (
    Filters,
    ImageState,
    NewRelation,
    Recorded,
    RelationPosition,
)
from tests.db.samples import (
    NOON,
    NOVA,
    at,
    counts,
    found,
    image_id,
    new,
    record,
    record_claims,
    server,
    shown,
)
from tests.db.test_races import AtOnce, at_once, processes

__all__ = ["at_once", "processes"]


def state_at(minutes: float, owner: str | None = "p-1") -> ImageState:
    return ImageState(at(minutes), owner)


def rows(database: Database, **filters: Any) -> list[tuple[str, datetime | None, datetime | None]]:
    """Return the instance, and when the image was created and deleted, of each relation."""
    found = database.read(relation_queries.find, Filters(**filters), 100)
    return [(row.instance_id, row.image_created_at, row.image_deleted_at) for row in found]


def announced(database: Database, wanted: NewRelation, image_state: ImageState) -> Recorded:
    """Record a relation as for a POST to which Glance responds with 201."""
    (recorded,) = record(database, wanted)
    recording.created(database, wanted, recorded, image_state)
    return recorded


def attached(database: Database, wanted: NewRelation) -> Recorded:
    return database.write(relations.record, wanted, relied_on=True)


def test_an_announcement_does_not_restore_a_former_image(database: Database) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    announced(database, new("vm-2", wanted.image_id, created_at=at(5)), state_at(5))
    assert rows(database, image_id=wanted.image_id) == [
        ("vm-2", at(5), None),
        ("vm-1", at(0), at(1)),
    ]
    assert (shown(database), shown(database, "vm-2")) == ([], [wanted.image_id])


@pytest.mark.parametrize("same_instance", [True, False])
def test_rolling_back_an_announcement_gives_the_id_back(
    database: Database, same_instance: bool
) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    before = (rows(database), counts(database)["image"])
    again = new("vm-1" if same_instance else "vm-2", wanted.image_id)
    one, other = record(database, again, again)
    for recorded in (one, other):
        database.write(relation_removal.roll_back, recorded)
    assert (rows(database), counts(database)["image"]) == before
    assert attached(database, replace(wanted, image_state=state_at(0))).revived_from == at(1)
    assert rows(database) == [("vm-1", at(0), None)]


def test_removing_a_void_announcement_gives_the_id_back(database: Database) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    # the process is killed before it can roll the relation back
    (killed,) = record(database, new("vm-2", wanted.image_id, created_at=at(5)))
    withdrawn = (killed.image_ref, at(4), at(9))
    assert database.write(reconcile._remove_announcements, *withdrawn) == 1
    assert rows(database, image_id=wanted.image_id) == [("vm-1", at(0), at(1))]
    assert attached(database, replace(wanted, image_state=state_at(0))).revived_from == at(1)


def test_a_start_does_not_restore_an_image_that_loses_its_id_concurrently(
    database: Database,
) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    start = new("vm-2", wanted.image_id, "boot", image_state=state_at(0))
    looked_at = database.read(relations.look, start)
    announced(database, new("vm-3", wanted.image_id, created_at=at(5)), state_at(5))
    looks = iter([looked_at])

    def begin(connection: Connection) -> None:
        relations.record(connection, start, next(looks, None), relied_on=True)

    database.write(begin)
    assert rows(database, instance_id="vm-1") == [("vm-1", at(0), at(1))]


def test_rolling_back_an_announcement_keeps_later_relations(database: Database) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    (refused,) = record(database, new("vm-2", wanted.image_id))
    attached(database, new("vm-3", wanted.image_id, created_at=at(9), image_state=state_at(5)))
    database.write(relation_removal.roll_back, refused)
    assert rows(database) == [("vm-3", at(5), None), ("vm-1", at(0), at(1))]


@dataclass(frozen=True)
class Reuse:
    """Announce an image with a used ID; number 0 creates it, the others are rolled back."""

    image: str

    def __call__(self, database: Database, number: int) -> None:
        wanted = new(f"vm-{number}", self.image, created_at=at(9))
        recorded = database.write(relations.record, wanted)
        if number:
            database.write(relation_removal.roll_back, recorded)
        else:
            recording.created(database, wanted, recorded, state_at(9))


def test_concurrent_announcements_of_a_used_id_create_one_image(
    at_once: AtOnce, database: Database
) -> None:
    wanted = new("old")
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    at_once(Reuse(wanted.image_id), 24)
    assert rows(database) == [("vm-0", at(9), None), ("old", at(0), at(1))]
    assert counts(database)["image"] == 2


@pytest.mark.parametrize(
    ("deleted", "known", "image_state", "is_same"),
    [
        (False, 0, state_at(0), True),
        (False, 0, state_at(2), False),
        (True, 0, state_at(0), True),
        (True, 0, state_at(0, "p-2"), False),
        (False, 0, state_at(0, "p-2"), True),
        (False, None, state_at(0), True),
        (False, None, state_at(0.9), True),
        (False, None, state_at(2), False),
        (True, None, state_at(0.5), True),
        (True, None, state_at(0.9), False),
    ],
)
@pytest.mark.parametrize("kind", ["snapshot", "boot"])
def test_an_attachment_belongs_to_the_image_that_glance_reports(
    database: Database,
    deleted: bool,
    known: float | None,
    image_state: ImageState,
    is_same: bool,
    kind: str,
) -> None:
    wanted = new()
    attached(database, replace(wanted, image_state=None if known is None else state_at(known)))
    if deleted:
        database.write(relations.mark_deleted, wanted.image_id, at(0.7))
    more: dict[str, Any] = {"image_state": image_state, "project_id": image_state.owner}
    recorded = attached(database, new("vm-2", wanted.image_id, kind, created_at=at(9), **more))
    assert recorded.image_created is not is_same
    assert (recorded.revived_from is not None) is (deleted and is_same)
    other = None if known is None else at(known)
    old = ("vm-1", image_state.created_at, None) if is_same else ("vm-1", other)
    assert rows(database)[1][: len(old)] == old
    assert rows(database)[0] == ("vm-2", image_state.created_at, None)


def test_a_late_second_announcement_belongs_to_the_created_image(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    again = announced(database, replace(wanted, created_at=at(9)), state_at(9))
    assert again.created is False
    assert rows(database) == [("vm-1", at(9), None)]


def test_claims_distinguish_images_with_one_id(database: Database) -> None:
    wanted = new(source="backfill", image_state=state_at(0))
    database.write(record_claims, wanted)
    database.write(
        record_claims, new("vm-2", wanted.image_id, image_state=state_at(9), created_at=at(9))
    )
    assert [row[:2] for row in rows(database)] == [("vm-2", at(9)), ("vm-1", at(0))]


def test_delete_protection_ignores_starts_from_a_former_image(database: Database) -> None:
    wanted = new(kind="boot", image_state=state_at(0))
    attached(database, wanted)
    begun = database.write(delete_protection._begin, wanted.image_id, at(9), state_at(9))
    use = database.read(delete_protection._use, begun.image_ref, None, GUARD_COUNTS)
    assert use.count == 0
    database.write(delete_protection._withdraw, begun)
    assert [row[0] for row in rows(database)] == ["vm-1"]


def test_a_purge_removes_a_former_image(database: Database) -> None:
    wanted = new()
    announced(database, wanted, state_at(0))
    database.write(relations.mark_deleted, wanted.image_id, at(1))
    announced(database, new("vm-2", wanted.image_id, created_at=at(5)), state_at(5))
    gone = purge.purge(database, at(2))
    assert (gone.relations, gone.images) == (1, 1)
    assert rows(database) == [("vm-2", at(5), None)]


def test_relations_of_images_with_one_id_are_paged_and_detached_one_by_one(
    database: Database,
) -> None:
    wanted = new()
    for number in range(3):
        database.write(relations.mark_deleted, wanted.image_id, at(number))
        announced(database, replace(wanted, created_at=at(number)), state_at(number))
    pages, after = [], None
    while page := database.read(relation_queries.find, Filters(image_id=wanted.image_id), 1, after):
        (row,) = page
        pages.append(row.created_at)
        after = RelationPosition(row.created_at, NOVA, row.instance_id, row.image_id, row.kind)
    assert pages == [at(2), at(1), at(0)]

    def detach() -> bool:
        return database.write(relation_removal.detach, server("vm-1"), wanted.image_id, "snapshot")

    assert detach() is True
    assert [row[1] for row in rows(database)] == [at(1), at(0)]
    assert detach() is True
    assert rows(database) == []
    assert detach() is False


def test_lineage_distinguishes_images_with_one_id(database: Database) -> None:
    base, middle = image_id(), image_id()
    record(database, new("vm-1", base, "boot"))
    announced(database, new("vm-1", middle), state_at(1))
    record(database, new("vm-2", middle, "boot", created_at=at(2)))
    leaf = new("vm-2", created_at=at(3))
    record(database, leaf)
    database.write(relations.mark_deleted, middle, at(4))
    announced(database, new("vm-3", middle, created_at=at(5)), state_at(5))
    nearest, root = database.read(lineage_walk.ancestry, leaf.image_id, 10, None)
    assert (nearest.parent_image_id, root.parent_image_id) == (middle, base)
    assert database.read(lineage_walk.ancestry, middle, 10, None) == []
    (rest,) = database.read(lineage_walk.ancestry, nearest.parent_key, 10, None)
    assert rest.parent_image_id == base
    steps = database.read(lineage_walk.descendants, base, 10)
    place = lineage_walk.TreePosition(steps[0].link.key, 1)
    _, below, *_ = database.read(lineage_walk.descendants, base, 10, after=place)
    assert (steps[0].link.image_id, below.link.image_id) == (middle, leaf.image_id)


def number_of(connection: Connection, name: str) -> int:
    asked = select(project.c.id).where(project.c.project_id == name)
    return int(connection.execute(asked).scalar_one())


def test_relations_follow_an_image_to_its_new_owner(database: Database) -> None:
    wanted, start = new(), new(kind="boot", project_id="p-1")
    record(database, start, wanted, new("vm-2", wanted.image_id, "boot", project_id="p-2"))
    (link,) = database.read(lineage_walk.ancestry, wanted.image_id, 10, "p-1")
    assert link.is_visible

    def move(connection: Connection) -> bool:
        asked = select(image.c.id).where(image.c.uuid == wanted.image_id)
        ref = connection.execute(asked).scalar_one()
        return image_owners.move(connection, ref, number_of(connection, "p-2"))

    assert [database.write(move) for _ in range(2)] == [True, False]
    assert found(database, visible_to="p-1") == [("vm-1", "boot")]
    assert sorted(found(database, visible_to="p-2")) == [("vm-1", "snapshot"), ("vm-2", "boot")]
    for project_id in ("p-1", "p-2"):
        (link,) = database.read(lineage_walk.ancestry, wanted.image_id, 10, project_id)
        assert not link.is_visible
    record(database, new(kind="boot", image=start.image_id, instance_project_id="p-2"))
    (link,) = database.read(lineage_walk.ancestry, wanted.image_id, 10, "p-2")
    assert link.is_visible


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_start_belongs_to_the_reported_owner_of_the_instance(
    database: Database, order: tuple[int, int]
) -> None:
    told = [new(kind="boot", project_id=None), new(project_id="p-2", instance_project_id="p-1")]
    record(database, *(told[number] for number in order))
    assert ("vm-1", "boot") in found(database, visible_to="p-1")
    assert found(database, visible_to="p-2") == [("vm-1", "snapshot")]


def test_an_attachment_returns_its_own_relation(database: Database) -> None:
    wanted = new(label="daily", kind="backup", image_state=state_at(0), created_at=at(9))
    reporter = Reporter(frozenset())
    recording.attach(database, wanted, reporter)
    database.write(relations.mark_deleted, wanted.image_id, at(10))
    other = replace(wanted, label="weekly", image_state=state_at(11), created_at=NOON)
    relation, created = recording.attach(database, other, reporter)
    assert (relation.label, relation.image_created_at, created) == ("weekly", at(11), True)


def test_an_id_has_one_row(database: Database) -> None:
    wanted = new()
    for number in range(3):
        announced(database, replace(wanted, created_at=at(number)), state_at(number))
        database.write(relations.mark_deleted, wanted.image_id, at(number))
    having = select(func.count()).where(image.c.uuid == wanted.image_id)
    assert database.read(lambda connection: connection.execute(having).scalar_one()) == 1
