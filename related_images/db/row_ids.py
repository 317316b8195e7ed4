"""The number of a row, by the names it bears outside: as a subquery, or making the row.

A name is a value or a ``bindparam``. Where no such row is, the subquery is null and equals nothing.
"""

from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    Table,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import sqlite

from related_images.db import dialects
from related_images.db.tables import image, installation, instance, project


def installation_ref(uuid: Any) -> ScalarSelect[Any]:
    """The installation with this UUID."""
    return select(installation.c.id).where(installation.c.uuid == uuid).scalar_subquery()


def project_ref(project_id: Any) -> ScalarSelect[Any]:
    """The project with this ID."""
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
    """The instance that :func:`is_instance` describes."""
    named = is_instance(installation_uuid, instance_id)
    return select(instance.c.id).where(*named).scalar_subquery()


def get_or_create_project(connection: Connection, project_id: str | None) -> int | None:
    """The number of the project, which is made if it is not there; ``None`` stays."""
    if project_id is None:
        return None
    return get_or_create(connection, project, {"project_id": project_id})[0]


def get_or_create(
    connection: Connection, table: Table, key: dict[str, Any], **others: Any
) -> tuple[int, bool]:
    """Find the row with this ``key``, or make it.

    :param others: the other columns of a row that is made
    :returns: the number of the row, and whether it was made
    :raises ConcurrentChange: if another transaction removed the row at the same moment
    """
    dialect = connection.dialect.name
    result = connection.execute(_careful(dialect, table), {**key, **others})
    if dialect in _RETURNING:
        ref = result.scalar()
    else:
        ref = result.lastrowid if result.rowcount else None
    if ref is not None:
        return int(ref), True
    same = [table.c[name] == value for name, value in key.items()]
    found = connection.execute(select(table.c.id).where(*same)).scalar()
    if found is None:
        raise dialects.ConcurrentChange(
            f"a row of {table.name} was removed by another at the same moment"
        )
    return int(found), False


_RETURNING: Final = ("postgresql", "sqlite")
"""Where a careful insert gives the number of its row as its result."""


@cache
def _careful(dialect: str, table: Table) -> Any:
    inserting = unless_taken(dialect, table)
    return inserting.returning(table.c.id) if dialect in _RETURNING else inserting


def unless_taken(dialect: str, table: Table) -> Any:
    """An insert into the table that does nothing where the key of the row is taken."""
    if dialect not in _RETURNING:
        return insert(table).prefix_with("IGNORE")
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # loaded by now, and only where it is used

    return postgresql.insert(table).on_conflict_do_nothing()
