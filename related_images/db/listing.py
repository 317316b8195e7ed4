"""Lists of images and relations."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, TypeVar

from related_images.db import image_identity, relation_queries
from related_images.db.database import Database
from related_images.errors import InstanceTooLarge
from related_images.model import (
    MADE_FROM,
    Filters,
    InstanceRef,
    ListedImage,
    Relation,
    RelationPosition,
)

T = TypeVar("T")
IMAGES_LIMIT: Final = 10_000
"""The largest number of images of one instance; the filter sends all their IDs to Glance."""


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


def images_of_instance(
    database: Database,
    instance: InstanceRef,
    kind: str | None,
    label: str | None,
    visible_to: str | None,
) -> list[ListedImage]:
    """Return the images made from the instance, or those with a relation of the given ``kind``.

    A project gets the images that it owns; if it owns the instance, it gets all of them, and Glance
    decides which of these it shows. If there are more than :data:`IMAGES_LIMIT`, only the images
    that the project owns count: the error must not reveal the number of the other images.

    :param kind: a kind of relation; ``None`` for all kinds of images made from the instance
    :param label: only images with this label; ``None`` for all images
    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :raises InstanceTooLarge: if there are more than :data:`IMAGES_LIMIT` images
    :raises StoreUnavailable: if the database is unavailable
    """
    kinds: Collection[str] = MADE_FROM if kind is None else (kind,)
    arguments = (instance, kinds, label, IMAGES_LIMIT + 1)
    of_either = relation_queries.OWNER_OF_EITHER
    found = database.explore(
        relation_queries.image_ids, *arguments, visible_to=visible_to, seen_by=of_either
    )
    if len(found) > IMAGES_LIMIT and visible_to is not None:
        found = database.explore(relation_queries.image_ids, *arguments, visible_to=visible_to)
    if len(found) > IMAGES_LIMIT:
        raise InstanceTooLarge(
            f"the {instance} has more than {IMAGES_LIMIT} images, the limit of an image "
            "list; filter by one kind or label, or page through GET /v2/relations"
        )
    return found


def is_same(image: ListedImage, made_at: datetime) -> bool:
    """Return whether Glance has this image now, not another one with the same ID.

    :param made_at: when Glance created the image that has the ID now
    """
    return image_identity.is_same(image.created_at, None, image.recorded_at, made_at)


def relations(
    database: Database, filters: Filters, limit: int, after: RelationPosition | None
) -> Page[Relation]:
    """Return a page of the relations that match the filters, newest first.

    :param limit: the size of the page
    :param after: the position of the last relation of the previous page
    :raises StoreUnavailable: if the database is unavailable
    """
    return Page.of(database.explore(relation_queries.find, filters, limit + 1, after), limit)
