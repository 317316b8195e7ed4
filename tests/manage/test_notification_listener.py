"""What a listener does with a batch when the file or the database does not take it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url

from related_images.db import (
    Database,
    Filters,
    relation_queries,
    schema,
)
from related_images.db.notifications import Event
from related_images.errors import NotificationMalformed, StoreUnavailable
from related_images.manage import notification_listener, notification_parser
from related_images.manage.notification_listener import BATCH, Listener
from tests import commands
from tests.servers import DatabaseServer

NOVA = "0f8fad5b-d9cb-469f-a165-70867728950e"
BASE = "10000000-0000-4000-8000-000000000001"


def started(instance_id: str, timestamp: str = "2026-01-31 12:00:00.000000") -> dict[str, Any]:
    data = {"uuid": instance_id, "tenant_id": "demo", "image_uuid": BASE}
    payload = {"nova_object.data": data}
    return {"event_type": "instance.create.end", "payload": payload, "timestamp": timestamp}


@pytest.fixture
def database(sqlite_url: str) -> Database:
    schema.upgrade(make_url(sqlite_url))
    return Database(sqlite_url, 20)


def stored(database: Database) -> set[str]:
    return {row.instance_id for row in database.read(relation_queries.find, Filters(), 1000)}


def test_what_stands_beside_the_malformed_is_stored_though_the_file_takes_nothing(
    database: Database, tmp_path: Path
) -> None:
    listener = Listener(database, tmp_path / "later" / "set-aside.jsonl")
    batch = [started("vm-1"), {"event_type": "instance.create.end"}, started("vm-2")]
    assert not listener.take(NOVA, batch)
    assert stored(database) == {"vm-1", "vm-2"}
    listener.set_aside.parent.mkdir()
    assert listener.take(NOVA, batch)
    assert len(listener.set_aside.read_text().splitlines()) == 1
    assert listener.counts == {"stored": 2, "set aside": 1}


def test_a_file_that_takes_nothing_is_refused_from_the_start(
    database: Database,
    sqlite_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--connection", sqlite_url, "--installation", NOVA, "--transport-url", "fake://"]
    missing = tmp_path / "missing" / "set-aside.jsonl"
    assert commands.run("listen", *given, "--set-aside", str(missing)) == 1
    assert f"nothing can be set aside in {missing}" in capsys.readouterr().err


def test_a_slow_database_is_given_less_at_once(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []

    def slow(database: Database, events: Sequence[Event]) -> None:
        given.append(len(events))
        if len(events) > 5:
            raise StoreUnavailable("it answers too slowly")

    monkeypatch.setattr(notification_listener, "store", slow)
    monkeypatch.setattr(notification_listener, "PAUSE", 0)
    listener = Listener(database, tmp_path / "set-aside.jsonl")
    assert listener.take(NOVA, [started(f"vm-{n}") for n in range(BATCH)])
    taken = [size for size in given if size <= 5]
    assert sum(taken) == BATCH
    assert len(given) - len(taken) < len(taken)


def test_what_the_database_cannot_keep_is_set_aside_and_the_rest_is_stored(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    name = f"t{uuid4().hex}"
    latin = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgresql.run(f"CREATE DATABASE {name} {latin}")
    url = f"{postgresql.url}/{name}"
    schema.upgrade(make_url(url))
    database = Database(url, 20)
    batch = [started(f"vm-{number}") for number in range(10)]
    batch[6]["payload"]["nova_object.data"]["tenant_id"] = "проект"
    listener = Listener(database, tmp_path / "set-aside.jsonl")
    assert listener.take(NOVA, batch)
    assert stored(database) == {f"vm-{number}" for number in range(10) if number != 6}
    (line,) = listener.set_aside.read_text().splitlines()
    assert json.loads(line)["message"] == batch[6]
    assert listener.counts == {"stored": 9, "set aside": 1}
    database.close()


@pytest.mark.parametrize("project", ["demo ", " demo", " "])
def test_a_project_that_a_database_may_take_for_another_is_malformed(project: str) -> None:
    message = started("vm-1")
    message["payload"]["nova_object.data"]["tenant_id"] = project
    with pytest.raises(NotificationMalformed):
        notification_parser.read(NOVA, message)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_that_is_none_in_utc_is_malformed(time: str) -> None:
    with pytest.raises(NotificationMalformed):
        notification_parser.read(NOVA, started("vm-1", time))
