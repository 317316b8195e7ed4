"""Batches that the dead-letter file or the database does not accept."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock
from uuid import uuid4

import pytest
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InvalidRequestError

from related_images.db import (
    Database,
    Filters,
    NewRelation,
    Reporter,
    coverage,
    installations,
    relation_queries,
    schema,
)
from related_images.db.notifications import Event, store
from related_images.db.recording import attach
from related_images.errors import NotificationMalformed, StoreUnavailable
from related_images.manage import notification_listener, notification_parser
from related_images.manage.notification_listener import BATCH, Listener
from related_images.model import InstanceRef
from related_images.validation import parse_time
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


@pytest.mark.parametrize("event", ["unshelve", "power_on", "delete"])
def test_notifications_end_the_relation_of_a_shelved_server(
    database: Database, tmp_path: Path, event: str
) -> None:
    at = parse_time("at", "2026-01-31T11:00:00Z")
    made = NewRelation(InstanceRef(NOVA, "server-1"), BASE, "shelved", None, "service", "demo", at)
    attach(database, made, Reporter(frozenset()))
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    sent = started("server-1") | {"event_type": f"instance.{event}.end"}
    assert listener.store(NOVA, [sent, sent])
    (row,) = database.read(relation_queries.find, Filters(leftover=True), 10)
    assert row.ended_at == parse_time("at", "2026-01-31T12:00:00Z")
    assert listener.counts == {"stored": 2}


def test_valid_notifications_are_stored_while_the_dead_letter_file_is_not_writable(
    database: Database, tmp_path: Path
) -> None:
    listener = Listener(database, tmp_path / "later" / "dead-letters.jsonl")
    batch = [started("server-1"), {"event_type": "instance.create.end"}, started("server-2")]
    assert not listener.store(NOVA, batch)
    assert stored(database) == {"server-1", "server-2"}
    listener.dead_letters.parent.mkdir()
    assert listener.store(NOVA, batch)
    assert len(listener.dead_letters.read_text().splitlines()) == 1
    assert listener.counts == {"stored": 2, "dead letters": 1}


def test_dead_letters_that_can_be_stored_now_end_their_gaps(
    database: Database, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version parses a notification that this one does not."""
    installations.register(database, NOVA, "nova", (), ["nova-bus"])
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    odd, never = started("server-1"), started("server-2")
    for number, message in enumerate((odd, never)):
        message["message_id"] = f"m-{number}"
        message["payload"]["nova_object.data"]["image_uuid"] = "no uuid"
    assert listener.store(NOVA, [odd, never])
    assert listener.dead_letters.stat().st_mode & 0o777 == 0o600
    lines = listener.dead_letters.read_text().splitlines()
    lines[0] = lines[0].replace("no uuid", BASE)
    listener.dead_letters.write_text("\n".join(lines) + "\n")
    options = ["--connection", sqlite_url, "--installation", NOVA, "--retry-dead-letters"]
    assert commands.run("listen", *options, "--dead-letters", str(listener.dead_letters)) == 3
    assert stored(database) == {"server-1"}
    assert listener.dead_letters.read_text().splitlines() == lines[1:]
    assert listener.dead_letters.stat().st_mode & 0o777 == 0o600
    (witness,) = database.read(coverage.load).values()
    assert len(witness.lost) == 1


@pytest.fixture
def dead_letters(database: Database, tmp_path: Path) -> Path:
    """A file with one dead letter."""
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    assert listener.store(NOVA, [{"event_type": "instance.create.end"}])
    return listener.dead_letters


