"""The way into the database: one engine a process, a limit on every wait, a memory of failure.

``read`` and ``write`` run a function on a connection. Both end within ``timeout`` seconds, or raise
:exc:`StoreUnavailable`: each single wait (for a connection, a statement, a lock) is limited to half
of it by the driver, and no statement is begun in the second half. After a failure they refuse at
once, and a background thread does what failed in kind, at growing intervals with jitter, until it
works. ``explore`` is for questions that may be slow on a database that works: only if such a try in
the background fails too are others refused.
"""

import logging
import math
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, RootTransaction, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, NoSuchModuleError, SQLAlchemyError

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
    SchemaTooNew,
    StoreInDoubt,
    StoreUnavailable,
)

LOG = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Task = Callable[Concatenate[Connection, P], T]


class _Budget(threading.local):
    """How long this thread may go on beginning statements, and which ones it has begun."""

    def begin(self, seconds: float) -> None:
        self.until = time.monotonic() + seconds
        self.statements: list[str] = []


_CREDENTIALS: Final = re.compile(r"^[^:/]*(:[^@]*)?@")
"""The user and the password of a URL, as SQLAlchemy takes them."""

_ESCAPE: Final = (
    "write / : @ ? % in a user or password as %2F %3A %40 %3F %25, and in a paste file %% for "
    "each %"
)


