"""Values that the project stores about itself, by name."""

from collections.abc import Callable
from typing import Final, TypeVar

from sqlalchemy import Connection, delete, insert, select

from related_images.db.tables import state

Value = TypeVar("Value")

RECONCILIATION: Final = "reconciliation"
"""The name of the report of the last reconciliation: a JSON object with the time ``until``."""


def get(connection: Connection, name: str) -> str | None:
    """Return the value with this name, or ``None``."""
    return connection.execute(select(state.c.value).where(state.c.name == name)).scalar()


def parsed(connection: Connection, name: str, read: Callable[[str], Value]) -> Value | None:
    """Return what ``read`` makes of the value; ``None`` without a value in a known format.

    :param read: raises a ``ValueError``, ``KeyError`` or ``TypeError`` for another format
    """
    text = get(connection, name)
    try:
        return read(text) if text else None
    except (ValueError, KeyError, TypeError):
        return None


def put(connection: Connection, name: str, value: str) -> None:
    """Store ``value`` under ``name``, in place of an earlier value."""
    drop(connection, name)
    connection.execute(insert(state).values(name=name, value=value))


def drop(connection: Connection, name: str) -> None:
    """Remove the value with this name."""
    connection.execute(delete(state).where(state.c.name == name))
