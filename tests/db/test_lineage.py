"""Lineage in each database: chains, trees, rebuilds, cycles, hidden links."""

import itertools
import random
from collections.abc import Iterable
from typing import Any

import pytest
from sqlalchemy import Connection

from benchmarks import lineage as trees
from related_images.db import (
    instances,
    lineage_walk,
    relation_removal,
    relations,
    schema,
)
from related_images.db.database import Database
from related_images.db.lineage_walk import Link, TreePosition, TreeStep
from related_images.model import Filters
from tests import servers
from tests.db.samples import NOVA, at, image_id, new, record, server

A, B, C, D, E, F = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(6))


def boot(database: Database, instance_id: str, image: str, minutes: float, **more: str) -> None:
    record(database, new(instance_id, image, "boot", created_at=at(minutes), **more))


def made(database: Database, instance_id: str, image: str, minutes: float, **more: str) -> None:
    record(database, new(instance_id, image, created_at=at(minutes), **more))


def parents(database: Database, image: str, visible_to: str | None = None) -> list[str | None]:
    links = database.read(lineage_walk.ancestry, image, 100, visible_to)
    return [link.parent_image_id if link.is_visible else None for link in links]


def visits(database: Database, image: str, limit: int = 1000, **more: Any) -> list[TreeStep]:
    return database.read(lineage_walk.descendants, image, limit, **more)


def tree(steps: Iterable[TreeStep]) -> list[tuple[int, str, str]]:
    return [
        (step.depth, step.link.parent_image_id, step.link.image_id)
        for step in steps
        if not step.upwards
    ]


def paged(database: Database, image: str, limit: int, **more: Any) -> list[tuple[int, str, str]]:
    """Return the tree, read in pages of at most ``limit``."""
    found: list[tuple[int, str, str]] = []
    after: TreePosition | None = None
    while steps := visits(database, image, limit, after=after, **more)[after is not None :]:
        found += tree(steps)
        last = steps[-1]
        after = TreePosition(last.link.key, last.depth, last.upwards)
    return found


def test_an_image_without_relations_has_no_parent(database: Database) -> None:
    assert parents(database, A) == []
    assert visits(database, A) == []


def test_a_chain_is_found_in_both_directions(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", B, 1)
    boot(database, "vm-2", B, 2)
    made(database, "vm-2", C, 3)
    assert parents(database, C) == [B, A]
    assert parents(database, A) == []
    assert tree(visits(database, A)) == [(1, A, B), (2, B, C)]
    (link,) = database.read(lineage_walk.ancestry, B, 100, None)
    assert link == Link(
        *(B, None, A, None, NOVA, "server", "vm-1", None, "p-1", "snapshot", at(1), B, A),
        instance_ref=link.instance_ref,
        has_origin=False,
        is_visible=True,
    )


def test_deleted_images_and_ended_instances_are_marked_in_the_lineage(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", B, 1)
    database.write(relations.mark_deleted, A, at(5))
    database.write(relations.end_instance, server("vm-1"), at(6))
    (link,) = database.read(lineage_walk.ancestry, B, 100, None)
    assert (link.parent_deleted_at, link.instance_ended_at) == (at(5), at(6))


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (2, 0, 3, 1)])
def test_the_last_start_before_an_image_determines_its_parent_in_any_order_of_reports(
    database: Database, order: tuple[int, ...]
) -> None:
    told = [
        lambda: boot(database, "vm-1", A, 0),
        lambda: made(database, "vm-1", C, 5),
        lambda: boot(database, "vm-1", B, 10),
        lambda: made(database, "vm-1", D, 15),
    ]
    for number in order:
        told[number]()
    assert parents(database, C) == [A]
    assert parents(database, D) == [B]


def test_an_image_older_than_every_start_descends_from_the_first_start(database: Database) -> None:
    made(database, "vm-1", C, 1)
    boot(database, "vm-1", B, 10)
    assert parents(database, C) == [B]
    boot(database, "vm-1", A, 5)
    assert parents(database, C) == [A]


def test_a_rebuild_to_an_earlier_image_is_recorded(database: Database) -> None:
    for minutes, image in ((0, A), (10, B), (20, A), (30, B)):
        boot(database, "vm-1", image, minutes)
    for minutes, image in ((5, C), (15, D), (25, E), (35, F)):
        made(database, "vm-1", image, minutes)
    assert [parents(database, image)[0] for image in (C, D, E, F)] == [A, B, A, B]
    (instance,) = database.read(instances._find, Filters(), 10)
    assert (instance.boot_image_id, instance.images["boot"].latest_at) == (B, at(30))
    boot(database, "vm-1", A, 40)
    (instance,) = database.read(instances._find, Filters(), 10)
    assert (instance.boot_image_id, instance.images["boot"].count) == (A, 2)


