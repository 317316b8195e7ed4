"""Differences between databases and their drivers: timeouts, locks, the meaning of errors."""

import logging
import math
import re
import struct
import time
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.util import asbool

from related_images.errors import ConfigurationError, StoreUnavailable

LOG = logging.getLogger(__name__)

MYSQL: Final = ("mysql", "mariadb")

DRIVERS: Final = {
    "sqlite": ("pysqlite",),
    "mysql": ("pymysql", "mysqldb"),
    "mariadb": ("pymysql", "mysqldb"),
    "postgresql": ("psycopg",),
}
"""The supported drivers of each database: those with timeouts."""

LONGEST_TURN: Final = 60
"""The time in seconds for which an upgrade waits for another one."""

UPGRADE: Final = (
    "run `related-images db upgrade` for this database; name it with --config-file, --paste or "
    "--connection"
)
ANOTHER_UPGRADE: Final = "another upgrade is running; run this command again when it has ended"

LONGEST_LOCK: Final = 30.0
"""The time in seconds for which a command waits for a lock of SQLite."""

_NOT_IN_URL: Final = ("autocommit", "context", "cursor_factory", "row_factory")
"""The parameters of psycopg that a URL cannot have."""

PREPARE: Final = "prepare_threshold"

_MYSQL_TYPES: Final[dict[str, type[float]]] = {
    "connect_timeout": int,
    "read_timeout": int,
    "write_timeout": int,
    "client_flag": int,
    "compress": bool,
    "local_infile": bool,
    "use_unicode": bool,
    "ssl_check_hostname": bool,
}
_TYPES: Final[dict[str, dict[str, type[float]]]] = {
    "psycopg": {PREPARE: int, "connect_timeout": float},
    "pymysql": _MYSQL_TYPES,
    "mysqldb": _MYSQL_TYPES,
    "pysqlite": {
        "timeout": float,
        "detect_types": int,
        "cached_statements": int,
        "check_same_thread": bool,
        "uri": bool,
    },
}
"""The options of each driver that are not text, and their types."""

_TYPE_NAMES: Final = {bool: "true or false", int: "a whole number", float: "a number"}

_SQLITE_OPTIONS: Final = {*_TYPES["pysqlite"], "isolation_level"}
"""The options of sqlite3, as SQLAlchemy takes them from a URL."""

_OWN_SETTING: Final = re.compile(
    r"(?:^|\s)(?:-c\s*|--)(statement[_-]timeout|lock[_-]timeout|jit)\s*=", re.IGNORECASE
)
"""A setting in ``options`` of PostgreSQL that the filter sets itself."""

_REPEATED: Final = (("psycopg", "host"), ("psycopg", "port"), ("psycopg", "options"))
"""The driver and the name of each option that a URL may hold more than once."""

FAULTS: Final = (OSError, RuntimeError, ValueError, TypeError, IndexError, struct.error)
"""The errors of opening a connection, in addition to the driver's own ones.

Their causes: a file in the URL does not exist, the limit of threads or file descriptors is reached,
a package for an authentication method is not installed, an argument is wrong, or the server is not
a database.
"""

_TRANSIENT: Final = {
    1020,  # record has changed since it was read (MariaDB, snapshot isolation)
    1205,  # lock wait timeout
    1213,  # deadlock; also a Galera certification failure
    "40001",  # serialization failure
    "40P01",  # deadlock
    "55P03",  # lock timeout, which is shorter than deadlock_timeout
}
_NO_SUCH_TABLE: Final = ("no such table", "doesn't exist", "does not exist")


class ConcurrentChange(Exception):
    """A concurrent transaction changed a row; the transaction must run again."""


MISUSED: Final = (TypeError, ValueError)
"""Those of :data:`FAULTS` that a driver raises for a wrong URL."""


def unusable(reason: str) -> ConfigurationError:
    """Return the error for a URL that is not usable."""
    return ConfigurationError(f"the database URL cannot be used: {reason}")


def misused(fault: BaseException) -> ConfigurationError:
    """Return the error for a URL that a driver does not accept.

    Raise it ``from None``: the text of a ``ValueError`` may hold a part of the password, and a
    traceback would show it.

    :param fault: one of :data:`MISUSED`
    """
    if isinstance(fault, UnicodeError):
        return unusable("the driver cannot send a character of the user or the password")
    if isinstance(fault, ValueError):
        return unusable("the driver does not take the value of one of its parameters")
    return unusable(str(fault))


