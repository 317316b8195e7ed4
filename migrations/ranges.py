"""Fill new columns and tables in short transactions, which do not block services for long."""

import time
from typing import Any

import sqlalchemy as sa
from alembic import op

from related_images import failpoints
from related_images.failpoints import Point

STEP = 1000
"""The number of rows that one transaction fills."""


PAUSE = 0.12
"""Seconds between two transactions on SQLite.

A process that waits for the lock of SQLite tries again every 0.1 seconds, so without a pause it
would not get its turn.
"""
LONGEST_WORK = 0.2
"""Seconds of short transactions on SQLite without a pause."""


def commit() -> None:
    """Commit, so that other writers do not wait for the rest of the migration."""
    bind = op.get_bind()
    bind.commit()
    if bind.dialect.name == "sqlite":
        time.sleep(PAUSE)


def within(ref: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that the row with the primary key ``ref`` is in the current range."""
    return (ref > sa.bindparam("after")) & (ref <= sa.bindparam("last"))


def fill(table: sa.TableClause, statement: sa.Executable) -> None:
    """Run ``statement`` for each range of rows of the ``table``, and commit after each.

    :param statement: an UPDATE or INSERT with the condition :func:`within`
    """
    bind, after, paused_at = op.get_bind(), 0, time.monotonic()
    following = sa.select(table.c.id).where(table.c.id > sa.bindparam("after"))
    rows = following.order_by(table.c.id).limit(STEP).subquery()
    last_of_range = sa.select(sa.func.max(rows.c.id))
    while (last := bind.execute(last_of_range, {"after": after}).scalar()) is not None:
        bind.execute(statement, {"after": after, "last": last})
        if time.monotonic() - paused_at < LONGEST_WORK:
            bind.commit()
        else:
            commit()
            paused_at = time.monotonic()
        failpoints.reach(Point.MIGRATE_FILLED)
        after = last
