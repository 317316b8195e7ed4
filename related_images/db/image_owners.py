"""Who owns images and instances, as it is reported; it decides who sees their relations.

A relation ``snapshot`` or ``backup`` is seen by who owns the image, ``boot`` by who owns the
instance, and the link between two images by who sees both. Each row says so itself.

Whoever changes the owner of an instance writes the row of the instance first, and who records a
start or an image holds that row: of two at once the later one sees what the earlier one did.
"""

from sqlalchemy import ColumnElement, Connection, or_, update

from related_images.db import parent_links
from related_images.db.tables import instance, relation
from related_images.model import BOOT, MADE_FROM


def report(connection: Connection, instance_ref: int, project_ref: int) -> None:
    """Note whose the instance is."""
    ours = update(instance).where(instance.c.id == instance_ref)
    connection.execute(ours.values(project_ref=project_ref))
    starts = relation.c.instance_ref == instance_ref, relation.c.kind == BOOT
    connection.execute(
        update(relation)
        .where(*starts, _differs(relation.c.project_ref, project_ref))
        .values(project_ref=project_ref)
    )
    parent_links.review(connection, relation.c.instance_ref == instance_ref)


def move(connection: Connection, image_ref: int, project_ref: int | None) -> bool:
    """Note whose the image is, and say whether that changed anything."""
    made = relation.c.image_ref == image_ref, relation.c.kind.in_(MADE_FROM)
    others = update(relation).where(*made, _differs(relation.c.project_ref, project_ref))
    moved = bool(connection.execute(others.values(project_ref=project_ref)).rowcount)
    if moved:
        parent_links.review(connection, relation.c.image_ref == image_ref)
    return moved


def _differs(column: ColumnElement[int], ref: int | None) -> ColumnElement[bool]:
    return column.is_not(None) if ref is None else or_(column != ref, column.is_(None))
