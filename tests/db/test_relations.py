"""Record, roll back, detach, delete and end: the rows that remain."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from related_images.db import (
    instances,
    reconcile,
    recording,
    relation_queries,
    relation_removal,
    relations,
    usages,
)
from related_images.db.database import Database
from related_images.model import Filters, NewRelation
from tests.db.samples import (
    NOON,
    NOVA,
    OTHER_NOVA,
    at,
    counts,
    found,
    image_id,
    new,
    record,
    server,
    shown,
)


def test_a_relation_is_found_as_it_was_recorded(database: Database) -> None:
    wanted = new(label="daily", kind="backup", source="manual")
    record(database, wanted)
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert (row.installation_uuid, row.instance_id, row.image_id) == (
        NOVA,
        "vm-1",
        wanted.image_id,
    )
    assert (row.kind, row.label, row.source) == ("backup", "daily", "manual")
    assert (row.project_id, row.created_at, row.image_deleted_at) == ("p-1", NOON, None)


def test_a_relation_recorded_twice_is_one_row_with_the_first_values(database: Database) -> None:
    first = new(label="daily", kind="backup")
    again = new(image=first.image_id, label="weekly", kind="backup", created_at=at(5))
    one, other = record(database, first, again)
    assert (one.created, other.created) == (True, False)
    assert one.relation_ref == other.relation_ref
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert (row.label, row.created_at) == ("daily", NOON)


def test_an_image_may_have_relations_of_each_kind_and_instance(database: Database) -> None:
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


def test_instances_images_and_projects_have_one_row_each(database: Database) -> None:
    record(database, *(new() for _ in range(5)))
    assert counts(database) == {
        "installation": 1,
        "project": 1,
        "instance": 1,
        "image": 5,
        "relation": 5,
    }


def test_a_rollback_removes_the_instance_and_the_image(database: Database) -> None:
    (recorded,) = record(database, new())
    assert database.write(relation_removal.roll_back, recorded) is True
    assert counts(database).keys() == {"installation", "project"}


def test_a_second_rollback_changes_nothing(database: Database) -> None:
    (recorded,) = record(database, new())
    assert database.write(relation_removal.roll_back, recorded) is True
    assert database.write(relation_removal.roll_back, recorded) is False


def test_a_rollback_keeps_a_relation_recorded_before(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    (again,) = record(database, wanted)
    assert database.write(relation_removal.roll_back, again) is False
    assert shown(database) == [wanted.image_id]


def test_a_rollback_keeps_a_relation_on_which_a_later_report_relies(database: Database) -> None:
    wanted = new()
    first, _ = record(database, wanted, wanted)
    assert database.write(relation_removal.roll_back, first) is False
    assert shown(database) == [wanted.image_id]


def test_a_rollback_by_the_creator_keeps_claims_of_others(database: Database) -> None:
    wanted = new()
    (announced,) = record(database, wanted)
    database.write(relations.record, wanted, relied_on=True)
    assert database.write(relation_removal.roll_back, announced) is False
    database.write(reconcile._remove_announcements, announced.image_ref, NOON, at(99))
    assert shown(database) == [wanted.image_id]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_the_last_of_two_rollbacks_removes_the_relation(
    database: Database, order: tuple[int, int]
) -> None:
    wanted = new()
    recorded = record(database, wanted, wanted)
    gone = [database.write(relation_removal.roll_back, recorded[number]) for number in order]
    assert gone == [False, True]
    assert shown(database) == []


def test_a_relation_relied_on_outlasts_all_rollbacks(
    database: Database,
) -> None:
    wanted = new()
    first, second = record(database, wanted, wanted)
    database.write(relations.record, wanted, relied_on=True)
    for recorded in (second, first):
        assert database.write(relation_removal.roll_back, recorded) is False
    database.write(reconcile._remove_announcements, first.image_ref, NOON, at(99))
    assert shown(database) == [wanted.image_id]


def attach(database: Database, wanted: NewRelation) -> None:
    database.write(relations.record, wanted, relied_on=True, revocable=True)


def revoke(database: Database, wanted: NewRelation, at: datetime | None = NOON) -> bool:
    ids = (wanted.instance, wanted.image_id, wanted.kind)
    return database.write(relation_removal.revoke, *ids, at)


def test_revoking_the_last_attachment_removes_the_relation(database: Database) -> None:
    wanted = new()
    for _ in range(2):
        attach(database, wanted)
    assert [revoke(database, wanted) for _ in range(2)] == [False, True]
    assert shown(database) == []


def announce(database: Database, wanted: NewRelation) -> None:
    record(database, wanted)


def report(database: Database, wanted: NewRelation) -> None:
    database.write(relations.record, wanted, relied_on=True)


@pytest.mark.parametrize("other", [announce, report, attach])
@pytest.mark.parametrize("is_first", [True, False])
def test_a_relation_outlasts_an_attachment_if_others_report_it(
    database: Database, other: Callable[[Database, NewRelation], None], is_first: bool
) -> None:
    wanted = new()
    for deed in (other, attach) if is_first else (attach, other):
        deed(database, wanted)
    assert revoke(database, wanted) is False
    assert shown(database) == [wanted.image_id]
    if other is not attach:
        assert revoke(database, wanted) is False  # no attachment is left to revoke


def test_a_revoked_attachment_does_not_turn_a_relation_into_a_void_announcement(
    database: Database,
) -> None:
    wanted = new()
    attach(database, wanted)
    report(database, wanted)
    (announced,) = record(database, wanted)
    assert revoke(database, wanted) is False
    assert database.write(relation_removal.roll_back, announced) is False
    database.write(reconcile._remove_announcements, announced.image_ref, NOON, at(99))
    assert shown(database) == [wanted.image_id]


@pytest.mark.parametrize("other", [report, attach])
def test_a_relation_outlasts_the_report_of_its_creator_if_others_report_it(
    database: Database, other: Callable[[Database, NewRelation], None]
) -> None:
    alone, shared = new("vm-2"), new()
    record(database, alone, shared)
    other(database, shared)
    assert revoke(database, alone, None) is True
    assert revoke(database, shared, None) is False
    assert shown(database) == [shared.image_id]
    if other is attach:
        assert revoke(database, shared) is True


def test_revoking_an_attachment_to_a_removed_relation_keeps_its_successor(
    database: Database,
) -> None:
    wanted = new()
    attach(database, wanted)
    database.write(relation_removal.detach, server("vm-1"), wanted.image_id, "snapshot")
    attach(database, replace(wanted, created_at=at(5)))
    assert revoke(database, wanted, NOON) is False
    assert shown(database) == [wanted.image_id]


def test_a_rolled_back_announcement_is_not_a_report(database: Database) -> None:
    wanted = new()
    attach(database, wanted)
    (announced,) = record(database, wanted)
    assert revoke(database, wanted) is False
    assert database.write(relation_removal.roll_back, announced) is True
    assert shown(database) == []


def test_a_revoked_start_no_longer_determines_a_parent(database: Database) -> None:
    wanted = new(kind="boot")
    attach(database, wanted)
    assert database.read(usages._usages, [wanted.image_id], None)[0].live_instances == 1
    assert revoke(database, wanted) is True
    assert database.read(usages._usages, [wanted.image_id], None) == []


def test_a_rollback_keeps_rows_of_other_relations(database: Database) -> None:
    (first,) = record(database, new())
    record(database, new("vm-1"), new("vm-2", "11111111-1111-4111-8111-111111111111"))
    assert database.write(relation_removal.roll_back, first) is True
    left = counts(database)
    assert (left["relation"], left["image"], left["instance"]) == (2, 2, 2)


def test_a_rollback_keeps_an_ended_instance(database: Database) -> None:
    (recorded,) = record(database, new())
    database.write(relations.end_instance, server("vm-1"), at(1))
    database.write(relation_removal.roll_back, recorded)
    record(database, new(kind="boot"))
    (row,) = database.read(instances._find, Filters(NOVA, "vm-1"), 1)
    assert row.ended_at == at(1)


def test_detaching_removes_one_relation_only(database: Database) -> None:
    image = image_id()
    record(database, new("vm-1", image), new("vm-1", image, "backup"), new("vm-2", image))
    assert database.write(relation_removal.detach, server("vm-1"), image, "snapshot") is True
    assert sorted(found(database)) == [("vm-1", "backup"), ("vm-2", "snapshot")]


@pytest.mark.parametrize(
    "named",
    [
        (OTHER_NOVA, "vm-1", "snapshot"),
        (NOVA, "vm-2", "snapshot"),
        (NOVA, "vm-1", "backup"),
    ],
)
def test_detaching_an_unknown_relation_removes_nothing(
    database: Database, named: tuple[str, str, str]
) -> None:
    wanted = new()
    record(database, wanted)
    installation, instance, kind = named
    detached = database.write(
        relation_removal.detach, server(instance, installation), wanted.image_id, kind
    )
    assert detached is False
    assert shown(database) == [wanted.image_id]


def test_a_detached_relation_can_be_recorded_again(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    database.write(relation_removal.detach, server("vm-1"), wanted.image_id, "snapshot")
    (again,) = record(database, wanted)
    assert again.created is True


def test_the_first_deletion_time_remains(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    assert database.read(recording._knows_image, wanted.image_id) is True
    assert database.write(relations.mark_deleted, wanted.image_id, at(1)) is True
    assert database.write(relations.mark_deleted, wanted.image_id, at(2)) is False
    assert database.read(recording._knows_image, wanted.image_id) is False
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert row.image_deleted_at == at(1)


def test_an_unknown_image_is_not_marked(database: Database) -> None:
    assert database.read(recording._knows_image, image_id()) is False
    assert database.write(relations.mark_deleted, image_id(), at(1)) is False


def test_the_first_end_of_an_instance_remains(database: Database) -> None:
    record(database, new())
    assert database.write(relations.end_instance, server("vm-1"), at(1)) is True
    assert database.write(relations.end_instance, server("vm-1"), at(2)) is True
    (row,) = database.read(instances._find, Filters(), 10)
    assert row.ended_at == at(1)


def test_an_unknown_instance_has_no_end(database: Database) -> None:
    record(database, new())
    assert database.write(relations.end_instance, server("vm-1", OTHER_NOVA), at(1)) is False
    assert database.write(relations.end_instance, server("VM-1"), at(1)) is False


def test_an_instance_belongs_to_the_reported_project(database: Database) -> None:
    record(database, new(project_id="admin", instance_project_id="p-1"))
    record(database, new(project_id="admin"))
    (row,) = database.read(instances._find, Filters(), 10)
    assert row.project_id == "p-1"


def test_the_owner_of_an_image_does_not_own_its_instance(database: Database) -> None:
    record(database, new(project_id="p-2"))
    (row,) = database.read(instances._find, Filters(), 10)
    assert row.project_id is None


def test_a_relation_may_have_no_project(database: Database) -> None:
    record(database, new(project_id=None))
    (row,) = database.read(relation_queries.find, Filters(), 10)
    assert row.project_id is None
    assert database.read(relation_queries.find, Filters(visible_to="p-1"), 10) == []