def shown(url: URL) -> str:
    """Return the URL without the password, which may also be in its query."""
    return url.set(query={}).render_as_string()


def check(url: URL) -> None:
    """Check the driver and the options of a URL.

    :raises ConfigurationError: if the driver has no timeouts, or an option cannot be passed to the
        driver; the message does not show values of the URL
    """
    backend, driver = url.get_backend_name(), url.get_driver_name()
    if driver not in DRIVERS.get(backend, ()):
        backends = (backend,) if backend in DRIVERS else DRIVERS
        known = [f"{name}+{each}://" for name in backends for each in DRIVERS[name]]
        raise unusable(
            f"{backend} with the driver {driver} is not supported; write {' or '.join(known)}"
        )
    for name, given in url.query.items():
        if driver == "psycopg" and name in _NOT_IN_URL:
            raise unusable(f"the option {name} of {driver} cannot be given in a URL")
        if not isinstance(given, str) and (driver, name) not in _REPEATED:
            raise unusable(f"the option {name} is given {len(given)} times")
        if name in _TYPES[driver]:
            _parsed(name, str(given), _TYPES[driver][name])
    if driver == "pysqlite":
        _refuse_unknown_options(url)
    if driver == "psycopg":
        _refuse_own_settings(url)


def _parsed(name: str, value: str, wanted: type[float]) -> float | None:
    if value.lower() == "none" and name == PREPARE:
        return None
    try:
        return asbool(value) if wanted is bool else wanted(value)
    except ValueError:
        raise unusable(f"the option {name} must be {_TYPE_NAMES[wanted]}") from None


def _refuse_unknown_options(url: URL) -> None:
    """Refuse options that SQLAlchemy would ignore: the rest is for SQLite if the file is a URI."""
    unknown = sorted(url.query.keys() - _SQLITE_OPTIONS)
    is_uri = asbool(url.query.get("uri", False))
    if is_uri and not str(url.database).startswith("file:"):
        raise unusable("the option uri of SQLite needs a URI; write sqlite:///file:/DIRECTORY/FILE")
    if unknown and not is_uri:
        raise unusable(
            f"the option {unknown[0]} of SQLite is unknown; known are "
            f"{', '.join(sorted(_SQLITE_OPTIONS))}; for options of SQLite's own URIs write "
            "sqlite:///file:/DIRECTORY/FILE?OPTION=VALUE&uri=true"
        )


def _refuse_own_settings(url: URL) -> None:
    found = _OWN_SETTING.search(" ".join(url.normalized_query.get("options", ())))
    if found:
        raise unusable(
            f"{found[1]} cannot be in options, because the filter sets it itself; remove it "
            "(database_timeout of the filter limits statements and locks)"
        )


