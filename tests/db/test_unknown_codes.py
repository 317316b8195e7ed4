"""Rows of a newer version, with a kind or a source that this version does not know."""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import Connection, Table, Update, literal_column, select, update

from related_images.db import (
    Reporter,
    backfill,
    delete_protection,
    image_list,
    instances,
    lineage,
    listing,
    notifications,
    origins,
    purge,
    reconcile,
    reconciliation_state,
    recorded_backups,
    recording,
    relations,
    usages,
)
from related_images.db.database import Database
from related_images.db.tables import descent, image, origin, relation
from related_images.model import (
    MADE_FROM,
    UNUSED,
    USED,
    Filters,
    ImageState,
    InstancePosition,
    InstanceRef,
    NewOrigin,
    Relation,
    RelationPosition,
    Usage,
)
from tests.db.samples import NOVA, at, counts, image_id, new, of, record, server

REPORTER = Reporter(frozenset())
A, B, C, D = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(4))


def make_unknown(database: Database, column: str, *images: str) -> None:
    """Set a kind or a source of a newer version in the relations of these images."""
    which = select(image.c.id).where(image.c.uuid.in_(images))
    statements = [_unknown(relation, column).where(relation.c.image_ref.in_(which))]
    if column == "kind":
        statements.append(_unknown(descent, column).where(descent.c.image_ref.in_(which)))
    for statement in statements:
        database.write(run, statement)


def _unknown(table: Table, column: str) -> Update:
    return update(table).values({column: literal_column("99")})


def run(connection: Connection, statement: Update) -> None:
    connection.execute(statement)


def paged(database: Database, filters: Filters, limit: int) -> list[str]:
    """Return the images of the relations; assert that all pages but the last are full."""
    found, after = list[str](), None
    while True:
        page = listing.relations(database, filters, limit, after)
        found += [row.image_id for row in page.items]
        if not page.more:
            return found
        assert len(page.items) == limit
        last = page.items[-1]
        after = RelationPosition(
            last.created_at, last.installation_uuid, last.instance_id, last.image_id, last.kind
        )


@pytest.mark.parametrize("column", ["kind", "source"])
@pytest.mark.parametrize(
    "filters",
    [Filters(), Filters(instance_id="vm-1"), Filters(visible_to="p-1"), Filters(in_use=False)],
)
def test_relations_are_listed_without_them_in_full_pages(
    database: Database, column: str, filters: Filters
) -> None:
    images = [image_id() for _ in range(9)]
    record(database, *(new(image=one, created_at=at(n)) for n, one in enumerate(images)))
    odd = [n for n in range(9) if n not in (1, 2, 6)]
    make_unknown(database, column, *(images[n] for n in odd))
    for limit in (1, 2, 3, 10):
        assert paged(database, filters, limit) == [images[6], images[2], images[1]]


@pytest.mark.parametrize("filters", [Filters(), Filters(visible_to="p-1"), Filters(kind="boot")])
def test_a_page_of_a_newer_version_may_end_with_a_relation_of_an_unknown_kind(
    database: Database, filters: Filters
) -> None:
    images = [image_id() for _ in range(5)]
    # equal times, so that the row of the last relation decides which ones follow
    record(database, *(new(image=one, kind="boot", created_at=at(0)) for one in images))
    make_unknown(database, "kind", images[1], images[3])
    for last, following in ((3, [images[2], images[0]]), (1, [images[0]])):
        after = RelationPosition(at(0), NOVA, "vm-1", images[last], "newest-kind")
        page = listing.relations(database, filters, 5, after)
        assert [row.image_id for row in page.items] == following
    # the relation was removed since: its time is listed again
    after = RelationPosition(at(0), NOVA, "vm-1", A, "newest-kind")
    assert len(listing.relations(database, filters, 5, after).items) == 3


def test_a_relation_of_an_unknown_kind_is_not_found_by_its_image(database: Database) -> None:
    record(database, new(image=A))
    make_unknown(database, "kind", A)
    assert paged(database, Filters(image_id=A), 5) == []


def test_an_image_list_omits_unknown_kinds_but_not_unknown_sources(
    database: Database,
) -> None:
    record(database, *(new(image=one) for one in (A, B, C)))
    make_unknown(database, "kind", A)
    make_unknown(database, "source", B)
    shown = image_list.images(database, of(server("vm-1")), MADE_FROM) or []
    assert sorted(one.image_id for one in shown) == [B, C]


