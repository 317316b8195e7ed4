"""Record relations, and the deletion of their images and instances.

Reports of a relation are counted in its column ``claimed``, so that one report can be rolled back
without removing a relation on which others rely:

* 0: the service that announced the image before its creation is the only reporter;
* each further announcement of the same relation adds 1;
* each report that relies on the relation for good adds :data:`FOR_GOOD`;
* :data:`NO_CREATOR` is added if no announcement, or a revoked one, supports the relation.

Each function takes a connection inside a transaction of its caller.
"""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Connection,
    Label,
    Select,
    and_,
    bindparam,
    case,
    exists,
    false,
    literal,
    or_,
    select,
    true,
    update,
)

from related_images.db import (
    dialects,
    image_identity,
    image_owners,
    latest_images,
    parent_links,
    shelving,
)
from related_images.db.column_types import EPOCH
from related_images.db.row_ids import (
    IS_NAMED,
    get_or_create,
    get_or_create_installation,
    get_or_create_project,
    named,
    unless_taken,
)
from related_images.db.tables import (
    image,
    installation,
    instance,
    origin,
    project,
    relation,
)
from related_images.model import (
    BOOT,
    SERVER,
    USES,
    ImageState,
    InstanceRef,
    NewRelation,
    Recorded,
)

CLAIMS_LIMIT: Final = 9_000
"""The number of claims at which counting stops; the relation can no longer be rolled back then."""

NO_CREATOR: Final = 10_000
"""Added to the claims of a relation that is supported by its claims alone.

Such a relation was created by an attachment, or the service that created the image revoked its
report.
"""

FOR_GOOD: Final = 2
"""The claims of a report that relies on the relation for good. It is 2 because the service that
announced the relation has no claim of its own, and yet subtracts one when it rolls back."""

_IMAGE_ID: Final[BindParameter[str]] = bindparam("image_id", type_=image.c.uuid.type)


def _answers(is_row_of_type: ColumnElement[bool]) -> list[Label[Any]]:
    """Return subqueries for the rows to which a new relation refers, except the image.

    :param is_row_of_type: the condition for the installation's row for the type of the instance
    """
    home = select(installation.c.id).where(is_row_of_type).scalar_subquery()
    is_instance = (
        instance.c.instance_id == bindparam("named_id"),
        instance.c.installation_ref == home,
    )

    found: dict[str, Select[Any]] = {
        "registered_at": select(installation.c.registered_at).where(_is_of_servers),
        "service_user_id": select(installation.c.service_user_id).where(_is_of_servers),
        "service_users": select(installation.c.service_users).where(_is_of_servers),
        "project_ref": select(project.c.id).where(project.c.project_id == bindparam("project_id")),
        "instance_ref": select(instance.c.id).where(*is_instance),
        "instance_project_ref": select(instance.c.project_ref).where(*is_instance),
    }
    answers = [query.scalar_subquery().label(name) for name, query in found.items()]
    return [home.label("installation_ref"), *answers]


_is_of_servers: Final = and_(
    installation.c.uuid == bindparam("named_uuid"), installation.c.resource_type == SERVER
)
_is_of_other: Final = and_(
    installation.c.installation_uuid == bindparam("named_uuid"),
    installation.c.resource_type == bindparam("named_type"),
)


@cache
def _known(is_of_server: bool) -> Select[Any]:
    """Return the query for every row to which a new relation refers."""
    answers = _answers(_is_of_servers if is_of_server else _is_of_other)
    return select(
        *answers,
        image.c.id.label("image_ref"),
        image.c.deleted_at,
        image.c.created_at.label("image_created_at"),
        false().label("image_is_new"),
    ).select_from(_one.outerjoin(image, image.c.uuid == _IMAGE_ID))


_one: Final = select(literal(1).label("there")).subquery("one")


@cache
def _create_image(dialect: str, is_of_server: bool) -> Any:
    """Return the insert of an unknown image that also returns what :func:`_known` does.

    In MariaDB, an INSERT with VALUES reads other tables with locks, which would cause deadlocks; an
    INSERT with SELECT does not.
    """
    answers = _answers(_is_of_servers if is_of_server else _is_of_other)
    inserting = unless_taken(dialect, image).from_select([image.c.uuid], select(_IMAGE_ID))
    is_new = true().label("image_is_new")
    return inserting.returning(image.c.id.label("image_ref"), is_new, *answers)


