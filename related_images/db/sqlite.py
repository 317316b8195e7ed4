"""SQLite only: transactions, write-ahead logging, the locks of writers and of upgrades."""

import fcntl
import os
import sqlite3
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import tenacity
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import DBAPIError

from related_images.db import dialects
from related_images.errors import SchemaMissing, StoreUnavailable

WRITE_AHEAD: Final = "PRAGMA journal_mode=WAL"


class FairLock:
    """A lock that threads acquire in the order of their requests.

    :class:`threading.Lock` is not fair: under load, the thread that has just released it acquires
    it again, and other threads starve.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Hold the lock in a context.

        :param seconds: the timeout
        :returns: whether the lock was acquired in time
        """
        came = self._take(seconds)
        try:
            yield came
        finally:
            if came:
                self._pass_on()

    def _take(self, seconds: float) -> bool:
        with self._guard:
            if not self._taken:
                self._taken = True
                return True
            called = threading.Lock()
            called.acquire()
            self._waiting.append(called)
        return called.acquire(timeout=max(seconds, 0)) or not self._leave(called)

    def _leave(self, called: threading.Lock) -> bool:
        """Leave the queue, and return whether the lock was not acquired at the last moment."""
        with self._guard:
            if called not in self._waiting:
                return False
            self._waiting.remove(called)
            return True

    def _pass_on(self) -> None:
        with self._guard:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self._taken = False


def prepare(engine: Engine, *, writes: bool) -> None:
    """Let SQLAlchemy begin transactions instead of the driver, and enforce foreign keys.

    This is the recipe "Serializable isolation / Savepoints / Transactional DDL" of SQLAlchemy's
    documentation of pysqlite.

    :param writes: whether each transaction locks the database when it begins
    """

    @event.listens_for(engine, "do_connect")
    def _find(dialect: Any, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        # SQLite would create an empty file
        path = arguments[0]
        if not path.startswith("file:") and not os.path.exists(path):
            raise SchemaMissing(f"there is no database file {path}; {dialects.UPGRADE}")

    @event.listens_for(engine, "connect")
    def _connect(dbapi_connection: Any, record: Any) -> None:
        dbapi_connection.isolation_level = None
        dbapi_connection.execute("PRAGMA foreign_keys=ON")
        if not writes:
            # a power failure may undo what is written in autocommit mode: see Database.note
            dbapi_connection.execute("PRAGMA synchronous=NORMAL")

    if writes:
        dialect: Any = engine.dialect
        dialect.do_begin = _begin_writing


def _begin_writing(dbapi_connection: Any) -> None:
    dbapi_connection.execute("BEGIN IMMEDIATE")


def write_ahead(connection: Connection) -> None:
    """Switch a SQLite file to write-ahead logging, so that a write does not block reads.

    The mode is stored in the file. While another connection writes, SQLite refuses the switch at
    once, without regard to its timeout; this function tries again.

    :raises sqlalchemy.exc.DBAPIError: if the file is locked for :data:`dialects.LONGEST_TURN`
        seconds, or the switch fails
    """
    # through the driver: an exception of SQLAlchemy refers to a cursor, which locks the file
    driver: Any = connection.connection.driver_connection
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception(_is_locked),
        stop=tenacity.stop_after_delay(dialects.LONGEST_TURN),
        wait=tenacity.wait_random(0.001, 0.05),
        reraise=True,
    )
    try:
        again(driver.execute, WRITE_AHEAD).close()
    except sqlite3.Error as error:
        raise DBAPIError.instance(WRITE_AHEAD, None, error, sqlite3.Error) from error


def path(connection: Connection) -> str:
    """Return the absolute path of the database file."""
    return str(connection.exec_driver_sql("PRAGMA database_list").one()[2])


@contextmanager
def lock_upgrades(path: str) -> Iterator[None]:
    """Lock the upgrades of a database file in a context; the kernel unlocks if the process ends.

    The lock is an ``flock`` of the directory. A lock of the file itself could release the locks of
    SQLite: see "How To Corrupt An SQLite Database File", section 2.2.

    :raises StoreUnavailable: if another upgrade holds the lock for
        :data:`dialects.LONGEST_TURN` seconds
    """
    again = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(BlockingIOError),
        stop=tenacity.stop_after_delay(dialects.LONGEST_TURN),
        wait=tenacity.wait_random(0.01, 0.2),
        reraise=True,
    )
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        try:
            again(fcntl.flock, directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StoreUnavailable(dialects.ANOTHER_UPGRADE) from None
        yield
    finally:
        os.close(directory)


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
