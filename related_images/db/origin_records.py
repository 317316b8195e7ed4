"""Record and remove origins in the transaction of a use case."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, cast

from sqlalchemy import Connection, delete, insert, select, update

from related_images.db import image_owners, orphans, parent_links
from related_images.db.row_ids import (
    IS_NAMED,
    get_or_create,
    get_or_create_installation,
    get_or_create_project,
    instance_refs,
    named,
)
from related_images.db.tables import instance, origin
from related_images.errors import OriginConflict
from related_images.model import NOTIFICATION, InstanceRef, NewOrigin
from related_images.validation import format_time


def is_recorded(connection: Connection, new: NewOrigin) -> bool:
    """Return whether the instance has this source, since whatever time."""
    if new.source is None:
        return False
    query = select(origin.c.since).where(
        origin.c.instance_ref == _ref_of(new.instance), origin.c.source_ref == _ref_of(new.source)
    )
    return connection.execute(query.limit(1)).first() is not None


def _ref_of(ref: InstanceRef) -> Any:
    refs = instance_refs(ref.installation_uuid, ref.instance_id, ref.resource_type)
    return refs.scalar_subquery()


def record(connection: Connection, new: NewOrigin) -> tuple[int, datetime, bool]:
    """Record an origin, and the rows of both resources if they are not recorded.

    :returns: the row of the resource, the time of its origin with this source, and whether the
        origin is new. The time is that of another report if a notification only repeats it
    :raises OriginConflict: if another source is recorded with the same time
    """
    owner = get_or_create_project(connection, new.project_id)
    ref = get_or_create_instance(connection, new.instance, owner)
    source_ref = (
        None if new.source is None else get_or_create_instance(connection, new.source, None)
    )
    is_first = new.reported_by == NOTIFICATION
    owner = image_owners.update_owner(connection, ref, owner, is_first=is_first)
    same = origin.c.instance_ref == ref, origin.c.since == new.since
    known = connection.execute(select(origin.c.source_ref).where(*same)).first()
    if known is not None and known.source_ref != source_ref:
        raise OriginConflict(
            f"another source of the {new.instance} is recorded since {format_time(new.since)}; "
            "give the time at which this source began to apply"
        )
    if known is None:
        values = {
            "instance_ref": ref,
            "since": new.since,
            "source_ref": source_ref,
            "project_ref": owner,
            "source": new.reported_by,
        }
        connection.execute(insert(origin), values)
    else:
        is_notified = origin.c.source == NOTIFICATION
        better = update(origin).where(*same, is_notified).values(source=new.reported_by)
        connection.execute(better)
    repeated = drop_repeated(connection, [ref])
    is_new = known is None and new.since not in repeated
    if is_new or repeated - {new.since}:
        parent_links.refresh(connection, ref)
        parent_links.refresh_below(connection, ref)
    since = _first_since(connection, ref, source_ref) if new.since in repeated else new.since
    return ref, since, is_new


def _first_since(connection: Connection, ref: int, source_ref: int | None) -> datetime:
    """Return the first time since which the resource has this source."""
    has_source = origin.c.instance_ref == ref, origin.c.source_ref == source_ref
    first = select(origin.c.since).where(*has_source).order_by(origin.c.since).limit(1)
    return cast(datetime, connection.execute(first).scalar_one())


def drop_repeated(connection: Connection, refs: Collection[int]) -> set[datetime]:
    """Remove the origins of notifications that repeat what others report.

    A notification is sent some time after the resource got its source. So it does not count if a
    service reported the same source, or if another notification did so before.

    :param refs: the locked rows of the resources
    :returns: the times of the removed origins
    """
    columns = (origin.c.instance_ref, origin.c.since, origin.c.source_ref, origin.c.source)
    own = select(*columns).where(origin.c.instance_ref.in_(refs)).order_by(origin.c.since)
    rows = connection.execute(own).all()
    known = {(row.instance_ref, row.source_ref) for row in rows if row.source != NOTIFICATION}
    repeated = []
    for row in rows:
        if row.source == NOTIFICATION:
            if (row.instance_ref, row.source_ref) in known:
                repeated.append(row)
            known.add((row.instance_ref, row.source_ref))
    for row in repeated:
        is_row = origin.c.instance_ref == row.instance_ref, origin.c.since == row.since
        connection.execute(delete(origin).where(*is_row))
    return {row.since for row in repeated}


def remove(connection: Connection, resource: InstanceRef, since: datetime) -> bool:
    """Remove an origin, and the rows that only it needed.

    The row of a resource remains if its owner is known: another report may have stated the owner.

    :returns: whether the origin was recorded
    """
    ref = connection.execute(select(instance.c.id).where(*IS_NAMED), named(resource)).scalar()
    if ref is None:
        return False
    parent_links.lock_instance(connection, ref)
    same = origin.c.instance_ref == ref, origin.c.since == since
    known = connection.execute(select(origin.c.source_ref).where(*same)).first()
    if known is None:
        return False
    connection.execute(delete(origin).where(*same))
    parent_links.refresh(connection, ref)
    parent_links.refresh_below(connection, ref)
    refs = [ref] if known.source_ref is None else [ref, known.source_ref]
    orphans.forget_instances(connection, refs, instance.c.project_ref.is_(None))
    return True


def get_or_create_instance(connection: Connection, ref: InstanceRef, owner: int | None) -> int:
    """Return the row of the resource, after creating it if needed.

    :param owner: the project of a new row
    """
    known = connection.execute(select(instance.c.id).where(*IS_NAMED), named(ref)).scalar()
    if known is not None:
        return int(known)
    home = get_or_create_installation(connection, ref.installation_uuid, ref.resource_type)
    key = {"instance_id": ref.instance_id, "installation_ref": home}
    return get_or_create(connection, instance, key, project_ref=owner)[0]
