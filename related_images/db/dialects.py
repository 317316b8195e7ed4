"""What differs between databases and their drivers: limits on waiting, meanings of errors."""

import logging
import math
import struct
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError

from related_images.errors import ConfigurationError, StoreUnavailable

LOG = logging.getLogger(__name__)

MYSQL: Final = ("mysql", "mariadb")

DRIVERS: Final = {
    "sqlite": ("pysqlite",),
    "mysql": ("pymysql", "mysqldb"),
    "mariadb": ("pymysql", "mysqldb"),
    "postgresql": ("psycopg",),
}
"""Those whose waits can be limited, for each kind of database."""

LONGEST_TURN: Final = 60
"""Seconds that one upgrade waits for another."""

LONGEST_LOCK: Final = 30.0
"""Seconds that a command waits for a lock of SQLite."""

_NOT_TEXT: Final = ("autocommit", "context", "cursor_factory", "row_factory")
"""What psycopg takes only from programs."""

PREPARE: Final = "prepare_threshold"
_NUMBERS: Final[dict[str, type[float]]] = {PREPARE: int, "connect_timeout": float}

_REPEATED: Final = (("psycopg", "host"), ("psycopg", "port"), ("psycopg", "options"))
"""What a URL may hold more than once."""

FAULTS: Final = (OSError, RuntimeError, ValueError, TypeError, IndexError, struct.error)
"""What opening a connection raises beside the errors that a driver has for it.

A file that the URL names is gone, there are no more threads or descriptors, a package for a way to
authenticate is not installed, an argument is wrong, or what answers is no such database.
"""

_TRANSIENT: Final = {
    1020,  # record has changed since it was read (MariaDB, snapshot isolation)
    1205,  # lock wait timeout
    1213,  # deadlock; also a Galera certification failure
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock timeout, which comes before a deadlock is looked for
}
_NO_SUCH_TABLE: Final = ("no such table", "doesn't exist", "does not exist")


class ConcurrentChange(Exception):
    """Another transaction changed a row in between; this one is to be run again."""


MISUSED: Final = (TypeError, ValueError)
"""Those of them that a driver raises for what the URL says."""


def unusable(reason: str) -> ConfigurationError:
    return ConfigurationError(f"the database URL cannot be used: {reason}")


def misused(fault: BaseException) -> ConfigurationError:
    """What to say of a URL that a driver does not take, for which it raised one of ``MISUSED``.

    The text of a ``ValueError`` may show a part of the password. Whoever raises this leaves out
    the cause: a traceback would show it.
    """
    if isinstance(fault, UnicodeError):
        return unusable("the driver cannot send a character of the user or the password")
    if isinstance(fault, ValueError):
        return unusable("the driver does not take the value of one of its parameters")
    return unusable(str(fault))


def shown(url: URL) -> str:
    """The URL for people to read, without its password, which may also be in its query."""
    return url.set(query={}).render_as_string()


def check(url: URL) -> None:
    """Refuse what would be without limits, or could not be passed on.

    :raises ConfigurationError: saying what of the URL cannot be used, without its values
    """
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if driver not in DRIVERS.get(backend, ()):
        backends = (backend,) if backend in DRIVERS else DRIVERS
        known = [f"{name}+{each}://" for name in backends for each in DRIVERS[name]]
        raise unusable(
            f"{backend} with the driver {driver} is not supported; write {' or '.join(known)}"
        )
    for name, given in url.query.items():
        if driver == "psycopg" and name in _NOT_TEXT:
            raise unusable(f"the option {name} of {driver} cannot be given in a URL")
        if not isinstance(given, str) and (driver, name) not in _REPEATED:
            raise unusable(f"the option {name} is given {len(given)} times")
        if driver == "psycopg" and name in _NUMBERS:
            _number(name, str(given))


def _number(name: str, text: str) -> float | None:
    if text.lower() == "none" and name == PREPARE:
        return None
    try:
        return _NUMBERS[name](text)
    except ValueError:
        raise unusable(f"the option {name} is a number") from None


def create(url: URL, connecting: float, waiting: float | None = None, **options: Any) -> Engine:
    """An engine, which the filter and the commands make in the same way.

    What the URL says to the driver is kept beside what is said here; of two limits the shorter one.

    :param connecting: seconds that a connection may take
    :param waiting: seconds that each statement may take; ``None``: as long as it needs
    """
    backend = url.get_backend_name()
    if backend == "sqlite":
        timeout = _shorter(url, "timeout", waiting or LONGEST_LOCK)
        return create_engine(url, connect_args={"timeout": timeout}, **options)
    if backend in MYSQL:
        return _create_mysql(url, connecting, waiting, options)
    return _create_postgresql(url, connecting, waiting, options)


def _shorter(url: URL, name: str, limit: float) -> float:
    return min(limit, float(str(url.query.get(name, limit))))


def _create_mysql(
    url: URL, connecting: float, waiting: float | None, options: dict[str, Any]
) -> Engine:
    limits = {"connect_timeout": connecting}
    if waiting is not None:
        limits |= {"read_timeout": waiting, "write_timeout": waiting}
    shorter = {name: _shorter(url, name, limit) for name, limit in limits.items()}
    if url.get_driver_name() != "pymysql":
        shorter = {name: math.ceil(limit) for name, limit in shorter.items()}
    engine = create_engine(url, connect_args=shorter, **options)
    if waiting is not None:
        _limit_mysql(engine, waiting)
    return engine


