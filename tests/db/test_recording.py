"""The cost of recording an image, and who may record, on each database."""

from dataclasses import replace
from typing import Any

import pymysql
import pytest
from sqlalchemy import event
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    NewRelation,
    Reporter,
    installations,
    lineage_walk,
    recording,
    schema,
)
from related_images.db.recording import announce
from related_images.errors import InstallationBound, InstallationUnregistered
from related_images.model import ImageState, InstanceRef, ServiceUser
from related_images.validation import parse_time

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
NOW = parse_time("now", "2026-01-31T12:00:00Z")
ANYBODY = Reporter(frozenset())


def image(number: int) -> NewRelation:
    made = f"10000000-0000-4000-8000-{number:012}"
    return NewRelation(InstanceRef(NOVA, "inst-1"), made, "backup", None, "service", "demo", NOW)


@pytest.fixture
def database(database_url: str) -> Database:
    schema.upgrade(make_url(database_url))
    return Database(database_url, 20)


def test_recording_an_image_of_a_known_instance_takes_three_statements(
    database: Database,
) -> None:
    announce(database, image(1), ANYBODY)
    sent: list[str] = []

    def remember(_: Any, __: Any, statement: str, *___: Any) -> None:
        sent.append(statement.split()[0])

    event.listen(database._engine(1), "before_cursor_execute", remember)
    announce(database, image(2), ANYBODY)
    assert [word for word in sent if word != "BEGIN"] == ["INSERT", "UPDATE", "INSERT"]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
def test_creating_an_image_of_a_known_instance_takes_five_round_trips(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def create(number: int) -> None:
        new = image(number)
        recording.created(database, new, announce(database, new, ANYBODY), ImageState(NOW, "demo"))

    create(1)
    sent: list[str] = []
    send = pymysql.connections.Connection._execute_command

    def remember(connection: Any, command: int, statement: Any) -> None:
        text = (
            statement if isinstance(statement, str) else bytes(statement).decode(errors="replace")
        )
        sent.append(text.split()[0])
        send(connection, command, statement)

    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", remember)
    create(2)
    assert sent == ["INSERT", "UPDATE", "INSERT", "COMMIT", "UPDATE"]


@pytest.mark.parametrize("tells", [True, False])
def test_the_parent_link_is_stored_with_and_without_insert_returning(
    database: Database, monkeypatch: pytest.MonkeyPatch, tells: bool
) -> None:
    announce(database, replace(image(1), kind="boot"), ANYBODY)
    dialect = database._engine(1).dialect
    if not tells:  # SQLAlchemy sets this for MySQL at the first connection
        monkeypatch.setattr(dialect, "insert_returning", False)
    announce(database, image(2), ANYBODY)
    assert dialect.insert_returning is tells
    (link,) = database.read(lineage_walk.ancestry, image(2).image_id, 10, None)
    assert link.parent_image_id == image(1).image_id


def test_only_the_service_user_of_a_registered_installation_may_record(
    database: Database,
) -> None:
    with pytest.raises(InstallationUnregistered):
        announce(database, image(1), Reporter(frozenset(), require_registered=True))
    installations.register(database, NOVA, "east", [ServiceUser("nova-east")])
    with pytest.raises(InstallationBound):
        announce(database, image(1), Reporter(frozenset({"nova-west"})))
    told = announce(database, image(1), Reporter(frozenset({"nova-east"}), require_registered=True))
    assert told.created


def test_any_recording_role_may_record_for_an_unbound_installation(database: Database) -> None:
    installations.register(database, NOVA, "east")
    assert announce(database, image(1), Reporter(frozenset(), require_registered=True)).created
    installations.unregister(database, NOVA)
    with pytest.raises(InstallationUnregistered):
        announce(database, image(2), Reporter(frozenset(), require_registered=True))
