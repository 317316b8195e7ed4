"""What the project remembers of itself, by name."""

from typing import Final

from sqlalchemy import Connection, delete, insert, select

from related_images.db.tables import state

RECONCILIATION: Final = "reconciliation"
"""The row that remembers the last reconciliation: JSON, in it ``until``, a time."""


def get(connection: Connection, name: str) -> str | None:
    """What was last put under ``name``."""
    return connection.execute(select(state.c.value).where(state.c.name == name)).scalar()


def put(connection: Connection, name: str, value: str) -> None:
    """Remember ``value`` under ``name`` in place of what was there."""
    drop(connection, name)
    connection.execute(insert(state).values(name=name, value=value))


def drop(connection: Connection, name: str) -> None:
    """Forget what was put under ``name``."""
    connection.execute(delete(state).where(state.c.name == name))
