"""What only SQLite needs: its own beginning of transactions, readers beside a writer, turns."""

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

from related_images.db.dialects import LONGEST_TURN
from related_images.errors import SchemaMissing

WRITE_AHEAD: Final = "PRAGMA journal_mode=WAL"


class FairLock:
    """One at a time, in the order of asking.

    The lock of the standard library goes to whoever comes by first, which under load is the thread
    that has just released it; others then wait for as long as the load lasts.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Lock] = deque()

    @contextmanager
    def turn(self, seconds: float) -> Iterator[bool]:
        """Wait at most ``seconds`` for a turn, and say whether it came."""
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
        """Stop waiting, unless the turn came at the same moment."""
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
    """Let SQLAlchemy, not the driver, begin transactions, and keep foreign keys.

    :param writes: have each transaction lock the database when it begins
    """

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

    if writes:
        dialect: Any = engine.dialect
        dialect.do_begin = _begin_writing


def _begin_writing(dbapi_connection: Any) -> None:
    dbapi_connection.execute("BEGIN IMMEDIATE")


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


def _is_locked(error: BaseException) -> bool:
    return isinstance(error, sqlite3.Error) and error.sqlite_errorcode == sqlite3.SQLITE_BUSY
