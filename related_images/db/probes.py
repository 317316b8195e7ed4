"""Doing in kind what failed, and changing nothing by it: the same tables, read or written."""

import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Table, false, literal, select, update

from related_images.db import stored_state
from related_images.db.tables import metadata

HEARTBEAT: Final = "heartbeat"
"""The row that is written to find out whether the database takes writes again."""

_WORDS: Final = re.compile(r"\w+")
_PLAIN: Final = re.compile(r"\s*SELECT\b(?!.*\bFOR\s+(UPDATE|SHARE|NO|KEY)\b)", re.DOTALL | re.I)

Probe = Callable[[Connection], None]


def reading(statements: Iterable[str]) -> Probe:
    """Reads a row of each table that one of the ``statements`` names."""
    read = _named(statements)

    def probe(connection: Connection) -> None:
        for table in read:
            connection.execute(select(literal(1)).select_from(table).limit(1))

    return probe


def writing(statements: Collection[str]) -> Probe:
    """Writes no row to each table that one of the ``statements`` names, then a row of its own."""
    changing = [statement for statement in statements if not _PLAIN.match(statement)]
    written = _named(changing)
    read = [table for table in _named(statements) if table not in written]

    def probe(connection: Connection) -> None:
        for table in read:
            # as a row does that refers to another one
            row = select(literal(1)).select_from(table).where(false())
            connection.execute(row.with_for_update(read=True))
        for table in written:
            column = next(iter(table.columns))
            connection.execute(update(table).where(false()).values({column: column}))
        stored_state.put(connection, HEARTBEAT, datetime.now(UTC).isoformat())

    return probe


def _named(statements: Iterable[str]) -> list[Table]:
    words = {word for statement in statements for word in _WORDS.findall(statement)}
    return [table for name, table in metadata.tables.items() if name in words]
