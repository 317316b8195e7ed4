"""Recording, taking back, detaching, deleting, ending: what each leaves behind."""

import pytest

from related_images.store import lookups, reconciling, relations
from related_images.store.database import Database
from related_images.store.rows import Filters
from tests.store.samples import (
    NOON,
    NOVA,
    OTHER_NOVA,
    at,
    counts,
    found,
    image_id,
    new,
    record,
    shown,
)


def test_a_relation_is_given_back_as_it_was_recorded(database: Database) -> None:
    wanted = new(label="daily", kind="backup", source="manual")
    record(database, wanted)
    (row,) = database.read(lookups.relations, Filters(), 10)
    assert (row.installation_uuid, row.instance_id, row.image_id) == (
        NOVA,
        "vm-1",
        wanted.image_id,
    )
    assert (row.kind, row.label, row.source) == ("backup", "daily", "manual")
    assert (row.project_id, row.created_at, row.image_deleted_at) == ("p-1", NOON, None)


def test_the_same_relation_twice_is_one_row_and_the_first_stands(database: Database) -> None:
    first = new(label="daily", kind="backup")
    again = new(image=first.image_id, label="weekly", kind="backup", created_at=at(5))
    one, other = record(database, first, again)
    assert (one.created, other.created) == (True, False)
    assert one.relation_ref == other.relation_ref
    (row,) = database.read(lookups.relations, Filters(), 10)
    assert (row.label, row.created_at) == ("daily", NOON)


def test_the_same_image_may_be_in_relations_of_each_kind_and_instance(database: Database) -> None:
    image = image_id()
    wanted = [new("vm-1", image), new("vm-1", image, "backup"), new("vm-2", image, "boot")]
    record(database, *wanted, new("vm-1", image, installation_uuid=OTHER_NOVA))
    assert counts(database) == {
        "installation": 2,
        "project": 1,
        "instance": 3,
        "image": 1,
        "relation": 4,
    }


def test_rows_are_named_once(database: Database) -> None:
    record(database, *(new() for _ in range(5)))
    assert counts(database) == {
        "installation": 1,
        "project": 1,
        "instance": 1,
        "image": 5,
        "relation": 5,
    }


def test_taking_back_leaves_nothing_of_the_instance_and_the_image(database: Database) -> None:
    (recorded,) = record(database, new())
    assert database.write(relations.take_back, recorded) is True
    assert counts(database).keys() == {"installation", "project"}


def test_taking_back_twice_does_nothing_more(database: Database) -> None:
    (recorded,) = record(database, new())
    assert database.write(relations.take_back, recorded) is True
    assert database.write(relations.take_back, recorded) is False


