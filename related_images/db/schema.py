"""The schema of the tables: its version, upgrades, and differences.

The version table has its own name, since the tables may be in Glance's database, where Glance uses
alembic's default name.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import Column, Connection, MetaData, String, Table, select
from sqlalchemy.engine import URL, Engine, make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from related_images import failpoints
from related_images.db import dialects, sqlite, tables
from related_images.errors import SchemaMissing, SchemaOutdated, SchemaTooNew
from related_images.failpoints import Point

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE: Final = "related_alembic_version"
PREFIX: Final = "related_"
REVISIONS: Final = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
)
"""Every revision, oldest first; this program needs the last one."""

LONGEST_CONNECT: Final = 10.0
LONGEST_STATEMENT: Final = 60.0
"""The timeouts of a command in seconds: for a connection, and for a statement outside of a
migration."""

_version_table = Table(VERSION_TABLE, MetaData(), Column("version_num", String(32)))
_select_version = select(_version_table.c.version_num)


def version(connection: Connection) -> str | None:
    """Return the revision of the tables; ``None`` if there are no tables."""
    try:
        return connection.execute(_select_version).scalar()
    except DBAPIError as error:
        if dialects.is_missing_table(error):
            return None
        raise


def verify(connection: Connection) -> None:
    """Raise unless the tables have the revision that this program needs.

    :raises SchemaMissing: if there are no tables
    :raises SchemaOutdated: if they have an older revision
    :raises SchemaTooNew: if they have a revision that this program does not know
    """
    found, needed = version(connection), REVISIONS[-1]
    if found == needed:
        return
    if found is None:
        raise SchemaMissing(f"the database has no tables of related-images; {dialects.UPGRADE}")
    if found in REVISIONS:
        raise SchemaOutdated(
            f"the database schema is {found}, {needed} is needed; {dialects.UPGRADE}"
        )
    raise _too_new(found)


def _too_new(found: str) -> SchemaTooNew:
    return SchemaTooNew(
        f"the database schema is {found}, this program supports up to {REVISIONS[-1]}; "
        "install the version of related-images that upgraded it"
    )


@contextmanager
def connected(url: str | URL) -> Iterator[Connection]:
    """Open a connection as the filter does, without a check of the tables.

    :param url: the option ``connection``
    :raises ConfigurationError: if the driver does not accept the URL
    """
    with _connect(url) as connection:
        yield connection


def _connect(url: str | URL) -> Connection:
    try:
        return _engine(url, LONGEST_STATEMENT).connect()
    except dialects.MISUSED as fault:
        raise dialects.misused(fault) from None


def upgrade(url: str | URL, revision: str = "head") -> None:
    """Upgrade the tables to ``revision``, and create them if there are none.

    The upgrade is idempotent. A lock makes concurrent upgrades wait for each other.

    :param url: the option ``connection``
    :raises SchemaTooNew: if the tables have a revision that this program does not know
    :raises sqlalchemy.exc.DBAPIError: if the database is unavailable or refuses a statement
    """
    from alembic import command

    _migrate(url, lambda config: command.upgrade(config, revision))


def downgrade(url: str, revision: str) -> None:
    """Downgrade the tables to ``revision``; ``base`` removes them.

    :raises SchemaTooNew: if the tables have a revision that this program does not know
    """
    from alembic import command

    _migrate(url, lambda config: command.downgrade(config, revision))


def differences(connection: Connection) -> list[str]:
    """Return the differences between the existing tables and the tables that this program needs.

    :returns: one sentence for each missing, additional or changed table, column, index or key
    """
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    context = MigrationContext.configure(
        connection,
        opts={
            "version_table": VERSION_TABLE,
            "include_name": is_ours,
            "target_metadata": tables.metadata,
        },
    )
    return [_described(change) for change in compare_metadata(context, tables.metadata)]


def is_ours(name: str | None, kind: str, parents: Any) -> bool:
    """Return whether alembic compares an object; it ignores the tables of other programs.

    This is the hook ``include_name`` of :meth:`alembic.runtime.environment.EnvironmentContext`.
    """
    return kind != "table" or (str(name).startswith(PREFIX) and name != VERSION_TABLE)


def _described(change: Any) -> str:
    verb, *rest = change if isinstance(change, tuple) else change[0]
    if verb.startswith("modify_"):
        _, table, column, _, found, needed = rest
        return f"{table}.{column} has the {verb[7:]} {found!r}, but {needed!r} is needed"
    word = "missing" if verb.startswith("add_") else "additional"
    # alembic reports the table of a column by name; an index or a constraint has the attribute
    table = rest[-2] if verb.endswith("_column") else getattr(rest[-1], "table", None)
    return f"{word}: {verb.split('_', 1)[1]} {rest[-1].name}" + (
        f" of {table}" if table is not None else ""
    )


def _migrate(url: str | URL, command: Callable[["Config"], None]) -> None:
    with connected(url) as connection:
        found = version(connection)
        if found not in (None, *REVISIONS):
            raise _too_new(str(found))
        if connection.dialect.name == "sqlite":
            sqlite.write_ahead(connection)
    engine = _engine(url)
    if engine.dialect.name == "sqlite":
        sqlite.prepare(engine, writes=True)
    with _only_upgrade(engine), engine.connect() as connection:
        failpoints.reach(Point.MIGRATE_BEGUN)
        command(_config(connection))
        failpoints.reach(Point.MIGRATE_RUN)
        connection.commit()
        failpoints.reach(Point.MIGRATE_COMMITTED)


@contextmanager
def _only_upgrade(engine: Engine) -> Iterator[None]:
    """Hold a lock in a context, for which another upgrade of the same database waits.

    A migration commits more than once, so the lock is not that of its transaction.

    :raises StoreUnavailable: if another upgrade holds the lock for too long
    """
    if engine.dialect.name == "sqlite":
        with engine.connect() as connection:
            path = sqlite.path(connection)
        with sqlite.lock_upgrades(path):
            yield
    else:
        with engine.connect() as lock:
            dialects.take_turn(lock, VERSION_TABLE)
            yield


def _engine(url: str | URL, timeout: float | None = None) -> Engine:
    return dialects.create(make_url(url), LONGEST_CONNECT, timeout, poolclass=NullPool)


def _config(connection: Connection) -> "Config":
    from alembic.config import Config

    config = Config()
    scripts = str(resources.files("related_images.migrations"))
    config.set_main_option("script_location", scripts.replace("%", "%%"))
    config.attributes["connection"] = connection
    return config
