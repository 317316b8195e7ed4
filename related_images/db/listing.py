"""Answering: which images, which relations, how much images are used."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Generic, TypeVar

from sqlalchemy import (
    ColumnElement,
    Connection,
    FromClause,
    and_,
    case,
    exists,
    func,
    or_,
    select,
    union,
)

from related_images.db import image_identity, relation_queries, stored_state
from related_images.db.column_types import KIND_CODES, is_known
from related_images.db.database import Database
from related_images.db.row_ids import project_ref
from related_images.db.tables import image, instance, project, relation
from related_images.errors import InstanceTooLarge
from related_images.model import (
    BOOT,
    MADE_FROM,
    Filters,
    ListedImage,
    Relation,
    RelationPosition,
    Usage,
)

T = TypeVar("T")
IMAGES_LIMIT: Final = 10_000
"""Images of one instance that an image list can carry; the registry is given all their ids."""

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
    of_either = relation_queries.OWNER_OF_EITHER
    found = database.explore(
        relation_queries.image_ids, *asked, visible_to=visible_to, seen_by=of_either
    )
    if len(found) > IMAGES_LIMIT and visible_to is not None:
        found = database.explore(relation_queries.image_ids, *asked, visible_to=visible_to)
    if len(found) > IMAGES_LIMIT:
        raise InstanceTooLarge(
            f"the instance {instance_id} has more than {IMAGES_LIMIT} images, which an image list "
            "cannot carry; ask for one kind or label, or page through GET /v2/relations"
        )
    return found


def is_same(image: ListedImage, made_at: datetime) -> bool:
    """Whether the image is the one that Glance made at that time and has under its ID now."""
    return image_identity.is_same(image.created_at, None, image.recorded_at, made_at)


def relations(
    database: Database, filters: Filters, limit: int, after: RelationPosition | None
) -> Page[Relation]:
    """A page of relations, newest first."""
    return Page.of(database.explore(relation_queries.find, filters, limit + 1, after), limit)


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
    known = {row.image_id: row for row in database.explore(_usages, image_ids, visible_to)}
    others = None if owners is None else database.explore(_used_by_others, owners)
    return [
        replace(
            known.get(image_id) or Usage(image_id),
            used_by_others=None if others is None else image_id in others,
        )
        for image_id in image_ids
    ]


NOT_KNOWN, NO_OWNER = 0, -1
"""Instead of the number of a project that an instance, or an image, has not; others begin at 1."""


def _usages(
    connection: Connection, image_ids: Collection[str], visible_to: str | None
) -> list[Usage]:
    """What is known of the images, in one statement; those never used are left out.

    It costs as much as there are starts from these images: each tells when its instance ended. For
    a project it costs as much as the project has relations, so that the time tells it nothing of
    what others started.
    """
    started = _starts(image_ids, visible_to)
    is_live = case((started.c.ended_at.is_(None), 1))
    asked = (
        select(image.c.uuid, func.count(), func.count(is_live), func.max(started.c.ended_at))
        .select_from(started.join(image, image.c.id == started.c.image_ref))
        .group_by(image.c.uuid)
    )
    return [
        Usage(image_id, count, live, None if live else ended_at)
        for image_id, count, live, ended_at in connection.execute(asked)
    ]


def _starts(image_ids: Collection[str], visible_to: str | None) -> FromClause:
    """The starts from these images: whose relation each is, which image, and until when."""
    found = (
        select(relation.c.id, relation.c.image_ref, instance.c.ended_at)
        .join(instance, instance.c.id == relation.c.instance_ref)
        .where(relation.c.kind == BOOT)
    )
    asked_for = select(image.c.id).where(image.c.uuid.in_(image_ids))
    if visible_to is None:
        return found.where(relation.c.image_ref.in_(asked_for)).subquery()
    # as a sum it is found by no index, which would lead over the starts of everybody
    own = found.where((relation.c.image_ref + 0).in_(asked_for))
    ref = project_ref(visible_to)
    return union(
        own.where(relation.c.project_ref == ref), own.where(instance.c.project_ref == ref)
    ).subquery()


def _used_by_others(connection: Connection, owners: Mapping[str, str | None]) -> set[str]:
    """Those of the images from which a live instance was started that is not its owner's.

    An instance is the owner's where the owner's project sees that start: all others are meant, also
    those whose project is not known.
    """
    if not owners:
        return set()
    refs = _projects(connection, {owner for owner in owners.values() if owner is not None})
    owned: dict[int, list[str]] = {}
    for image_id, owner in owners.items():
        owned.setdefault(refs.get(owner or "", NO_OWNER), []).append(image_id)
    used = or_(*(and_(image.c.uuid.in_(ids), _has_other(ref)) for ref, ids in owned.items()))
    return set(connection.execute(select(image.c.uuid).where(used)).scalars())


def _projects(connection: Connection, project_ids: Collection[str]) -> dict[str, int]:
    if not project_ids:
        return {}
    asked = select(project.c.project_id, project.c.id).where(project.c.project_id.in_(project_ids))
    return {row[0]: row[1] for row in connection.execute(asked)}


def _has_other(owner: int) -> ColumnElement[bool]:
    """Whether an instance lives that was started from the image and is not the owner's."""
    return exists().where(
        relation.c.image_ref == image.c.id,
        relation.c.kind == BOOT,
        relation.c.instance_ref == instance.c.id,
        instance.c.ended_at.is_(None),
        func.coalesce(relation.c.project_ref, NOT_KNOWN) != owner,
        func.coalesce(instance.c.project_ref, NOT_KNOWN) != owner,
    )


def reconciliation(database: Database) -> dict[str, Any] | None:
    """What the last reconciliation reported."""
    text = database.read(stored_state.get, stored_state.RECONCILIATION)
    last: dict[str, Any] | None = json.loads(text) if text else None
    return last


def unreconciled(database: Database, last: Mapping[str, Any] | None) -> int:
    """How many relations are newer than what the last reconciliation saw.

    The number stops at :data:`UNRECONCILED_LIMIT`.
    """
    since = datetime.fromisoformat(last["until"]) if last else None
    return database.explore(_count_since, since, UNRECONCILED_LIMIT)


def _count_since(connection: Connection, since: datetime | None, limit: int) -> int:
    """How many relations were recorded after ``since``; counting stops at ``limit``."""
    newer = select(relation.c.id).where(is_known(relation.c.kind, KIND_CODES)).limit(limit)
    if since is not None:
        newer = newer.where(relation.c.created_at > since)
    return connection.execute(select(func.count()).select_from(newer.subquery())).scalar_one()