_times_of_image: Final = select(
    image.c.deleted_at, image.c.created_at.label("image_created_at")
).where(image.c.id == bindparam("image_ref"), image_identity.HAS_ID)
locked_times: Final = _times_of_image.with_for_update(key_share=True)


def look(connection: Connection, new: NewRelation) -> Any:
    """Return the rows to which the relation refers, as one row with null for missing ones.

    :returns: the columns of :func:`_known`; ``registered_at``, ``service_user_id`` and
        ``service_users`` belong to the installation
    """
    return connection.execute(_known(new.instance.resource_type == SERVER), _names(new)).one()


def look_for_new_image(connection: Connection, new: NewRelation) -> Any:
    """Do as :func:`look`, and create the row of the image in the same statement if there is none.

    Databases without RETURNING do not create it here.
    """
    if connection.dialect.insert_returning:
        creating = _create_image(connection.dialect.name, new.instance.resource_type == SERVER)
        created = connection.execute(creating, _names(new)).first()
        if created is not None:
            return created
    return look(connection, new)


def _names(new: NewRelation) -> dict[str, Any]:
    return {**named(new.instance), "project_id": new.project_id, "image_id": new.image_id}


def record(
    connection: Connection,
    new: NewRelation,
    known: Any = None,
    *,
    relied_on: bool = False,
    revocable: bool = False,
) -> Recorded:
    """Record a relation unless it is recorded, and count the claim of this report.

    A recorded relation is not changed, except for its claims.

    :param known: the result of :func:`look` or :func:`look_for_new_image` in this transaction, if
        one of them was called before
    :param relied_on: the image exists, and the report relies on the relation for good. Otherwise
        the image is about to be created, and a recorded image that is marked deleted is another
        image, which had the ID before
    :param revocable: whether the report may be revoked with
        :func:`related_images.db.relation_removal.revoke`
    :returns: what was changed
    :raises ConcurrentChange: if a concurrent transaction changed a row; run the task again
    """
    known = look(connection, new) if known is None else known
    held = _image(connection, new, known, relied_on)
    project_ref = known.project_ref or get_or_create_project(connection, new.project_id)
    # the owner of an image says nothing about the owner of the instance
    reported = new.instance_project_id or (new.project_id if new.kind in USES else None)
    owner = (
        project_ref if reported == new.project_id else get_or_create_project(connection, reported)
    )
    instance_ref, instance_created = _instance(connection, new, known, owner)
    recorded = Recorded(
        image_id=new.image_id,
        relation_ref=0,
        created=True,
        image_ref=held.ref,
        instance_ref=instance_ref,
        image_created=held.is_new,
        instance_created=instance_created,
        revived_from=held.revived_from,
    )
    if new.kind in USES:
        project_ref = parent_links.lock_instance(connection, instance_ref)
    claims = FOR_GOOD if relied_on else 0
    if revocable:
        claims += NO_CREATOR
    recorded, was_started = _related(connection, new, recorded, project_ref, claims)
    if new.kind == BOOT or was_started:
        parent_links.follow(connection, new, recorded)
    _note_latest(connection, recorded)
    return recorded


def record_past(connection: Connection, new: NewRelation) -> Recorded:
    """Record a relation for good, as :func:`record` does, and keep the mark of a deleted image.

    The report says that the image existed, not that it exists now.

    :returns: what was changed
    :raises ConcurrentChange: if a concurrent transaction changed a row; run the task again
    """
    recorded = record(connection, new, relied_on=True)
    if recorded.revived_from is not None:
        mark_deleted(connection, new.image_id, recorded.revived_from)
    return recorded


@dataclass(frozen=True, slots=True)
class _Image:
    """The row of an image.

    :ivar is_new: whether the row was created
    :ivar revived_from: when it had been marked deleted, if the mark was removed
    """

    ref: int
    is_new: bool
    revived_from: datetime | None = None


