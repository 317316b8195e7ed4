"""Failures of a database, each as a context manager that repairs it at the end."""

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from uuid import uuid4

import pymysql
from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.pool import Pool

from tests.db import server_failures

Failure = Callable[[str, str], AbstractContextManager[None]]
"""A failure; it takes the URL of the administrator and that of the filter."""

PASSWORD: Final = "right"
_LEAST_PAGES: Final = 1
_MOST_PAGES: Final = 1_073_741_823


def ordinary_user(url: str) -> str:
    """Create a user with rights on this database only, and return the URL."""
    parsed = make_url(url)
    if url.startswith("sqlite"):
        return url
    user = f"u{uuid4().hex[:12]}"
    if url.startswith("postgresql"):
        server_failures.run(
            url,
            f"CREATE ROLE {user} LOGIN",
            f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {user}",
            f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {user}",
        )
        return parsed.set(username=user).render_as_string(hide_password=False)
    server_failures.run(
        url,
        f"CREATE USER {user} IDENTIFIED BY '{PASSWORD}'",
        f"GRANT ALL ON {parsed.database}.* TO {user}",
    )
    return parsed.set(username=user, password=PASSWORD).render_as_string(hide_password=False)


def hanging(admin: str, filters: str) -> AbstractContextManager[None]:
    return server_failures.hanging(admin)


def locked(admin: str, filters: str) -> AbstractContextManager[None]:
    return server_failures.locked(admin)


@contextmanager
def full(admin: str, filters: str) -> Iterator[None]:
    """Limit the pages of SQLite, which then reports a full disk.

    The test fills the space in the existing pages.
    """
    is_full = True

    def limit(connection: Any, *_: object) -> None:
        is_sqlite = isinstance(connection, sqlite3.Connection)
        if is_sqlite and _file(connection) == make_url(admin).database:
            most = _LEAST_PAGES if is_full else _MOST_PAGES
            connection.execute(f"PRAGMA max_page_count={most}")

    event.listen(Pool, "checkout", limit)
    yield
    is_full = False  # the listener remains and lifts the limit of existing connections


def _file(connection: sqlite3.Connection) -> str:
    return str(connection.execute("PRAGMA database_list").fetchone()[2])


@contextmanager
def changed(admin: str, breaking: str, *mending: str) -> Iterator[None]:
    """Run a statement that breaks new connections, and those that repair it at the end."""
    server_failures.run(admin, breaking)
    server_failures.drop_connections(admin)
    try:
        yield
    finally:
        server_failures.run(admin, *mending)


def read_only(admin: str, filters: str) -> AbstractContextManager[None]:
    if admin.startswith("mysql"):
        return changed(admin, "SET GLOBAL read_only=1", "SET GLOBAL read_only=0")
    setting = f"ALTER DATABASE {make_url(admin).database} SET default_transaction_read_only ="
    writable = "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE"
    return changed(admin, f"{setting} on", writable, f"{setting} off")


def other_credentials(admin: str, filters: str) -> AbstractContextManager[None]:
    user = make_url(filters).username
    if admin.startswith("mysql"):
        setting = f"ALTER USER {user} IDENTIFIED BY"
        return changed(admin, f"{setting} 'other'", f"{setting} '{PASSWORD}'")
    return changed(admin, f"ALTER ROLE {user} NOLOGIN", f"ALTER ROLE {user} LOGIN")


@contextmanager
def out_of_connections(admin: str, filters: str) -> Iterator[None]:
    user = make_url(filters).username
    if admin.startswith("postgresql"):
        setting = f"ALTER ROLE {user} CONNECTION LIMIT"
        with changed(admin, f"{setting} 0", f"{setting} -1"):
            yield
        return
    limit = f"ALTER USER {user} WITH MAX_USER_CONNECTIONS"
    with changed(admin, f"{limit} 5", f"{limit} 0"), _all_taken(filters):
        yield


@contextmanager
def _all_taken(url: str) -> Iterator[None]:
    parsed = make_url(url)
    held: list[pymysql.Connection[Any]] = []
    try:
        while True:
            held.append(
                pymysql.connect(
                    host=parsed.host,
                    port=parsed.port or 0,
                    user=parsed.username,
                    password=PASSWORD,
                )
            )
    except pymysql.OperationalError:
        yield
    finally:
        for connection in held:
            connection.close()


def one_table_locked(admin: str, filters: str) -> AbstractContextManager[None]:
    """Lock one table: only writes to it fail."""
    is_mysql = admin.startswith("mysql")
    return server_failures.locked(
        admin, "LOCK TABLES related_relation WRITE" if is_mysql else "LOCK TABLE related_relation"
    )


SQLITE: Final[list[Failure]] = [locked, full]
UNREADABLE: Final[list[Failure]] = [hanging, other_credentials, out_of_connections]
SERVERS: Final[list[Failure]] = [*UNREADABLE, one_table_locked, read_only]
