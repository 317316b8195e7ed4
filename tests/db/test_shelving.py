"""The ends of ``shelved`` relations, what Nova left behind, and delete protection."""

import threading
from datetime import datetime

import pytest
from sqlalchemy import Connection

from related_images.db import (
    backfill,
    delete_protection,
    installations,
    instances,
    lineage_walk,
    listing,
    merge,
    notifications,
    purge,
    relation_queries,
    relations,
    shelving,
    usages,
)
from related_images.db.database import Database
from related_images.db.notifications import Ended, Running, store
from related_images.db.row_ids import named
from related_images.errors import ImageInUse, KindUnknown
from related_images.model import Filters, InstanceRef, NewRelation, Relation, Reporter, ServiceUser
from tests.db.samples import (
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

FIRST, SECOND, THIRD = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(3))
NOVA_USER = Reporter(frozenset({"nova"}))


def shelved(image: str = FIRST, minute: float = 0, vm: str = "vm-1", **more: str) -> NewRelation:
    return new(vm, image, "shelved", created_at=at(minute), **more)


def running(minute: float, vm: str = "vm-1") -> Running:
    return Running(InstanceRef(NOVA, vm), "p-1", at(minute))


def ended(minute: float) -> Ended:
    return Ended(InstanceRef(NOVA, "vm-1"), "p-1", at(minute))


def rows(database: Database, **filters: str | bool) -> dict[str, Relation]:
    listed = database.read(relation_queries.find, Filters(**filters), 100)  # type: ignore[arg-type]
    return {row.image_id: row for row in listed}


def ends(database: Database) -> dict[str, datetime | None]:
    return {image: row.ended_at for image, row in rows(database).items()}


def leftovers(database: Database) -> set[str]:
    return set(rows(database, leftover=True))


def delete_image(database: Database, image: str, minute: float) -> None:
    database.write(relations.mark_deleted, image, at(minute))


def test_an_event_ends_the_relations_that_were_recorded_before(database: Database) -> None:
    record(database, shelved(FIRST, 0), shelved(SECOND, 10), shelved(THIRD, 0, vm="vm-2"))
    store(database, [running(5)])
    assert ends(database) == {FIRST: at(5), SECOND: None, THIRD: None}
    store(database, [running(20), running(5), running(3)])
    assert ends(database) == {FIRST: at(3), SECOND: at(20), THIRD: None}
    assert leftovers(database) == {FIRST, SECOND}
    assert rows(database, leftover=False).keys() == {THIRD}


def test_a_deletion_of_the_server_ends_the_relation(database: Database) -> None:
    record(database, shelved())
    store(database, [ended(5)])
    assert ends(database) == {FIRST: at(5)}
    assert leftovers(database) == {FIRST}
    delete_image(database, FIRST, 6)
    assert ends(database) == {FIRST: at(5)}
    assert leftovers(database) == set()


def test_a_deletion_of_the_image_ends_the_relation_and_leaves_nothing_behind(
    database: Database,
) -> None:
    record(database, shelved())
    delete_image(database, FIRST, 5)
    assert ends(database) == {FIRST: at(5)}
    store(database, [running(6)])
    assert ends(database) == {FIRST: at(5)}
    assert "relation_end" not in counts(database)
    store(database, [running(4)])  # a late event of another unshelving
    assert ends(database) == {FIRST: at(4)}


@pytest.mark.parametrize("kind", ["snapshot", "backup", "boot"])
def test_relations_of_other_kinds_do_not_end(database: Database, kind: str) -> None:
    record(database, new(image=FIRST, kind=kind))
    store(database, [running(5), ended(6)])
    delete_image(database, FIRST, 7)
    assert ends(database) == {FIRST: None}
    assert leftovers(database) == set()


def test_an_event_of_an_unknown_server_records_nothing(database: Database) -> None:
    store(database, [running(5)])
    assert counts(database) == {}


def test_a_removed_relation_leaves_no_end(database: Database) -> None:
    record(database, shelved())
    store(database, [running(5)])
    delete_image(database, FIRST, 6)
    purge.purge(database, at(60))
    assert counts(database).keys() <= {"installation", "project", "instance"}


def test_two_listeners_record_the_earlier_end(pair: tuple[Database, Database]) -> None:
    database, other = pair
    record(database, shelved())
    late = threading.Thread(target=store, args=[other, [running(5)]])

    def end_meanwhile(connection: Connection) -> None:
        notifications._store_all(connection, [running(7)])
        late.start()
        # it waits for the end of this transaction, or has not reached the lock
        late.join(1)

    database.write(end_meanwhile)
    late.join()
    assert ends(database) == {FIRST: at(5)}


