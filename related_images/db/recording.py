"""Record what trusted services report about images and servers."""

from dataclasses import replace
from datetime import UTC, datetime

from sqlalchemy import Connection, select

from related_images import failpoints
from related_images.db import (
    delete_protection,
    image_identity,
    image_owners,
    installations,
    leases,
    relation_queries,
    relation_removal,
    relations,
    volume_snapshots,
)
from related_images.db.column_types import UNKNOWN
from related_images.db.database import Database
from related_images.db.row_ids import get_or_create_project
from related_images.db.tables import image
from related_images.errors import (
    InstanceNotFound,
    RelationConflict,
    RelationNotFound,
)
from related_images.failpoints import Point
from related_images.model import (
    MADE_FROM,
    SERVER,
    SERVICE,
    USE,
    Filters,
    ImageState,
    InstanceRef,
    NewRelation,
    Recorded,
    Relation,
    Reporter,
)


def announce(database: Database, new: NewRelation, reporter: Reporter) -> Recorded:
    """Record the relation of an image before the request to create it is sent to Glance.

    :returns: what was changed; pass it to :func:`created` or :func:`withdraw`
    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation is bound and does not permit this reporter
    :raises StoreUnavailable: if it could not be committed; then the image must not be created
    """
    failpoints.reach(Point.RECORD_BEGUN)
    recorded = database.write(_announce, new, reporter)
    failpoints.reach(Point.RECORD_COMMITTED)
    return recorded


def _announce(connection: Connection, new: NewRelation, reporter: Reporter) -> Recorded:
    known = relations.look_for_new_image(connection, new)
    ref = new.instance
    installations.check_registration(ref.installation_uuid, ref.resource_type, reporter, known)
    recorded = relations.record(connection, new, known)
    volume_snapshots.record(connection, recorded.relation_ref, new.volume_snapshot_ids)
    failpoints.reach(Point.RECORD_WRITTEN)
    return recorded


def created(
    database: Database, new: NewRelation, recorded: Recorded, image_state: ImageState
) -> None:
    """Record when Glance created the announced image, which distinguishes it from former images.

    :param image_state: the image in Glance's response
    :raises StoreUnavailable: if it could not be committed; a reconciliation then records it
    """
    if recorded.image_created:
        database.note(image_identity.learn, recorded.image_ref, image_state.created_at)
    else:
        database.write(_note_created, recorded, new, image_state)
    failpoints.reach(Point.CREATE_NOTED)


def _note_created(
    connection: Connection, recorded: Recorded, new: NewRelation, image_state: ImageState
) -> None:
    """Record the creation time of an image whose row existed before its relation was recorded.

    The row may represent a former image with the same ID, whose deletion was not recorded. Then the
    relation is rolled back and recorded for the new image.
    """
    known = connection.execute(relations.locked_times, {"image_ref": recorded.image_ref}).first()
    if known is not None and image_identity.stands_for(
        connection, recorded.image_ref, known, image_state
    ):
        image_identity.learn(connection, recorded.image_ref, image_state.created_at)
        return
    relation_removal.roll_back(connection, recorded)
    again = relations.record(connection, replace(new, image_state=image_state))
    volume_snapshots.record(connection, again.relation_ref, new.volume_snapshot_ids)


def withdraw(database: Database, recorded: Recorded) -> bool:
    """Roll back an announced relation because no image was created.

    :returns: whether the relation was removed; it remains if others reported it too
    :raises StoreUnavailable: if it could not be committed
    """
    return database.write(relation_removal.roll_back, recorded)


def attach(
    database: Database, new: NewRelation, reporter: Reporter, *, confirmed_by_glance: bool = False
) -> tuple[Relation, bool]:
    """Record a relation of an existing image.

    :param confirmed_by_glance: whether Glance showed the image after a first call raised
        :exc:`ImageGone`
    :returns: the relation, and whether it is new
    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation is bound and does not permit this reporter
    :raises ImageBeingDeleted: if it is a use of an image with a pending deletion
    :raises ImageGone: if it is a use of an image that is marked deleted
    :raises RelationConflict: if the relation is recorded with another label
    :raises ResourceTypeUnknown: for a lease, if the resource type is not registered
    :raises FieldInvalid: for a lease, if its end is missing or not allowed, or the project of the
        resource is unknown
    :raises InstanceEnded: for a lease, if the resource is recorded as deleted
    :raises LeaseLimitReached: for a lease, if the project would have too many live ones
    :raises StoreUnavailable: if it could not be committed
    """
    attached = database.write(_attach, new, reporter, confirmed_by_glance)
    failpoints.reach(Point.ATTACH_COMMITTED)
    return attached


