"""What differs between databases and their drivers: limits on waiting, meanings of errors."""

import math
import os
import socket
import sqlite3
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import tenacity
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from related_images.errors import ConfigurationError, SchemaMissing, StoreUnavailable

MYSQL: Final = ("mysql", "mariadb")

LONGEST_TURN: Final = 60
"""Seconds that one upgrade waits for another."""

WRITE_AHEAD: Final = "PRAGMA journal_mode=WAL"

FAULTS: Final = (OSError, RuntimeError, ValueError, TypeError, IndexError, struct.error)
"""What opening a connection raises beside the errors that a driver has for it.

A file that the URL names is gone, there are no more threads or descriptors, a package for a way to
authenticate is not installed, an argument is wrong, or what answers is no such database.
"""

_MYSQL_TRANSIENT: Final = {
    1020,  # record has changed since it was read (MariaDB, snapshot isolation)
    1205,  # lock wait timeout
    1213,  # deadlock; also a Galera certification failure
}
_POSTGRESQL_TRANSIENT: Final = {
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock timeout, which comes before a deadlock is looked for
}
_NO_SUCH_TABLE: Final = ("no such table", "doesn't exist", "does not exist")


class Overtaken(Exception):
    """Another transaction changed a row in between; this one is to be run again."""


MISUSED: Final = (TypeError, ValueError)
"""Those of them that a driver raises for what the URL says."""


def misused(fault: BaseException) -> ConfigurationError:
    """What to say of a URL that a driver does not take, for which it raised one of ``MISUSED``.

    The text of a ``ValueError`` may show a part of the password. Whoever raises this leaves out
    the cause: a traceback would show it.
    """
    if isinstance(fault, UnicodeError):
        reason = "the driver cannot send a character of the user or the password"
    elif isinstance(fault, ValueError):
        reason = "the driver does not take the value of one of its parameters"
    else:
        reason = str(fault)
    return ConfigurationError(f"the database URL cannot be used: {reason}")


def shown(url: URL) -> str:
    """The URL for people to read, without its password, which may also be in its query."""
    return url.set(query={}).render_as_string()


def connect_args(url: URL, seconds: float) -> dict[str, Any]:
    """What to tell the driver so that no wait lasts longer than ``seconds``."""
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if backend == "sqlite":
        return {"timeout": seconds}
    if backend in MYSQL:
        limit = seconds if driver == "pymysql" else math.ceil(seconds)
        # the server counts whole seconds, and none is not allowed
        init = f"SET SESSION innodb_lock_wait_timeout={max(1, int(seconds))}"
        # MariaDB alone takes this comment for a part of the statement; by itself it ends a walk
        # through lineage after 1000 steps, in silence
        init += " /*M!100202 , max_recursive_iterations=1000000 */"
        names = ("connect_timeout", "read_timeout", "write_timeout")
        return dict.fromkeys(names, limit) | {"init_command": init}
    if driver in ("psycopg", "psycopg2"):
        limit = int(seconds * 1000)
        return {
            "connect_timeout": max(2, math.ceil(seconds)),  # libpq takes less than two for two
            "tcp_user_timeout": limit,
            # half the time for a lock, so that there is some left to try again after a deadlock
            "options": f"-c statement_timeout={limit} -c lock_timeout={limit // 2}",
        }
    return {}


def patient_args(url: URL) -> dict[str, Any]:
    """What to tell the driver of an operator, who waits for a lock but not for a dead address."""
    if url.get_backend_name() == "sqlite":
        return {"timeout": 30}
    return {"connect_timeout": 10}


def prepare_sqlite(engine: Engine, *, begin: str | None) -> None:
    """Let SQLAlchemy, not the driver, begin transactions, and keep foreign keys."""

    @event.listens_for(engine, "do_connect")
    def _find(dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        # SQLite would make an empty file
        path = arguments[0]
        if not path.startswith("file:") and not os.path.exists(path):
            raise SchemaMissing(
                f"there is no database file {path}; run `related-images db upgrade`"
            )

    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys=ON")

    if begin:

        @event.listens_for(engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)


def write_ahead(connection: Connection) -> None:
    """Have SQLite's readers go on while one writes; the file keeps this for all who open it.

    SQLite gives up on the change at once while another writes, whatever limit it was told.

    :raises sqlalchemy.exc.DBAPIError: if others write without a pause, or the file refuses
    """
    # by the driver itself: what SQLAlchemy keeps of a failure keeps the file locked
    driver: Any = connection.connection.driver_connection
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_locked),
        stop=tenacity.stop_after_delay(LONGEST_TURN),
        wait=tenacity.wait_random(0.001, 0.05),
        reraise=True,
    )
    try:
        again(driver.execute, WRITE_AHEAD).close()
    except sqlite3.Error as error:
        raise DBAPIError.instance(WRITE_AHEAD, None, error, sqlite3.Error) from error


@contextmanager
def cut_off(connection: Connection, seconds: float) -> Iterator[None]:
    """Shut the socket after ``seconds``, under a driver that would wait for a hung server for ever.

    libpq has no limit of its own on an answer, and a hung server does not keep its statement limit.
    """
    descriptor = connection.connection.fileno()
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        timer = threading.Timer(seconds, _shut, [twin])
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


def _shut(twin: socket.socket) -> None:
    with suppress(OSError):
        twin.shutdown(socket.SHUT_RDWR)


_MYSQL_TURN: Final = (
    "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '.', :name)), :seconds)",
    "SELECT RELEASE_LOCK(SHA1(CONCAT(DATABASE(), '.', :name)))",
)
"""The server has one set of names for all its databases."""
_TURNS: Final = dict.fromkeys(MYSQL, _MYSQL_TURN) | {
    "postgresql": (
        "SELECT 1 FROM pg_advisory_lock(hashtext(:name))",
        "SELECT pg_advisory_unlock(hashtext(:name))",
    )
}
"""How to keep others waiting and how to end that, beyond the end of a transaction."""


@contextmanager
def alone(connection: Connection, name: str) -> Iterator[None]:
    """Keep every other caller with the same ``name`` waiting; on SQLite the transaction does.

    After an error that ends with the connection, which must not be one of a pool.

    :raises StoreUnavailable: on MariaDB and MySQL, if the other is at it for too long
    """
    if connection.dialect.name not in _TURNS:
        yield
        return
    take, release = _TURNS[connection.dialect.name]
    named = {"name": name}
    if not connection.execute(text(take), {**named, "seconds": LONGEST_TURN}).scalar():
        raise StoreUnavailable("another upgrade is under way; run this again when it is done")
    yield
    connection.execute(text(release), named)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction, run again at once, may well succeed."""
    if isinstance(error, Overtaken | IntegrityError):
        return True  # a row that was there a moment ago is gone, or the other way round
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True  # a pooled connection of before a restart
    cause = error.orig
    state = getattr(cause, "sqlstate", None) or getattr(cause, "pgcode", None)
    return state in _POSTGRESQL_TRANSIENT or _mysql_code(cause) in _MYSQL_TRANSIENT


def is_missing_table(error: DBAPIError) -> bool:
    """Whether the database says that a table is not there."""
    return any(words in str(error.orig) for words in _NO_SUCH_TABLE)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY


def _mysql_code(cause: BaseException | None) -> int | None:
    code = cause.args[0] if cause is not None and cause.args else None
    return code if isinstance(code, int) else None
