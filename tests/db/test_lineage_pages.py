"""Pages of ancestors and descendants: the end of a page, and the beginning of the next."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from related_images.db import Database, lineage, relations
from related_images.db.lineage import ChainPosition, TreePosition, Wanted
from related_images.errors import MarkerUnknown
from tests import filters
from tests.db.samples import at, new, record

IMAGES = [f"00000000-0000-4000-8000-{number:012}" for number in range(40)]
LIMITS = [1, 2, 3, 4, 100]


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    opened = Database(filters.migrated(tmp_path), 60)  # long, so that a busy machine fails no test
    yield opened
    opened.close()


def derive(database: Database, parent: int, child: int, project: str = "p-1") -> None:
    """Record a start of an instance from an image, and another image made from it."""
    vm, minute = f"vm-{parent}-{child}", 2 * child
    boot = new(vm, IMAGES[parent], "boot", created_at=at(minute), project_id=project)
    made = new(vm, IMAGES[child], created_at=at(minute + 1), project_id=project)
    record(database, boot, made)


def ancestors_on_pages(
    database: Database, image: int, limit: int, visible_to: str | None = None
) -> tuple[list[int], bool]:
    """Return the ancestors on all pages, and whether the last page reports a cycle."""
    found: list[int] = []
    after: ChainPosition | None = None
    while True:
        page = lineage.ancestry(database, IMAGES[image], limit, after, visible_to)
        assert len(page.links) <= limit
        found += [IMAGES.index(link.parent_key) for link in page.links]
        after = page.next
        if after is None:
            return found, page.circular
        assert len(found) <= 4 * len(IMAGES), "no page is the last one"


def descendants_on_pages(database: Database, wanted: Wanted, limit: int) -> list[tuple[int, int]]:
    """Return the depth and the number of each descendant on all pages."""
    found: list[tuple[int, int]] = []
    after: TreePosition | None = None
    while True:
        page = lineage.descendants(database, wanted, limit, after)
        assert len(page.branches) <= limit
        found += [(step.depth, IMAGES.index(step.link.image_id)) for step in page.branches]
        after = page.next
        if after is None:
            return found


@pytest.mark.parametrize("limit", LIMITS)
def test_the_pages_of_a_chain_lead_to_its_root(database: Database, limit: int) -> None:
    for number in range(9):
        derive(database, number, number + 1)
    assert ancestors_on_pages(database, 9, limit) == ([8, 7, 6, 5, 4, 3, 2, 1, 0], False)
    assert ancestors_on_pages(database, 0, limit) == ([], False)


def test_a_page_that_ends_at_the_root_is_the_last(database: Database) -> None:
    derive(database, 0, 1)
    derive(database, 1, 2)
    page = lineage.ancestry(database, IMAGES[2], 2, None, None)
    assert (len(page.links), page.next) == (2, None)


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("length", [1, 2, 5])
def test_a_cycle_above_a_chain_ends_the_pages_and_is_reported(
    database: Database, length: int, limit: int
) -> None:
    for number in range(length):
        derive(database, (number + 1) % length, number)
    derive(database, 0, 10)
    derive(database, 10, 11)
    found, circular = ancestors_on_pages(database, 11, limit)
    assert circular
    assert found[0] == 10
    assert set(found[1:]) == set(range(length))


@pytest.mark.parametrize("limit", LIMITS)
def test_a_project_gets_the_ancestors_up_to_the_first_hidden_link(
    database: Database, limit: int
) -> None:
    derive(database, 0, 1, "p-2")
    derive(database, 1, 2)
    derive(database, 2, 3)
    assert ancestors_on_pages(database, 3, limit, "p-1") == ([2, 1], False)
    assert ancestors_on_pages(database, 3, limit) == ([2, 1, 0], False)


def test_a_marker_of_an_image_without_an_own_link_is_refused(database: Database) -> None:
    derive(database, 0, 1, "p-2")
    derive(database, 1, 2, "p-2")
    derive(database, 2, 3)
    made_up = ChainPosition(IMAGES[1], IMAGES[1], 1)
    with pytest.raises(MarkerUnknown, match="request the first page"):
        lineage.ancestry(database, IMAGES[3], 1, made_up, "p-1")
    assert lineage.ancestry(database, IMAGES[3], 1, made_up, None).links


TREE = [(1, 1), (2, 3), (2, 4), (3, 6), (1, 2), (2, 5)]


def grow(database: Database) -> None:
    for parent, child in [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5), (4, 6)]:
        derive(database, parent, child)


@pytest.mark.parametrize("limit", LIMITS)
def test_the_pages_of_a_tree_hold_each_image_once_below_its_parent(
    database: Database, limit: int
) -> None:
    grow(database)
    assert descendants_on_pages(database, Wanted(IMAGES[0]), limit) == TREE
    assert descendants_on_pages(database, Wanted(IMAGES[6]), limit) == []


@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_pages_of_a_tree_stop_at_the_depth(database: Database, depth: int, limit: int) -> None:
    grow(database)
    found = descendants_on_pages(database, Wanted(IMAGES[0], depth), limit)
    assert found == [step for step in TREE if step[0] <= depth]


@pytest.mark.parametrize("limit", LIMITS)
def test_the_pages_of_a_kind_continue_below_other_kinds(database: Database, limit: int) -> None:
    grow(database)
    boot = new("vm-b", IMAGES[3], "boot", created_at=at(100))
    record(database, boot, new("vm-b", IMAGES[7], "backup", created_at=at(101)))
    assert descendants_on_pages(database, Wanted(IMAGES[0], kind="backup"), limit) == [(3, 7)]


@pytest.mark.parametrize("limit", LIMITS)
def test_a_project_sees_its_own_branches(database: Database, limit: int) -> None:
    grow(database)
    derive(database, 0, 8, "p-2")
    derive(database, 8, 9)
    assert descendants_on_pages(database, Wanted(IMAGES[0], visible_to="p-1"), limit) == TREE
    assert descendants_on_pages(database, Wanted(IMAGES[0], visible_to="p-2"), limit) == [(1, 8)]
    assert descendants_on_pages(database, Wanted(IMAGES[0], visible_to="p-3"), limit) == []


@pytest.mark.parametrize(("parents", "expected"), [([1], True), ([2, 1], True), ([], False)])
def test_a_cycle_below_the_root_is_reported(
    database: Database, parents: list[int], expected: bool
) -> None:
    derive(database, 0, 1)
    derive(database, 1, 2)
    for parent in parents:
        derive(database, parent, 0)
    tree = lineage.descendants(database, Wanted(IMAGES[0]), 100, None)
    assert tree.circular is expected


def test_a_marker_whose_image_left_the_tree_is_refused(database: Database) -> None:
    grow(database)
    page = lineage.descendants(database, Wanted(IMAGES[0]), 2, None)
    assert page.next is not None
    database.write(relations.mark_deleted, IMAGES[3], at(50))
    following = lineage.descendants(database, Wanted(IMAGES[0]), 2, page.next)
    assert [step.link.image_id for step in following.branches] == [IMAGES[4], IMAGES[6]]
    with pytest.raises(MarkerUnknown, match="request the first page"):
        lineage.descendants(database, Wanted(IMAGES[0]), 2, TreePosition(IMAGES[20], 1, False))
