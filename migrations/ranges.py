"""Filling what a migration adds, in steps that hold nobody up for long."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from related_images import failpoints
from related_images.failpoints import Point

STEP = 1000
"""Rows that are filled in one transaction."""


def let_others_on() -> None:
    """Commit what was done, except on SQLite, where the transaction keeps other upgrades out."""
    bind = op.get_bind()
    if bind.dialect.name != "sqlite":
        bind.commit()


def within(ref: sa.ColumnElement[Any]) -> sa.ColumnElement[bool]:
    """Whether the row that ``ref`` numbers is in the range that is being filled."""
    return (ref > sa.bindparam("behind")) & (ref <= sa.bindparam("last"))


def fill(table: sa.TableClause, statement: sa.Executable) -> None:
    """Run ``statement``, which says :func:`within` what range, for each range of the ``table``.

    Others are let on after each.
    """
    bind, behind = op.get_bind(), 0
    of_range = sa.select(table.c.id).where(table.c.id > sa.bindparam("behind"))
    rows = of_range.order_by(table.c.id).limit(STEP).subquery()
    last_of = sa.select(sa.func.max(rows.c.id))
    while (last := bind.execute(last_of, {"behind": behind}).scalar()) is not None:
        bind.execute(statement, {"behind": behind, "last": last})
        let_others_on()
        failpoints.reach(Point.MIGRATE_FILLED)
        behind = last