def test_unknown_kinds_do_not_change_the_list_of_instances(database: Database) -> None:
    for number in range(5):
        record(database, new(f"vm-{number}", image=f"{A[:-2]}1{number}"))
    record(database, new("vm-1", image=A))
    make_unknown(database, "kind", A, *(f"{A[:-2]}1{number}" for number in (0, 2, 3)))
    seen, after = list[str](), None
    while True:
        page = instances.page(database, Filters(visible_to="p-1"), 1, after, None)
        seen += [one.instance_id for one in page.items]
        if not page.more:
            break
        after = InstancePosition(NOVA, seen[-1], None)
    assert seen == ["vm-1", "vm-4"]
    everything = instances.page(database, Filters(), 10, None, None).items
    assert [set(one.images) for one in everything] == [
        set(),
        {"snapshot"},
        set(),
        set(),
        {"snapshot"},
    ]
    assert instances.show(database, server("vm-1"), None).images["snapshot"].count == 1
    overdue = instances.page(database, Filters(kind="snapshot"), 10, None, at(-1)).items
    assert "vm-1" not in [one.instance_id for one in overdue]


def test_an_instance_is_seen_by_a_relation_of_an_unknown_source(database: Database) -> None:
    record(database, new(image=A))
    make_unknown(database, "source", A)
    assert instances.show(database, server("vm-1"), "p-1").images["snapshot"].count == 1
    (one,) = instances.page(database, Filters(visible_to="p-1"), 10, None, None).items
    assert one.instance_id == "vm-1"
    assert instances.page(database, Filters(source="manual"), 10, None, None).items == []


@pytest.fixture
def chain(database: Database) -> Database:
    """D descends from C, C from B, B from A; the kind of the link from C to B is unknown."""
    record(database, new("vm-1", A, "boot", created_at=at(0)), new("vm-1", B, created_at=at(1)))
    record(database, new("vm-2", B, "boot", created_at=at(2)), new("vm-2", C, created_at=at(3)))
    record(database, new("vm-3", C, "boot", created_at=at(4)), new("vm-3", D, created_at=at(5)))
    (recorded,) = record(database, new("vm-2", C))
    for table, key in ((relation, relation.c.id), (descent, descent.c.relation_ref)):
        database.write(run, _unknown(table, "kind").where(key == recorded.relation_ref))
    return database


@pytest.mark.parametrize("visible_to", [None, "p-1"])
def test_an_ancestry_ends_at_a_link_of_an_unknown_kind(
    chain: Database, visible_to: str | None
) -> None:
    found = lineage.ancestry(chain, D, 10, None, visible_to)
    assert [link.parent_image_id for link in found.links] == [C]
    assert (found.next, found.circular) == (None, False)
    assert lineage.ancestry(chain, C, 10, None, visible_to).links == []


@pytest.mark.parametrize("visible_to", [None, "p-1"])
@pytest.mark.parametrize("kind", [None, "snapshot"])
def test_descendants_omit_a_link_of_an_unknown_kind(
    chain: Database, visible_to: str | None, kind: str | None
) -> None:
    sibling = image_id()
    record(chain, new("vm-2", sibling, created_at=at(6)))
    wanted = lineage.Wanted(A, kind=kind, visible_to=visible_to)
    found, after = list[str](), None
    while True:
        tree = lineage.descendants(chain, wanted, 1, after)
        found += [visit.link.image_id for visit in tree.branches]
        after = tree.next
        if after is None:
            break
    assert found == [B, sibling]
    below = lineage.Wanted(C, kind=kind, visible_to=visible_to)
    assert [one.link.image_id for one in lineage.descendants(chain, below, 5, None).branches] == [D]


def test_a_link_of_an_unknown_kind_does_not_close_a_cycle(chain: Database) -> None:
    record(chain, new("vm-4", D, "boot", created_at=at(6)), new("vm-4", A, created_at=at(7)))
    make_unknown(chain, "kind", A)
    assert not lineage.ancestry(chain, D, 10, None, None).circular
    assert not lineage.descendants(chain, lineage.Wanted(A), 10, None).circular


def test_usage_ignores_unknown_kinds_but_not_unknown_sources(database: Database) -> None:
    record(database, new("vm-1", A, "boot"), new("vm-2", B, "boot"))
    make_unknown(database, "kind", A)
    make_unknown(database, "source", B)
    assert usages.usages(database, [A, B], None, {A: "p-9", B: "p-9"}) == [
        Usage(A, used_by_others=False, state=UNUSED),
        Usage(B, 1, 1, used_by_others=True, state=USED),
    ]
    assert delete_protection.begin(database, A, None, forced=False).in_use == 0
    assert delete_protection.begin(database, B, None, forced=True).in_use == 1


