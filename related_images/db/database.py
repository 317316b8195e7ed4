"""Access to the database, with a timeout for every call and a circuit breaker.

:meth:`Database.read` and :meth:`Database.write` run a function on a connection. Both finish within
the timeout or raise :exc:`StoreUnavailable`: the driver limits each wait (for a connection, a
statement, a lock) to half of the timeout, and no statement begins in the second half. After a
failure, further calls fail at once, until a background thread succeeds with a probe: a similar
access to the same tables, repeated with exponential backoff and jitter.

:meth:`Database.explore` is for queries that may be slow although the database works. After its
failure, further calls fail only if the probe fails too.

Errors of SQLAlchemy that do not come from the driver or the pool are bugs of this program, for
example a row that is missing. Then the transaction is rolled back, the exception reaches the
caller, and no circuit breaker opens.
"""

import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from related_images import metrics
from related_images.db import (
    circuit_breaker,
    dialects,
    probes,
    schema,
    sqlite,
    stored_state,
)
from related_images.db.deadline import deadline
from related_images.errors import (
    ConfigurationError,
    FieldInvalid,
    RelatedImagesError,
    SchemaTooNew,
    StoreInDoubt,
    StoreUnavailable,
)

LOG = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Task = Callable[Concatenate[Connection, P], T]


class _Budget(threading.local):
    """The time until which the current thread may begin statements, and those it has begun."""

    def begin(self, until: float) -> None:
        self.until = until
        self.statements: list[str] = []


_CREDENTIALS: Final = re.compile(r"^[^:/]*(:[^@]*)?@")
"""The user and the password of a URL, as SQLAlchemy parses them."""

_ESCAPE: Final = (
    "write / : @ ? % in a user or password as %2F %3A %40 %3F %25, and in a paste file %% for "
    "each %"
)


_FAILURES: Final = (DBAPIError, PoolTimeout, UnicodeError, dialects.ConcurrentChange)
"""What the database, its driver or a concurrent transaction raises; others are bugs."""


@dataclass(frozen=True)
class Mode:
    """How a task runs.

    :ivar engine: the index of its engine: 0 in autocommit mode, 1 in a transaction
    """

    engine: int
    writes: bool


READ: Final = Mode(0, writes=False)
WRITE: Final = Mode(1, writes=True)
NOTE: Final = Mode(0, writes=True)


class _Own:
    """The connections and the state of one process."""

    def __init__(self) -> None:
        self.engines: tuple[Engine, Engine] | None = None
        self.is_verified = False
        self.written_at = -math.inf
        self.heartbeat_lock = threading.Lock()
        self.open_lock = threading.Lock()
        self.turns = sqlite.FairLock()
        self.reading = circuit_breaker.Breaker("reading relations")
        self.writing = circuit_breaker.Breaker("recording relations")


