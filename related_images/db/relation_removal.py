"""Taking a report of a relation back, and removing relations.

Each function takes a connection inside a transaction of its caller, and locks rows in the order in
which recording does: the image, the instance, the relation. In another order two of them would wait
for each other, until the database ends one.
"""

from datetime import datetime
from typing import Final

from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.sql import Delete, Update

from related_images.db import (
    image_identity,
    latest_images,
    orphans,
    parent_links,
)
from related_images.db.relations import CLAIMS_LIMIT, FOR_GOOD, NO_CREATOR, counted
from related_images.db.row_ids import former_images, image_ref, is_instance
from related_images.db.tables import image, instance, relation
from related_images.model import BOOT, Recorded

_THIS: Final = is_instance(bindparam("installation_uuid"), bindparam("instance_id"))
_INSTANCE_REF: Final = select(instance.c.id).where(*_THIS).scalar_subquery()
_IMAGE_REF: Final = image_ref(bindparam("image_id"))
_hold_image: Final = select(image.c.id).where(image.c.id == bindparam("ref")).with_for_update()
_hold_instance: Final = select(instance.c.id).where(*_THIS).with_for_update()


def take_back(connection: Connection, recorded: Recorded) -> bool:
    """Undo what ``recorded`` says was done; the relation stays while another relies on it.

    :returns: whether the relation is gone
    """
    connection.execute(_hold_image, {"ref": recorded.image_ref})
    parent_links.hold(connection, recorded.instance_ref)
    gone = bool(connection.execute(_unclaimed(recorded)).rowcount)
    if not gone:
        connection.execute(_release(recorded))
        gone = bool(connection.execute(_unreported_row, {"ref": recorded.relation_ref}).rowcount)
    if gone:
        latest_images.refresh(connection, [recorded.instance_ref])
        orphans.forget_image(connection, recorded.image_ref)
        image_identity.give_back(connection, recorded.image_id)
    if gone and recorded.instance_created:
        orphans.forget_instances(connection, [recorded.instance_ref])
    return gone


def _unclaimed(recorded: Recorded) -> Delete:
    return delete(relation).where(relation.c.id == recorded.relation_ref, relation.c.claimed == 0)


def _release(recorded: Recorded) -> Update:
    """Take one claim back. Once they were too many to be counted, they are so for good."""
    is_counted = counted(1, CLAIMS_LIMIT - 1)
    claimed = update(relation).where(relation.c.id == recorded.relation_ref, is_counted)
    return claimed.values(claimed=relation.c.claimed - 1)


_of_instance: Final = (
    relation.c.instance_ref == _INSTANCE_REF,
    relation.c.kind == bindparam("relation_kind", type_=relation.c.kind.type),
)
_named: Final = (relation.c.image_ref == _IMAGE_REF, *_of_instance)
_revoke_attachment: Final = (
    update(relation)
    .where(
        *_named,
        relation.c.created_at == bindparam("recorded_at", type_=relation.c.created_at.type),
        counted(FOR_GOOD, CLAIMS_LIMIT - 1),
    )
    .values(claimed=relation.c.claimed - FOR_GOOD)
)
_revoke_creation: Final = (
    update(relation)
    .where(*_named, relation.c.claimed < CLAIMS_LIMIT)
    .values(claimed=relation.c.claimed + NO_CREATOR)
)
_unreported: Final = delete(relation).where(*_named, relation.c.claimed == NO_CREATOR)
_unreported_row: Final = delete(relation).where(
    relation.c.id == bindparam("ref"), relation.c.claimed == NO_CREATOR
)


def revoke(
    connection: Connection,
    installation_uuid: str,
    instance_id: str,
    image_id: str,
    kind: str,
    recorded_at: datetime | None,
) -> bool:
    """Take one report of a relation back, and say whether it is gone: nobody else reported it.

    :param recorded_at: the report is an attachment to the relation that was recorded at this time;
        else it is the creation of the image
    """
    named = _names(installation_uuid, instance_id, image_id, kind)
    ref = _held_instance(connection, installation_uuid, instance_id)
    if recorded_at is None:
        connection.execute(_revoke_creation, named)
    else:
        connection.execute(_revoke_attachment, {**named, "recorded_at": recorded_at})
    return _remove(connection, ref, named, _unreported)


_detach: Final = delete(relation).where(*_named)
_detach_former: Final = delete(relation).where(
    relation.c.image_ref.in_(former_images(bindparam("image_id"))), *_of_instance
)


def detach(
    connection: Connection, installation_uuid: str, instance_id: str, image_id: str, kind: str
) -> bool:
    """Remove one relation, and say whether it was there.

    It is that of the image that has the ID, or else those of images that had it before.
    """
    named = _names(installation_uuid, instance_id, image_id, kind)
    ref = _held_instance(connection, installation_uuid, instance_id)
    return _remove(connection, ref, named, _detach, _detach_former)


def _names(installation_uuid: str, instance_id: str, image_id: str, kind: str) -> dict[str, str]:
    return {
        "installation_uuid": installation_uuid,
        "instance_id": instance_id,
        "image_id": image_id,
        "relation_kind": kind,
    }


def _held_instance(connection: Connection, installation_uuid: str, instance_id: str) -> int | None:
    named = {"installation_uuid": installation_uuid, "instance_id": instance_id}
    return connection.execute(_hold_instance, named).scalar()


def _remove(
    connection: Connection, instance_ref: int | None, named: dict[str, str], *removals: Delete
) -> bool:
    """Run the removals until one of them removes something, and say whether one did.

    :param instance_ref: the instance, whose row is locked; ``None`` if it is not known
    """
    gone = any(connection.execute(removal, named).rowcount for removal in removals)
    if gone and instance_ref is not None:
        _refresh(connection, instance_ref, named["relation_kind"])
    return gone


def _refresh(connection: Connection, instance_ref: int, kind: str) -> None:
    if kind == BOOT:
        parent_links.refresh(connection, instance_ref)
    else:
        latest_images.refresh(connection, [instance_ref])
