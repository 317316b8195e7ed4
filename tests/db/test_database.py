"""Database calls when the server hangs, is locked, refuses, restarts, or has no tables."""

import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import tenacity
from sqlalchemy import Connection, false, select
from sqlalchemy.exc import NoResultFound, StatementError

from related_images.db import (
    dialects,
    reconciliation_state,
    relation_queries,
    relations,
    schema,
    stored_state,
)
from related_images.db.database import WRITE, Database
from related_images.db.tables import image, relation
from related_images.errors import (
    ConfigurationError,
    FieldInvalid,
    SchemaMissing,
    StoreInDoubt,
    StoreUnavailable,
)
from related_images.model import Filters
from tests import servers
from tests.db import server_failures
from tests.db.attempts import attempts
from tests.db.samples import found, new, record, shown

TIMEOUT = 2.0
SLACK = 15.0
"""The delay in seconds that a busy machine may add; a longer one counts as hanging."""

PATIENCE = 60.0
"""A timeout in seconds that no busy machine reaches."""

eventually = tenacity.Retrying(
    retry=tenacity.retry_if_exception_type(StoreUnavailable),
    stop=tenacity.stop_after_delay(PATIENCE),
    wait=tenacity.wait_fixed(0.05),
    reraise=True,
)
"""Repeats a call until the database is available again, also on a busy machine."""

RouteRequest = Callable[[Database], object]


def read(database: Database) -> object:
    return database.read(relation_queries.find, Filters(), 10)


def write(database: Database) -> object:
    return database.write(relations.record, new())


CALLS = pytest.mark.parametrize("call", [read, write])


@pytest.fixture
def impatient(url: str) -> Iterator[Database]:
    database = Database(url, TIMEOUT)
    yield database
    database.close()


@pytest.fixture
def patient(url: str) -> Iterator[Database]:
    database = Database(url, PATIENCE)
    yield database
    database.close()


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


def refused(database: Database, call: RouteRequest) -> StoreUnavailable:
    """Assert that the call fails within the timeout, and that the next one is refused at once."""
    with limited(TIMEOUT + SLACK), attempts() as made, pytest.raises(StoreUnavailable):
        call(database)
    assert len(made) == 1
    assert not database.is_up()
    with attempts() as made, pytest.raises(StoreUnavailable) as again:
        call(database)
    assert made == []
    return again.value


def goes_on(database: Database, call: RouteRequest) -> None:
    """Assert that the call is attempted at once, and succeeds."""
    with attempts() as made, suppress(StoreUnavailable):
        call(database)
    assert len(made) == 1
    eventually(call, database)


@CALLS
def test_a_server_that_hangs(call: RouteRequest, client: Database, server_url: str) -> None:
    eventually(record, client, new())
    with server_failures.hanging(server_url):
        refused(client, call)
    eventually(call, client)


@CALLS
def test_a_server_that_hangs_before_the_first_connection(
    call: RouteRequest, client: Database, server_url: str
) -> None:
    with server_failures.hanging(server_url):
        refused(client, call)
    eventually(call, client)


def test_a_write_to_locked_tables_is_refused(impatient: Database, url: str) -> None:
    eventually(record, impatient, new())
    with server_failures.locked(url):
        refused(impatient, write)
        if url.startswith("sqlite"):
            goes_on(impatient, read)  # reads do not wait for writes
    eventually(write, impatient)
    eventually(read, impatient)


def test_a_read_from_locked_tables_times_out(impatient: Database, url: str) -> None:
    eventually(record, impatient, new())
    with server_failures.locked(url):
        if url.startswith("sqlite"):
            goes_on(impatient, read)
        else:
            with limited(TIMEOUT + SLACK), pytest.raises(StoreUnavailable):
                read(impatient)
    eventually(read, impatient)


def read_a_missing_row(connection: Connection) -> object:
    return connection.execute(select(image).where(false())).one()


def select_an_unknown_kind(connection: Connection) -> object:
    return connection.execute(select(relation.c.id).where(relation.c.kind == "no kind")).all()