def test_a_repeated_report_of_a_start_is_not_a_rebuild(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    boot(database, "vm-1", B, 10)
    boot(database, "vm-1", A, 0)
    boot(database, "vm-1", B, 11)
    made(database, "vm-1", C, 15)
    assert parents(database, C) == [B]


def test_a_detached_start_no_longer_determines_a_parent(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    boot(database, "vm-1", B, 10)
    made(database, "vm-1", C, 15)
    database.write(relation_removal.detach, server("vm-1"), B, "boot")
    assert parents(database, C) == [A]
    database.write(relation_removal.detach, server("vm-1"), A, "boot")
    assert parents(database, C) == []


def test_an_image_that_is_detached_leaves_the_tree(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", B, 1)
    database.write(relation_removal.detach, server("vm-1"), B, "snapshot")
    assert visits(database, A) == []


def test_a_rolled_back_image_leaves_the_tree(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    (recorded,) = record(database, new("vm-1", B, created_at=at(1)))
    assert database.write(relation_removal.roll_back, recorded)
    assert parents(database, B) == []


def test_the_first_recorded_relation_determines_the_parent(
    database: Database,
) -> None:
    boot(database, "vm-1", A, 0)
    boot(database, "vm-2", B, 0)
    made(database, "vm-2", C, 5)
    made(database, "vm-1", C, 1)
    assert parents(database, C) == [B]
    assert tree(visits(database, A)) == []
    assert tree(visits(database, B)) == [(1, B, C)]


def test_a_cycle_repeats_upwards_and_is_reported_downwards(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", B, 1)
    boot(database, "vm-2", B, 2)
    made(database, "vm-2", A, 3)
    assert database.read(lineage_walk.ancestry, A, 3, None)[2].parent_image_id == B
    assert [(step.link.image_id, step.closes) for step in visits(database, A)] == [(B, True)]


def test_an_image_made_from_itself_has_no_descendants(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", A, 1)
    assert visits(database, A) == []
    assert database.read(lineage_walk.root_closes, A, None) is True
    assert parents(database, A)[:2] == [A, A]


def test_a_project_sees_its_own_links(database: Database) -> None:
    boot(database, "vm-1", A, 0, project_id="p-1")
    made(database, "vm-1", B, 1, project_id="p-1")
    boot(database, "vm-2", B, 2, project_id="p-2")
    made(database, "vm-2", C, 3, project_id="p-2")
    assert parents(database, C, "p-2") == [B, None]
    assert parents(database, C, "p-1") == [None, A]
    mine = visits(database, A, visible_to="p-1")
    assert [step.link.image_id for step in mine] == [B]
    assert visits(database, A, visible_to="p-2") == []
    assert not any(
        database.read(lineage_walk.root_closes, image, project)
        for image in (A, C)
        for project in ("p-1", "p-2", "p-3")
    )


def test_a_position_that_a_project_does_not_see_leads_nowhere(database: Database) -> None:
    boot(database, "vm-1", A, 0, project_id="p-1")
    made(database, "vm-1", B, 1, project_id="p-1")
    assert visits(database, A, after=TreePosition(B, 1), visible_to="p-1") != []
    assert visits(database, A, after=TreePosition(B, 1), visible_to="p-2") == []
    assert visits(database, A, after=TreePosition(image_id(), 1)) == []


def test_a_position_next_to_a_hidden_parent_leads_nowhere(database: Database) -> None:
    boot(database, "vm-1", A, 0, instance_project_id="p-1")
    made(database, "vm-1", B, 1)
    boot(database, "vm-2", B, 2, instance_project_id="p-1")
    for image in (C, D):
        made(database, "vm-2", image, 3, project_id="p-2")
    made(database, "vm-1", E, 4, project_id="p-2")
    assert parents(database, C, "p-2") == [None, None]
    for place in (TreePosition(C, 1), TreePosition(C, 9), TreePosition(C, 9, upwards=True)):
        assert visits(database, F, after=place, visible_to="p-2") == []
    boot(database, "vm-3", C, 5, project_id="p-2")
    made(database, "vm-3", F, 6, project_id="p-2")
    assert visits(database, A, after=TreePosition(F, 9), visible_to="p-2") == []
    assert tree(visits(database, C, after=TreePosition(F, 1), visible_to="p-2")) == [(1, C, F)]
    assert paged(database, C, 1, visible_to="p-2") == [(1, C, F)]
    # the links to C and D are of a server of another project
    assert paged(database, B, 1, visible_to="p-2") == []


def test_a_project_continues_only_from_an_image_of_its_own_links(database: Database) -> None:
    boot(database, "vm-1", A, 0)
    made(database, "vm-1", B, 1)
    boot(database, "vm-2", B, 2)
    made(database, "vm-2", C, 3, project_id="p-2")
    made(database, "vm-1", C, 4)
    ends = [
        (image, project)
        for image in (A, B, C, D)
        for project in ("p-1", "p-2", "p-3")
        if database.read(lineage_walk.leads_on, image, project)
    ]
    assert ends == [(A, "p-1")]
    boot(database, "vm-2", B, 2, instance_project_id="p-2")
    assert database.read(lineage_walk.leads_on, B, "p-2")


def grow(database: Database, size: int, seed: int) -> list[tuple[str, str]]:
    """Record a random tree in which each image is made from an instance of its own."""
    chance = random.Random(seed)
    images, edges = [image_id()], []
    for number in range(size):
        parent = chance.choice(images)
        child = image_id()
        kind = chance.choice(["snapshot", "backup"])
        start = new(f"vm-{number}", parent, "boot", created_at=at(number))
        record(database, start, new(f"vm-{number}", child, kind, created_at=at(number + 0.5)))
        images.append(child)
        edges.append((parent, child))
    return edges


def preorder(edges: list[tuple[str, str]], root: str, depth: int = 1) -> list[tuple[int, str, str]]:
    return [
        row
        for parent, child in edges
        if parent == root
        for row in [(depth, parent, child), *preorder(edges, child, depth + 1)]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_a_random_tree_is_walked_in_order_with_any_page_size(database: Database, seed: int) -> None:
    edges = grow(database, 40, seed)
    root = edges[0][0]
    wanted = preorder(edges, root)
    for limit in (1, 3, 7, 1000):
        assert paged(database, root, limit) == wanted
    assert paged(database, root, 3, visible_to="p-1") == wanted
    for depth in (1, 2, 3):
        limited = [row for row in wanted if row[0] <= depth]
        assert paged(database, root, 5, depth=depth) == limited
    below = edges[20][1]
    assert paged(database, below, 2) == preorder(edges, below)


def test_images_of_one_kind_are_found_below_other_kinds(database: Database) -> None:
    edges = grow(database, 30, 7)
    root = edges[0][0]
    every = [step for step in visits(database, root) if not step.upwards]
    wanted = [step.link.image_id for step in every if step.link.kind == "backup"]
    asked = [step for step in visits(database, root, kind="backup") if not step.upwards]
    assert [s.link.image_id for s in asked if s.link.kind == "backup"] == wanted


@pytest.mark.slow
def test_a_deep_chain_is_read_page_by_page(database: Database) -> None:
    images = [image_id() for _ in range(120)]
    for number, (parent, child) in enumerate(itertools.pairwise(images)):
        boot(database, f"vm-{number}", parent, 2 * number)
        made(database, f"vm-{number}", child, 2 * number + 1)
    assert parents(database, images[-1]) == images[-2:-102:-1]
    assert [row[2] for row in paged(database, images[0], 50)] == images[1:]


def rows_read(connection: Connection) -> int:
    counted = connection.exec_driver_sql("SHOW SESSION STATUS LIKE 'Handler_read%%'")
    return sum(int(count) for _, count in counted)


@pytest.mark.parametrize("kind", [None, "snapshot", "backup"])
@pytest.mark.parametrize("project_id", [None, "p"])
def test_a_page_after_many_children_reads_no_more_rows_than_the_first(
    mariadb: servers.DatabaseServer, project_id: str | None, kind: str | None
) -> None:
    """Without prefetched siblings, MariaDB would read all children of a parent for each one."""
    url, size, limit = mariadb.create(), 4000, 20
    schema.upgrade(url)
    with schema.connected(url) as connection:
        trees.begin(connection)
        trees.fill(connection, 0, size, lambda number: 0)
        trees.settle(connection)
        for passed in (0, size // 2, size - 2 * limit):
            after = TreePosition(trees.uuid(passed), 1) if passed else None
            before = rows_read(connection)
            found = lineage_walk.descendants(
                connection, trees.uuid(0), limit, after=after, visible_to=project_id, kind=kind
            )
            assert sum(step.step > 0 for step in found) >= limit
            assert rows_read(connection) - before < 100 * lineage_walk.most_steps(limit)
