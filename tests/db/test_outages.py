"""The circuit breaker with real databases: it is open as long as the same access fails."""

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from typing import Any, Final

import pytest
import tenacity
from sqlalchemy import Connection, make_url

from related_images.db import (
    circuit_breaker,
    instances,
    probes,
    recorded_backups,
    recording,
    relation_queries,
    relations,
    schema,
    usages,
    witnesses,
)
from related_images.db.circuit_breaker import Breaker
from related_images.db.database import Database
from related_images.db.tables import metadata
from related_images.errors import StoreUnavailable
from related_images.model import Filters
from tests.db import server_failures
from tests.db.attempts import attempts
from tests.db.samples import counts, image_id, new, record, server

pytestmark = pytest.mark.slow

TIMEOUT = 2.0
PATIENCE = 60.0

RouteRequest = Callable[[Database], object]


def list_relations(database: Database) -> object:
    return database.explore(relation_queries.find, Filters(), 10)


def know_image(database: Database) -> object:
    """The query of a deletion without instance headers."""
    return database.read(recording._knows_image, image_id())


def write(database: Database) -> object:
    return database.write(relations.record, new())


@pytest.fixture
def client(server_url: str) -> Iterator[Database]:
    with closing(Database(server_url, PATIENCE)) as patient:
        record(patient, new())
    with closing(Database(server_url, TIMEOUT)) as database:
        yield database


def is_refused(database: Database, call: RouteRequest) -> bool:
    """Return whether the call is refused without an attempt."""
    with attempts() as made, suppress(StoreUnavailable):
        call(database)
    return made == []


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it does not come"
        time.sleep(0.02)


def test_a_query_that_hangs_opens_the_breaker_of_reads(client: Database, server_url: str) -> None:
    with server_failures.hanging(server_url):
        with pytest.raises(StoreUnavailable):
            list_relations(client)
        until(lambda: is_refused(client, list_relations))
        assert not client.is_up()
        assert not is_refused(client, write)
    until(client.is_up)


def spent(database: Database) -> Callable[[Connection], object]:
    """Return a query of a working database that begins after the timeout."""

    def task(connection: Connection) -> object:
        database._budget.until = -math.inf
        return usages._usages(connection, [image_id()], "p-1")

    return task


def test_slow_queries_of_one_project_do_not_affect_others(url: str) -> None:
    with closing(Database(url, PATIENCE)) as database:
        record(database, new())
        for number in range(100):
            with pytest.raises(StoreUnavailable):
                database.explore(spent(database))
            call = (list_relations, know_image, write)[number % 3]
            assert not is_refused(database, call)
            assert database.is_up()


def rotate(database: Database) -> object:
    return recorded_backups.recorded_backups(database, set(), "vm-1", "daily", None)


def show_instance(database: Database) -> object:
    return instances.show(database, server("vm-1"), None)