def _image(connection: Connection, new: NewRelation, known: Any, relied_on: bool) -> _Image:
    """Return the row of the image, not that of a former image with the same ID.

    An existing row is locked, unless the relation is a start. A concurrent transaction that marks
    the image deleted has then committed before, or sees the relation when it updates the times of
    :mod:`related_images.db.latest_images`.
    """
    ref, is_new = known.image_ref, known.image_is_new
    named, made_at = (
        {"uuid": new.image_id},
        EPOCH if new.image_state is None else new.image_state.created_at,
    )
    if ref is None:
        ref, is_new = get_or_create(connection, image, named, created_at=made_at)
    if is_new:
        return _Image(ref, is_new)
    if known.image_ref is None or new.kind != BOOT:
        known = _times(connection, ref, is_locked=new.kind != BOOT)
    if _is_another(connection, new, ref, known, relied_on):
        # read the times again with a lock
        known = _times(connection, ref, is_locked=True)
        if not _is_another(connection, new, ref, known, relied_on):
            raise dialects.ConcurrentChange(
                "a concurrent transaction recorded the creation time of the image"
            )
        image_identity.retire(connection, ref, datetime.now(UTC))
        return _Image(*get_or_create(connection, image, named, created_at=made_at))
    if new.image_state is not None and known.image_created_at == EPOCH:
        image_identity.learn(connection, ref, new.image_state.created_at)
    if known.deleted_at is not None:
        has_id = image.c.id == ref, image_identity.HAS_ID
        if not connection.execute(update(image).where(*has_id).values(deleted_at=None)).rowcount:
            raise dialects.ConcurrentChange(
                "a concurrent transaction gave the ID of the image to another image"
            )
    return _Image(ref, is_new, known.deleted_at)


def lock_image(
    connection: Connection, image_id: str, image_state: ImageState | None, at: datetime
) -> int:
    """Return the row of the image with this ID, locked exclusively until the transaction ends.

    A row is created if no row has the ID, or if that row represents another image.

    :param image_state: the image as Glance reports it, if Glance was asked
    :param at: the deletion time of a former image with this ID
    :raises ConcurrentChange: if a concurrent transaction took the ID from the image
    """
    made_at = EPOCH if image_state is None else image_state.created_at
    ref, is_new = get_or_create(connection, image, {"uuid": image_id}, created_at=made_at)
    alone = _times_of_image.with_for_update()
    known = connection.execute(alone, {"image_ref": ref}).first()
    if known is None:
        raise dialects.ConcurrentChange(
            "a concurrent transaction gave the ID of the image to another image"
        )
    if (
        is_new
        or image_state is None
        or image_identity.stands_for(connection, ref, known, image_state)
    ):
        return ref
    image_identity.retire(connection, ref, at)
    return get_or_create(connection, image, {"uuid": image_id}, created_at=made_at)[0]


def times(connection: Connection, ref: int) -> Any:
    """Return the deletion and creation time of an image that still has its ID, or ``None``."""
    return connection.execute(_times_of_image, {"image_ref": ref}).first()


def _times(connection: Connection, ref: int, *, is_locked: bool) -> Any:
    asked = locked_times if is_locked else _times_of_image
    found = connection.execute(asked, {"image_ref": ref}).first()
    if found is None:
        raise dialects.ConcurrentChange("a concurrent transaction removed the row of the image")
    return found


def _is_another(
    connection: Connection, new: NewRelation, ref: int, known: Any, relied_on: bool
) -> bool:
    """Return whether the row represents a former image with the ID of the relation's image."""
    if not relied_on and known.deleted_at is not None:
        return True
    return new.image_state is not None and not image_identity.stands_for(
        connection, ref, known, new.image_state
    )


def _note_latest(connection: Connection, recorded: Recorded) -> None:
    """Correct the time of the latest image, for which :func:`_instance` assumed a new image."""
    if recorded.revived_from is not None:
        latest_images.refresh_with(connection, image.c.id == recorded.image_ref)
    elif not recorded.created:
        latest_images.refresh(connection, [recorded.instance_ref])


def _related(
    connection: Connection,
    new: NewRelation,
    recorded: Recorded,
    project_ref: int | None,
    claims: int,
) -> tuple[Recorded, bool]:
    """Insert the relation or claim it.

    :param claims: the claims of a new relation
    :returns: ``recorded`` with the relation, and whether the instance may have been started
    """
    key = {
        "image_ref": recorded.image_ref,
        "instance_ref": recorded.instance_ref,
        "kind": new.kind,
    }
    values = {
        "label": new.label,
        "source": new.source,
        "project_ref": project_ref,
        "created_at": new.created_at,
        "claimed": claims,
    }
    ref, was_started = _insert_relation(connection, key, values)
    if ref is not None:
        return replace(recorded, relation_ref=ref), was_started
    ref = _claim(connection, key, claims)
    return replace(recorded, relation_ref=ref, created=False), was_started


