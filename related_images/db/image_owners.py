"""The owners of images and instances, which decide who sees their relations and origins.

The owner of the image sees a ``snapshot`` or ``backup`` relation, the owner of the instance sees a
``boot`` or ``use`` relation and an origin, and a project that owns both sees the link between two
images. The column ``project_ref`` of each row holds that project.

A transaction that changes the owner of an instance updates the row of the instance first, and a
transaction that records a relation locks that row. So the later of two concurrent transactions sees
the changes of the other one.
"""

from sqlalchemy import ColumnElement, Connection, or_, update

from related_images.db import leases, parent_links
from related_images.db.tables import instance, origin, relation
from related_images.model import MADE_FROM, USES


def report(connection: Connection, instance_ref: int, project_ref: int) -> None:
    """Record the owner of the instance, and update who sees its relations, origins and links."""
    ours = update(instance).where(instance.c.id == instance_ref)
    connection.execute(ours.values(project_ref=project_ref))
    uses = relation.c.instance_ref == instance_ref, relation.c.kind.in_(USES)
    connection.execute(
        update(relation)
        .where(*uses, _differs(relation.c.project_ref, project_ref))
        .values(project_ref=project_ref)
    )
    leases.move(connection, instance_ref, project_ref)
    origins = update(origin).where(origin.c.instance_ref == instance_ref)
    connection.execute(origins.values(project_ref=project_ref))
    parent_links.review(connection, relation.c.instance_ref == instance_ref)
    parent_links.refresh_below(connection, instance_ref)


def update_owner(
    connection: Connection, instance_ref: int, reported: int | None, *, is_first: bool = False
) -> int | None:
    """Lock the row of the instance, and record the reported owner if it is another one.

    :param reported: the row of the project; ``None`` if the report names no owner
    :param is_first: whether the report names the owner at the creation of the instance. It does not
        replace a known owner, because the instance may have been transferred since
    :returns: the row of the present owner, if that is known
    """
    known = parent_links.lock_instance(connection, instance_ref)
    if reported in (None, known) or (is_first and known is not None):
        return known
    report(connection, instance_ref, int(reported))
    return reported


def move(connection: Connection, image_ref: int, project_ref: int | None) -> bool:
    """Record the owner of the image, and update who sees its relations and links.

    :param project_ref: the row of the owner; ``None`` if Glance reports no owner
    :returns: whether a relation changed
    """
    made = relation.c.image_ref == image_ref, relation.c.kind.in_(MADE_FROM)
    others = update(relation).where(*made, _differs(relation.c.project_ref, project_ref))
    moved = bool(connection.execute(others.values(project_ref=project_ref)).rowcount)
    if moved:
        parent_links.review(connection, relation.c.image_ref == image_ref)
    return moved


def _differs(column: ColumnElement[int], ref: int | None) -> ColumnElement[bool]:
    return column.is_not(None) if ref is None else or_(column != ref, column.is_(None))
