"""The time of the database's clock.

It decides whether a lease has expired, and whether a witness is silent: the clocks of the hosts
that run the filter and the commands may differ.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from related_images.db.column_types import UtcDateTime


class Now(FunctionElement[datetime]):
    """The time at the begin of the statement, as :class:`UtcDateTime` stores it."""

    type = UtcDateTime()
    inherit_cache = True


@compiles(Now, "sqlite")
def _of_sqlite(element: Now, compiler: Any, **options: Any) -> str:
    return "CAST((julianday('now') - 2440587.5) * 86400000000 AS INTEGER)"


@compiles(Now, "postgresql")
def _of_postgresql(element: Now, compiler: Any, **options: Any) -> str:
    return "CAST(EXTRACT(EPOCH FROM statement_timestamp()) * 1000000 AS BIGINT)"


@compiles(Now, "mysql")
@compiles(Now, "mariadb")
def _of_mysql(element: Now, compiler: Any, **options: Any) -> str:
    return "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"


def now(connection: Connection) -> datetime:
    """Return the time of the database; that of SQLite is in whole milliseconds."""
    return connection.execute(select(Now())).scalar_one()
