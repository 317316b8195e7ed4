"""Probes of the circuit breaker: they access the tables of a failed task without changing data."""

import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime
from typing import Final

from sqlalchemy import Connection, Table, false, literal, select, update

from related_images.db import stored_state
from related_images.db.tables import metadata

HEARTBEAT: Final = "heartbeat"
"""The name of the row that a probe writes to test whether the database accepts writes."""

_WORDS: Final = re.compile(r"\w+")
_PLAIN: Final = re.compile(r"\s*SELECT\b(?!.*\bFOR\s+(UPDATE|SHARE|NO|KEY)\b)", re.DOTALL | re.I)

Probe = Callable[[Connection], None]


def reading(statements: Iterable[str]) -> Probe:
    """Return a probe that reads one row of each table in the ``statements``.

    :param statements: the SQL text of the failed task
    """
    read = _tables_in(statements)

    def probe(connection: Connection) -> None:
        for table in read:
            connection.execute(select(literal(1)).select_from(table).limit(1))

    return probe


def writing(statements: Collection[str]) -> Probe:
    """Return a probe that updates each written table without effect, then writes a heartbeat row.

    :param statements: the SQL text of the failed task
    """
    writes = [statement for statement in statements if not _PLAIN.match(statement)]
    written = _tables_in(writes)
    read = [table for table in _tables_in(statements) if table not in written]

    def probe(connection: Connection) -> None:
        for table in read:
            # an insert locks the row to which its foreign key refers in this way
            row = select(literal(1)).select_from(table).where(false())
            connection.execute(row.with_for_update(read=True))
        for table in written:
            column = next(iter(table.columns))
            connection.execute(update(table).where(false()).values({column: column}))
        stored_state.put(connection, HEARTBEAT, datetime.now(UTC).isoformat())

    return probe


def _tables_in(statements: Iterable[str]) -> list[Table]:
    words = {word for statement in statements for word in _WORDS.findall(statement)}
    return [table for name, table in metadata.tables.items() if name in words]
