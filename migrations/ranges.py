"""Fill new columns and tables in short transactions, which do not block services for long."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from related_images import failpoints
from related_images.failpoints import Point

STEP = 1000
"""The number of rows that one transaction fills."""


def commit() -> None:
    """Commit, so that other writers do not wait for the rest of the migration."""
    op.get_bind().commit()


def within(ref: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Return the condition that the row with the primary key ``ref`` is in the current range."""
    return (ref > sa.bindparam("after")) & (ref <= sa.bindparam("last"))


def fill(table: sa.TableClause, statement: sa.Executable) -> None:
    """Run ``statement`` for each range of rows of the ``table``, and commit after each.

    :param statement: an UPDATE or INSERT with the condition :func:`within`
    """
    bind, after = op.get_bind(), 0
    following = sa.select(table.c.id).where(table.c.id > sa.bindparam("after"))
    rows = following.order_by(table.c.id).limit(STEP).subquery()
    last_of_range = sa.select(sa.func.max(rows.c.id))
    while (last := bind.execute(last_of_range, {"after": after}).scalar()) is not None:
        bind.execute(statement, {"after": after, "last": last})
        commit()
        failpoints.reach(Point.MIGRATE_FILLED)
        after = last
