"""Subqueries for the number of one row, by the names it bears outside.

A name is a value or a ``bindparam``. Where no such row is, the subquery is null and equals nothing.
"""

from typing import Any

from sqlalchemy import ColumnElement, ScalarSelect, Select, func, select

from related_images.db.tables import (
    image,
    installation,
    instance,
    project,
)


def installation_ref(uuid: Any) -> ScalarSelect[Any]:
    return select(installation.c.id).where(installation.c.uuid == uuid).scalar_subquery()


def project_ref(project_id: Any) -> ScalarSelect[Any]:
    return select(project.c.id).where(project.c.project_id == project_id).scalar_subquery()


def image_ref(image_id: Any) -> ScalarSelect[Any]:
    """The image that has this ID, or had it last."""
    return select(image.c.id).where(image.c.uuid == image_id).scalar_subquery()


def former_images(image_id: Any) -> Select[Any]:
    """The images that had this ID before the one that :func:`image_ref` gives."""
    return select(image.c.id).where(image.c.former_uuid == image_id)


def shown_id(images: Any = image) -> ColumnElement[str]:
    """The ID under which Glance has or had each of these ``images``."""
    return func.coalesce(images.c.former_uuid, images.c.uuid)


def is_instance(installation_uuid: Any, instance_id: Any) -> tuple[ColumnElement[bool], ...]:
    """The conditions that one row of the instances fulfils."""
    return (
        instance.c.instance_id == instance_id,
        instance.c.installation_ref == installation_ref(installation_uuid),
    )


def instance_ref(installation_uuid: Any, instance_id: Any) -> ScalarSelect[Any]:
    named = is_instance(installation_uuid, instance_id)
    return select(instance.c.id).where(*named).scalar_subquery()