def _attach(
    connection: Connection, new: NewRelation, reporter: Reporter, confirmed_by_glance: bool
) -> tuple[Relation, bool]:
    installations.check_reporter(connection, new.instance, reporter)
    grant = leases.begin(connection, new) if new.kind == USE else None
    recorded = relations.record(connection, new, relied_on=True, revocable=True)
    delete_protection.check_start(
        connection, new, recorded, confirmed_by_glance=confirmed_by_glance
    )
    if grant is not None:
        leases.record(connection, recorded, grant)
    if new.kind in MADE_FROM and not recorded.image_created:
        image_owners.move(
            connection, recorded.image_ref, get_or_create_project(connection, new.project_id)
        )
    failpoints.reach(Point.ATTACH_WRITTEN)
    found = relation_queries.at(connection, recorded.relation_ref)
    if found.label != new.label:
        ref = new.instance
        raise RelationConflict(
            f"this {new.kind} relation is recorded with the label {found.label!r}; to give it "
            "another one, delete it with `openstack image relation delete --kind "
            f"{new.kind}{_typed(ref)} --installation {ref.installation_uuid} {ref.instance_id} "
            f"{new.image_id}` "
            "and record it again"
        )
    return _with_source(found, new.source), recorded.created


def _typed(ref: InstanceRef) -> str:
    """Return the option of the ``openstack`` command for the type, which servers do not need."""
    return "" if ref.resource_type == SERVER else f" --resource-type {ref.resource_type}"


def _with_source(row: Relation, source: str) -> Relation:
    """Return the relation; ``source`` replaces a source that this version does not know."""
    return replace(row, source=source) if row.source == UNKNOWN else row


def detach(
    database: Database, instance: InstanceRef, image_id: str, kind: str, reporter: Reporter
) -> None:
    """Remove one relation.

    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation is bound and does not permit this reporter
    :raises RelationNotFound: if it is not recorded
    :raises StoreUnavailable: if it could not be committed
    """

    def task(connection: Connection) -> bool:
        installations.check_reporter(connection, instance, reporter)
        found = relation_removal.detach(connection, instance, image_id, kind)
        failpoints.reach(Point.DETACH_WRITTEN)
        return found

    if not database.write(task):
        raise _no_relation(instance, image_id, kind)


def revoke(
    database: Database,
    instance: InstanceRef,
    image_id: str,
    kind: str,
    reporter: Reporter,
    recorded_at: datetime | None,
) -> Relation | None:
    """Revoke one report of a relation.

    :param recorded_at: when the relation was recorded, to revoke an attachment to it; ``None`` to
        revoke the report of the service that created the image
    :returns: the relation if it remains because others reported it; ``None`` if it was removed
    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation is bound and does not permit this reporter
    :raises RelationNotFound: if it is not recorded, or was recorded at another time
    :raises StoreUnavailable: if it could not be committed
    """
    same = Filters(
        instance.installation_uuid,
        instance.instance_id,
        image_id,
        kind=kind,
        resource_type=instance.resource_type,
    )

    def task(connection: Connection) -> Relation | None:
        installations.check_reporter(connection, instance, reporter)
        found = relation_queries.find(connection, same, limit=1, of_any_source=True)
        if not found or recorded_at not in (None, found[0].created_at):
            raise _no_relation(instance, image_id, kind)
        gone = relation_removal.revoke(connection, instance, image_id, kind, recorded_at)
        failpoints.reach(Point.DETACH_WRITTEN)
        return None if gone else _with_source(found[0], SERVICE)

    return database.write(task)


def _no_relation(instance: InstanceRef, image_id: str, kind: str) -> RelationNotFound:
    return RelationNotFound(f"the image {image_id} has no such {kind} relation with the {instance}")


def end_instance(database: Database, instance: InstanceRef, reporter: Reporter) -> None:
    """Record that the resource was deleted; a repeated call changes nothing.

    :raises InstallationUnregistered: if the installation must be registered and is not
    :raises InstallationBound: if the installation is bound and does not permit this reporter
    :raises InstanceNotFound: if the resource is not recorded
    :raises StoreUnavailable: if it could not be committed
    """

    def task(connection: Connection) -> bool:
        installations.check_reporter(connection, instance, reporter)
        return relations.end_instance(connection, instance, _now())

    if not database.write(task):
        raise InstanceNotFound(f"the {instance} is not recorded")


def image_deleted(database: Database, image_id: str) -> None:
    """Record that Glance deleted the image, if it is recorded.

    :raises StoreUnavailable: if it could not be committed
    """
    if database.read(_knows_image, image_id):
        database.write(relations.mark_deleted, image_id, _now())


def _knows_image(connection: Connection, image_id: str) -> bool:
    """Return whether the image is recorded and not marked deleted."""
    live = select(image.c.id).where(image.c.uuid == image_id, image.c.deleted_at.is_(None))
    return connection.execute(live).first() is not None


def _now() -> datetime:
    return datetime.now(UTC)
