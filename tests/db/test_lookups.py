"""Lists of images, relations and instances: filters, order and pages."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from related_images.db import (
    instances,
    relation_queries,
    relation_removal,
    relations,
)
from related_images.db.database import Database
from related_images.model import (
    Filters,
    Images,
    Instance,
    InstanceRef,
    NewRelation,
    Relation,
    RelationPosition,
)
from tests.db.samples import (
    NOON,
    NOVA,
    OTHER_NOVA,
    at,
    found,
    image_id,
    new,
    record,
    server,
    shown,
)


def test_an_image_list_holds_the_images_of_one_instance_of_one_installation(
    database: Database,
) -> None:
    mine = [new(), new(kind="backup")]
    record(database, *mine, new("vm-2"), new(installation_uuid=OTHER_NOVA), new(kind="boot"))
    assert shown(database) == sorted(one.image_id for one in mine)
    assert shown(database, kinds=("backup",)) == [mine[1].image_id]
    assert shown(database, "vm-3") == []


def test_an_image_of_two_kinds_is_listed_once(database: Database) -> None:
    image = image_id()
    record(database, new(image=image), new(image=image, kind="backup"))
    assert shown(database) == [image]


def test_an_image_list_is_filtered_by_label(database: Database) -> None:
    daily, weekly = new(kind="backup", label="daily"), new(kind="backup", label="weekly")
    record(database, daily, weekly, new())
    assert shown(database, label="daily") == [daily.image_id]
    assert shown(database, label="Daily") == []


def test_relations_without_a_label_can_match_every_label(database: Database) -> None:
    daily, weekly = new(kind="backup", label="daily"), new(kind="backup", label="weekly")
    bare = new(kind="backup")
    record(database, daily, weekly, bare)
    wanted = sorted([daily.image_id, bare.image_id])
    assert shown(database, label="daily", or_unlabelled=True) == wanted


def test_a_deleted_image_is_not_listed(database: Database) -> None:
    wanted, gone = new(), new()
    record(database, wanted, gone)
    database.write(relations.mark_deleted, gone.image_id, at(1))
    assert shown(database) == [wanted.image_id]


def test_an_image_list_can_be_restricted_to_one_project(database: Database) -> None:
    mine, daily = new(project_id="p-2"), new(project_id="p-2", label="daily")
    record(database, mine, daily, new(), new(project_id=None, label="daily"))
    assert shown(database, visible_to="p-2") == sorted([mine.image_id, daily.image_id])
    assert shown(database, visible_to="p-2", label="daily") == [daily.image_id]
    assert shown(database, visible_to="p-3") == []


def test_an_image_list_ends_at_its_limit(database: Database) -> None:
    record(database, *(new() for _ in range(4)))
    assert len(shown(database, limit=3)) == 4  # one more, to know that there are more


def test_instance_ids_differ_by_case_alone(database: Database) -> None:
    lower, upper = new("vm-a"), new("VM-A")
    record(database, lower, upper)
    assert shown(database, "vm-a") == [lower.image_id]
    assert shown(database, "VM-A") == [upper.image_id]
    assert found(database, instance_id="Vm-a") == []


def test_the_longest_values_are_stored_completely(database: Database) -> None:
    instance_id, label, project = "i" * 255, "l" * 64, "p" * 255
    record(database, new(instance_id, label=label, project_id=project))
    (row,) = database.read(relation_queries.find, Filters(instance_id=instance_id, label=label), 10)
    assert (row.instance_id, row.label, row.project_id) == (instance_id, label, project)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, {"a", "b", "c", "d"}),
        ({"installation_uuid": NOVA}, {"a", "b", "c"}),
        ({"installation_uuid": OTHER_NOVA, "instance_id": "a"}, set()),
        ({"instance_id": "d"}, {"d"}),
        ({"image_id": "11111111-1111-4111-8111-111111111111"}, {"b"}),
        ({"project_id": "p-2"}, {"c", "d"}),
        ({"visible_to": "p-2"}, {"c", "d"}),
        ({"visible_to": "p-2", "project_id": "p-1"}, set()),
        ({"kind": "backup"}, {"b", "d"}),
        ({"label": "daily"}, {"b"}),
        ({"source": "backfill"}, {"c"}),
        ({"created_after": at(1)}, {"c", "d"}),
        ({"created_before": at(1)}, {"a"}),
        ({"created_after": at(0), "created_before": at(3)}, {"b", "c"}),
        ({"project_id": "unheard-of"}, set()),
        ({"installation_uuid": "99999999-9999-4999-8999-999999999999"}, set()),
    ],
)
def test_relations_are_filtered(
    database: Database, filters: dict[str, Any], wanted: set[str]
) -> None:
    record(
        database,
        new("a", created_at=at(0)),
        new(
            *("b", "11111111-1111-4111-8111-111111111111", "backup"),
            label="daily",
            created_at=at(1),
        ),
        new("c", source="backfill", project_id="p-2", created_at=at(2)),
        new("d", kind="backup", project_id="p-2", created_at=at(3), installation_uuid=OTHER_NOVA),
    )
    rows = database.read(relation_queries.find, Filters(**filters), 100)
    assert {row.instance_id for row in rows} == wanted


def pages(database: Database, limit: int, **filters: Any) -> Iterator[list[Relation]]:
    after = None
    while page := database.read(relation_queries.find, Filters(**filters), limit, after):
        yield page
        after = position(page[-1])


def position(last: Relation) -> RelationPosition:
    return RelationPosition(
        last.created_at, last.installation_uuid, last.instance_id, last.image_id, last.kind
    )


@pytest.mark.parametrize("limit", [1, 2, 3, 7])
def test_pages_hold_every_relation_once_and_newest_first(database: Database, limit: int) -> None:
    # three relations at each time, so that a page ends between relations with equal times
    record(database, *(new(f"vm-{n}", created_at=at(n // 3)) for n in range(7)))
    rows = [row for page in pages(database, limit) for row in page]
    assert [row.instance_id for row in rows] == [f"vm-{n}" for n in reversed(range(7))]


def test_paging_continues_if_the_last_relation_was_removed(database: Database) -> None:
    record(database, *(new(f"vm-{n}", created_at=at(n)) for n in range(4)))
    page = database.read(relation_queries.find, Filters(), 2)
    last = page[-1]
    database.write(relation_removal.detach, server(last.instance_id), last.image_id, last.kind)
    rest = database.read(relation_queries.find, Filters(), 10, position(last))
    assert [row.instance_id for row in rest] == ["vm-1", "vm-0"]


def test_paging_repeats_relations_with_equal_times_instead_of_losing_them(
    database: Database,
) -> None:
    record(database, *(new(f"vm-{n}") for n in range(3)))
    last = database.read(relation_queries.find, Filters(), 1)[0]
    database.write(relation_removal.detach, server(last.instance_id), last.image_id, last.kind)
    rest = database.read(relation_queries.find, Filters(), 10, position(last))
    assert {row.instance_id for row in rest} == {"vm-0", "vm-1"}


def test_an_instance_counts_its_images_by_kind(database: Database) -> None:
    old, late = new(created_at=at(1)), new(created_at=at(2))
    backup, source = new(kind="backup", created_at=at(3)), new(kind="boot", created_at=at(0))
    gone = new(created_at=at(4))
    record(database, old, late, backup, source, gone)
    database.write(relations.mark_deleted, gone.image_id, at(5))
    assert database.read(instances._find, Filters(), 10) == [
        Instance(
            installation_uuid=NOVA,
            instance_id="vm-1",
            project_id="p-1",
            boot_image_id=source.image_id,
            ended_at=None,
            images={
                "snapshot": Images(2, at(1), at(2), late.image_id),
                "backup": Images(1, at(3), at(3), backup.image_id),
                "boot": Images(1, at(0), at(0), source.image_id),
            },
        )
    ]


def test_an_instance_shows_its_boot_image_after_its_deletion(database: Database) -> None:
    source = new(kind="boot")
    record(database, source)
    database.write(relations.mark_deleted, source.image_id, at(1))
    (row,) = database.read(instances._find, Filters(), 10)
    assert (row.boot_image_id, row.images) == (source.image_id, {})


def test_an_instance_shows_the_image_of_its_last_rebuild(database: Database) -> None:
    first, second = new(kind="boot"), new(kind="boot", created_at=at(1))
    record(database, second, first)
    (row,) = database.read(instances._find, Filters(), 10)
    assert row.boot_image_id == second.image_id


def test_a_project_counts_only_images_that_it_sees(database: Database) -> None:
    mine = new(created_at=at(1))
    record(database, mine, new(project_id="p-2", created_at=at(2)), new("vm-2", project_id="p-2"))
    (row,) = database.read(instances._find, Filters(visible_to="p-1"), 10)
    assert row.images == {"snapshot": Images(1, at(1), at(1), mine.image_id)}
    theirs = database.read(instances._find, Filters(visible_to="p-2"), 10)
    assert [row.instance_id for row in theirs] == ["vm-1", "vm-2"]
    assert theirs[0].project_id is None  # p-2 does not see the owner of vm-1


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, ["a", "b", "c"]),
        ({"instance_id": "b"}, ["b"]),
        ({"installation_uuid": NOVA}, ["a", "b"]),
        ({"installation_uuid": NOVA, "instance_id": "c"}, []),
        ({"kind": "backup"}, ["b", "c"]),
        ({"label": "daily"}, ["b"]),
        ({"project_id": "p-2"}, ["c"]),
        ({"visible_to": "p-2"}, ["c"]),
        ({"image_id": "11111111-1111-4111-8111-111111111111"}, ["b"]),
        ({"created_after": at(1)}, ["c"]),
    ],
)
def test_instances_are_filtered(
    database: Database, filters: dict[str, Any], wanted: list[str]
) -> None:
    record(
        database,
        new("a"),
        new("b", "11111111-1111-4111-8111-111111111111", "backup", label="daily"),
        new("c", kind="backup", project_id="p-2", installation_uuid=OTHER_NOVA, created_at=at(2)),
    )
    rows = database.read(instances._find, Filters(**filters), 10)
    assert [row.instance_id for row in rows] == wanted


def test_pages_of_instances_hold_each_once(database: Database) -> None:
    record(database, *(new(f"vm-{n % 5}") for n in range(10)))
    seen, number = [], 0
    while page := database.read(instances._find, Filters(visible_to="p-1"), 2, number):
        seen += [row.instance_id for row in page]
        last = database.read(instances._visible_ref, server(seen[-1]), "p-1")
        assert last is not None
        number = last
    assert seen == [f"vm-{n}" for n in range(5)]


class Interrupted:
    """A connection that calls a function after its first statement."""

    def __init__(self, connection: Connection, deed: Callable[[], object]) -> None:
        self._connection, self._deed, self._statements = connection, deed, 0

    def execute(self, *given: Any) -> Any:
        self._statements += 1
        if self._statements == 2:
            self._deed()
        return self._connection.execute(*given)


Listing = Callable[[Any, Filters, int], list[Instance]]


def overdue(connection: Any, filters: Filters, limit: int) -> list[Instance]:
    return instances._overdue(connection, filters, limit, at(60))


@pytest.mark.parametrize("listing", [instances._find, overdue])
@pytest.mark.parametrize("gone", [{1}, {0, 1, 2}, {2, 3, 6}, {6, 7}, set(range(8))])
def test_a_page_is_full_although_instances_are_removed_meanwhile(
    database: Database, listing: Listing, gone: set[int]
) -> None:
    given = [new(f"vm-{n}", kind="backup", created_at=at(n)) for n in range(8)]
    recorded = record(database, *given)

    def forget() -> None:
        for n in gone:
            database.write(relation_removal.roll_back, recorded[n])

    def task(connection: Connection) -> list[Instance]:
        return listing(Interrupted(connection, forget), Filters(kind="backup"), 3)

    rest = [f"vm-{n}" for n in range(8) if n not in gone]
    assert [row.instance_id for row in database.read(task)] == rest[:3]


def test_a_marker_of_a_hidden_instance_is_unknown(database: Database) -> None:
    record(database, new())
    assert database.read(instances._visible_ref, server("vm-1"), None) is not None
    assert database.read(instances._visible_ref, server("vm-1"), "p-2") is None
    assert database.read(instances._visible_ref, server("vm-1", OTHER_NOVA), None) is None


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({"kind": "backup"}, ["none", "old", "other-label", "snapshot", "deleted"]),
        (
            {"kind": "backup", "label": "daily"},
            ["none", "old", "other-label", "snapshot", "deleted"],
        ),
        (
            {"kind": "backup", "label": "weekly"},
            ["none", "fresh", "old", "other-label", "snapshot", "deleted"],
        ),
        ({}, ["none", "old", "deleted"]),
        ({"visible_to": "p-1", "kind": "backup"}, ["none", "old", "other-label", "deleted"]),
    ],
)
def test_instances_without_a_recent_image_are_found(
    database: Database, filters: dict[str, Any], wanted: list[str]
) -> None:
    gone = new("deleted", kind="backup", created_at=at(9))
    record(
        database,
        new("none", kind="boot"),
        new("fresh", kind="backup", label="daily", created_at=at(9)),
        new("old", kind="backup", label="daily", created_at=at(-9)),
        new("other-label", kind="backup", label="weekly", created_at=at(-9)),
        new("other-label", kind="snapshot", created_at=at(9)),
        new("snapshot", created_at=at(9), project_id="p-2"),
        gone,
    )
    database.write(relations.mark_deleted, gone.image_id, at(10))
    rows = database.read(instances._find, Filters(**filters), 10, latest_before=NOON)
    assert [row.instance_id for row in rows] == wanted


def test_latest_before_means_strictly_before(database: Database) -> None:
    record(database, new(kind="backup"))
    asked = Filters(kind="backup")
    assert database.read(instances._find, asked, 10, latest_before=at(0)) == []
    assert len(database.read(instances._find, asked, 10, latest_before=at(0.001))) == 1


@pytest.mark.parametrize(
    "filters",
    [
        {"kind": "backup"},
        {"kind": "backup", "label": "daily"},
        {"kind": "backup", "visible_to": "p-1"},
        {"kind": "backup", "project_id": "p-1"},
        {},
    ],
)
def test_an_image_dated_in_the_future_is_not_recent(
    database: Database, filters: dict[str, Any]
) -> None:
    def backup(instance: str, minutes: float) -> NewRelation:
        return new(instance, kind="backup", label="daily", created_at=at(minutes))

    record(database, backup("skewed", 15), backup("ahead", 15.01), backup("fresh", 1))
    record(database, backup("both", 999), backup("both", 1), backup("old", -1))
    record(database, backup("old-and-ahead", 999), backup("old-and-ahead", -1))
    late = {"ahead", "old", "old-and-ahead"}
    given: dict[str, Any] = {"latest_before": NOON, "until": at(15)}
    rows = database.read(instances._find, Filters(**filters), 10, **given)
    assert {row.instance_id for row in rows} == late
    if instances._knows_latest(Filters(**filters)):
        rows = database.read(instances._overdue, Filters(**filters), 10, **given)
        assert [row.instance_id for row in rows] == ["old", "ahead", "old-and-ahead"]


def test_values_are_never_part_of_the_statement(database: Database) -> None:
    odd = "vm'; DROP TABLE related_relation; --"
    unchecked = InstanceRef.unchecked(NOVA, odd, "server")
    record(database, replace(new(label='"; --', kind="backup"), instance=unchecked))

    def listed(instance_id: str) -> list[tuple[str, str]]:
        rows = database.read(relation_queries.find, Filters(instance_id=instance_id), 10)
        return [(row.instance_id, row.kind) for row in rows]

    assert listed(odd) == [(odd, "backup")]
    assert listed("' OR '1'='1") == []