@pytest.mark.parametrize(
    ("wrong", "error"),
    [(read_a_missing_row, NoResultFound), (select_an_unknown_kind, StatementError)],
)
def test_a_bug_is_rolled_back_and_does_not_affect_others(
    url: str, wrong: Callable[[Connection], object], error: type[Exception]
) -> None:
    def record_and_fail(connection: Connection) -> None:
        relations.record(connection, new())
        wrong(connection)

    with closing(Database(url, PATIENCE)) as database:
        for call in (database.read, database.explore, database.note):
            with pytest.raises(error):
                call(wrong)
        with pytest.raises(error):
            database.write(record_and_fail)
        assert database._own.reading._watch is database._own.writing._watch is None
        assert database.is_up()
        assert shown(database) == []


@pytest.mark.parametrize("driver", ["mysql+pymysql", "postgresql+psycopg"])
def test_a_server_that_does_not_exist(driver: str) -> None:
    database = Database(f"{driver}://nobody@127.0.0.1:{servers.free_port()}/nothing", TIMEOUT)
    refused(database, write)


@pytest.fixture
def nowhere(tmp_path: Path) -> Database:
    """A database in a directory that does not exist."""
    return Database(f"sqlite:///{tmp_path}/missing/related-images.db", TIMEOUT)


def test_a_file_in_the_url_that_does_not_exist(tmp_path: Path) -> None:
    address = f"mysql+pymysql://nobody@127.0.0.1:{servers.free_port()}/nothing"
    database = Database(f"{address}?ssl_ca={tmp_path}/missing.pem", TIMEOUT)
    refused(database, write)
    with pytest.raises(StoreUnavailable, match="FileNotFoundError"):
        database.check()


@pytest.mark.parametrize("said", [b"\x01\0\0\0\x0a", b"\0\0\0\0", b"HTTP/1.0 400 Bad Request"])
def test_a_server_that_is_not_a_database(said: bytes) -> None:
    with server_failures.saying(said) as port:
        refused(Database(f"mysql+pymysql://nobody@127.0.0.1:{port}/nothing", TIMEOUT), read)


def test_an_argument_that_the_driver_does_not_accept() -> None:
    nowhere = f"127.0.0.1:{servers.free_port()}"
    database = Database(f"mysql+pymysql://nobody:secret@{nowhere}/nothing?bogus=1", TIMEOUT)
    with pytest.raises(ConfigurationError, match="'bogus'") as told:
        database.check()
    assert "secret" not in str(told.value)


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch, server_url: str) -> None:
    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with closing(Database(server_url, PATIENCE)) as database:
        write(database)
        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", start)
            for call in (read, write):
                with suppress(StoreUnavailable):
                    call(database)
        eventually(write, database)
        eventually(read, database)


def test_a_directory_that_does_not_exist(nowhere: Database) -> None:
    refused(nowhere, write)


def test_closing_stops_the_probes_and_the_next_call_tries_itself(nowhere: Database) -> None:
    before = set(threading.enumerate())
    for call in (read, write):
        refused(nowhere, call)
        nowhere.close()
        assert set(threading.enumerate()) <= before
        assert nowhere.is_up()


def test_closing_leaves_no_connection_of_a_probe(url: str) -> None:
    database = Database(url, TIMEOUT)
    with server_failures.locked(url):
        refused(database, write)
        database.close()
        assert database._own.engines is None
    eventually(write, database)
    database.close()


FORKS = pytest.mark.parametrize(
    "fork", [os.fork, ctypes.PyDLL(None).fork], ids=["by Python", "unknown to Python"]
)
"""Python does not notice a fork by uWSGI, unless uWSGI is configured to report it."""


def in_child(fork: Callable[[], int], work: Callable[[], None]) -> int:
    """Fork a process that runs ``work`` and exits with 0 if that succeeds; return its ID."""
    child = fork()
    if child:
        return child
    signal.alarm(math.ceil(PATIENCE))
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)  # the child must not finalize the fixtures of its parent


@FORKS
def test_a_forked_process_does_not_stop_the_probes_of_its_parent(
    nowhere: Database, asleep: threading.Event, fork: Callable[[], int]
) -> None:
    def close() -> None:
        assert nowhere.is_up()
        nowhere.close()
        refused(nowhere, write)

    refused(nowhere, write)
    assert asleep.wait(PATIENCE)
    assert os.waitpid(in_child(fork, close), 0)[1] == 0
    assert not nowhere.is_up()


