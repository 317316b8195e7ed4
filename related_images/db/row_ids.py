"""Primary keys of rows by UUID or ID: as a subquery, or by get-or-create.

The arguments are values or ``bindparam``. Without such a row, the subquery is null, which equals
nothing.
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
    """Return the subquery for the installation with this UUID."""
    return select(installation.c.id).where(installation.c.uuid == uuid).scalar_subquery()


def project_ref(project_id: Any) -> ScalarSelect[Any]:
    """Return the subquery for the project with this ID."""
    return select(project.c.id).where(project.c.project_id == project_id).scalar_subquery()


def image_ref(image_id: Any) -> ScalarSelect[Any]:
    """Return the subquery for the image that has this ID, or had it last."""
    return select(image.c.id).where(image.c.uuid == image_id).scalar_subquery()


def former_images(image_id: Any) -> Select[Any]:
    """Return the query for the images that had this ID before that of :func:`image_ref`."""
    return select(image.c.id).where(image.c.former_uuid == image_id)


def shown_id(images: Any = image) -> ColumnElement[str]:
    """Return the column with the ID of each image in Glance, also of former images."""
    return func.coalesce(images.c.former_uuid, images.c.uuid)


def is_instance(installation_uuid: Any, instance_id: Any) -> tuple[ColumnElement[bool], ...]:
    """Return the conditions for the row of this instance."""
    return (
        instance.c.instance_id == instance_id,
        instance.c.installation_ref == installation_ref(installation_uuid),
    )


def instance_ref(installation_uuid: Any, instance_id: Any) -> ScalarSelect[Any]:
    """Return the subquery for the instance."""
    named = is_instance(installation_uuid, instance_id)
    return select(instance.c.id).where(*named).scalar_subquery()


def get_or_create_project(connection: Connection, project_id: str | None) -> int | None:
    """Return the primary key of the project, after creating it if needed; ``None`` for ``None``."""
    if project_id is None:
        return None
    return get_or_create(connection, project, {"project_id": project_id})[0]


def get_or_create(
    connection: Connection, table: Table, key: dict[str, Any], **others: Any
) -> tuple[int, bool]:
    """Find the row with this ``key``, or create it.

    :param key: the columns of a unique constraint
    :param others: the other columns of a new row
    :returns: the primary key of the row, and whether it was created
    :raises ConcurrentChange: if a concurrent transaction removed the row
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
            f"a row of {table.name} was removed by a concurrent transaction"
        )
    return int(found), False


_RETURNING: Final = ("postgresql", "sqlite")
"""The databases that return the primary key of an insert with :func:`unless_taken`."""


@cache
def _careful(dialect: str, table: Table) -> Any:
    inserting = unless_taken(dialect, table)
    return inserting.returning(table.c.id) if dialect in _RETURNING else inserting


def unless_taken(dialect: str, table: Table) -> Any:
    """Return an insert that does nothing if a row with the same unique key exists."""
    if dialect not in _RETURNING:
        return insert(table).prefix_with("IGNORE")
    if dialect == "sqlite":
        return sqlite.insert(table).on_conflict_do_nothing()
    from sqlalchemy.dialects import postgresql  # only the engine of a PostgreSQL database loads it

    return postgresql.insert(table).on_conflict_do_nothing()