class _Own:
    """What one process has of a database."""

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
    """A database by its SQLAlchemy ``url``, of which no call waits longer than ``timeout`` seconds.

    Nothing is opened before the first call, so that a server may load the filter and then fork.

    :raises ConfigurationError: if the URL cannot be used or its driver is not installed
    """

    def __init__(self, url: str, timeout: float) -> None:
        self._url = usable(url)
        self._limit = timeout / 2
        self._budget = _Budget()
        self._by_process: dict[int, _Own] = {}

    @property
    def _own(self) -> _Own:
        """What this process has: after a fork, nothing.

        What its parent has is kept, not closed: the sockets are the parent's, who still talks
        through them. That a fork took place is not told by every server that does it.
        """
        process = os.getpid()
        own = self._by_process.get(process)
        return own or self._by_process.setdefault(process, _Own())

    def read(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` on a connection where each statement stands for itself.

        It must be quick whatever is stored, since reading is refused to all after one that was not.

        :raises StoreUnavailable: if the database cannot answer in time
        """
        self._own.reading.check()
        try:
            return self._attempt(0, lambda connection: task(connection, *args, **kwargs))
        except StoreUnavailable as error:
            self._own.reading.trip(error, self._reading_again())
            raise

    def explore(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Like :meth:`read`, for a question that may take long by its nature.

        That it ran out of time is a reason to look at the database, not yet to refuse others.

        :raises StoreUnavailable: if the database cannot answer in time
        """
        self._own.reading.check()
        try:
            return self._attempt(0, lambda connection: task(connection, *args, **kwargs))
        except StoreUnavailable:
            self._own.reading.suspect(self._reading_again())
            raise

    def write(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``task`` in one transaction, again if it lost against another one.

        :raises StoreUnavailable: if the database cannot commit in time, or does not say whether
            it did
        """
        self._own.writing.check()
        try:
            return self._attempt(1, lambda connection: task(connection, *args, **kwargs))
        except StoreUnavailable as error:
            self._own.writing.trip(error, self._writing_again())
            raise

    def is_up(self) -> bool:
        """Whether, as far as is known, relations can be recorded."""
        try:
            self._own.reading.check()
            self._own.writing.check()
        except StoreUnavailable:
            return False
        return True

    def check(self) -> None:
        """Find out whether the database can be used, and leave nothing open.

        :raises ConfigurationError: if the driver does not take what the URL says
        :raises StoreUnavailable: if it cannot, or lacks tables
        """
        try:
            self._attempt(0, lambda connection: None)
        except StoreUnavailable as error:
            if isinstance(error.__cause__, dialects.MISUSED):
                raise dialects.misused(error.__cause__) from None
            raise
        finally:
            self.close()

    @property
    def address(self) -> str:
        """Where the database is, without user, password and options."""
        url = self._url
        return URL.create(
            url.drivername, host=url.host, port=url.port, database=url.database
        ).render_as_string()

    def check_recording(self) -> None:
        """Find out whether relations can be recorded, by writing; at most once a second.

        :raises StoreUnavailable: if they cannot
        """
        own = self._own
        with own.heartbeat_lock:  # who waits for another's attempt takes its result
            own.writing.check()
            if time.monotonic() - own.written_at >= 1:
                self.write(stored_state.put, probes.HEARTBEAT, datetime.now(UTC).isoformat())
                own.written_at = time.monotonic()

    def close(self) -> None:
        """Give the pooled connections back and forget failures; the next call opens new ones."""
        own = self._own
        own.reading.reset()
        own.writing.reset()
        engines, own.engines = own.engines, None
        own.is_verified = False
        for engine in engines or ():
            engine.dispose()

    def _attempt(self, writing: int, task: Callable[[Connection], T]) -> T:
        begun = time.monotonic()
        self._budget.begin(self._limit)
        deadline.end = begun + 2 * self._limit
        try:
            return self._persistent(writing, task)
        except (DataError, UnicodeError) as error:
            # the fault of the request, and no reason to refuse others; the second is raised by
            # drivers for letters that the database's encoding lacks
            raise FieldInvalid("the database cannot keep one of the values given") from error
        except DBAPIError as error:
            if dialects.is_missing_table(error):
                self._own.is_verified = False
            raise self._failed(error.orig) from error
        except (SQLAlchemyError, dialects.ConcurrentChange) as error:
            raise _unavailable(str(error)) from error
        finally:
            deadline.end = math.inf
            spent = metrics.WRITE_SECONDS if writing else metrics.READ_SECONDS
            spent.observe(time.monotonic() - begun)

    def _persistent(self, writing: int, task: Callable[[Connection], T]) -> T:
        while True:
            try:
                return self._once(writing, task)
            except (DBAPIError, dialects.ConcurrentChange) as error:
                if not dialects.is_transient(error) or time.monotonic() > self._budget.until:
                    raise
            time.sleep(random.uniform(0.001, 0.05))

    def _once(self, writing: int, task: Callable[[Connection], T]) -> T:
        with (
            self._turn(writing),
            self._connected(writing) as connection,
            _transaction(connection),
        ):
            if not self._own.is_verified:
                self._verify(connection)
            return task(connection)

    @contextmanager
    def _turn(self, writing: int) -> Iterator[None]:
        """In SQLite one writes at a time: better wait in line than in its busy loop."""
        if not writing or self._url.get_backend_name() != "sqlite":
            yield
            return
        with self._own.turns.turn(self._budget.until - time.monotonic()) as came:
            if not came:
                raise _unavailable("too many are writing")
            yield

    @contextmanager
    def _connected(self, writing: int) -> Iterator[Connection]:
        with ExitStack() as entered:
            try:
                connection = entered.enter_context(self._engine(writing).connect())
            except dialects.FAULTS as fault:
                raise self._failed(fault) from fault
            yield connection

    def _failed(self, cause: BaseException | None) -> StoreUnavailable:
        error = _unavailable(type(cause).__name__)
        error.database_message = dialects.said(cause, self._url)
        return error

    def _verify(self, connection: Connection) -> None:
        try:
            schema.verify(connection)
        except SchemaTooNew as error:
            # an upgrade adds before it removes, so the version before goes on serving
            LOG.warning("%s", error)
        self._own.is_verified = True

    def _reading_again(self) -> Callable[[], None]:
        """Reads what this thread has just failed to read, in kind."""
        touched = probes.reading(self._budget.statements)

        def probe() -> None:
            self._own.is_verified = False
            self._engine(0).dispose()
            self._attempt(0, touched)

        return probe

    def _writing_again(self) -> Callable[[], None]:
        """Writes where this thread has just failed to write, and changes nothing there."""
        touched = probes.writing(self._budget.statements)

        def probe() -> None:
            # a connection may stay what it was made as: to a server that is read-only now, say
            self._engine(1).dispose()
            self._attempt(1, touched)

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
            # each transaction is ended where it was begun, or its connection is not used again
            pool_reset_on_return=None,
            # it takes rows that are looked up side by side, by their names, for a product of tables
            enable_from_linting=False,
            **options,
        )
        if is_sqlite:
            dialects.prepare_sqlite(engine, begin="BEGIN IMMEDIATE" if writing else None)
        if not writing:
            dialects.end_nothing(engine)
        event.listen(engine, "before_cursor_execute", self._begin_statement)
        return engine

    def _begin_statement(self, *given: Any) -> None:
        self._budget.statements.append(given[2])
        if time.monotonic() > self._budget.until:
            raise _unavailable("it answers too slowly")


def usable(url: str) -> URL:
    """Read a database URL.

    :raises ConfigurationError: if it is none, if its driver is not installed, or if it names a
        database in memory
    """
    _refuse_odd_credentials(url)
    try:
        parsed = make_url(url)
        if parsed.drivername == "postgresql":
            # which driver that means differs between versions of SQLAlchemy
            parsed = parsed.set(drivername="postgresql+psycopg")
        dialects.check(parsed)
        create_engine(parsed)
    except ValueError:
        # what it says may be a part of the password
        raise dialects.unusable(f"its port or another number is not a number; {_ESCAPE}") from None
    except (NoSuchModuleError, ImportError) as error:
        raise dialects.unusable(f"{error}; see the extras [mysql] and [postgresql]") from error
    except ArgumentError:
        raise dialects.unusable(
            "it is not of the form dialect+driver://user:password@host/database, or for SQLite "
            "sqlite:////directory/file"
        ) from None
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise ConfigurationError("a SQLite database in memory would be lost; name a file")
    return parsed


def _refuse_odd_credentials(url: str) -> None:
    """A password with an ``@`` ends there: what follows would be shown as the host."""
    dialect, _, rest = url.partition("://")
    if not dialect.startswith("sqlite") and "@" in _CREDENTIALS.sub("", rest, count=1):
        raise dialects.unusable(f"it has an @ that does not end the user and password; {_ESCAPE}")


@contextmanager
def _transaction(connection: Connection) -> Iterator[None]:
    """What is done in it is committed, or undone if it raises."""
    transaction = connection.begin()
    with ExitStack() as otherwise:
        otherwise.callback(_end, connection, transaction.rollback)
        yield
        otherwise.pop_all()
    _commit(connection, transaction)


def _end(connection: Connection, ending: Callable[[], None]) -> None:
    """End a transaction; the next one must not find what is left if that fails."""
    with ExitStack() as otherwise:
        otherwise.callback(connection.invalidate)
        ending()
        otherwise.pop_all()


def _commit(connection: Connection, transaction: RootTransaction) -> None:
    """Commit; if the answer to that is lost, raise what makes nobody run the task again."""
    try:
        _end(connection, transaction.commit)
    except DBAPIError as error:
        if error.connection_invalidated:
            # it may be committed, and the task would find its own work as that of another
            raise StoreInDoubt(
                "the connection to the database was lost during a commit; look whether it was "
                "stored, or try again"
            ) from error
        raise


def _unavailable(reason: str) -> StoreUnavailable:
    return StoreUnavailable(f"the database cannot be used now ({reason}); try again later")
