"""The relations of the kind ``shelved``: their ends, and the servers that are shelved now.

Nova makes an image of a server that it shelves. It deletes the image when the server is unshelved,
powered on or deleted. The relation ends at the earliest of these times:

* the time of an event of the server, if the relation was recorded before it;
* the deletion of the server;
* the deletion of the image.

The last two are columns of the server and of the image. An end by an event is stored in
:data:`related_images.db.tables.relation_end`, unless the image was deleted before: then Nova left
nothing behind. So that table has few rows, and a list of the images that Nova left behind reads no
others.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    or_,
    select,
    update,
)

from related_images.db import installations
from related_images.db.row_ids import IS_NAMED, named, project_ref, shown_installation, unless_taken
from related_images.db.tables import image, installation, instance, relation, relation_end
from related_images.model import SERVER, SHELVED, InstanceRef, Reporter

_AT: Final = bindparam("at", type_=relation_end.c.ended_at.type)
_instance_ref: Final = select(instance.c.id).where(*IS_NAMED)
_to_end: Final = (
    select(relation.c.id)
    .select_from(
        relation.join(image, image.c.id == relation.c.image_ref).outerjoin(
            relation_end, relation_end.c.relation_ref == relation.c.id
        )
    )
    .where(
        relation.c.instance_ref == bindparam("instance"),
        relation.c.kind == SHELVED,
        relation.c.created_at < _AT,
        or_(image.c.deleted_at.is_(None), image.c.deleted_at > _AT),
        or_(relation_end.c.ended_at.is_(None), relation_end.c.ended_at > _AT),
    )
)
_end_earlier: Final = (
    update(relation_end)
    .where(relation_end.c.relation_ref == bindparam("ref"), relation_end.c.ended_at > _AT)
    .values(ended_at=_AT)
)


def end(connection: Connection, ref: InstanceRef, at: datetime) -> None:
    """End the ``shelved`` relations of a server that were recorded before an event.

    The result does not depend on the order of the events or on duplicates.

    :param at: the time of the event, at which the server was not shelved
    """
    instance_ref = connection.execute(_instance_ref, named(ref)).scalar()
    if instance_ref is not None:
        end_of(connection, instance_ref, at)


def end_of(connection: Connection, instance_ref: int, at: datetime) -> None:
    """Do as :func:`end` for the server with this row."""
    found = connection.execute(_to_end, {"instance": instance_ref, "at": at}).scalars().all()
    if not found:
        return
    # a concurrent transaction that removes a relation has removed it now, or waits
    locked = select(relation.c.id).where(relation.c.id.in_(found)).order_by(relation.c.id)
    for ref in connection.execute(locked.with_for_update(key_share=True)).scalars().all():
        _store(connection, ref, at)


def resume(connection: Connection, instance_refs: Collection[int]) -> None:
    """Remove the ends of relations that come from wrong ends of servers, which are then removed.

    :param instance_refs: the locked rows of the servers
    """
    ended = (
        select(relation_end.c.relation_ref)
        .join(relation, relation.c.id == relation_end.c.relation_ref)
        .join(instance, instance.c.id == relation.c.instance_ref)
        .where(instance.c.id.in_(instance_refs), relation_end.c.ended_at == instance.c.ended_at)
    )
    refs = connection.execute(ended).scalars().all()
    if refs:
        connection.execute(delete(relation_end).where(relation_end.c.relation_ref.in_(refs)))


def pass_on(connection: Connection, heirs: Mapping[int, int]) -> None:
    """Give the ends of relations that are about to be removed to other relations.

    :param heirs: the other relation, locked, for each relation
    """
    stored = select(relation_end).where(relation_end.c.relation_ref.in_(heirs))
    for ref, at in connection.execute(stored).all():
        _store(connection, heirs[ref], at)


def _store(connection: Connection, ref: int, at: datetime) -> None:
    """Store the end of a relation, unless an earlier one is stored."""
    new = unless_taken(connection.dialect.name, relation_end)
    connection.execute(new, {"relation_ref": ref, "ended_at": at})
    connection.execute(_end_earlier, {"ref": ref, "at": at})


_IMAGE_EXISTS: Final = (
    select(image.c.deleted_at)
    .where(image.c.id == relation.c.image_ref)
    .correlate_except(image)
    .scalar_subquery()
    .is_(None)
)
"""The condition on a relation that its image is not marked deleted."""


def is_leftover() -> ColumnElement[bool]:
    """Return the condition that a relation has ended although its image exists."""
    return and_(relation.c.id.in_(select(relation_end.c.relation_ref)), _IMAGE_EXISTS)


@dataclass(frozen=True, slots=True)
class ShelvedServers:
    """The servers that are shelved now and need the image.

    :ivar count: the number of all of them
    :ivar visible: the number of those that the caller sees
    :ivar first: the first of those
    """

    count: int = 0
    visible: int = 0
    first: Sequence[InstanceRef] = ()


def servers(
    connection: Connection,
    image_ref: int,
    visible_to: str | None,
    limit: int,
    service: Reporter | None,
) -> ShelvedServers:
    """Return the servers that are shelved now and need the image.

    :param visible_to: the project of the caller; ``None`` for all projects
    :param limit: the largest number of servers to name
    :param service: the service user that sends the request. The servers on which it may report do
        not count: their Nova deletes the image, and no longer needs it
    """
    registrations = connection.execute(_installations_of(image_ref)).all()
    homes = [row.id for row in registrations if not _may_report(service, row)]
    if not homes:
        return ShelvedServers()
    is_visible = _is_visible(visible_to)
    numbers = _of_image(image_ref, homes, func.count(), func.count(case((is_visible, 1))))
    count, visible = connection.execute(numbers).one()
    names = _of_image(image_ref, homes, shown_installation(), instance.c.instance_id)
    in_order = names.where(is_visible).order_by(relation.c.id).limit(limit)
    first = [InstanceRef.unchecked(*row) for row in connection.execute(in_order)]
    return ShelvedServers(count, visible, first)


IS_NEEDED: Final = and_(
    relation.c.kind == SHELVED,
    instance.c.ended_at.is_(None),
    ~exists().where(relation_end.c.relation_ref == relation.c.id),
    _IMAGE_EXISTS,
)
"""The condition on a relation and its instance that the instance is shelved now."""


def _installations_of(image_ref: int) -> Select[Any]:
    shelved = (
        select(instance.c.installation_ref)
        .join(relation, relation.c.instance_ref == instance.c.id)
        .where(relation.c.image_ref == image_ref, IS_NEEDED)
    )
    return select(
        installation.c.id,
        installation.c.uuid,
        installation.c.registered_at,
        installation.c.service_user_id,
        installation.c.service_users,
    ).where(installation.c.id.in_(shelved))


def _may_report(service: Reporter | None, registration: Any) -> bool:
    return service is not None and installations.may_report(
        registration.uuid, SERVER, service, registration
    )


def _of_image(image_ref: int, homes: Collection[int], *columns: Any) -> Select[Any]:
    return (
        select(*columns)
        .select_from(
            relation.join(instance, instance.c.id == relation.c.instance_ref).join(
                installation, installation.c.id == instance.c.installation_ref
            )
        )
        .where(relation.c.image_ref == image_ref, IS_NEEDED, installation.c.id.in_(homes))
    )


def _is_visible(project_id: str | None) -> ColumnElement[bool]:
    if project_id is None:
        return relation.c.id.is_not(None)
    own = project_ref(project_id)
    return or_(relation.c.project_ref == own, instance.c.project_ref == own)
