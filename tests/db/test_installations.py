"""Registered installations."""

from dataclasses import replace

from related_images.db import installations
from related_images.db.database import Database
from related_images.model import Installation
from tests.db.samples import NOVA, OTHER_NOVA, at, new, record, shown

EAST = Installation(NOVA, "east", "nova-east", at(0))


def test_a_registered_installation_is_found(database: Database) -> None:
    assert database.write(installations._register, EAST) == (EAST, True)
    assert database.read(installations._find, NOVA) == EAST
    assert database.read(installations._find, OTHER_NOVA) is None


def test_registering_again_returns_the_registration(database: Database) -> None:
    database.write(installations._register, EAST)
    other = replace(EAST, name="west", service_user_id=None, registered_at=at(1))
    assert database.write(installations._register, other) == (EAST, False)


def test_a_recorded_installation_is_not_registered(database: Database) -> None:
    record(database, new())
    assert database.read(installations._find, NOVA) is None
    assert database.read(installations._registered) == []
    assert database.write(installations._unregister, NOVA) is False
    assert database.write(installations._register, EAST) == (EAST, True)


def test_unregistering_keeps_the_relations(database: Database) -> None:
    wanted = new()
    record(database, wanted)
    database.write(installations._register, EAST)
    assert database.write(installations._unregister, NOVA) is True
    assert database.write(installations._unregister, NOVA) is False
    assert database.read(installations._registered) == []
    assert shown(database) == [wanted.image_id]


def test_installations_are_listed_by_name(database: Database) -> None:
    first = Installation(OTHER_NOVA, "alpha", None, at(0))
    database.write(installations._register, EAST)
    database.write(installations._register, first)
    assert database.read(installations._registered) == [first, EAST]