def test_taking_back_keeps_a_relation_that_was_there_before(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    (again,) = record(database, wanted)
    assert database.write(relations.take_back, again) is False
    assert shown(database) == [wanted.image_id]


def test_taking_back_keeps_a_relation_that_another_relied_on_since(database: Database) -> None:
    wanted = new()
    first, _ = record(database, wanted, wanted)
    assert database.write(relations.take_back, first) is False
    assert shown(database) == [wanted.image_id]


def test_who_made_a_relation_takes_back_no_claim_of_another(database: Database) -> None:
    wanted = new()
    (announced,) = record(database, wanted)
    database.write(relations.record, wanted, relied_on=True)
    assert database.write(relations.take_back, announced) is False
    database.write(reconciling.withdraw_announcements, announced.image_ref, NOON, at(99))
    assert shown(database) == [wanted.image_id]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_of_two_who_take_back_a_relation_removes_it(
    database: Database, order: tuple[int, int]
) -> None:
    wanted = new()
    recorded = record(database, wanted, wanted)
    gone = [database.write(relations.take_back, recorded[number]) for number in order]
    assert gone == [False, True]
    assert shown(database) == []


def test_the_claim_of_who_relies_on_a_relation_outlasts_all_that_are_taken_back(
    database: Database,
) -> None:
    wanted = new()
    first, second = record(database, wanted, wanted)
    database.write(relations.record, wanted, relied_on=True)
    for recorded in (second, first):
        assert database.write(relations.take_back, recorded) is False
    database.write(reconciling.withdraw_announcements, first.image_ref, NOON, at(99))
    assert shown(database) == [wanted.image_id]


def test_taking_back_keeps_what_other_relations_refer_to(database: Database) -> None:
    (first,) = record(database, new())
    record(database, new("vm-1"), new("vm-2", "11111111-1111-4111-8111-111111111111"))
    assert database.write(relations.take_back, first) is True
    left = counts(database)
    assert (left["relation"], left["image"], left["instance"]) == (2, 2, 2)


def test_taking_back_remembers_that_the_instance_has_ended(database: Database) -> None:
    (recorded,) = record(database, new())
    database.write(relations.end_instance, NOVA, "vm-1", at(1))
    database.write(relations.take_back, recorded)
    record(database, new(kind="boot"))
    (row,) = database.read(lookups.instances, Filters(NOVA, "vm-1"), 1)
    assert row.ended_at == at(1)


def test_detaching_removes_one_relation_only(database: Database) -> None:
    image = image_id()
    record(database, new("vm-1", image), new("vm-1", image, "backup"), new("vm-2", image))
    assert database.write(relations.detach, NOVA, "vm-1", image, "snapshot") is True
    assert sorted(found(database)) == [("vm-1", "backup"), ("vm-2", "snapshot")]


@pytest.mark.parametrize(
    "named",
    [
        (OTHER_NOVA, "vm-1", "snapshot"),
        (NOVA, "vm-2", "snapshot"),
        (NOVA, "vm-1", "backup"),
    ],
)
def test_detaching_what_is_not_there_removes_nothing(
    database: Database, named: tuple[str, str, str]
) -> None:
    wanted = new()
    record(database, wanted)
    installation, instance, kind = named
    detached = database.write(relations.detach, installation, instance, wanted.image_id, kind)
    assert detached is False
    assert shown(database) == [wanted.image_id]


def test_a_detached_relation_can_be_recorded_anew(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    database.write(relations.detach, NOVA, "vm-1", wanted.image_id, "snapshot")
    (again,) = record(database, wanted)
    assert again.created is True


def test_the_first_deletion_stands(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    assert database.read(relations.knows_image, wanted.image_id) is True
    assert database.write(relations.mark_deleted, wanted.image_id, at(1)) is True
    assert database.write(relations.mark_deleted, wanted.image_id, at(2)) is False
    assert database.read(relations.knows_image, wanted.image_id) is False
    (row,) = database.read(lookups.relations, Filters(), 10)
    assert row.image_deleted_at == at(1)


def test_an_unknown_image_is_not_marked(database: Database) -> None:
    assert database.read(relations.knows_image, image_id()) is False
    assert database.write(relations.mark_deleted, image_id(), at(1)) is False


def test_the_first_end_of_an_instance_stands(database: Database) -> None:
    record(database, new())
    assert database.write(relations.end_instance, NOVA, "vm-1", at(1)) is True
    assert database.write(relations.end_instance, NOVA, "vm-1", at(2)) is True
    (row,) = database.read(lookups.instances, Filters(), 10)
    assert row.ended_at == at(1)


def test_an_unknown_instance_has_no_end(database: Database) -> None:
    record(database, new())
    assert database.write(relations.end_instance, OTHER_NOVA, "vm-1", at(1)) is False
    assert database.write(relations.end_instance, NOVA, "VM-1", at(1)) is False


def test_an_instance_belongs_to_the_project_that_was_told(database: Database) -> None:
    record(database, new(project_id="admin", instance_project_id="p-1"))
    record(database, new(project_id="admin"))
    (row,) = database.read(lookups.instances, Filters(), 10)
    assert row.project_id == "p-1"


def test_who_owns_an_image_of_an_instance_does_not_own_the_instance(database: Database) -> None:
    record(database, new(project_id="p-2"))
    (row,) = database.read(lookups.instances, Filters(), 10)
    assert row.project_id is None


def test_a_relation_may_have_no_project(database: Database) -> None:
    record(database, new(project_id=None))
    (row,) = database.read(lookups.relations, Filters(), 10)
    assert row.project_id is None
    assert database.read(lookups.relations, Filters(visible_to="p-1"), 10) == []
