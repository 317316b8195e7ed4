"""Rows of a result as named tuples.

An attribute of SQLAlchemy's ``Row`` takes ten times as long as that of a named tuple (0.4 µs and
0.04 µs), which is a fifth of the time of a page with twenty columns.
"""

from collections import namedtuple
from functools import lru_cache
from typing import Any

from sqlalchemy import CursorResult


def all_rows(result: CursorResult[Any]) -> list[Any]:
    """Return all rows of a result, with the names of the columns as attributes."""
    rows = result.all()
    return [*map(_row_type(tuple(result.keys()))._make, rows)]


@lru_cache(maxsize=256)
def _row_type(names: tuple[str, ...]) -> Any:
    return namedtuple("Row", names)