def test_shelved_images_are_made_from_the_server(database: Database) -> None:
    record(database, new(image=SECOND, kind="boot", created_at=at(0)), shelved(FIRST, 5))
    record(database, new("vm-2", FIRST, "boot", created_at=at(6)))
    record(database, new("vm-2", THIRD, "backup", created_at=at(7)))
    assert shown(database) == [FIRST]
    assert shown(database, kinds=["snapshot", "backup"]) == []
    chain = database.read(lineage_walk.ancestry, THIRD, 10, None)
    assert [(row.parent_image_id, row.kind) for row in chain] == [
        (FIRST, "backup"),
        (SECOND, "shelved"),
    ]
    one = instances.show(database, server("vm-1"), None)
    assert one.images["shelved"].latest_image_id == FIRST
    assert found(database, kind="shelved") == [("vm-1", "shelved")]


def test_instances_without_a_shelved_image_since_a_time(database: Database) -> None:
    record(database, shelved(FIRST, 0), shelved(SECOND, 10, vm="vm-2"))
    page = instances.page(database, Filters(kind="shelved"), 10, None, at(5))
    assert [one.instance_id for one in page.items] == ["vm-1"]


def test_a_claim_that_it_is_a_snapshot_does_not_contradict(database: Database) -> None:
    record(database, shelved())
    claim = backfill.Candidate(FIRST, "p-1", "vm-1", "snapshot", None, at(0), None)
    (verdict,) = backfill.record(database, NOVA, [claim])
    assert verdict.outcome == backfill.KNOWN
    assert found(database) == [("vm-1", "shelved")]


def test_only_servers_are_shelved() -> None:
    with pytest.raises(KindUnknown, match="for servers only, and the resource is a volume"):
        shelved(resource_type="volume")


def begin(
    database: Database, visible_to: str | None = None, service: Reporter | None = None
) -> delete_protection.StartedDeletion:
    return delete_protection.begin(database, FIRST, visible_to, forced=False, service=service)


def refusal(
    database: Database, visible_to: str | None = None, service: Reporter | None = None
) -> str:
    with pytest.raises(ImageInUse) as caught:
        begin(database, visible_to, service)
    return str(caught.value)


def test_the_image_of_a_shelved_server_is_protected_until_the_relation_ends(
    database: Database,
) -> None:
    record(database, shelved())
    said = refusal(database, "p-1")
    assert f": it is used by 1 shelved server (vm-1 of {NOVA}); list those that use it" in said
    assert "; unshelve shelved servers or delete them first" in said
    hidden = refusal(database, "p-2")
    assert ": it is used by live resources of other projects; " in hidden
    assert "; delete them first" in hidden
    assert "vm-1" not in hidden
    store(database, [running(5)])
    assert begin(database).in_use == 0


def test_the_image_of_a_deleted_server_is_not_protected(database: Database) -> None:
    record(database, shelved())
    store(database, [ended(0)])  # at the time of the relation, not after it
    assert begin(database).in_use == 0


def test_a_deleted_image_is_not_needed(database: Database) -> None:
    record(database, shelved())
    delete_image(database, FIRST, 5)
    (found,) = usages.usages(database, [FIRST], None, {FIRST: "p-1"})
    assert (found.shelved, found.state) == (0, "unused")
    assert begin(database).in_use == 0


def test_a_forced_deletion_counts_shelved_servers(database: Database) -> None:
    record(database, shelved(), new("vm-2", FIRST, "boot"))
    assert delete_protection.begin(database, FIRST, None, forced=True).in_use == 2


def test_the_usage_counts_servers_that_are_shelved_now(database: Database) -> None:
    record(database, shelved(FIRST), shelved(SECOND), new(image=THIRD), new("vm-2", FIRST, "boot"))
    asked, owners = [FIRST, SECOND, THIRD], dict.fromkeys([FIRST, SECOND, THIRD], "p-1")
    found = usages.usages(database, asked, None, owners)
    assert [(one.shelved, one.instances, one.is_unused) for one in found] == [
        (1, 1, False),
        (1, 0, False),
        (0, 0, True),
    ]
    assert [one.shelved for one in usages.usages(database, asked, "p-1")] == [1, 1, 0]
    assert [one.shelved for one in usages.usages(database, asked, "p-2")] == [0, 0, 0]
    store(database, [running(5)])
    found = usages.usages(database, asked, None, owners)
    assert [(one.shelved, one.is_unused) for one in found] == [(0, False), (0, True), (0, True)]


