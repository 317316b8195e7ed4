"""Options in a database URL: they are passed to the driver, or refused by name."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, make_url, text

from related_images.db import dialects, schema
from related_images.db.database import Database, usable
from related_images.errors import ConfigurationError, StoreUnavailable
from tests import servers
from tests.db import server_failures
from tests.db.samples import new, record

pytestmark = pytest.mark.slow

TIMEOUT = 10.0
PATIENCE = 60.0


def scalar(statement: str) -> Callable[[Connection], Any]:
    return lambda connection: connection.execute(text(statement)).scalar()


def threshold(connection: Connection) -> Any:
    return connection.connection.driver_connection.prepare_threshold  # type: ignore[union-attr]


@contextmanager
def open_database(server: servers.DatabaseServer, query: str) -> Iterator[Database]:
    url = server.create()
    schema.upgrade(url)
    with closing(Database(f"{url}?{query}", PATIENCE)) as database:
        yield database


@pytest.mark.parametrize(
    ("query", "asked", "answer"),
    [
        ("options=-csearch_path%3Dpublic,x", "SHOW search_path", "public,x"),
        ("options=-csearch_path%3Dpublic,x", "SHOW statement_timeout", "30s"),
        ("options=-cgeqo%3Doff&options=-cjit_above_cost%3D7", "SHOW geqo", "off"),
        ("options=-cgeqo%3Doff&options=-cjit_above_cost%3D7", "SHOW jit", "off"),
        ("options=-clock_timeout_like.name%3D1", "SHOW lock_timeout", "15s"),
        ("application_name=glance", "SHOW application_name", "glance"),
    ],
)
def test_options_for_postgresql_are_kept_with_the_timeouts(
    query: str, asked: str, answer: str, postgresql: servers.DatabaseServer
) -> None:
    with open_database(postgresql, query) as database:
        for call in (database.read, database.write):
            assert call(scalar(asked)) == answer


@pytest.mark.parametrize(("given", "kept"), [("0", 0), ("7", 7), ("none", None)])
def test_the_option_prepare_threshold_is_kept(
    given: str, kept: int | None, postgresql: servers.DatabaseServer
) -> None:
    with open_database(postgresql, f"prepare_threshold={given}") as database:
        assert database.read(threshold) == kept
        record(database, *(new() for _ in range(8)))


@pytest.mark.parametrize(
    ("query", "asked", "answer"),
    [
        ("init_command=SET%20%40given%3D5", "SELECT @given", 5),
        ("init_command=SET%20%40given%3D5", "SELECT @@innodb_lock_wait_timeout", 30),
        ("init_command=SET%20%40given%3D5", "SELECT @@max_recursive_iterations", 1_000_000),
        ("charset=latin1", "SELECT @@character_set_client", "latin1"),
    ],
)
def test_options_for_mariadb_are_kept_with_the_timeouts(
    query: str, asked: str, answer: object, mariadb: servers.DatabaseServer
) -> None:
    with open_database(mariadb, query) as database:
        for call in (database.read, database.write):
            assert call(scalar(asked)) == answer


def test_the_shorter_of_two_timeouts_applies(mariadb: servers.DatabaseServer) -> None:
    def limits(connection: Connection) -> tuple[Any, Any]:
        driver: Any = connection.connection.driver_connection
        return driver.connect_timeout, driver._read_timeout

    with open_database(mariadb, "connect_timeout=7&read_timeout=3600") as database:
        assert database.read(limits) == (7, PATIENCE / 2)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("postgresql+psycopg://h/d?autocommit=true", "option autocommit of psycopg"),
        ("postgresql+psycopg://h/d?row_factory=dict_row", "option row_factory of psycopg"),
        (
            "postgresql+psycopg://h/d?prepare_threshold=often",
            "prepare_threshold must be a whole number",
        ),
        ("postgresql+psycopg://h/d?sslmode=a&sslmode=b", "sslmode is given 2 times"),
        ("postgresql+psycopg://h/d?connect_timeout=soon", "connect_timeout"),
        (
            "postgresql://h/d?options=-cstatement_timeout%3D100",
            "statement_timeout.*database_timeout",
        ),
        ("postgresql://h/d?options=-c%20Lock-Timeout%20%3D%201s", "Lock-Timeout.*database_timeout"),
        (
            "postgresql://h/d?options=-c&options=jit%3Don",
            "jit cannot be in options",
        ),
        ("mysql+pymysql://h/d?read_timeout=soon", "read_timeout must be a whole number"),
        ("mysql+mysqldb://h/d?write_timeout=2.5", "write_timeout must be a whole number"),
        ("mysql+pymysql://h/d?local_infile=perhaps", "local_infile must be true or false"),
        ("mysql+pymysql://h:soon/d", "its port is not a number"),
        ("sqlite:////x?timeout=soon", "timeout must be a number"),
        ("sqlite:////x?uri=perhaps", "uri must be true or false"),
        (
            "sqlite:////x?bogus=1&timeout=3",
            "option bogus of SQLite is unknown; known are .*timeout",
        ),
        ("sqlite:///file:/x?mode=ro", "option mode of SQLite is unknown.*uri=true"),
        ("sqlite:///file:/x?mode=ro&uri=false", "option mode of SQLite is unknown.*uri=true"),
        ("mysql+pymysql://h/d?init_command=a&init_command=b", "init_command is given 2 times"),
    ],
)
def test_an_option_that_cannot_be_passed_is_refused_by_name(url: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        Database(url, TIMEOUT)


@pytest.mark.parametrize(
    "query",
    [
        "timeout=2.5&detect_types=0&cached_statements=9&check_same_thread=false&uri=false",
        "isolation_level=IMMEDIATE",
        "mode=rwc&cache=private&uri=true&timeout=3",
    ],
)
def test_options_for_sqlite_are_accepted(query: str, tmp_path: Path) -> None:
    path = tmp_path / "related-images.db"
    schema.upgrade(f"sqlite:///{path}")
    named = f"file:{path}" if "uri=true" in query else path
    with closing(Database(f"sqlite:///{named}?{query}", PATIENCE)) as database:
        assert len(record(database, new())) == 1


def test_a_driver_without_timeouts_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"aiosqlite is not supported.*sqlite\+pysqlite"):
        usable("sqlite+aiosqlite:///file.db")


def test_the_default_driver_of_postgresql_is_psycopg() -> None:
    assert usable("postgresql://h/d").drivername == "postgresql+psycopg"


@pytest.mark.parametrize("silent", [1, 2])
def test_a_silent_host_leaves_time_for_the_next(
    silent: int, postgresql: servers.DatabaseServer
) -> None:
    url = postgresql.create()
    schema.upgrade(url)
    parsed = make_url(url)
    with ExitStack() as stack:
        ports = [stack.enter_context(server_failures.silent()) for _ in range(silent)]
        several = "&".join(f"host=127.0.0.1:{port}" for port in [*ports, parsed.port])
        address = f"postgresql+psycopg://postgres@/{parsed.database}?{several}"
        with closing(Database(address, TIMEOUT)) as database:
            record(database, new())
            record(database, new())
        with schema.connected(address) as connection:
            assert schema.version(connection) == schema.REVISIONS[-1]


def test_the_log_shows_the_error_of_each_host(caplog: pytest.LogCaptureFixture) -> None:
    one, other = servers.free_port(), servers.free_port()
    address = f"postgresql+psycopg://postgres@/d?host=127.0.0.1:{one}&host=127.0.0.1:{other}"
    with closing(Database(address, TIMEOUT)) as database, pytest.raises(StoreUnavailable):
        record(database, new())
    assert f"port {one}" in caplog.text
    assert f"port {other}" in caplog.text


@pytest.mark.parametrize("name", ["password", "passwd", "sslpassword", "ssl_key_password"])
def test_an_error_does_not_show_the_passwords_of_a_url(name: str) -> None:
    url = make_url(f"postgresql+psycopg://u:s3%20%20cret@h/d?{name}=s3%20%20cret%200ther")
    fault = OSError("the service s3  cret with s3  cret 0ther is not known")
    assert dialects.said(fault, url) == "the service *** with *** is not known"


def test_an_error_does_not_show_a_value_that_the_driver_refused() -> None:
    url = make_url("mysql+pymysql://u:s3cr%E2%82%ACt@h/d")
    with pytest.raises(UnicodeEncodeError) as caught:
        str(url.password).encode("latin-1")
    assert dialects.said(caught.value, url) == ""
