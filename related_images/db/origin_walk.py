"""The resources that use an image through origins, with one recursive query.

A resource uses an image if it was made from the image, or if it comes, through any origins, from a
resource that was made from the image. The walk ends after :data:`STEPS` origins. Each row of a walk
is one resource at one distance, so that origins that contradict each other and form a cycle end it
too.
"""

from typing import Any, Final

from sqlalchemy import ColumnElement, Select, Subquery, exists, func, literal, select

from related_images.db.parent_links import STEPS
from related_images.db.tables import instance, origin, relation
from related_images.model import BOOT

__all__ = ["BEYOND", "STEPS", "dependents", "dependents_of_project"]

BEYOND: Final = STEPS + 1
"""The number of steps of the resources at which the walk of :func:`dependents` ends.

If there is such a resource, the walk is not complete.
"""


def dependents(images: ColumnElement[bool]) -> Subquery:
    """Return the resources that come from those that were made from the images.

    Resources that were made from the image themselves are left out.

    :param images: a condition on ``image_ref`` of the relations
    :returns: ``image_ref``, ``ref`` of the resource, and ``step``: the least number of origins
        between them, at most :data:`BEYOND`
    """
    walk = (
        select(relation.c.image_ref, origin.c.instance_ref.label("ref"), literal(1).label("step"))
        .join_from(relation, origin, origin.c.source_ref == relation.c.instance_ref)
        .where(images, relation.c.kind == BOOT)
        .cte("dependents", recursive=True)
    )
    below = origin.alias()
    walk = walk.union(
        select(walk.c.image_ref, below.c.instance_ref, walk.c.step + 1)
        .join_from(walk, below, below.c.source_ref == walk.c.ref)
        .where(walk.c.step <= STEPS)
    )
    return (
        select(walk.c.image_ref, walk.c.ref, func.min(walk.c.step).label("step"))
        .where(~_is_started(walk.c.image_ref, walk.c.ref))
        .group_by(walk.c.image_ref, walk.c.ref)
        .subquery()
    )


def _is_started(image_ref: Any, instance_ref: Any) -> ColumnElement[bool]:
    start = relation.alias()
    return exists().where(
        start.c.image_ref == image_ref,
        start.c.instance_ref == instance_ref,
        start.c.kind == BOOT,
    )


def dependents_of_project(owner: Any, images: Select[Any]) -> Subquery:
    """Return what :func:`dependents` returns, for the resources of one project.

    The walk begins at the resources of the project, so that its duration does not depend on the
    resources of other projects.

    :param owner: the primary key of the project
    :param images: the query for the primary keys of the images
    """
    walk = (
        select(
            origin.c.instance_ref.label("ref"),
            origin.c.source_ref.label("source_ref"),
            literal(1).label("step"),
        )
        .where(origin.c.project_ref == owner, origin.c.source_ref.is_not(None))
        .cte("sources", recursive=True)
    )
    above, start = origin.alias(), relation.alias("start")
    walk = walk.union(
        select(walk.c.ref, above.c.source_ref, walk.c.step + 1)
        .join_from(walk, above, above.c.instance_ref == walk.c.source_ref)
        .where(above.c.source_ref.is_not(None), walk.c.step < STEPS)
    )
    return (
        select(start.c.image_ref, walk.c.ref, func.min(walk.c.step).label("step"))
        .select_from(walk.join(start, start.c.instance_ref == walk.c.source_ref))
        .join(instance, instance.c.id == walk.c.ref)
        # the sum prevents a search by the index on image_ref, as in the starts of a project
        .where(start.c.kind == BOOT, (start.c.image_ref + 0).in_(images))
        .where(instance.c.project_ref == owner, ~_is_started(start.c.image_ref, walk.c.ref))
        .group_by(start.c.image_ref, walk.c.ref)
        .subquery()
    )