def register(database: Database, uuid: str, *users: str) -> None:
    installations.register(database, uuid, uuid, [ServiceUser(user) for user in users])


def test_the_service_user_of_the_installation_may_delete_the_image(database: Database) -> None:
    register(database, NOVA, "nova")
    record(database, shelved())
    assert "1 shelved server" in refusal(database, service=Reporter(frozenset({"cinder"})))
    assert "1 shelved server" in refusal(database)
    assert begin(database, service=NOVA_USER).in_use == 0


def test_a_user_that_is_bound_for_volumes_alone_may_not(database: Database) -> None:
    installations.register(database, NOVA, "cloud", [ServiceUser("cinder", ("volume",))])
    record(database, shelved())
    assert "1 shelved server" in refusal(database, service=Reporter(frozenset({"cinder"})))


@pytest.mark.parametrize("is_registered", [True, False])
def test_any_service_may_delete_the_image_of_an_installation_that_is_not_bound(
    database: Database, is_registered: bool
) -> None:
    if is_registered:
        register(database, NOVA)
    record(database, shelved())
    assert begin(database, service=NOVA_USER).in_use == 0


def test_an_installation_that_must_be_registered_protects_the_image(database: Database) -> None:
    record(database, shelved())
    strict = Reporter(frozenset({"nova"}), require_registered=True)
    assert "1 shelved server" in refusal(database, service=strict)


def test_live_servers_protect_the_image_from_every_service(database: Database) -> None:
    register(database, NOVA, "nova")
    record(database, shelved(), new("vm-2", FIRST, "boot"))
    said = refusal(database, service=NOVA_USER)
    assert f"used by 1 live server (vm-2 of {NOVA}); list those that use it" in said
    assert "; delete them first" in said


def test_shelved_servers_of_another_installation_protect_the_image(database: Database) -> None:
    register(database, NOVA, "nova")
    register(database, OTHER_NOVA, "other-nova")
    record(database, shelved(), shelved(vm="vm-2", installation_uuid=OTHER_NOVA))
    said = refusal(database, service=NOVA_USER)
    assert f"used by 1 shelved server (vm-2 of {OTHER_NOVA})" in said


def test_a_merge_keeps_the_ends(database: Database) -> None:
    register(database, NOVA)
    record(
        database,
        shelved(FIRST, 0, installation_uuid=OTHER_NOVA),
        shelved(FIRST, 1),
        shelved(SECOND, 2),
    )
    store(database, [running(5)])
    store(database, [Ended(InstanceRef(OTHER_NOVA, "vm-1"), "p-1", at(3))])
    merge.merge(database, OTHER_NOVA, NOVA)
    assert ends(database) == {FIRST: at(3), SECOND: at(3)}
    assert leftovers(database) == {FIRST, SECOND}


def test_a_merge_keeps_the_end_of_the_relation_that_it_drops(database: Database) -> None:
    register(database, NOVA)
    record(database, shelved(FIRST, 0, installation_uuid=OTHER_NOVA), shelved(FIRST, 1))
    store(database, [running(5)])
    merge.merge(database, OTHER_NOVA, NOVA)
    assert ends(database) == {FIRST: at(5)}


def test_a_list_of_leftovers_by_pages(database: Database) -> None:
    images = [image_id() for _ in range(5)]
    record(database, *(shelved(image, number) for number, image in enumerate(images)))
    store(database, [running(60)])
    record(database, shelved(image_id(), 70), new(image=image_id()))
    one = listing.relations(database, Filters(leftover=True, visible_to="p-1"), 3, None)
    assert [row.image_id for row in one.items] == images[:1:-1]
    assert one.more
    assert (
        listing.relations(database, Filters(leftover=True, visible_to="p-2"), 3, None).items == []
    )


def test_an_event_that_changes_nothing_writes_nothing(database: Database) -> None:
    record(database, shelved())
    store(database, [running(5)])
    written: list[int] = []

    def again(connection: Connection) -> None:
        shelving.end(connection, server("vm-1"), at(6))
        written.extend(connection.execute(shelving._to_end, _of(connection)).scalars())

    database.write(again)
    assert ends(database) == {FIRST: at(5)}
    assert written == []


def _of(connection: Connection) -> dict[str, object]:
    ref = connection.execute(shelving._instance_ref, named(server("vm-1"))).scalar_one()
    return {"instance": ref, "at": at(6)}