class Database:
    """A database.

    The first call opens the connections, so that a server may load the filter and then fork.

    :param url: the SQLAlchemy URL
    :param timeout: the longest duration of a call, in seconds
    :raises ConfigurationError: if the URL is not usable or its driver is not installed
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = usable(url)
        self._limit = timeout / 2
        self._budget = _Budget()
        self._by_process: dict[int, _Own] = {}

    @property
    def _own(self) -> _Own:
        """The connections and the state of this process; a forked process starts without any.

        A child does not close the connections of its parent: the parent still uses their sockets.
        The process ID is compared at each call, because not every server reports a fork to Python.
        """
        process = os.getpid()
        own = self._by_process.get(process)
        return own or self._by_process.setdefault(process, _Own())

    def read(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` on a connection in autocommit mode.

        The task must be fast for any data, because after a timeout the circuit breaker opens for
        all reads.

        :param task: takes the connection and the further arguments
        :returns: the result of the task
        :raises StoreUnavailable: if the database does not respond in time
        """
        with self._guarded(self._own.reading, self._reading_again):
            return self._attempt(READ, task, *args, **kwargs)

    def explore(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` as :meth:`read` does, if it may be slow for some data.

        After a timeout, the circuit breaker opens only if a probe fails too.

        :raises StoreUnavailable: if the database does not respond in time
        """
        reading = self._own.reading
        reading.check()
        try:
            return self._attempt(READ, task, *args, **kwargs)
        except StoreUnavailable:
            reading.suspect(self._reading_again())
            raise

    def write(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` in one transaction, and again after a conflict with another transaction.

        :returns: the result of the task
        :raises StoreUnavailable: if the transaction could not be committed in time
        :raises StoreInDoubt: if the connection was lost during the commit
        """
        with self._guarded(self._own.writing, self._writing_again):
            return self._attempt(WRITE, task, *args, **kwargs)

    def note(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task``, which is one statement, in autocommit mode: no round trip for a commit.

        If the connection is lost, the statement may take effect twice. SQLite does not wait for the
        disk: a power failure may undo the statement. So this is for what a reconciliation repeats.

        :returns: the result of the task
        :raises StoreUnavailable: if it could not be written in time
        """
        with self._guarded(self._own.writing, self._writing_again):
            return self._attempt(NOTE, task, *args, **kwargs)

    @contextmanager
    def _guarded(
        self, breaker: circuit_breaker.Breaker, probe_again: Callable[[], Callable[[], None]]
    ) -> Iterator[None]:
        """Check a circuit breaker, and open it if the context fails.

        :param probe_again: returns the probe for the statements of the failed context
        """
        breaker.check()
        try:
            yield
        except StoreUnavailable as error:
            breaker.trip(error, probe_again())
            raise

    def is_up(self) -> bool:
        """Return whether the circuit breakers are closed."""
        try:
            self._own.reading.check()
            self._own.writing.check()
        except StoreUnavailable:
            return False
        return True

    def check(self) -> None:
        """Connect to the database, check the schema, and close the connection.

        :raises ConfigurationError: if the driver does not accept the URL
        :raises StoreUnavailable: if the database is unavailable or has no tables
        """
        try:
            self._attempt(READ, lambda connection: None)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, dialects.MISUSED):
                raise dialects.misused(error.__cause__) from None
            raise
        finally:
            self.close()

    @property
    def address(self) -> str:
        """The URL of the database without user, password and options."""
        url = self._url
        return URL.create(
            url.drivername, host=url.host, port=url.port, database=url.database
        ).render_as_string()

    def check_recording(self) -> None:
        """Check with a write whether relations can be recorded; write at most once per second.

        :raises StoreUnavailable: if they cannot
        """
        own = self._own
        with own.heartbeat_lock:  # a thread that waited here uses the result of the other one
            own.writing.check()
            if time.monotonic() - own.written_at >= 1:
                self.write(stored_state.put, probes.HEARTBEAT, datetime.now(UTC).isoformat())
                own.written_at = time.monotonic()

    def close(self) -> None:
        """Close the connections and the circuit breakers; the next call opens new connections."""
        own = self._own
        own.reading.reset()
        own.writing.reset()
        engines, own.engines = own.engines, None
        own.is_verified = False
        for engine in engines or ():
            engine.dispose()

    def _attempt(self, mode: Mode, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` in a transaction, and again after a conflict with another transaction.

        :raises FieldInvalid: if the database cannot store a value
        :raises StoreUnavailable: if the database does not respond in time
        """
        begun = time.monotonic()
        self._budget.begin(begun + self._limit)
        deadline.end = begun + 2 * self._limit
        try:
            while True:
                try:
                    with self._transaction(mode) as connection:
                        return task(connection, *args, **kwargs)
                except _FAILURES as error:
                    if not dialects.is_transient(error) or time.monotonic() > self._budget.until:
                        raise self._explained(error) from error
                time.sleep(random.uniform(0.001, 0.05))
        finally:
            deadline.end = math.inf
            spent = metrics.WRITE_SECONDS if mode.writes else metrics.READ_SECONDS
            spent.observe(time.monotonic() - begun)

    @contextmanager
    def _transaction(self, mode: Mode) -> Iterator[Connection]:
        """Open a connection, commit at the end of the context, and roll back on an error."""
        own = self._own
        # SQLite has one writer at a time, and its own busy handler polls and is not fair
        waits = mode.writes and self._url.get_backend_name() == "sqlite"
        left = self._budget.until - time.monotonic()
        with own.turns.turn(left) if waits else nullcontext(True) as came:
            if not came:
                raise _unavailable("too many requests write at the same time")
            try:
                connected = self._engine(mode.engine).connect()
            except dialects.FAULTS as fault:
                raise self._failed(fault) from fault
            with connected as connection:
                transaction = connection.begin()
                try:
                    if not own.is_verified:
                        self._verify(connection)
                    yield connection
                except BaseException as error:  # also if the process or the request is told to stop
                    with _ending(connection):
                        transaction.rollback()
                    if isinstance(error, UnicodeDecodeError):
                        connection.invalidate()  # the driver did not read the rest of the result
                    raise
                with _ending(connection):
                    _commit(transaction)

    def _explained(self, error: Exception) -> RelatedImagesError:
        """Return the error to raise for an error of the database or its driver."""
        if isinstance(error, DataError | UnicodeError):
            # the request is at fault, so that the circuit breaker stays closed; drivers raise
            # UnicodeError for characters that the encoding of the database lacks
            return FieldInvalid("the database cannot store one of the given values")
        if not isinstance(error, DBAPIError):
            return _unavailable(str(error))
        if dialects.is_missing_table(error):
            self._own.is_verified = False
        return self._failed(error.orig)

    def _failed(self, cause: BaseException | None) -> StoreUnavailable:
        error = _unavailable(type(cause).__name__)
        error.database_message = dialects.said(cause, self._url)
        return error

    def _verify(self, connection: Connection) -> None:
        try:
            schema.verify(connection)
        except SchemaTooNew as error:
            # an upgrade adds before it removes, so that the previous version still works
            LOG.warning("%s", error)
        self._own.is_verified = True

    def _reading_again(self) -> Callable[[], None]:
        """Return a probe that reads from the tables of this thread's failed call."""
        touched = probes.reading(self._budget.statements)

        def probe() -> None:
            self._own.is_verified = False
            self._engine(0).dispose()
            self._attempt(READ, touched)

        return probe

    def _writing_again(self) -> Callable[[], None]:
        """Return a probe that writes to the tables of the failed call, without changes."""
        touched = probes.writing(self._budget.statements)

        def probe() -> None:
            # old connections may lead to a server that is read-only now
            self._engine(1).dispose()
            self._attempt(WRITE, touched)

        return probe

    def _engine(self, writing: int) -> Engine:
        own = self._own
        engines = own.engines
        if engines is None:
            with own.open_lock:
                engines = own.engines = own.engines or (self._open(0), self._open(1))
        return engines[writing]

    def _open(self, writing: int) -> Engine:
        is_sqlite = self._url.get_backend_name() == "sqlite"
        options: dict[str, Any] = {}
        if not writing:
            options["isolation_level"] = "AUTOCOMMIT"
        elif not is_sqlite:
            options["isolation_level"] = "READ COMMITTED"
        engine = dialects.create(
            self._url,
            self._limit,
            self._limit,
            pool_size=10,
            max_overflow=-1,
            pool_recycle=600,
            # _transaction ends each transaction, or invalidates its connection
            pool_reset_on_return=None,
            # the linter reports look-ups of unrelated rows in one query as a cartesian product
            enable_from_linting=False,
            **options,
        )
        if is_sqlite:
            sqlite.prepare(engine, writes=bool(writing))
        if not writing:
            dialects.end_nothing(engine)
        # events of connections would cost more: SQLAlchemy then calls more hooks for each statement
        for hook in ("do_execute", "do_executemany", "do_execute_no_params"):
            event.listen(engine, hook, self._begin_statement)
        return engine

    def _begin_statement(self, cursor: Any, statement: str, *given: Any) -> None:
        self._budget.statements.append(statement)
        if time.monotonic() > self._budget.until:
            raise _unavailable("it responds too slowly")


def usable(url: str) -> URL:
    """Parse a database URL.

    :raises ConfigurationError: if it is malformed, if its driver is not installed or not supported,
        or if it is an in-memory database
    """
    _refuse_odd_credentials(url)
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            # the default driver differs between versions of SQLAlchemy
            parsed = parsed.set(drivername="postgresql+psycopg")
        dialects.check(parsed)
        create_engine(parsed)
    except ValueError:
        # the text of this error may hold a part of the password
        raise dialects.unusable(f"its port is not a number; {_ESCAPE}") from None
    except (NoSuchModuleError, ImportError) as error:
        raise dialects.unusable(
            f"{error}; see the extras [mysql], [mysqlclient] and [postgresql]"
        ) from error
    except ArgumentError:
        raise dialects.unusable(
            "it is not of the form dialect+driver://user:password@host/database, or for SQLite "
            "sqlite:////directory/file"
        ) from None
    if parsed.get_backend_name() == "sqlite" and _is_in_memory(parsed):
        raise ConfigurationError("a SQLite database in memory would be lost; name a file")
    return parsed


def _is_in_memory(url: URL) -> bool:
    return (url.database or ":memory:").endswith(":memory:") or url.query.get("mode") == "memory"


def _refuse_odd_credentials(url: str) -> None:
    """Refuse an unescaped ``@`` in a password: the part after it would be shown as the host."""
    dialect, _, rest = url.partition("://")
    if not dialect.startswith("sqlite") and "@" in _CREDENTIALS.sub("", rest, count=1):
        raise dialects.unusable(f"it has an @ that does not end the user and password; {_ESCAPE}")


@contextmanager
def _ending(connection: Connection) -> Iterator[None]:
    """End a transaction in the context, and invalidate the connection if that fails."""
    try:
        yield
    except BaseException:  # the state of the transaction is unknown, whatever was raised
        connection.invalidate()
        raise


def _commit(transaction: RootTransaction) -> None:
    """Commit.

    :raises StoreInDoubt: if the connection was lost; the task must not run again then
    """
    try:
        transaction.commit()
    except DBAPIError as error:
        if error.connection_invalidated:
            # if it was committed, a second run would treat its own rows as those of another caller
            raise StoreInDoubt(
                "the connection to the database was lost during a commit; the commit may have "
                "succeeded; check the result, or try again"
            ) from error
        raise


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the database cannot be used now ({reason}); try again later")
