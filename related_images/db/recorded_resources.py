"""Read and correct what is recorded of the resources of an installation.

Each function takes a connection inside a transaction of its caller.
"""

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    func,
    literal,
    or_,
    select,
    update,
)

from related_images.db import image_owners, origin_records, parent_links, shelving
from related_images.db.column_types import EPOCH, WITNESS_CODES, UtcDateTime, is_known
from related_images.db.resource_service import OF_CINDER, OF_NOVA
from related_images.db.row_ids import (
    get_or_create_project,
    installation_refs,
    of_installation,
    shown_id,
)
from related_images.db.tables import (
    image,
    installation,
    instance,
    origin,
    project,
    relation,
    witness,
)
from related_images.errors import InstallationNotFound, OriginConflict
from related_images.model import BOOT, SERVER, VOLUME, WITNESSES, InstanceRef, NewOrigin

LOG = logging.getLogger(__name__)

RECORDED: Final = 500
"""Recorded resources that one statement reads."""


@dataclass(frozen=True, slots=True)
class Known:
    """A recorded resource.

    :ivar project_id: the project that owns it, if that is known
    :ivar images: the images of its ``boot`` relations
    :ivar origins: type and ID of its sources; ``None`` for the report that it has none
    """

    ref: int
    ended_at: datetime | None
    project_id: str | None = None
    images: set[str] = field(default_factory=set)
    origins: set[tuple[str, str] | None] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class NewOwner:
    """The owner of a resource that is not recorded, or has another recorded owner.

    :ivar before: the project that is recorded as the owner
    """

    instance: InstanceRef
    before: str | None
    project_id: str


def types_of(connection: Connection, installation_uuid: str) -> tuple[str, ...]:
    """Return the types of resources that Nova, Cinder, or both have in the installation.

    :raises InstallationNotFound: if the installation has no recorded resource and is not registered
    """
    homes = connection.execute(
        select(installation.c.id, installation.c.resource_type).where(
            of_installation(installation_uuid)
        )
    ).all()
    if not homes:
        raise InstallationNotFound(
            f"the installation {installation_uuid} is unknown: no server or volume of it is "
            "recorded; correct the UUID, or register it with `related-images installation add`"
        )
    refs = [row.id for row in homes]
    names = select(witness.c.witness).where(
        witness.c.installation_ref.in_(refs), is_known(witness.c.witness, WITNESS_CODES)
    )
    reported = {WITNESSES[name] for name in connection.execute(names).scalars()}
    recorded = {row.resource_type for row in homes if row.resource_type != SERVER}
    is_cinder = VOLUME in reported or not recorded.isdisjoint(OF_CINDER)
    is_nova = SERVER in reported or not is_cinder or _has_server(connection, refs)
    return (*(OF_NOVA if is_nova else ()), *(OF_CINDER if is_cinder else ()))


def _has_server(connection: Connection, homes: Collection[int]) -> bool:
    servers = (
        select(instance.c.id)
        .join(installation, instance.c.installation_ref == installation.c.id)
        .where(installation.c.id.in_(homes), installation.c.resource_type == SERVER)
    )
    return connection.execute(servers.limit(1)).first() is not None


def _home(connection: Connection, installation_uuid: str, resource_type: str) -> int | None:
    """Return the row of the installation for a type; ``None`` if nothing of it is recorded."""
    return connection.execute(installation_refs(installation_uuid, resource_type)).scalar()


def following(
    connection: Connection,
    installation_uuid: str,
    resource_type: str,
    after: str,
    until: str | None,
) -> Sequence[Any]:
    """Return the next recorded resources, ended ones included, in the order of their IDs.

    Ended ones count for the size of the result, so that a statement does not read all of them.

    :param until: the last ID; ``None`` for no restriction
    """
    home = _home(connection, installation_uuid, resource_type)
    rows = select(instance.c.id, instance.c.instance_id, instance.c.ended_at).where(
        instance.c.installation_ref == home, instance.c.instance_id > after
    )
    if until is not None:
        rows = rows.where(instance.c.instance_id <= until)
    return connection.execute(rows.order_by(instance.c.instance_id).limit(RECORDED)).all()