def retry(sqlite_url: str, path: Path) -> int:
    options = ["--connection", sqlite_url, "--installation", NOVA, "--retry-dead-letters"]
    return commands.run("listen", *options, "--dead-letters", str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_the_file_of_dead_letters_keeps_its_owner_and_mode(
    sqlite_url: str, dead_letters: Path
) -> None:
    os.chown(dead_letters, 65534, 65533)
    dead_letters.chmod(0o640)
    dead_letters.with_suffix(".new").write_text("left by a killed command")
    assert retry(sqlite_url, dead_letters) == 3
    kept = dead_letters.stat()
    assert (kept.st_uid, kept.st_gid, kept.st_mode & 0o777) == (65534, 65533, 0o640)
    assert len(dead_letters.read_text().splitlines()) == 1


def test_a_user_that_is_not_root_retries_a_file_of_another_group(
    sqlite_url: str, dead_letters: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "fchown", mock.Mock(side_effect=PermissionError))
    assert retry(sqlite_url, dead_letters) == 3


def test_a_retry_follows_no_link(
    sqlite_url: str, dead_letters: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The directory belongs to the user of the listener, and root may retry the dead letters."""
    victim = dead_letters.with_name("victim")
    victim.write_text("of root")
    dead_letters.with_suffix(".new").symlink_to(victim)
    assert retry(sqlite_url, dead_letters) == 3
    link = dead_letters.with_name("link.jsonl")
    link.symlink_to(dead_letters)
    assert retry(sqlite_url, link) == 1
    assert f"{link} is a symbolic link; give the file itself" in capsys.readouterr().err
    with pytest.raises(OSError, match="symbolic links"):
        notification_listener.open_private(link, "r")
    assert (victim.read_text(), victim.is_symlink(), link.is_symlink()) == ("of root", False, True)


def test_a_retry_without_a_file_creates_none(
    database: Database, sqlite_url: str, tmp_path: Path
) -> None:
    assert retry(sqlite_url, tmp_path / "none.jsonl") == 0
    assert list(tmp_path.glob("none*")) == []


def test_a_dead_letter_file_that_is_not_writable_stops_the_start(
    database: Database,
    sqlite_url: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = ["--connection", sqlite_url, "--installation", NOVA, "--transport-url", "fake://"]
    missing = tmp_path / "missing" / "dead-letters.jsonl"
    assert commands.run("listen", *options, "--dead-letters", str(missing)) == 1
    assert f"dead letters cannot be written to {missing}" in capsys.readouterr().err


def test_batches_for_a_slow_database_become_smaller(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def slow(database: Database, events: Sequence[Event]) -> None:
        sizes.append(len(events))
        if len(events) > 5:
            raise StoreUnavailable("the database is slow")

    monkeypatch.setattr(notification_listener, "store", slow)
    monkeypatch.setattr(notification_listener, "PAUSE", 0)
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    assert listener.store(NOVA, [started(f"server-{n}") for n in range(BATCH)])
    stored_sizes = [size for size in sizes if size <= 5]
    assert sum(stored_sizes) == BATCH
    assert len(sizes) - len(stored_sizes) < len(stored_sizes)


def test_a_notification_that_the_database_refuses_becomes_a_dead_letter(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    name = f"t{uuid4().hex}"
    latin = "ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    postgresql.run(f"CREATE DATABASE {name} {latin}")
    url = f"{postgresql.url}/{name}"
    schema.upgrade(make_url(url))
    database = Database(url, 20)
    batch = [started(f"server-{number}") for number in range(10)]
    batch[6]["payload"]["nova_object.data"]["tenant_id"] = "проект"
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    assert listener.store(NOVA, batch)
    assert stored(database) == {f"server-{number}" for number in range(10) if number != 6}
    (line,) = listener.dead_letters.read_text().splitlines()
    assert json.loads(line)["message"] == batch[6]
    assert listener.counts == {"stored": 9, "dead letters": 1}
    database.close()


def test_a_notification_that_causes_a_fault_becomes_a_dead_letter(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def faulty(database: Database, events: list[Event]) -> None:
        if any(event.instance.instance_id == "server-6" for event in events):
            raise InvalidRequestError("a fault of this program")
        store(database, events)

    monkeypatch.setattr(notification_listener, "store", faulty)
    monkeypatch.setattr(notification_listener, "PAUSE", 0)
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    assert listener.store(NOVA, [started(f"server-{number}") for number in range(10)])
    assert stored(database) == {f"server-{number}" for number in range(10) if number != 6}
    assert listener.counts == {"stored": 9, "dead letters": 1}
    assert caplog.text.count("Traceback") == 1


@pytest.mark.parametrize("error", [MemoryError, OSError, InvalidRequestError])
def test_a_short_failure_loses_no_notification(
    database: Database,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Callable[[str], Exception],
) -> None:
    failures = iter([error("short")] * 2)

    def failing(database: Database, events: list[Event]) -> None:
        for failure in failures:
            raise failure
        store(database, events)

    monkeypatch.setattr(notification_listener, "store", failing)
    monkeypatch.setattr(notification_listener, "PAUSE", 0)
    listener = Listener(database, tmp_path / "dead-letters.jsonl")
    assert listener.store(NOVA, [started(f"server-{number}") for number in range(3)])
    assert listener.counts == {"stored": 3}


def test_a_dead_letter_that_causes_a_fault_remains(
    database: Database, sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(database: Database, events: list[Event]) -> None:
        if events[0].instance.instance_id == "server-1":
            raise InvalidRequestError("a fault of this program")
        store(database, events)

    monkeypatch.setattr(notification_listener, "store", failing)
    path = tmp_path / "dead-letters.jsonl"
    letters = [
        {
            "installation_uuid": NOVA,
            "witness": "nova-bus",
            "gap": f"m-{number}",
            "message": started(f"server-{number}"),
        }
        for number in (1, 2)
    ]
    path.write_text("".join(json.dumps(letter) + "\n" for letter in letters))
    assert retry(sqlite_url, path) == 3
    assert stored(database) == {"server-2"}
    assert [json.loads(line)["gap"] for line in path.read_text().splitlines()] == ["m-1"]


@pytest.mark.parametrize("project", ["demo ", " demo", " "])
def test_a_project_id_with_spaces_at_an_end_is_malformed(project: str) -> None:
    message = started("server-1")
    message["payload"]["nova_object.data"]["tenant_id"] = project
    with pytest.raises(NotificationMalformed):
        notification_parser.read(NOVA, message)


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
def test_a_time_outside_the_range_of_utc_is_malformed(time: str) -> None:
    with pytest.raises(NotificationMalformed):
        notification_parser.read(NOVA, started("server-1", time))
