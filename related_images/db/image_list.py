"""The images of a restricted image list: which ones match, and which of some images do.

A project sees a relation if it owns the image, or for a ``boot`` the resource; in the list of one
resource, the project that owns the resource sees all relations of it, and Glance decides which of
the images it shows.
"""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Final

from related_images.db import image_identity, lineage, lineage_walk, relation_queries, usages
from related_images.db.database import Database
from related_images.db.lineage import Wanted
from related_images.model import UNUSED, USED, Filters, ListedImage

IMAGES_LIMIT: Final = 10_000
"""The largest number of relations of which the images are read in advance."""

_PAGE: Final = 1000


def images(
    database: Database, filters: Filters, kinds: Collection[str]
) -> list[ListedImage] | None:
    """Return the images with a relation that matches and that the caller sees.

    :param filters: the conditions on the relation, without ``kind``, ``image_id`` and ``in_use``
    :param kinds: the kinds of the relation
    :returns: ``None`` if more than :data:`IMAGES_LIMIT` relations match
    :raises StoreUnavailable: if the database is unavailable
    """
    found, are_more = database.explore(
        relation_queries.images, filters, kinds, IMAGES_LIMIT, seen_by=_seen_by(filters)
    )
    return None if are_more else found


def matching(
    database: Database, filters: Filters, kinds: Collection[str], image_ids: Collection[str]
) -> list[ListedImage]:
    """Return those of some images that have a relation that matches.

    :param image_ids: at least one ID
    :raises StoreUnavailable: if the database is unavailable
    """
    return database.explore(
        relation_queries.matching_images, filters, kinds, image_ids, seen_by=_seen_by(filters)
    )


def _seen_by(filters: Filters) -> str:
    is_of_one = filters.instance_id is not None and filters.visible_to is not None
    return relation_queries.OWNER_OF_EITHER if is_of_one else relation_queries.OWNER


def descendants(database: Database, image_id: str, visible_to: str | None) -> set[str] | None:
    """Return the IDs of the images that descend from an image, also of deleted ones.

    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :returns: ``None`` if there are more than about :data:`IMAGES_LIMIT`
    :raises StoreUnavailable: if the database is unavailable
    """
    found: set[str] = set()
    after = None
    for _ in range(IMAGES_LIMIT // _PAGE):
        tree = lineage.descendants(database, Wanted(image_id, visible_to=visible_to), _PAGE, after)
        found |= {branch.link.image_id for branch in tree.branches}
        after = tree.next
        if after is None:
            return found
    return None


def descending(
    database: Database, image_id: str, visible_to: str | None, image_ids: Collection[str]
) -> list[ListedImage]:
    """Return those of some images that descend from an image.

    :param visible_to: as for :func:`descendants`
    :param image_ids: at least one ID
    :raises StoreUnavailable: if the database is unavailable
    """
    return database.explore(lineage_walk.descending, image_id, visible_to, image_ids)


def in_use(
    database: Database,
    visible_to: str | None,
    owners: Mapping[str, str | None],
    created_at: Mapping[str, datetime],
) -> dict[str, bool | None]:
    """Return whether live resources use each image; ``None`` if that is unknown.

    For a project, the resources of others count only for the images that it owns.

    :param visible_to: the project of the caller; ``None`` if the caller sees all projects
    :param owners: the owners by image ID, as Glance reports them; at least one
    :param created_at: when Glance created the images, by ID
    :raises StoreUnavailable: if the database is unavailable
    """
    known = owners
    if visible_to is not None:
        known = {image_id: owner for image_id, owner in owners.items() if owner == visible_to}
    gaps = usages.open_gaps(database)
    found = usages.usages(database, list(owners), visible_to, known, gaps, created_at)
    return {one.image_id: _IS_USED.get(one.state) for one in found}


_IS_USED: Final = {USED: True, UNUSED: False}


def is_same(image: ListedImage, made_at: datetime) -> bool:
    """Return whether Glance has this image now, not another one with the same ID.

    :param made_at: when Glance created the image that has the ID now
    """
    return image_identity.is_same(image.created_at, None, image.recorded_at, made_at)
