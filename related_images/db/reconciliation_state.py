"""The report of the last reconciliation, and the number of relations that it did not examine."""

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    Connection,
    func,
    select,
)

from related_images.db import stored_state
from related_images.db.column_types import KIND_CODES, is_known
from related_images.db.database import Database
from related_images.db.tables import relation

UNRECONCILED_LIMIT: Final = 10_000
"""The number at which :func:`unreconciled` stops counting."""


def reconciliation(database: Database) -> dict[str, Any] | None:
    """Return the report of the last reconciliation, or ``None`` if there was none.

    :returns: the times and counts of :func:`related_images.db.reconcile.summary`
    :raises StoreUnavailable: if the database is unavailable
    """
    text = database.read(stored_state.get, stored_state.RECONCILIATION)
    last: dict[str, Any] | None = json.loads(text) if text else None
    return last


def unreconciled(database: Database, last: Mapping[str, Any] | None) -> int:
    """Return the number of relations that the last reconciliation did not examine.

    :param last: the result of :func:`reconciliation`
    :returns: at most :data:`UNRECONCILED_LIMIT`
    :raises StoreUnavailable: if the database is unavailable
    """
    since = datetime.fromisoformat(last["until"]) if last else None
    return database.explore(_count_since, since, UNRECONCILED_LIMIT)


def _count_since(connection: Connection, since: datetime | None, limit: int) -> int:
    """Return the number of relations recorded after ``since``, at most ``limit``."""
    newer = select(relation.c.id).where(is_known(relation.c.kind, KIND_CODES)).limit(limit)
    if since is not None:
        newer = newer.where(relation.c.created_at > since)
    return connection.execute(select(func.count()).select_from(newer.subquery())).scalar_one()
