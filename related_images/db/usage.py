"""How much images are used: how many instances were started from each, and when the last ended."""

from collections.abc import Collection, Mapping

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

from related_images.db.row_ids import project_ref
from related_images.db.tables import (
    image,
    instance,
    project,
    relation,
)
from related_images.model import BOOT, Usage

NOT_KNOWN, NO_OWNER = 0, -1
"""Instead of the number of a project that an instance, or an image, has not; others begin at 1."""


def usages(
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


def used_by_others(connection: Connection, owners: Mapping[str, str | None]) -> set[str]:
    """Those of the images from which a live instance was started that is not its owner's.

    An instance is the owner's where the owner's project sees that start: all others are meant, also
    those whose project is not known.
    """
    if not owners:
        return set()
    refs = _numbers(connection, {owner for owner in owners.values() if owner is not None})
    owned: dict[int, list[str]] = {}
    for image_id, owner in owners.items():
        owned.setdefault(refs.get(owner or "", NO_OWNER), []).append(image_id)
    used = or_(*(and_(image.c.uuid.in_(ids), _has_other(ref)) for ref, ids in owned.items()))
    return set(connection.execute(select(image.c.uuid).where(used)).scalars())


def _numbers(connection: Connection, project_ids: Collection[str]) -> dict[str, int]:
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
