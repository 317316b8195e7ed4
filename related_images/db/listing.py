"""Lists of relations."""

from dataclasses import dataclass
from typing import Generic, TypeVar

from related_images.db import relation_queries
from related_images.db.database import Database
from related_images.model import Filters, Relation, RelationPosition

T = TypeVar("T")


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of items.

    :ivar more: whether another page follows
    """

    items: list[T]
    more: bool

    @classmethod
    def of(cls, items: list[T], limit: int) -> "Page[T]":
        """Return a page from the result of a query for ``limit + 1`` items."""
        return cls(items[:limit], len(items) > limit)


def relations(
    database: Database, filters: Filters, limit: int, after: RelationPosition | None
) -> Page[Relation]:
    """Return a page of the relations that match the filters, newest first.

    :param limit: the size of the page
    :param after: the position of the last relation of the previous page
    :raises StoreUnavailable: if the database is unavailable
    """
    return Page.of(database.explore(relation_queries.find, filters, limit + 1, after), limit)