def _insert_relation(
    connection: Connection, key: dict[str, Any], values: dict[str, Any]
) -> tuple[int | None, bool]:
    """Insert a relation unless a row with the same unique key exists.

    :returns: the primary key of the new row, and whether the instance was started or has an
        origin. Databases without RETURNING do not determine the latter in the same statement: it
        is true then
    """
    if not connection.dialect.insert_returning:
        ref, is_new = get_or_create(connection, relation, key, **values)
        return ref if is_new else None, True
    asked = {**key, **values, "started": key["instance_ref"]}
    row = connection.execute(_relating(connection.dialect.name), asked).first()
    return (None, True) if row is None else (int(row.id), bool(row.was_started))


@cache
def _relating(dialect: str) -> Any:
    start = relation.alias("start")  # under its own name MariaDB refuses the table here
    of_instance = (start.c.instance_ref == bindparam("started")) & (start.c.kind == BOOT)
    has_origin = exists().where(origin.c.instance_ref == bindparam("started"))
    was_started = or_(exists().where(of_instance), has_origin).label("was_started")
    return unless_taken(dialect, relation).returning(relation.c.id, was_started)


def _claim(connection: Connection, key: dict[str, Any], claims: int) -> int:
    """Add the claims of a report to a recorded relation, and return its primary key.

    :param claims: the claims that a new relation would have
    """
    same = [relation.c[name] == value for name, value in key.items()]
    claimed = relation.c.claimed
    number = FOR_GOOD if claims else 1
    more = case((counted(0, CLAIMS_LIMIT - 1), claimed + number), else_=claimed)
    if claims == FOR_GOOD:
        # this report is never revoked: it supports the relation in place of the creator
        more = case((claimed >= NO_CREATOR, claimed - NO_CREATOR + number), else_=more)
    if not connection.execute(update(relation).where(*same).values(claimed=more)).rowcount:
        raise dialects.ConcurrentChange("a concurrent transaction rolled back the relation")
    return int(connection.execute(select(relation.c.id).where(*same)).scalar_one())


def counted(least: int, most: int) -> ColumnElement[bool]:
    """Return the condition that a relation has ``least`` to ``most`` claims, with or without
    :data:`NO_CREATOR`."""
    claimed = relation.c.claimed
    return or_(claimed.between(least, most), claimed.between(NO_CREATOR + least, NO_CREATOR + most))


_mark_deleted: Final = (
    update(image)
    .where(image.c.uuid == _IMAGE_ID, image.c.deleted_at.is_(None))
    .values(deleted_at=bindparam("at"))
)


def mark_deleted(connection: Connection, image_id: str, at: datetime) -> bool:
    """Mark the image deleted unless it is marked, and return whether this call marked it."""
    marked = bool(connection.execute(_mark_deleted, {"image_id": image_id, "at": at}).rowcount)
    if marked:
        latest_images.refresh_with(connection, image.c.uuid == image_id)
    return marked


_AT: Final = bindparam("at", type_=instance.c.ended_at.type)
_first_end: Final = case((instance.c.ended_at < _AT, instance.c.ended_at), else_=_AT)
_end_instance: Final = update(instance).where(*IS_NAMED).values(ended_at=_first_end)


def end_instance(connection: Connection, ref: InstanceRef, at: datetime) -> bool:
    """Record that the instance ended at ``at``, unless an earlier end is recorded.

    :returns: whether the instance is recorded
    """
    is_known = bool(connection.execute(_end_instance, {**named(ref), "at": at}).rowcount)
    if is_known:
        shelving.end(connection, ref, at)
    return is_known


def _instance(
    connection: Connection, new: NewRelation, known: Any, owner: int | None
) -> tuple[int, bool]:
    """Return the row of the instance, locked, and whether it was created.

    :param owner: the primary key of the project that owns the instance, if that was reported
    """
    if known.instance_ref is None:
        home = known.installation_ref or get_or_create_installation(
            connection, new.instance.installation_uuid, new.instance.resource_type
        )
        key = {"instance_id": new.instance.instance_id, "installation_ref": home}
        noted = latest_images.first(new.kind, new.created_at)
        ref, made = get_or_create(connection, instance, key, project_ref=owner, **noted)
        if made:
            return ref, made
        known_owner = None
    else:
        ref, known_owner = int(known.instance_ref), known.instance_project_ref
    latest_images.advance(connection, ref, new.kind, new.created_at)
    if owner is not None and owner != known_owner:
        image_owners.report(connection, ref, owner)
    return ref, False
