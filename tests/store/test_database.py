"""The way into the database when it hangs, is locked, refuses, restarts, or lacks its tables."""

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from sqlalchemy import Connection

from related_images.errors import ConfigurationError, SchemaMissing, StoreUnavailable
from related_images.store import lookups, relations, schema
from related_images.store.database import Database
from related_images.store.rows import Filters
from tests import servers
from tests.store import hosts
from tests.store.samples import found, new, record, shown

TIMEOUT = 2.0
SLACK = 1.5
"""What a busy machine may add."""

Call = Callable[[Database], object]


def read(database: Database) -> object:
    return database.read(lookups.relations, Filters(), 10)


def write(database: Database) -> object:
    return database.write(relations.record, new())


CALLS = pytest.mark.parametrize("call", [read, write])


@pytest.fixture
def impatient(url: str) -> Iterator[Database]:
    database = Database(url, TIMEOUT)
    yield database
    database.close()


@pytest.fixture(params=["mariadb", "postgresql"])
def server_url(request: pytest.FixtureRequest) -> str:
    """A database of its own on each server, with our tables in it."""
    server: servers.DatabaseServer = request.getfixturevalue(request.param)
    url = server.create()
    schema.upgrade(url)
    return url


@pytest.fixture
def client(server_url: str) -> Iterator[Database]:
    database = Database(server_url, TIMEOUT)
    yield database
    database.close()


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    begun = time.monotonic()
    yield
    assert time.monotonic() - begun < seconds


def refused(database: Database, call: Call) -> StoreUnavailable:
    """The call fails within the timeout, and the next one at once."""
    with limited(TIMEOUT + SLACK), pytest.raises(StoreUnavailable):
        call(database)
    assert not database.is_up()
    with limited(TIMEOUT / 4), pytest.raises(StoreUnavailable) as again:
        call(database)
    assert again.value.retry_after > 0
    return again.value


def recovered(database: Database, call: Call) -> None:
    """The call works again by itself."""
    deadline = time.monotonic() + 30
    while not database.is_up() and time.monotonic() < deadline:
        time.sleep(0.05)
    call(database)


@CALLS
def test_a_server_that_hangs(call: Call, client: Database, server_url: str) -> None:
    record(client, new())
    with hosts.hanging(server_url):
        refused(client, call)
    recovered(client, call)


@CALLS
def test_a_server_that_hangs_before_the_first_connection(
    call: Call, client: Database, server_url: str
) -> None:
    with hosts.hanging(server_url):
        refused(client, call)
    recovered(client, call)


def test_tables_that_another_locks(impatient: Database, url: str) -> None:
    record(impatient, new())
    with hosts.locked(url):
        refused(impatient, write)
        if url.startswith("sqlite"):
            read(impatient)  # who only reads goes on
    recovered(impatient, write)
    recovered(impatient, read)


def test_reading_from_tables_that_another_locks(impatient: Database, url: str) -> None:
    record(impatient, new())
    with hosts.locked(url):
        if url.startswith("sqlite"):
            read(impatient)
        else:
            with limited(TIMEOUT + SLACK), pytest.raises(StoreUnavailable):
                read(impatient)
    recovered(impatient, read)


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_is_not_there(driver: str) -> None:
    database = Database(f"{driver}://nobody@127.0.0.1:{servers.free_port()}/nothing", TIMEOUT)
    refused(database, write)


def test_a_directory_that_is_not_there(tmp_path: object) -> None:
    database = Database(f"sqlite:///{tmp_path}/missing/related-images.db", TIMEOUT)
    refused(database, write)


@CALLS
def test_connections_that_a_restart_ended(call: Call, client: Database, server_url: str) -> None:
    write(client)
    read(client)
    hosts.drop_connections(server_url)
    call(client)
    assert client.is_up()


def test_a_database_that_can_only_be_read(impatient: Database, url: str) -> None:
    wanted = new()
    record(impatient, wanted)
    impatient.close()
    reader = Database(hosts.refuse_writes(url), TIMEOUT)
    refused(reader, write)
    assert shown(reader) == [wanted.image_id]
    reader.close()


def test_tables_that_are_made_later_need_no_restart(database_url: str) -> None:
    database = Database(database_url, TIMEOUT)
    for _ in range(2):
        with pytest.raises(SchemaMissing, match="db upgrade"):
            read(database)
    schema.upgrade(database_url)
    recovered(database, write)
    recovered(database, read)
    database.close()


def test_tables_that_vanish_are_told_and_may_come_back(impatient: Database, url: str) -> None:
    write(impatient)
    schema.downgrade(url, "base")
    with pytest.raises(StoreUnavailable):
        read(impatient)
    schema.upgrade(url)
    recovered(impatient, write)


def dawdle(connection: Connection) -> None:
    time.sleep(TIMEOUT / 2 + 0.1)
    lookups.count_since(connection, None, 1)


def test_a_long_question_that_runs_out_of_time_closes_nothing(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    database = Database(sqlite_url, TIMEOUT)
    with pytest.raises(StoreUnavailable):
        database.explore(dawdle)
    assert database.is_up()
    with pytest.raises(StoreUnavailable):
        database.read(dawdle)
    assert not database.is_up()


def test_a_forked_process_has_connections_of_its_own(impatient: Database) -> None:
    first = new("parent")
    record(impatient, first)
    children = [
        multiprocessing.get_context("fork").Process(target=_in_child, args=(impatient, number))
        for number in range(3)
    ]
    for child in children:
        child.start()
    for number in range(5):
        record(impatient, new(f"parent-{number}"))
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0, 0, 0]
    assert len(found(impatient)) == 1 + 5 + 3 * 5


def _in_child(database: Database, number: int) -> None:
    record(database, *(new(f"child-{number}-{n}") for n in range(5)))
    os._exit(0)  # the parent's fixtures are not for the child to end


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "Could not parse"),
        ("nosuch://host/database", "nosuch"),
        ("mysql+nosuch://host/database", "nosuch"),
        ("mysql+pymysql://host:port/database", "port"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_cannot_be_used(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Database(url, TIMEOUT)