def create(url: URL, connecting: float, waiting: float | None = None, **options: Any) -> Engine:
    """Return an engine for the filter or a command.

    Options of the URL apply too; of two timeouts the shorter one applies.

    :param connecting: the timeout of a connection, in seconds
    :param waiting: the timeout of each statement, in seconds; ``None`` for no timeout
    :param options: further arguments of :func:`sqlalchemy.create_engine`
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
    # the server takes whole seconds, at least 1
    limits = f"SET SESSION innodb_lock_wait_timeout={max(1, int(waiting))}"
    # only MariaDB executes this comment; its default silently ends a recursive query after 1000
    # steps
    limits += " /*M!100202 , max_recursive_iterations=1000000 */"

    @event.listens_for(engine, "connect")
    def _limit(dbapi_connection: Any, record: Any) -> None:
        # not as ``init_command``, which the URL may contain
        cursor = dbapi_connection.cursor()
        cursor.execute(limits)
        cursor.close()


def _create_postgresql(
    url: URL, connecting: float, waiting: float | None, options: dict[str, Any]
) -> Engine:
    from related_images.db import postgresql  # its driver is optional

    given: dict[str, Any] = {}
    if PREPARE in url.query:
        given[PREPARE] = _parsed(PREPARE, str(url.query[PREPARE]), int)
    if "options" in url.query:
        given["options"] = " ".join(url.normalized_query["options"])
    limits: dict[str, object] = {}
    if waiting is not None:
        most = int(waiting * 1000)
        # half the time for a lock leaves time for another attempt after a deadlock
        limits = {"statement_timeout": most, "lock_timeout": most // 2}
        # compiling a long query takes longer than running it
        limits |= {"jit": "off"}
    engine = create_engine(url, connect_args=given, **options)
    seconds = _shorter(url, "connect_timeout", connecting)
    postgresql.Connector(seconds, limits).prepare(engine)
    return engine


def end_nothing(engine: Engine) -> None:
    """Skip commit and rollback, which are round trips without effect in autocommit mode."""

    def nothing(dbapi_connection: Any) -> None:
        pass

    dialect: Any = engine.dialect
    dialect.do_commit = dialect.do_rollback = nothing


_MYSQL_TURN: Final = "SELECT GET_LOCK(SHA1(CONCAT(DATABASE(), '.', :name)), :seconds)"
"""The names of locks are shared by all databases of a server."""

_POSTGRESQL_TURN: Final = "SELECT pg_try_advisory_xact_lock(hashtext(:name))"
"""A lock of the transaction, because a pooler may run the next one in another session."""

_STAY_IDLE: Final = "SET LOCAL idle_in_transaction_session_timeout = 0"

_POLL: Final = 0.2
"""Seconds between two attempts to acquire the lock on PostgreSQL."""


def take_turn(connection: Connection, name: str) -> None:
    """Acquire the lock ``name`` until the connection is closed.

    Do not use the connection for anything else. SQLite has no such lock: see
    :func:`related_images.db.sqlite.lock_upgrades`.

    :raises StoreUnavailable: if another connection holds the lock for :data:`LONGEST_TURN` seconds
    """
    if connection.dialect.name == "postgresql":
        taken = _take_postgresql_turn(connection, name)
    else:
        taken = _take_mysql_turn(connection, name)
    if not taken:
        raise StoreUnavailable(ANOTHER_UPGRADE)


def _take_mysql_turn(connection: Connection, name: str) -> bool:
    take = text(_MYSQL_TURN)
    try:
        return bool(connection.execute(take, {"name": name, "seconds": LONGEST_TURN}).scalar())
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        # Percona XtraDB Cluster refuses GET_LOCK in its strict mode
        LOG.warning(
            "the database refuses the lock that makes a second upgrade wait (%s); "
            "make sure that only one upgrade runs",
            said(error.orig, connection.engine.url),
        )
        return True


def _take_postgresql_turn(connection: Connection, name: str) -> bool:
    """Acquire the lock without a snapshot, for which CREATE INDEX CONCURRENTLY would wait.

    A statement that waits for the lock would keep its snapshot, and so does the last query of a
    transaction; SET has none.
    """
    until = time.monotonic() + LONGEST_TURN
    while not connection.execute(text(_POSTGRESQL_TURN), {"name": name}).scalar():
        connection.rollback()
        if time.monotonic() > until:
            return False
        time.sleep(_POLL)
    connection.execute(text(_STAY_IDLE))
    return True


def said(cause: BaseException | None, url: URL) -> str:
    """Return the code and the message of an error of the database or its driver.

    The result holds neither the passwords in the ``url`` nor the values of a row, which PostgreSQL
    may add as details.
    """
    if isinstance(cause, ValueError):
        return ""  # its text may hold a part of the password
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
    """Return the code: SQLSTATE (PostgreSQL), number (MariaDB, MySQL) or name (SQLite)."""
    # the number first: newer versions of PyMySQL have an SQLSTATE too, equal for most errors
    number = _mysql_code(cause)
    return number or getattr(cause, "sqlstate", None) or getattr(cause, "sqlite_errorname", None)


def is_transient(error: BaseException) -> bool:
    """Return whether the transaction may succeed if it runs again at once."""
    if isinstance(error, ConcurrentChange | IntegrityError):
        return True  # a concurrent transaction inserted or removed a row
    if not isinstance(error, DBAPIError):
        return False
    if error.connection_invalidated:
        return True  # the server was restarted after the connection was pooled
    return _code(error.orig) in _TRANSIENT


def is_missing_table(error: DBAPIError) -> bool:
    """Return whether the error means that a table does not exist."""
    return any(words in str(error.orig) for words in _NO_SUCH_TABLE)


def _mysql_code(cause: BaseException | None) -> int | None:
    code = cause.args[0] if cause is not None and cause.args else None
    return code if isinstance(code, int) else None
