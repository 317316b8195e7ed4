"""Registered installations, and the service users to which they are bound."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from sqlalchemy import Connection, select, update

from related_images.db import installations, recording
from related_images.db.database import Database
from related_images.db.tables import installation
from related_images.errors import FieldInvalid, InstallationBound, InstallationConflict
from related_images.model import (
    RESOURCE_TYPES,
    SERVICE_USERS_LIMIT,
    Installation,
    InstanceRef,
    Reporter,
    ServiceUser,
)
from tests.db.samples import NOVA, OTHER_NOVA, at, image_id, new, record, shown

NOVA_EAST = ServiceUser("nova-east", ("server",))
CINDER = ServiceUser("cinder", ("volume", "volume-snapshot"))
ALL = ServiceUser("all")
EAST = Installation(NOVA, "east", (NOVA_EAST, CINDER), at(0))


def test_a_registered_installation_is_found(database: Database) -> None:
    assert database.write(installations._register, EAST) == (EAST, True)
    assert database.read(installations._find, NOVA) == EAST
    assert database.read(installations._find, OTHER_NOVA) is None


def test_registering_again_returns_the_registration(database: Database) -> None:
    database.write(installations._register, EAST)
    other = replace(EAST, name="west", service_users=(), registered_at=at(1))
    assert database.write(installations._register, other) == (EAST, False)


def test_a_recorded_installation_is_not_registered(database: Database) -> None:
    record(database, new())
    assert database.read(installations._find, NOVA) is None
    assert database.read(installations.registered_in) == []
    assert database.write(installations._unregister, NOVA) is False
    assert database.write(installations._register, EAST) == (EAST, True)


def test_unregistering_keeps_the_relations(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    database.write(installations._register, EAST)
    assert database.write(installations._unregister, NOVA) is True
    assert database.write(installations._unregister, NOVA) is False
    assert database.read(installations.registered_in) == []
    assert shown(database) == [wanted.image_id]


def test_installations_are_listed_by_name(database: Database) -> None:
    first = Installation(OTHER_NOVA, "alpha", (), at(0))
    database.write(installations._register, EAST)
    database.write(installations._register, first)
    assert database.read(installations.registered_in) == [first, EAST]


def test_the_order_of_service_users_does_not_matter(database: Database) -> None:
    first, created = installations.register(database, NOVA, "east", [NOVA_EAST, CINDER])
    assert created
    again = installations.register(database, NOVA, "east", [CINDER, NOVA_EAST])
    assert again == (first, False)


@pytest.mark.parametrize(
    "users", [[], [NOVA_EAST], [NOVA_EAST, CINDER, ALL], [NOVA_EAST, replace(CINDER, user_id="c")]]
)
def test_other_service_users_are_a_conflict(database: Database, users: list[ServiceUser]) -> None:
    installations.register(database, NOVA, "east", [NOVA_EAST, CINDER])
    known = "its service users are: nova-east:server, cinder:volume,volume-snapshot; to change that"
    with pytest.raises(InstallationConflict, match=known):
        installations.register(database, NOVA, "east", users)


def test_a_user_twice_and_too_many_users_are_refused(database: Database) -> None:
    with pytest.raises(FieldInvalid, match="names the user 'all' twice"):
        installations.register(database, NOVA, "east", [ALL, replace(ALL, resource_types=())])
    many = [ServiceUser(f"u-{number}") for number in range(SERVICE_USERS_LIMIT + 1)]
    with pytest.raises(FieldInvalid, match="names 21 users; give at most 20"):
        installations.register(database, NOVA, "east", many)
    assert installations.registered(database) == []


def test_the_longest_list_of_service_users_is_stored(database: Database) -> None:
    users = [
        ServiceUser("🚀" * 253 + f"{number:02}", RESOURCE_TYPES)
        for number in range(SERVICE_USERS_LIMIT)
    ]
    given, _ = installations.register(database, NOVA, "east", users)
    assert installations.registered(database) == [given]
    assert given.service_users == tuple(users)


def test_each_report_is_limited_to_the_types_of_its_user(database: Database) -> None:
    """On each route, the types are those of all users of the request."""
    installations.register(database, NOVA, "east", [CINDER, NOVA_EAST])
    for users, permitted in (
        ({"nova-east"}, {"server"}),
        ({"cinder"}, {"volume", "volume-snapshot"}),
        ({"cinder", "nova-east", "others"}, {"server", "volume", "volume-snapshot"}),
        ({"others"}, set()),
    ):
        reporter = Reporter(frozenset(users))
        for resource_type in RESOURCE_TYPES:
            assert reports(database, resource_type, reporter) == {resource_type in permitted}


def reports(database: Database, resource_type: str, reporter: Reporter) -> set[bool]:
    """Return whether the reporter may announce, attach, end, revoke and detach."""
    wanted = new("vm-1", image_id(), "backup", resource_type=resource_type)
    attached = replace(wanted, image_id=image_id())
    record(database, wanted, attached)
    ref, at_ = InstanceRef(NOVA, "vm-1", resource_type), wanted.created_at
    outcomes = set()
    requests: list[Callable[[], object]] = [
        lambda: recording.announce(database, wanted, reporter),
        lambda: recording.attach(database, attached, reporter),
        lambda: recording.end_instance(database, ref, reporter),
        lambda: recording.revoke(database, ref, attached.image_id, "backup", reporter, at_),
        lambda: recording.detach(database, ref, wanted.image_id, "backup", reporter),
    ]
    for request in requests:
        try:
            request()
            outcomes.add(True)
        except InstallationBound:
            outcomes.add(False)
    return outcomes


def test_the_error_names_the_permitted_types(database: Database) -> None:
    installations.register(database, NOVA, "east", [NOVA_EAST, CINDER])
    with pytest.raises(InstallationBound) as caught:
        recording.announce(database, new(), Reporter(frozenset({"cinder"})))
    message = str(caught.value)
    assert f"installation {NOVA} of the type volume or volume-snapshot, not of the type server" in (
        message
    )
    assert "ask an administrator to register the installation again with this user" in message
    with pytest.raises(InstallationBound, match="is registered with other service users"):
        recording.announce(database, new(), Reporter(frozenset({"others"})))


def user_of_old_filter(connection: Connection) -> str | None:
    """Return the only user whom a filter of the version before permits; ``None`` for everyone."""
    registration = installation.c.registered_at.is_not(None)
    found = connection.execute(select(installation.c.service_user_id).where(registration))
    user: str | None = found.scalar_one()
    return user


@pytest.mark.parametrize(
    ("users", "old"),
    [
        ((), None),
        ((ALL,), "all"),
        ((CINDER, ALL), "all"),
        ((CINDER,), installations.NOBODY),
        ((NOVA_EAST, CINDER), installations.NOBODY),
    ],
)
def test_a_filter_of_the_version_before_permits_no_more(
    database: Database, users: tuple[ServiceUser, ...], old: str | None
) -> None:
    installations.register(database, NOVA, "east", users)
    assert database.read(user_of_old_filter) == old


@pytest.mark.parametrize("user", ["all", "nova-east", None])
def test_a_registration_by_a_filter_of_the_version_before_counts(
    database: Database, user: str | None
) -> None:
    installations.register(database, NOVA, "east", [ALL, CINDER])

    def as_old(connection: Connection) -> None:
        values = {"name": "new", "service_user_id": user, "registered_at": at(0)}
        connection.execute(update(installation).values(values))

    database.write(as_old)
    expected = () if user is None else (ServiceUser(user),)
    assert database.read(installations._find, NOVA) == Installation(NOVA, "new", expected, at(0))
    assert installations.register(database, NOVA, "new", expected)[1] is False


def test_installations_are_found_by_service_user_and_type(database: Database) -> None:
    installations.register(database, NOVA, "east", [CINDER, NOVA_EAST])
    installations.register(database, OTHER_NOVA, "west", [ALL])
    for user, resource_type, expected in (
        ("nova-east", "server", {NOVA}),
        ("nova-east", "volume", set()),
        ("cinder", "server", set()),
        ("all", "volume-backup", {OTHER_NOVA}),
    ):
        found = database.read(installations.bound_to, frozenset({user, "x"}), resource_type)
        assert found == expected