@pytest.mark.parametrize("slow", [usages.open_gaps, witnesses.coverages, rotate, show_instance])
def test_a_slow_query_of_a_route_does_not_affect_others(
    slow: RouteRequest, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Database(url, PATIENCE)) as database:
        record(database, new())
        begin = database._budget.begin
        with monkeypatch.context() as patched:
            # the budget has attributes of each thread, so that the probe is not slow
            patched.setattr(database._budget, "begin", lambda until: begin(-math.inf))
            with pytest.raises(StoreUnavailable, match="responds too slowly"):
                slow(database)
        for call in (slow, know_image, write):
            assert not is_refused(database, call)
        assert database.is_up()


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list of the results of the probes, which follow each other without a pause."""
    came: list[str] = []

    def noting(name: str) -> None:
        learn: Callable[..., Any] = getattr(Breaker, name)

        def note(*given: Any) -> Any:
            came.append(name)
            return learn(*given)

        monkeypatch.setattr(Breaker, name, note)

    noting("failed")
    noting("worked")
    monkeypatch.setattr(tenacity, "wait_random_exponential", lambda **_: tenacity.wait_fixed(0.01))
    return came


LOCKS: Final = [
    ("mariadb", "LOCK TABLES related_relation WRITE", [write, list_relations]),
    ("mariadb", "LOCK TABLES related_image WRITE", [write, know_image]),
    ("mariadb", "LOCK TABLES related_relation READ", [write]),
    ("mariadb", "LOCK TABLES related_project WRITE", [write]),
    ("mariadb", "FLUSH TABLES WITH READ LOCK", [write]),
    ("postgresql", "LOCK TABLE related_relation", [write, list_relations]),
    ("postgresql", "LOCK TABLE related_image", [write, know_image]),
    ("postgresql", "LOCK TABLE related_relation IN SHARE MODE", [write]),
    ("postgresql", "LOCK TABLE related_image IN EXCLUSIVE MODE", [write]),
    ("postgresql", "LOCK TABLE related_project IN EXCLUSIVE MODE", [write]),
]


@pytest.mark.parametrize(
    ("kind", "lock", "call"),
    [(kind, lock, call) for kind, lock, calls in LOCKS for call in calls],
    ids=lambda part: getattr(part, "__name__", part),
)
def test_the_breaker_is_open_while_tables_are_locked(
    kind: str,
    lock: str,
    call: RouteRequest,
    request: pytest.FixtureRequest,
    probed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = request.getfixturevalue(kind).create()
    schema.upgrade(url)
    with closing(Database(url, PATIENCE)) as patient:
        record(patient, new())
    with closing(Database(url, TIMEOUT)) as database:
        with suppress(StoreUnavailable):
            call(database)  # opens a connection
        until(database.is_up)
        probed.clear()
        caplog.clear()
        with server_failures.locked(url, lock):
            with pytest.raises(StoreUnavailable):
                call(database)
            until(lambda: len(probed) >= 2)
            assert set(probed) == {"failed"}
            assert is_refused(database, call)
            lines = [each for each in caplog.records if each.name == circuit_breaker.__name__]
            assert 1 <= len(lines) <= 2
        until(database.is_up)


def test_every_table_can_be_probed_without_a_change(url: str) -> None:
    named = [str(table.insert()) for table in metadata.tables.values()]
    with closing(Database(url, PATIENCE)) as database:
        record(database, new())
        before = counts(database)
        database.read(probes.reading(named))
        database.write(probes.writing(named))
        assert counts(database) == before | {"state": 1}


def test_a_repeated_failure_is_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    flapping = Breaker("asking")
    for _ in range(5):
        flapping.trip(StoreUnavailable("locked"), lambda: None)
        until(lambda: flapping._watch is None)
    assert [each.levelname for each in caplog.records] == ["ERROR", "WARNING"]
    flapping.trip(StoreUnavailable("full"), lambda: None)
    until(lambda: flapping._watch is None)
    assert "full" in caplog.text


def wrong_password(url: str) -> str:
    server_failures.run(url, "CREATE USER IF NOT EXISTS careful IDENTIFIED BY 'right'")
    parsed = make_url(url).set(username="careful", password="wr%ng")
    return parsed.render_as_string(hide_password=False)


def no_such_role(url: str) -> str:
    parsed = make_url(url).set(username="nobody", password="wr%ng")
    return parsed.render_as_string(hide_password=False)


@pytest.mark.parametrize(
    ("kind", "asked_as", "told"),
    [
        ("mariadb", wrong_password, "1045: Access denied for user 'careful'"),
        ("postgresql", no_such_role, 'role "nobody" does not exist'),
    ],
)
def test_the_log_shows_the_error_of_the_database_without_the_password(
    kind: str,
    asked_as: Callable[[str], str],
    told: str,
    request: pytest.FixtureRequest,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    url = asked_as(request.getfixturevalue(kind).create())
    with closing(Database(url, TIMEOUT)) as database, pytest.raises(StoreUnavailable) as refused:
        write(database)
    assert told in caplog.text
    assert "wr%ng" not in caplog.text
    assert told not in str(refused.value)


def test_the_log_shows_the_code_of_a_lock_error(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    schema.upgrade(database_url)
    with closing(Database(database_url, TIMEOUT)) as database:
        with suppress(StoreUnavailable):
            write(database)
        until(database.is_up)
        caplog.clear()
        with server_failures.locked(database_url), pytest.raises(StoreUnavailable):
            write(database)
    codes = ("SQLITE_BUSY: database is locked", "1205: Lock wait", "2013: Lost", "55P03: canceling")
    assert any(code in caplog.text for code in codes), caplog.text
