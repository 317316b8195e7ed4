"""Answering: which images, which relations, which instances."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from related_images.db import (
    image_identity,
    lookups,
    state,
    usage,
)
from related_images.db.column_types import EPOCH, FOREVER
from related_images.db.database import Database
from related_images.errors import InstanceNotFound, InstanceTooLarge, MarkerUnknown
from related_images.model import (
    MADE_FROM,
    Filters,
    Instance,
    ListedImage,
    Place,
    Position,
    Relation,
    Seen,
    Usage,
)

T = TypeVar("T")

IMAGES_LIMIT: Final = 10_000
"""Images of one instance that an image list can carry; the registry is given all their ids."""

RECONCILIATION: Final = "reconciliation"
"""The row of the state that remembers the last reconciliation: JSON, in it ``until``, a time."""

UNRECONCILED_LIMIT: Final = 10_000


@dataclass(frozen=True)
class Page(Generic[T]):
    """A page of items, and whether more follow."""

    items: list[T]
    more: bool

    @classmethod
    def of(cls, items: list[T], limit: int) -> "Page[T]":
        """A page of at most ``limit`` out of ``items``, of which one more was asked for."""
        return cls(items[:limit], len(items) > limit)


def images_of_instance(
    database: Database,
    installation_uuid: str,
    instance_id: str,
    kind: str | None,
    label: str | None,
    visible_to: str | None,
) -> list[ListedImage]:
    """The images made from the instance, or those in a relation of one ``kind``.

    A project gets those that it owns, and all if it owns the instance: Glance knows which of these
    it shows. Of more than :data:`IMAGES_LIMIT` those of its own relations are taken, or it would be
    told that there are so many.

    :raises InstanceTooLarge: if these are more than that, too
    """
    kinds: Collection[str] = MADE_FROM if kind is None else (kind,)
    asked = (installation_uuid, instance_id, kinds, label, IMAGES_LIMIT + 1)
    of_either = lookups.OWNER_OF_EITHER
    found = database.read(lookups.image_ids, *asked, visible_to=visible_to, seen_by=of_either)
    if len(found) > IMAGES_LIMIT and visible_to is not None:
        found = database.read(lookups.image_ids, *asked, visible_to=visible_to)
    if len(found) > IMAGES_LIMIT:
        raise InstanceTooLarge(
            f"the instance {instance_id} has more than {IMAGES_LIMIT} images, which an image list "
            "cannot carry; ask for one kind or label, or page through GET /v2/relations"
        )
    return found


def is_same(image: ListedImage, seen: Seen) -> bool:
    """Whether the image is the one that Glance has under its ID now."""
    return image_identity.is_same(image.created_at, None, image.recorded_at, seen.created_at)


def relations(
    database: Database, filters: Filters, limit: int, after: Position | None
) -> Page[Relation]:
    """A page of relations, newest first."""
    return Page.of(database.explore(lookups.relations, filters, limit + 1, after), limit)


def instances(
    database: Database,
    filters: Filters,
    limit: int,
    after: Place | None,
    latest_before: datetime | None,
    until: datetime = FOREVER,
) -> Page[Instance]:
    """A page of instances in the order in which they became known.

    Those without an image of a kind since ``latest_before`` come the longest overdue first, to who
    sees all of them and asks for no label.

    :param after: the last one of the page before
    :param until: an image that is dated later does not count as one since ``latest_before``
    :raises MarkerUnknown: if there is no such instance for this caller
    """
    number = 0 if after is None else _number(database, after, filters)
    if latest_before is not None and lookups.knows_latest(filters):
        place = ((after and after.latest_at) or EPOCH, number)
        rows = database.explore(lookups.overdue, filters, limit + 1, latest_before, place, until)
        return Page.of(rows, limit)
    rows = database.explore(lookups.instances, filters, limit + 1, number, latest_before, until)
    return Page.of(rows, limit)


def _number(database: Database, place: Place, filters: Filters) -> int:
    named = (place.installation_uuid, place.instance_id)
    found = database.read(lookups.instance_number, *named, filters.visible_to)
    if found is None:
        raise MarkerUnknown(
            "the marker names no instance; ask for the first page, without a marker"
        )
    return found


def instance(
    database: Database, installation_uuid: str, instance_id: str, visible_to: str | None
) -> Instance:
    """One instance.

    :raises InstanceNotFound: if it is not there for this caller
    """
    asked = Filters(installation_uuid, instance_id, visible_to=visible_to)
    for found in database.read(lookups.instances, asked, 1):
        return found
    raise InstanceNotFound(f"no instance {instance_id} of {installation_uuid} is known here")


def usages(
    database: Database,
    image_ids: Collection[str],
    visible_to: str | None,
    owners: Mapping[str, str | None] | None = None,
) -> list[Usage]:
    """How much each of the images is used; of one that is not known here, that it never was.

    :param owners: whose the images are of which the caller may know whether others use them;
        ``None`` if it is not known whose they are
    """
    known = {row.image_id: row for row in database.explore(usage.usages, image_ids, visible_to)}
    others = None if owners is None else database.explore(usage.used_by_others, owners)
    return [
        replace(
            known.get(image_id) or Usage(image_id),
            used_by_others=None if others is None else image_id in others,
        )
        for image_id in image_ids
    ]


def reconciliation(database: Database) -> tuple[dict[str, Any] | None, int]:
    """What the last reconciliation reported, and how many relations are newer than what it saw.

    The number stops at :data:`UNRECONCILED_LIMIT`.
    """
    text = database.read(state.get, RECONCILIATION)
    last = json.loads(text) if text else None
    since = datetime.fromisoformat(last["until"]) if last else None
    return last, database.read(lookups.count_since, since, UNRECONCILED_LIMIT)
