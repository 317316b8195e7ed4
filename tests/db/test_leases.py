"""Leases, on each database: recording, extending, limits, visibility, and what they protect."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from related_images.db import (
    delete_protection,
    installations,
    leases,
    merge,
    purge,
    recording,
    relation_queries,
    relations,
    resource_types,
    usages,
)
from related_images.db.clock import Now
from related_images.db.database import Database
from related_images.db.tables import instance, lease
from related_images.errors import (
    FieldInvalid,
    ImageBeingDeleted,
    ImageGone,
    ImageInUse,
    InstanceEnded,
    LeaseLimitReached,
    ResourceTypeConflict,
    ResourceTypeInUse,
    ResourceTypeNotFound,
    ResourceTypeUnknown,
)
from related_images.model import (
    UNUSED,
    USED,
    Filters,
    ImageState,
    InstanceRef,
    Leases,
    NewRelation,
    Relation,
    Reporter,
    ServiceUser,
    Usage,
)
from related_images.validation import format_time
from tests.db.samples import NOVA, OTHER_NOVA, counts, found, image_id, new, record

ANYBODY = Reporter(frozenset())
A, B = (f"00000000-0000-4000-8000-00000000000{number}" for number in range(2))


@pytest.fixture
def stacks(database: Database) -> Database:
    """A database with the registered type ``stack``."""
    resource_types.register(database, "stack")
    return database


def days(number: float) -> datetime:
    """Return the time in ``number`` days."""
    return datetime.now(UTC) + timedelta(days=number)


def wanted(
    stack: str = "stack-1", image: str = A, until: datetime | None = None, **more: Any
) -> NewRelation:
    given: dict[str, Any] = {
        "resource_type": "stack",
        "instance_project_id": "p-1",
        "project_id": more.get("instance_project_id", "p-1"),
        "expires_at": until or days(7),
        "created_at": datetime.now(UTC),
    }
    return new(stack, image, "use", **(given | more))


def hold(database: Database, *given: Any, **more: Any) -> tuple[Relation, bool]:
    return recording.attach(database, wanted(*given, **more), ANYBODY)


def expire(database: Database, stack: str = "stack-1") -> datetime:
    """Let the leases of a stack expire a minute ago; return the end."""
    past = datetime.now(UTC) - timedelta(minutes=1)

    def task(connection: Connection) -> None:
        refs = leases.live(lease.c.relation_ref).where(instance.c.instance_id == stack)
        found = connection.execute(refs).scalars().all()
        connection.execute(
            update(lease).where(lease.c.relation_ref.in_(found)).values(expires_at=past)
        )

    database.write(task)
    return past


def usage(database: Database, visible_to: str | None = None, owner: str | None = None) -> Usage:
    owners = {} if owner is None else {A: owner}
    (row,) = usages.usages(database, [A], visible_to, owners)
    return row


def in_use(database: Database, **more: Any) -> int:
    """Return the number of uses that a deletion finds."""
    begun = delete_protection.begin(database, A, None, forced=True, **more)
    delete_protection.withdraw(database, begun)
    return begun.in_use


def test_the_clock_of_the_database_is_read(database: Database) -> None:
    now = database.read(lambda connection: connection.execute(select(Now())).scalar_one())
    assert abs(now - datetime.now(UTC)) < timedelta(seconds=30)


def test_a_lease_is_a_relation_with_an_end(stacks: Database) -> None:
    until = days(7)
    row, created = hold(stacks, until=until, label="web")
    assert created
    assert row.instance == InstanceRef(NOVA, "stack-1", "stack")
    assert (row.kind, row.label, row.project_id) == ("use", "web", "p-1")
    assert row.expires_at == until
    (listed,) = stacks.read(relation_queries.find, Filters(), 10)
    assert listed == row
    record(stacks, new(image=A))
    ends = {row.kind: row.expires_at for row in stacks.read(relation_queries.find, Filters(), 10)}
    assert ends == {"use": until, "snapshot": None}


def test_a_repeated_lease_is_extended_and_never_shortened(stacks: Database) -> None:
    first, created = hold(stacks, until=days(7))
    assert created
    shorter, created = hold(stacks, until=days(1))
    assert (shorter, created) == (first, False)
    until = days(9)
    longer, created = hold(stacks, until=until)
    assert (longer.expires_at, created) == (until, False)
    expire(stacks)
    again, created = hold(stacks, until=days(1))
    assert again.expires_at is not None
    assert again.expires_at > datetime.now(UTC)
    assert not created


@pytest.mark.parametrize("number", [-1, -0.001, 30.1, 4000])
def test_a_lease_ends_within_the_longest_time(stacks: Database, number: float) -> None:
    with pytest.raises(FieldInvalid, match="ends at most 30 days later"):
        hold(stacks, until=days(number))
    assert counts(stacks) == {"resource_type": 1}


def test_a_difference_of_clocks_does_not_refuse_the_longest_lease(stacks: Database) -> None:
    row, _ = hold(stacks, until=days(30) + timedelta(minutes=4))
    assert row.expires_at is not None
    assert row.expires_at <= days(30)


def test_each_type_has_its_longest_lease(stacks: Database) -> None:
    resource_types.register(stacks, "template", 90)
    assert hold(stacks, until=days(89), resource_type="template")[1]


@pytest.mark.parametrize("resource_type", ["server", "volume", "cluster"])
def test_only_registered_types_have_leases(stacks: Database, resource_type: str) -> None:
    with pytest.raises(ResourceTypeUnknown, match=f"{resource_type} is not registered .*: stack;"):
        hold(stacks, resource_type=resource_type)


def test_the_project_of_the_resource_is_needed(stacks: Database) -> None:
    with pytest.raises(FieldInvalid, match="instance_project_id is missing"):
        hold(stacks, instance_project_id=None)


def test_a_deleted_resource_has_no_leases(stacks: Database) -> None:
    hold(stacks)
    assert in_use(stacks) == 1
    recording.end_instance(stacks, InstanceRef(NOVA, "stack-1", "stack"), ANYBODY)
    assert in_use(stacks) == 0
    assert usage(stacks).leases == Leases()
    assert usage(stacks).unused_since is not None
    assert found(stacks, in_use=True) == []
    with pytest.raises(InstanceEnded):
        hold(stacks, until=days(9))


def test_a_type_is_registered_once_and_removed(database: Database) -> None:
    first, created = resource_types.register(database, "stack", 14)
    assert created
    assert resource_types.register(database, "stack", 14) == (first, False)
    with pytest.raises(ResourceTypeConflict, match="longest lease of 14 days"):
        resource_types.register(database, "stack")
    resource_types.register(database, "a-type")
    assert [one.name for one in resource_types.registered(database)] == ["a-type", "stack"]
    resource_types.remove(database, "stack")
    with pytest.raises(ResourceTypeNotFound):
        resource_types.remove(database, "stack")


@pytest.mark.parametrize(("name", "number"), [("server", 1), ("stack", 0), ("stack", 367)])
def test_a_type_that_is_not_allowed_is_refused(database: Database, name: str, number: int) -> None:
    with pytest.raises(FieldInvalid):
        resource_types.register(database, name, number)
    assert resource_types.registered(database) == []


def test_a_type_with_live_leases_is_not_removed(stacks: Database) -> None:
    hold(stacks)
    resource_types.register(stacks, "other")
    resource_types.remove(stacks, "other")
    with pytest.raises(ResourceTypeInUse, match="--resource-type stack"):
        resource_types.remove(stacks, "stack")
    expire(stacks)
    resource_types.remove(stacks, "stack")
    with pytest.raises(ResourceTypeUnknown, match="registered are: none"):
        hold(stacks)
    assert found(stacks) == [("stack-1", "use")]


def test_service_users_are_bound_to_registered_types(stacks: Database) -> None:
    users = [ServiceUser("heat", ("stack",)), ServiceUser("nova", ("server",))]
    installations.register(stacks, NOVA, "east", users)
    with pytest.raises(ResourceTypeUnknown, match="cluster is not registered"):
        installations.register(stacks, OTHER_NOVA, "west", [ServiceUser("magnum", ("cluster",))])
    recording.attach(stacks, wanted(), Reporter(frozenset({"heat"})))


def test_a_live_lease_protects_the_image_and_shows_who_holds_it(stacks: Database) -> None:
    soon, later = days(1), days(2)
    hold(stacks, until=later)
    hold(stacks, "stack-2", until=soon, instance_project_id="p-2")
    record(stacks, new("vm-1", A, "boot"))
    with pytest.raises(ImageInUse) as caught:
        delete_protection.begin(stacks, A, None, forced=False)
    assert "used by 1 live server (vm-1 of " in str(caught.value)
    assert "and 2 live stacks (stack-1 of " in str(caught.value)
    assert "openstack image relation delete --kind use" in str(caught.value)
    assert f"the last of these leases ends at {format_time(later)}" in str(caught.value)
    with pytest.raises(ImageInUse) as caught:
        delete_protection.begin(stacks, A, "p-2", forced=False)
    assert f"used by 1 live stack (stack-2 of {NOVA}) and live resources of other" in str(
        caught.value
    )
    assert "stack-1" not in str(caught.value)
    assert str(format_time(later)) not in str(caught.value)
    assert f"leases ends at {format_time(soon)}" in str(caught.value)
    for stack in ("stack-1", "stack-2"):
        expire(stacks, stack)
    assert in_use(stacks) == 1
    assert in_use(stacks, counts=["lease"]) == 0


def test_the_guard_counts_only_the_requested_uses(stacks: Database) -> None:
    hold(stacks)
    record(stacks, new("vm-1", A, "boot"), new("v-1", A, "boot", resource_type="volume"))
    record(stacks, new("s-1", A, "boot", resource_type="volume-snapshot"))
    numbers = {"server": 1, "volume": 2, "lease": 1, "shelved": 0}
    for name, number in numbers.items():
        assert in_use(stacks, counts=[name]) == number
    assert in_use(stacks, counts=["server", "lease"]) == 2
    assert in_use(stacks) == 4


def test_a_deactivation_is_refused_while_the_image_is_used(stacks: Database) -> None:
    def check(**more: Any) -> int:
        return delete_protection.check_deactivation(stacks, A, None, **({"forced": False} | more))

    assert check() == 0
    hold(stacks)
    assert check(forced=True) == 1
    assert check(counts=["server"]) == 0
    with pytest.raises(ImageInUse, match=r"cannot be deactivated: it is used by 1 live stack"):
        check()
    later = ImageState(days(1), "p-1")
    assert check(image_state=later) == 0
    assert hold(stacks, "stack-2")[1]  # no deletion is pending


def test_a_pending_deletion_refuses_new_and_repeated_leases(stacks: Database) -> None:
    hold(stacks)
    expire(stacks)
    begun = delete_protection.begin(stacks, A, None, forced=False)
    for stack in ("stack-1", "stack-2"):
        with pytest.raises(ImageBeingDeleted):
            hold(stacks, stack)
    hold(stacks, image=B)
    delete_protection.deleted(stacks, begun)
    for stack in ("stack-1", "stack-2"):
        with pytest.raises(ImageGone):
            hold(stacks, stack)
    assert not usage(stacks).leases.count


def test_usages_count_live_leases(stacks: Database) -> None:
    unused = Usage(A, used_by_others=False, state=UNUSED)
    used, used_by_others = (replace(unused, used_by_others=it, state=USED) for it in (False, True))
    assert usage(stacks) == unused
    until = days(8)
    hold(stacks, until=until)
    hold(stacks, "stack-2", until=days(7), instance_project_id="p-2")
    both, one = Leases(2, until), Leases(1, until)
    assert usage(stacks, owner="p-1") == replace(used_by_others, leases=both)
    assert usage(stacks, "p-1", "p-1") == replace(used_by_others, leases=both)
    assert usage(stacks, "p-1") == replace(used, leases=one)
    assert usage(stacks, "p-3") == unused
    assert usage(stacks, "p-3", "p-3") == replace(used_by_others, leases=both)
    assert not usage(stacks, owner="p-1").is_unused
    expire(stacks, "stack-2")
    assert usage(stacks, owner="p-1") == replace(used, leases=one)
    past = expire(stacks)
    ended = usage(stacks, owner="p-1")
    assert ended == replace(unused, unused_since=past)
    assert ended.is_unused
    assert usage(stacks, "p-3").unused_since is None


def test_in_use_lists_live_leases(stacks: Database) -> None:
    hold(stacks)
    hold(stacks, "stack-2")
    record(stacks, new("vm-1", A, "boot"), new("vm-1", A))
    expire(stacks)
    assert sorted(found(stacks, in_use=True)) == [("stack-2", "use"), ("vm-1", "boot")]
    assert sorted(found(stacks, in_use=False)) == [("stack-1", "use"), ("vm-1", "snapshot")]


def test_the_owner_of_the_resource_sees_the_lease(stacks: Database) -> None:
    record(stacks, new("vm-1", A, project_id="owner-of-image"))
    hold(stacks)
    assert found(stacks, visible_to="owner-of-image") == [("vm-1", "snapshot")]
    assert found(stacks, visible_to="p-1") == [("stack-1", "use")]
    hold(stacks, instance_project_id="p-2")
    assert found(stacks, visible_to="p-1") == []
    assert found(stacks, visible_to="p-2") == [("stack-1", "use")]
    assert usage(stacks, "p-1").leases.count == 0
    assert usage(stacks, "p-2").leases.count == 1


def test_a_detached_lease_is_gone(stacks: Database) -> None:
    hold(stacks)
    recording.detach(stacks, InstanceRef(NOVA, "stack-1", "stack"), A, "use", ANYBODY)
    assert (found(stacks), usage(stacks).leases) == ([], Leases())
    assert "lease" not in counts(stacks)


def test_a_resource_without_its_last_lease_is_forgotten(stacks: Database) -> None:
    hold(stacks)
    hold(stacks, image=B)
    for image, instances in ((A, 1), (B, None)):
        recording.detach(stacks, InstanceRef(NOVA, "stack-1", "stack"), image, "use", ANYBODY)
        assert counts(stacks).get("instance") == instances


def test_a_purge_removes_leases_that_ended_before(stacks: Database) -> None:
    hold(stacks)
    hold(stacks, "stack-2")
    hold(stacks, "stack-3", image=B)
    expire(stacks)
    assert purge.due(stacks, datetime.now(UTC) - timedelta(hours=1)).relations == 0
    before = datetime.now(UTC)
    assert purge.due(stacks, before).relations == 1
    assert purge.purge(stacks, before).relations == 1
    assert found(stacks) == [("stack-3", "use"), ("stack-2", "use")]
    assert counts(stacks)["instance"] == 2


def test_a_merge_keeps_the_later_end(stacks: Database) -> None:
    until = days(9)
    hold(stacks, until=days(7))
    hold(stacks, until=until, installation_uuid=OTHER_NOVA)
    hold(stacks, "stack-2", until=until, installation_uuid=OTHER_NOVA)
    merge.merge(stacks, OTHER_NOVA, NOVA)
    rows = stacks.read(relation_queries.find, Filters(NOVA), 10)
    assert {row.instance_id: row.expires_at for row in rows} == {"stack-1": until, "stack-2": until}
    assert counts(stacks)["lease"] == 2


@pytest.fixture
def limited(stacks: Database, monkeypatch: pytest.MonkeyPatch) -> Database:
    """A database in which a project has at most three live leases."""
    monkeypatch.setattr(leases, "LIMIT", 3)
    return stacks


def test_a_project_has_a_limit_of_live_leases(limited: Database) -> None:
    for number in range(3):
        hold(limited, f"stack-{number}")
    with pytest.raises(LeaseLimitReached, match="has 3 live leases, and 3 is the limit"):
        hold(limited, "stack-9")
    assert not hold(limited, "stack-0", until=days(9))[1]
    hold(limited, "stack-9", instance_project_id="p-2")
    with pytest.raises(LeaseLimitReached):
        hold(limited, "stack-9")  # of the other project until now
    expire(limited, "stack-2")
    hold(limited, "stack-3")
    with pytest.raises(LeaseLimitReached):
        hold(limited, "stack-2")


def test_the_limit_is_a_thousand() -> None:
    assert leases.LIMIT == 1000


def test_concurrent_leases_do_not_exceed_the_limit(
    pair: tuple[Database, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "LIMIT", 3)
    resource_types.register(pair[0], "stack")
    for name in ("stack-a", "stack-b"):
        hold(pair[0], name)

    def attempt(number: int) -> bool:
        try:
            hold(pair[number % 2], f"stack-{number}", image=image_id())
        except LeaseLimitReached:
            return False
        return True

    assert sum(at_once(attempt, 6)) == 1


def test_a_concurrent_removal_of_the_type_does_not_leave_a_live_lease(
    pair: tuple[Database, Database],
) -> None:
    def attempt(number: int) -> bool:
        try:
            if number:
                hold(pair[0], f"stack-{attempts}")
            else:
                resource_types.remove(pair[1], "stack")
        except (ResourceTypeUnknown, ResourceTypeInUse):
            return False
        return True

    for attempts in range(10):
        resource_types.register(pair[0], "stack")
        removed, held = at_once(attempt, 2)
        assert removed != held
        expire(pair[0], f"stack-{attempts}")


def test_a_type_in_use_is_refused_while_leases_are_renewed(server_url: str) -> None:
    database, other = Database(server_url, 10.0), Database(server_url, 1.0)
    resource_types.register(database, "stack")
    hold(database)

    def renew_meanwhile(connection: Connection) -> None:
        leases.begin(connection, wanted())
        with pytest.raises(ResourceTypeInUse):
            resource_types.remove(other, "stack")

    database.write(renew_meanwhile)
    database.close()
    other.close()


def at_once(attempt: Callable[[int], bool], number: int) -> list[bool]:
    """Return the results of calls in as many threads that begin at the same time."""
    barrier = Barrier(number)

    def one(argument: int) -> bool:
        barrier.wait(30)
        return attempt(argument)

    with ThreadPoolExecutor(number) as threads:
        return list(threads.map(one, range(number)))


def test_a_marked_image_is_used_again_if_glance_has_it(stacks: Database) -> None:
    hold(stacks)
    stacks.write(relations.mark_deleted, A, datetime.now(UTC))
    with pytest.raises(ImageGone):
        hold(stacks)
    row, _ = recording.attach(stacks, wanted(), ANYBODY, confirmed_by_glance=True)
    assert row.image_deleted_at is None