@CALLS
def test_connections_that_a_restart_closed(call: RouteRequest, server_url: str) -> None:
    with closing(Database(server_url, PATIENCE)) as client:
        write(client)
        read(client)
        server_failures.drop_connections(server_url)
        call(client)
        assert client.is_up()


def commit_and_lose_the_connection(client: Database, url: str) -> Callable[[Any], None]:
    """Return a commit after which the connection is lost before the response arrives."""
    commit = client._engine(1).dialect.do_commit

    def commit_and_lose(connection: Any) -> None:
        commit(connection)
        server_failures.drop_connections(url)
        connection.cursor().execute("SELECT 1")  # fails as the driver says it

    return commit_and_lose


def test_a_transaction_is_not_repeated_if_its_commit_is_in_doubt(
    server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(Database(server_url, PATIENCE)) as client:
        wanted, tries = new(), []

        def record_once(connection: Connection) -> None:
            tries.append(relations.record(connection, wanted).created)

        with monkeypatch.context() as patched:
            lost = commit_and_lose_the_connection(client, server_url)
            patched.setattr(client._engine(1).dialect, "do_commit", lost)
            with pytest.raises(StoreInDoubt, match="commit"):
                client.write(record_once)
        assert tries == [True]
        assert eventually(shown, client) == [wanted.image_id]
        eventually(write, client)


@pytest.mark.parametrize("ending", ["do_commit", "do_rollback"])
def test_the_next_transaction_does_not_commit_one_that_could_not_be_ended(
    server_url: str, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    with closing(Database(server_url, PATIENCE)) as client:
        dialect: Any = client._engine(1).dialect

        def fail(connection: Any) -> None:
            raise dialect.dbapi.OperationalError(1047, "not now")

        def record_and_fail(connection: Connection) -> None:
            relations.record(connection, new())
            if ending == "do_rollback":
                raise FieldInvalid("what came with it was wrong")

        client.write(lambda connection: None)
        with monkeypatch.context() as patched:
            patched.setattr(dialect, ending, fail)
            with pytest.raises(StoreUnavailable):
                client._attempt(WRITE, record_and_fail)
        client._attempt(WRITE, lambda connection: None)  # without the check of the circuit breaker
        assert shown(client) == []


def test_a_connection_with_an_unread_result_is_closed(mariadb: servers.DatabaseServer) -> None:
    url = mariadb.create()
    schema.upgrade(url)

    def read_wrong_text(connection: Connection) -> None:
        connection.connection.cursor().execute(b"SELECT '\x80'")

    with closing(Database(url, PATIENCE)) as client:
        with pytest.raises(FieldInvalid):
            client.read(read_wrong_text)
        assert client.read(relation_queries.find, Filters(), 1) == []


REFUSE_ONCE = (
    "CREATE SEQUENCE commits",
    "CREATE FUNCTION refuse_once() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
    "IF nextval('commits') = 1 THEN RAISE EXCEPTION 'again' USING ERRCODE = '40001'; END IF; "
    "RETURN NULL; END $$",
    "CREATE CONSTRAINT TRIGGER refuse_once AFTER INSERT ON related_relation "
    "DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_once()",
)


def test_a_transaction_is_repeated_after_a_refused_commit(
    postgresql: servers.DatabaseServer,
) -> None:
    url = postgresql.create()
    schema.upgrade(url)
    server_failures.run(url, *REFUSE_ONCE)
    with closing(Database(url, PATIENCE)) as client:
        (recorded,) = record(client, new())
        assert recorded.created
        assert server_failures.run(url, "SELECT last_value FROM commits") == ["2"]


EVENTS = """
import sys
from related_images.db.database import Database

database = Database(sys.argv[1], 60)
database.read(lambda connection: None)
print(*[engine._has_events for engine in database._own.engines])
"""


def test_no_event_of_connections_makes_each_statement_slower(url: str) -> None:
    """With one, SQLAlchemy calls many more functions for each statement.

    The tests themselves listen to such an event, so this runs in another process.
    """
    done = subprocess.run([sys.executable, "-c", EVENTS, url], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("False False\n", "")


def test_a_read_only_database(patient: Database, url: str) -> None:
    wanted = new()
    record(patient, wanted)
    patient.close()
    with closing(Database(server_failures.refuse_writes(url), TIMEOUT)) as reader:
        refused(reader, write)
        goes_on(reader, read)
        assert eventually(shown, reader) == [wanted.image_id]


def test_tables_created_later_need_no_restart(database_url: str) -> None:
    with closing(Database(database_url, PATIENCE)) as database:
        for _ in range(2):
            with pytest.raises(SchemaMissing, match="db upgrade"):
                read(database)
        schema.upgrade(database_url)
        eventually(write, database)
        eventually(read, database)


def test_removed_tables_are_reported_and_may_be_created_again(patient: Database, url: str) -> None:
    write(patient)
    schema.downgrade(url, "base")
    with pytest.raises(StoreUnavailable):
        read(patient)
    schema.upgrade(url)
    eventually(write, patient)


def dawdle(connection: Connection) -> None:
    time.sleep(TIMEOUT / 2 + 0.1)
    reconciliation_state._count_since(connection, None, 1)


def test_a_timeout_of_explore_does_not_open_the_breaker(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    with closing(Database(sqlite_url, TIMEOUT)) as database:
        with pytest.raises(StoreUnavailable):
            database.explore(dawdle)
        assert database.is_up()
        with pytest.raises(StoreUnavailable):
            database.read(dawdle)
        assert not database.is_up()


def test_sqlite_waits_for_the_disk_except_for_notes(sqlite_url: str) -> None:
    def synchronous(connection: Connection) -> Any:
        return connection.exec_driver_sql("PRAGMA synchronous").scalar()

    schema.upgrade(sqlite_url)
    normal, full = 1, 2
    with closing(Database(sqlite_url, PATIENCE)) as database:
        assert database.write(synchronous) == full
        assert database.note(synchronous) == normal


def test_a_transaction_is_repeated_after_a_concurrent_change(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    lost = iter([True, True])

    def overtaken(connection: Connection) -> str:
        if next(lost, False):
            raise dialects.ConcurrentChange
        return "done"

    with closing(Database(sqlite_url, PATIENCE)) as database:
        assert database.write(overtaken) == "done"
    assert list(lost) == []


def test_repeated_conflicts_end_at_the_timeout(sqlite_url: str) -> None:
    schema.upgrade(sqlite_url)
    made: list[float] = []

    def overtaken(connection: Connection) -> None:
        made.append(time.monotonic())
        raise dialects.ConcurrentChange

    begun = time.monotonic()
    with closing(Database(sqlite_url, TIMEOUT)) as database, pytest.raises(StoreUnavailable):
        database.explore(overtaken)
    assert len(made) > 1
    assert made[-1] - begun < TIMEOUT + SLACK


@FORKS
def test_a_forked_process_has_connections_of_its_own(
    patient: Database, fork: Callable[[], int]
) -> None:
    def connection() -> object:
        return patient.write(lambda connection: connection.connection.driver_connection)

    def record_some() -> None:
        assert connection() is not parents
        record(patient, *(new(f"child-{os.getpid()}-{n}") for n in range(5)))

    record(patient, new("parent"))
    parents = connection()
    children = [in_child(fork, record_some) for _ in range(3)]
    for number in range(5):
        record(patient, new(f"parent-{number}"))
    assert [os.waitpid(child, 0)[1] for child in children] == [0, 0, 0]
    assert len(found(patient)) == 1 + 5 + 3 * 5


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("nonsense", "not of the form"),
        ("nosuch://host/database", "nosuch"),
        ("mysql+nosuch://host/database", "nosuch"),
        ("mysql+pymysql://host:port/database", "its port"),
        ("mysql+pymysql://host/database?read_timeout=abc", "number"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ],
)
def test_a_url_that_is_not_usable(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Database(url, TIMEOUT)


def test_concurrent_health_checks_write_once(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema.upgrade(sqlite_url)
    database, written = Database(sqlite_url, PATIENCE), list[str]()
    put, begun = stored_state.put, threading.Barrier(8)

    def slow(connection: Connection, name: str, value: str) -> None:
        written.append(name)
        time.sleep(0.2)
        put(connection, name, value)

    def ask() -> None:
        begun.wait(PATIENCE)
        database.check_recording()

    monkeypatch.setattr(stored_state, "put", slow)
    asking = [threading.Thread(target=ask) for _ in range(8)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(PATIENCE)
    # one write per second; on a busy machine the calls may take two seconds
    assert 0 < len(written) < 4
    database.close()