def _limit_mysql(engine: Engine, waiting: float) -> None:
    # the server counts whole seconds, and none is not allowed
    limits = f"SET SESSION innodb_lock_wait_timeout={max(1, int(waiting))}"
    # MariaDB alone takes this comment for a part of the statement; by itself it ends a walk
    # through lineage after 1000 steps, in silence
    limits += " /*M!100202 , max_recursive_iterations=1000000 */"

    @event.listens_for(engine, "connect")
    def _limit(dbapi_connection: Any, record: Any) -> None:
        # beside the ``init_command`` that the URL may have for the driver
        cursor = dbapi_connection.cursor()
        cursor.execute(limits)
        cursor.close()


def _create_postgresql(
    url: URL, connecting: float, waiting: float | None, options: dict[str, Any]
) -> Engine:
    from related_images.db import postgresql  # its driver is not everywhere

    given: dict[str, Any] = {}
    if PREPARE in url.query:
        given[PREPARE] = _number(PREPARE, str(url.query[PREPARE]))
    if "options" in url.query:
        given["options"] = " ".join(url.normalized_query["options"])
    limits = {}
    if waiting is not None:
        most = int(waiting * 1000)
        # half the time for a lock, so that there is some left to try again after a deadlock
        limits = {"statement_timeout": most, "lock_timeout": most // 2}
    engine = create_engine(url, connect_args=given, **options)
    seconds = _shorter(url, "connect_timeout", connecting)
    postgresql.Connector(seconds, limits).prepare(engine)
    return engine


def end_nothing(engine: Engine) -> None:
    """Spare what would end a transaction where each statement is one by itself."""

    def nothing(dbapi_connection: Any) -> None:
        pass

    dialect: Any = engine.dialect
    dialect.do_commit = dialect.do_rollback = nothing


_MYSQL_TURN: Final = "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '.', :name)), :seconds)"
"""The server has one set of names for all its databases."""
_TURNS: Final = dict.fromkeys(MYSQL, _MYSQL_TURN) | {
    # of the transaction, since a pooler may give the next one to another session
    "postgresql": "SELECT 1 FROM set_config('idle_in_transaction_session_timeout', '0', true), "
    "pg_advisory_xact_lock(hashtext(:name))"
}
"""How to keep others waiting until the transaction ends, or the connection (MariaDB, MySQL)."""


def take_turn(connection: Connection, name: str) -> None:
    """Keep every other caller with the same ``name`` waiting for as long as the connection is open.

    Nothing else may be done with that connection. On SQLite a transaction keeps others waiting.

    :raises StoreUnavailable: on MariaDB and MySQL, if the other is at it for too long
    """
    take = _TURNS.get(connection.dialect.name)
    if take is None:
        return
    try:
        taken = connection.execute(text(take), {"name": name, "seconds": LONGEST_TURN}).scalar()
    except DBAPIError as error:
        if connection.dialect.name not in MYSQL or error.connection_invalidated:
            raise
        # Percona XtraDB Cluster has no locks by name
        LOG.warning(
            "the database has no lock to keep a second upgrade waiting (%s); "
            "make sure that only one runs",
            said(error.orig, connection.engine.url),
        )
        return
    if not taken:
        raise StoreUnavailable("another upgrade is under way; run this again when it is done")


def said(cause: BaseException | None, url: URL) -> str:
    """The code and the message of an error as the database or its driver gave them.

    The values of a row, which PostgreSQL may add, are left out, and the passwords in the ``url``.
    """
    if isinstance(cause, ValueError):
        return ""  # it may show a part of the password
    code = _code(cause)
    message = getattr(getattr(cause, "diag", None), "message_primary", None)
    if message is None:
        is_numbered = _mysql_code(cause) is not None and cause is not None and len(cause.args) > 1
        message = cause.args[1] if cause is not None and is_numbered else cause
    words = " ".join(_without_passwords(str(message), url).split())
    return f"{code}: {words}" if code else words


def _without_passwords(text: str, url: URL) -> str:
    named = [given for name, given in url.normalized_query.items() if "passw" in name]
    passwords = {str(url.password or ""), *(each for given in named for each in given)}
    for password in sorted(passwords - {""}, key=len, reverse=True):
        text = text.replace(password, "***")
    return text


def _code(cause: BaseException | None) -> object:
    """SQLSTATE on PostgreSQL, the number of the error on MariaDB and MySQL, its name on SQLite."""
    # newer PyMySQL knows an SQLSTATE too, which is the same for most errors
    number = _mysql_code(cause)
    return number or getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)


def is_transient(error: BaseException) -> bool:
    """Whether the same transaction, run again at once, may well succeed."""
    if isinstance(error, ConcurrentChange | IntegrityError):
        return True  # a row that was there a moment ago is gone, or the other way round
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True  # a pooled connection of before a restart
    return _code(error.orig) in _TRANSIENT


def is_missing_table(error: DBAPIError) -> bool:
    """Whether the database says that a table is not there."""
    return any(words in str(error.orig) for words in _NO_SUCH_TABLE)


def _mysql_code(cause: BaseException | None) -> int | None:
    code = cause.args[0] if cause is not None and cause.args else None
    return code if isinstance(code, int) else None