def test_the_unreconciled_count_ignores_unknown_kinds(database: Database) -> None:
    record(database, new(image=A), new(image=B))
    make_unknown(database, "kind", A)
    assert reconciliation_state.unreconciled(database, None) == 1


class FakeGlance:
    """A Glance that has only the image B."""

    def created(self, image_ids: Collection[str]) -> Mapping[str, ImageState]:
        return {one: ImageState(at(0), "p-1") for one in image_ids if one == B}

    def is_gone(self, image_id: str) -> bool:
        return True

    def is_empty(self) -> bool:
        return False


@pytest.mark.parametrize("column", ["kind", "source"])
def test_a_reconciliation_includes_images_of_unknown_codes(database: Database, column: str) -> None:
    record(database, new(image=A), new(image=B))
    make_unknown(database, column, A, B)
    now = datetime.now(UTC) + timedelta(days=999)
    under_way = reconcile.Run(now, now)
    reconcile.check_glance(database, FakeGlance(), now)
    reconcile.reconcile(database, FakeGlance(), under_way, False, lambda _: None)
    found = under_way.counts
    assert (found.checked, found.present, found.marked_deleted) == (2, 1, 1)
    assert counts(database)["relation"] == 2


def test_a_purge_keeps_relations_of_unknown_kinds(database: Database) -> None:
    record(database, new(image=A), new(image=B))
    make_unknown(database, "kind", A)
    for one in (A, B):
        database.write(relations.mark_deleted, one, at(1))
    assert purge.purge(database, at(2)).relations == 1
    assert counts(database)["relation"] == 1


def test_backfill_and_notifications_ignore_unknown_kinds(
    database: Database,
) -> None:
    record(database, new(image=A), new(image=B))
    make_unknown(database, "kind", A, B)
    claim = backfill.Candidate(A, "p-1", "vm-1", "snapshot", None, at(0), None)
    assert backfill.judge(database, NOVA, [claim]) == [backfill.Verdict(backfill.RECORDED)]
    assert backfill.record(database, NOVA, [claim]) == [backfill.Verdict(backfill.RECORDED)]
    event = notifications.ImageMade(InstanceRef(NOVA, "vm-1"), "p-1", at(1), B, "p-1", None)
    notifications.store(database, [event])
    assert sorted(paged(database, Filters(), 5)) == [A, B]


def test_backfill_and_notifications_respect_unknown_sources(
    database: Database,
) -> None:
    record(database, new(image=A), new(image=B, kind="backup"))
    make_unknown(database, "source", A, B)
    claim = backfill.Candidate(A, "p-1", "vm-2", "snapshot", None, at(0), None)
    (verdict,) = backfill.judge(database, NOVA, [claim])
    assert verdict.outcome == backfill.DOUBTED
    event = notifications.ImageMade(InstanceRef(NOVA, "vm-1"), "p-1", at(1), B, "p-1", None)
    notifications.store(database, [event])
    assert counts(database)["relation"] == 2


def test_backup_rotation_ignores_unknown_kinds(database: Database) -> None:
    record(database, new(image=A, kind="backup"), new(image=B, kind="backup"))
    make_unknown(database, "kind", A)
    found = recorded_backups.recorded_backups(database, set(), "vm-1", "daily", None)
    assert [one.image_id for one in found] == [B]


def test_an_attachment_to_a_relation_of_an_unknown_source_returns_the_callers_source(
    database: Database,
) -> None:
    recording.attach(database, new(image=A), REPORTER)
    make_unknown(database, "source", A)
    mine = new(image=A, source="manual", created_at=at(5))
    told, created = recording.attach(database, mine, REPORTER)
    assert (told.source, created) == ("manual", False)
    left = recording.revoke(database, server("vm-1"), A, "snapshot", REPORTER, at(0))
    assert isinstance(left, Relation)
    assert left.source == "service"


def test_a_report_of_an_origin_of_an_unknown_source_returns_the_callers_source(
    database: Database,
) -> None:
    mine = NewOrigin(InstanceRef(NOVA, "v-1", "volume"), None, at(0), "p-1", "manual")
    origins.record(database, mine, REPORTER)
    database.write(run, _unknown(origin, "source"))
    told, created = origins.record(database, mine, REPORTER)
    assert (told.reported_by, created) == ("manual", False)