def look_up(
    connection: Connection, installation_uuid: str, resource_type: str, ids: Collection[str]
) -> dict[str, Known]:
    """Return the recorded ones of these resources, by ID."""
    home = _home(connection, installation_uuid, resource_type)
    is_start = and_(relation.c.instance_ref == instance.c.id, relation.c.kind == BOOT)
    rows = (
        select(
            *(instance.c.instance_id, instance.c.id, instance.c.ended_at),
            *(project.c.project_id, shown_id()),
        )
        .select_from(
            instance.outerjoin(project, project.c.id == instance.c.project_ref)
            .outerjoin(relation, is_start)
            .outerjoin(image, image.c.id == relation.c.image_ref)
        )
        .where(instance.c.installation_ref == home, instance.c.instance_id.in_(ids))
    )
    found: dict[str, Known] = {}
    for instance_id, ref, ended_at, project_id, image_id in connection.execute(rows):
        known = found.setdefault(instance_id, Known(ref, ended_at, project_id))
        if image_id is not None:
            known.images.add(image_id)
    by_ref = {known.ref: known for known in found.values()}
    for ref, source_id, source_type in connection.execute(_origins_of(by_ref)) if by_ref else ():
        by_ref[ref].origins.add(None if source_id is None else (source_type, source_id))
    return found


def _origins_of(refs: Collection[int]) -> Select[Any]:
    return (
        select(origin.c.instance_ref, instance.c.instance_id, installation.c.resource_type)
        .select_from(
            origin.outerjoin(instance, instance.c.id == origin.c.source_ref).outerjoin(
                installation, installation.c.id == instance.c.installation_ref
            )
        )
        .where(origin.c.instance_ref.in_(refs))
    )


def _newest(times: ColumnElement[datetime], ref: ColumnElement[int]) -> ColumnElement[datetime]:
    """Return the newest of the ``times`` of an instance.

    A condition with EXISTS has the same meaning; but some planners would first collect the rows of
    all instances.
    """
    newest = select(func.max(times)).where(ref == instance.c.id).correlate(instance)
    return func.coalesce(newest.scalar_subquery(), literal(EPOCH, UtcDateTime))


_newest_relation: Final = _newest(relation.c.created_at, relation.c.instance_ref)
_newest_origin: Final = _newest(origin.c.since, origin.c.instance_ref)


def _is_reported_since(since: datetime) -> ColumnElement[bool]:
    """Return the condition that an instance has a relation or an origin since then."""
    return or_(_newest_relation >= since, _newest_origin >= since)


def reported_since(connection: Connection, refs: Collection[int], since: datetime) -> set[int]:
    """Return those of the instances that have a report since then."""
    if not refs:
        return set()
    rows = select(instance.c.id).where(instance.c.id.in_(refs), _is_reported_since(since))
    return set(connection.execute(rows).scalars())


def end(connection: Connection, refs: Collection[int], at: datetime, before: datetime) -> int:
    """Record the end of live instances without a report since ``before``; return their number."""
    if not refs:
        return 0
    # a transaction that reports a start holds this lock; its relation is then visible below
    locked = select(instance.c.id).where(instance.c.id.in_(refs)).order_by(instance.c.id)
    connection.execute(locked.with_for_update()).all()
    is_ended = instance.c.id.in_(refs), instance.c.ended_at.is_(None), ~_is_reported_since(before)
    ended = connection.execute(select(instance.c.id).where(*is_ended)).scalars().all()
    if ended:
        these = update(instance).where(instance.c.id.in_(ended))
        connection.execute(these.values(ended_at=at))
    for ref in ended:
        shelving.end_of(connection, ref, at)
    return len(ended)


def restore(connection: Connection, refs: Collection[int], before: datetime) -> int:
    """Remove the ends that were recorded before a time, and return their number."""
    if not refs:
        return 0
    is_wrong = instance.c.id.in_(refs), instance.c.ended_at < before
    locked = select(instance.c.id).where(*is_wrong).order_by(instance.c.id).with_for_update()
    wrong = connection.execute(locked).scalars().all()
    if wrong:
        shelving.resume(connection, wrong)
        restored = update(instance).where(instance.c.id.in_(wrong))
        connection.execute(restored.values(ended_at=None))
    return len(wrong)


def record_owner(connection: Connection, new: NewOwner) -> bool:
    """Record the owner of a resource, unless another report has changed it meanwhile.

    :returns: whether it is the recorded owner now
    """
    owner = get_or_create_project(connection, new.project_id)
    ref = origin_records.get_or_create_instance(connection, new.instance, owner)
    known = parent_links.lock_instance(connection, ref)
    if owner is not None and known != owner:
        if known != get_or_create_project(connection, new.before):
            return False
        image_owners.report(connection, ref, owner)
    return True


def record_origin(connection: Connection, new: NewOrigin) -> bool:
    """Record an origin unless the same source is recorded, and return whether it is new."""
    if origin_records.is_recorded(connection, new):
        return False
    try:
        _, _, is_new = origin_records.record(connection, new)
    except OriginConflict as error:
        LOG.warning("the origin of the %s is not recorded: %s", new.instance, error)
        return False
    return is_new
