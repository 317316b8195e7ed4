"""The clock of the database, which all filters and commands share."""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from related_images.db.column_types import EPOCH, MICROSECOND
from related_images.db.dialects import MYSQL

_MICROSECONDS: Final = dict.fromkeys(
    MYSQL, "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))"
) | {
    "postgresql": "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT)",
    "sqlite": "SELECT CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000",
}


def now(connection: Connection) -> datetime:
    """Return the time of the database; that of SQLite is in whole milliseconds."""
    passed = connection.execute(text(_MICROSECONDS[connection.dialect.name])).scalar_one()
    return EPOCH + int(passed) * MICROSECOND
