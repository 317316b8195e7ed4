"""The resources that use an image through origins, with one recursive query.

A resource uses an image if it was made from the image, or if it comes, through any origins, from a
resource that was made from the image. The walk ends after :data:`STEPS` origins. Each row of a walk
is one resource at one distance. So the walk also ends if contradictory origins form a cycle.
"""

from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Select,
    Subquery,
    func,
    literal,
    select,
)

from related_images.db.index_hints import WithoutIndex, look_up
from related_images.db.parent_links import STEPS
from related_images.db.tables import instance, origin, relation
from related_images.model import BOOT

__all__ = ["BEYOND", "STEPS", "dependents", "dependents_of_project"]

BEYOND: Final = STEPS + 1
"""The distance, in origins, at which the walk of :func:`dependents` ends.

If a resource is at this distance, the walk is not complete.
"""


def dependents(dialect: str, images: ColumnElement[bool]) -> Subquery:
    """Return the resources that come from a resource that was made from one of the images.

    Resources that were made from the image themselves are left out.

    :param dialect: the name of the SQLAlchemy dialect
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
    below = origin.alias("below")
    found, columns = look_up(dialect, walk, below, below.c.source_ref == walk.c.ref)
    walk = walk.union(
        select(walk.c.image_ref, columns.instance_ref, walk.c.step + 1)
        .select_from(found)
        .where(walk.c.step <= STEPS)
    )
    return (
        select(walk.c.image_ref, walk.c.ref, func.min(walk.c.step).label("step"))
        .where(_is_not_started(walk.c.image_ref, walk.c.ref))
        .group_by(walk.c.image_ref, walk.c.ref)
        .subquery()
    )


def dependents_of_project(dialect: str, owner: Any, images: Select[Any]) -> Subquery:
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
    above = origin.alias("above")
    found, columns = look_up(dialect, walk, above, above.c.instance_ref == walk.c.source_ref)
    walk = walk.union(
        select(walk.c.ref, columns.source_ref, walk.c.step + 1)
        .select_from(found)
        .where(columns.source_ref.is_not(None), walk.c.step < STEPS)
    )
    starts = relation.alias("start")
    # the sum keeps SQLite from reading all starts first, and searching the walk for each of them
    found, start = look_up(dialect, walk, starts, starts.c.instance_ref == walk.c.source_ref + 0)
    return (
        select(start.image_ref, walk.c.ref, func.min(walk.c.step).label("step"))
        .select_from(found)
        # the sum prevents a search by the index on image_ref, as in the starts of a project
        .where(start.kind == BOOT, (start.image_ref + 0).in_(images))
        .where(_owner_of(walk.c.ref) == owner, _is_not_started(start.image_ref, walk.c.ref))
        .group_by(start.image_ref, walk.c.ref)
        .subquery()
    )


# these subqueries run once for each row: a join would be as expensive as in `look_up`
def _owner_of(instance_ref: Any) -> ColumnElement[Any]:
    own = instance.alias()
    return select(own.c.project_ref).where(own.c.id == instance_ref).scalar_subquery()


def _is_not_started(image_ref: Any, instance_ref: Any) -> ColumnElement[bool]:
    own = relation.alias()
    started = select(own.c.id).where(
        own.c.image_ref == image_ref,
        own.c.instance_ref == instance_ref,
        WithoutIndex(own.c.kind) == BOOT,
    )
    return started.scalar_subquery().is_(None)
