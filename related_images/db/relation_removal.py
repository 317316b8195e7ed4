"""Roll back, revoke and remove relations.

Each function takes a connection inside a transaction of its caller. It locks rows in the same order
as recording does: image, instance, relation. Another order would cause deadlocks.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, Select, bindparam, delete, select, update
from sqlalchemy.sql import Delete, Update

from related_images.db import (
    dialects,
    image_identity,
    latest_images,
    orphans,
    parent_links,
)
from related_images.db.index_hints import WithoutIndex
from related_images.db.relations import CLAIMS_LIMIT, FOR_GOOD, NO_CREATOR, counted
from related_images.db.row_ids import IS_NAMED, former_images, image_ref, named
from related_images.db.tables import image, instance, relation
from related_images.model import BOOT, USE, InstanceRef, Recorded

_lock_image: Final = select(image.c.id).where(image.c.id == bindparam("ref")).with_for_update()
_instance_of: Final = select(relation.c.instance_ref).where(relation.c.id == bindparam("ref"))
_instance_of_locked: Final = _instance_of.with_for_update()
_lock_instance: Final = select(instance.c.id).where(*IS_NAMED).with_for_update()


def roll_back(connection: Connection, recorded: Recorded) -> bool:
    """Roll back one report of a relation; the relation remains while other reports rely on it.

    :param recorded: what recording the report changed
    :returns: whether the relation was removed
    """
    connection.execute(_lock_image, {"ref": recorded.image_ref})
    instance_ref = _lock_instance_of(connection, recorded)
    removed = bool(connection.execute(_unclaimed(recorded)).rowcount)
    if not removed:
        connection.execute(_release(recorded))
        removed = bool(connection.execute(_unreported_row, {"ref": recorded.relation_ref}).rowcount)
    if removed:
        latest_images.refresh(connection, [instance_ref])
        orphans.forget_image(connection, recorded.image_ref)
        image_identity.give_back(connection, recorded.image_id)
    if removed and recorded.instance_created:
        orphans.forget_instances(connection, [instance_ref])
    return removed


def _lock_instance_of(connection: Connection, recorded: Recorded) -> int:
    """Lock the instance of the relation, which is another one after a merge of installations.

    :returns: its primary key
    :raises ConcurrentChange: if a concurrent merge changed the instance
    """
    relation_ref = {"ref": recorded.relation_ref}
    ref = int(connection.execute(_instance_of, relation_ref).scalar() or recorded.instance_ref)
    parent_links.lock_instance(connection, ref)
    if connection.execute(_instance_of_locked, relation_ref).scalar() not in (None, ref):
        raise dialects.ConcurrentChange("a concurrent merge moved the relation")
    return ref


def _unclaimed(recorded: Recorded) -> Delete:
    return delete(relation).where(relation.c.id == recorded.relation_ref, relation.c.claimed == 0)


def _release(recorded: Recorded) -> Update:
    """Return the statement that subtracts one claim, unless :data:`CLAIMS_LIMIT` was reached."""
    is_counted = counted(1, CLAIMS_LIMIT - 1)
    claimed = update(relation).where(relation.c.id == recorded.relation_ref, is_counted)
    return claimed.values(claimed=relation.c.claimed - 1)


_of_instance: Final = (
    relation.c.instance_ref == bindparam("instance_ref", type_=relation.c.instance_ref.type),
    WithoutIndex(relation.c.kind) == bindparam("relation_kind", type_=relation.c.kind.type),
)
# queries before the changes: MariaDB would read all rows for a change with a subquery
_of_image: Final = select(relation.c.id).where(
    relation.c.image_ref == image_ref(bindparam("image_id")), *_of_instance
)
_of_former_images: Final = select(relation.c.id).where(
    relation.c.image_ref.in_(former_images(bindparam("image_id"))), *_of_instance
)
_REFS: Final = relation.c.id.in_(bindparam("refs", expanding=True))
_revoke_attachment: Final = (
    update(relation)
    .where(
        _REFS,
        relation.c.created_at == bindparam("recorded_at", type_=relation.c.created_at.type),
        counted(FOR_GOOD, CLAIMS_LIMIT - 1),
    )
    .values(claimed=relation.c.claimed - FOR_GOOD)
)
_revoke_creation: Final = (
    update(relation)
    .where(_REFS, relation.c.claimed < CLAIMS_LIMIT)
    .values(claimed=relation.c.claimed + NO_CREATOR)
)
_unreported: Final = delete(relation).where(_REFS, relation.c.claimed == NO_CREATOR)
_unreported_row: Final = delete(relation).where(
    relation.c.id == bindparam("ref"), relation.c.claimed == NO_CREATOR
)
_all_reports: Final = delete(relation).where(_REFS)


def revoke(
    connection: Connection,
    instance: InstanceRef,
    image_id: str,
    kind: str,
    recorded_at: datetime | None,
) -> bool:
    """Revoke one report of a relation; the relation remains while other reports rely on it.

    :param recorded_at: when the relation was recorded, to revoke an attachment to it; ``None`` to
        revoke the report of the service that created the image
    :returns: whether the relation was removed
    """
    instance_ref = connection.execute(_lock_instance, named(instance)).scalar()
    if instance_ref is None:
        return False
    refs = _find(connection, _of_image, instance_ref, image_id, kind)
    if not refs:
        return False
    if recorded_at is None:
        connection.execute(_revoke_creation, {"refs": refs})
    else:
        connection.execute(_revoke_attachment, {"refs": refs, "recorded_at": recorded_at})
    return _remove(connection, _unreported, instance_ref, refs, kind)


def detach(connection: Connection, instance: InstanceRef, image_id: str, kind: str) -> bool:
    """Remove one relation with all of its reports.

    It is the relation of the image that has the ID. If that image has no such relation, it is the
    relations of the images that had the ID before.

    :returns: whether a relation was removed
    """
    instance_ref = connection.execute(_lock_instance, named(instance)).scalar()
    if instance_ref is None:
        return False
    for query in (_of_image, _of_former_images):
        refs = _find(connection, query, instance_ref, image_id, kind)
        if refs and _remove(connection, _all_reports, instance_ref, refs, kind):
            return True
    return False


def _find(
    connection: Connection, query: Select[int], instance_ref: int, image_id: str, kind: str
) -> Sequence[int]:
    values = {"instance_ref": instance_ref, "image_id": image_id, "relation_kind": kind}
    return connection.execute(query, values).scalars().all()


def _remove(
    connection: Connection, removal: Delete, instance_ref: int, refs: Sequence[int], kind: str
) -> bool:
    """Remove relations of an instance whose row is locked; return whether one was removed."""
    removed = bool(connection.execute(removal, {"refs": refs}).rowcount)
    if removed:
        _refresh(connection, instance_ref, kind)
    return removed


def _refresh(connection: Connection, instance_ref: int, kind: str) -> None:
    if kind == BOOT:
        parent_links.refresh(connection, instance_ref)
        parent_links.refresh_below(connection, instance_ref)
    elif kind == USE:
        # a purge would keep the row, because the end of its resource is not recorded
        orphans.forget_instances(connection, [instance_ref])
    else:
        latest_images.refresh(connection, [instance_ref])
