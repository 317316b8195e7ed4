"""Primary keys of rows by UUID or ID: as a subquery, or by get-or-create.

The arguments are values or ``bindparam``. If there is no such row, the subquery is null, and no
value equals null.
"""

import uuid
from functools import cache
from typing import Any, Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    ScalarSelect,
    Select,
    Table,
    bindparam,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.dialects import sqlite

from related_images.db import dialects
from related_images.db.tables import image, installation, instance, project
from related_images.errors import TupleMalformed
from related_images.model import SERVER, InstanceRef


def named(ref: InstanceRef) -> dict[str, str]:
    """Return the values of the parameters in :data:`OF_TYPE` and :data:`IS_NAMED`."""
    return {
        "named_uuid": ref.installation_uuid,
        "named_type": ref.resource_type,
        "named_id": ref.instance_id,
    }


def of_installation(uuid: Any) -> ColumnElement[bool]:
    """Return the condition for the rows of an installation, one for each type."""
    is_own_row = (installation.c.uuid == uuid) & (installation.c.resource_type == SERVER)
    return or_(is_own_row, installation.c.installation_uuid == uuid)


def shown_installation(installations: Any = installation) -> ColumnElement[str]:
    """Return the column with the UUID of the installation, for rows of every type."""
    return func.coalesce(installations.c.installation_uuid, installations.c.uuid)


def get_or_create_installation(
    connection: Connection, installation_uuid: str, resource_type: str = SERVER
) -> int:
    """Return the primary key of the installation's row for a type, after creating it if needed.

    The row is looked up first, as in :func:`get_or_create_project`.

    :raises TupleMalformed: if the UUID of the installation is that of a row for another type
    """
    known = connection.execute(installation_refs(installation_uuid, resource_type)).scalar()
    if known is not None:
        return int(known)
    if resource_type != SERVER:
        key = {"installation_uuid": installation_uuid, "resource_type": resource_type}
        return get_or_create(connection, installation, key, uuid=str(uuid.uuid4()))[0]
    row, is_new = get_or_create(connection, installation, {"uuid": installation_uuid})
    if not is_new:
        kept = select(installation.c.resource_type).where(installation.c.id == row)
        if connection.execute(kept).scalar() != SERVER:
            raise TupleMalformed(
                f"the UUID {installation_uuid} is reserved by this service; give the UUID of the "
                "installation itself"
            )
    return row


def project_ref(project_id: Any) -> ScalarSelect[Any]:
    """Return the subquery for the project with this ID."""
    return select(project.c.id).where(project.c.project_id == project_id).scalar_subquery()


def image_ref(image_id: Any) -> ScalarSelect[Any]:
    """Return the subquery for the image that has this ID, or had it last."""
    return select(image.c.id).where(image.c.uuid == image_id).scalar_subquery()


def former_images(image_id: Any) -> Select[Any]:
    """Return the query for the images that had this ID before the image of :func:`image_ref`."""
    return select(image.c.id).where(image.c.former_uuid == image_id)


def shown_id(images: Any = image) -> ColumnElement[str]:
    """Return the column with the ID of each image in Glance, also of former images."""
    return func.coalesce(images.c.former_uuid, images.c.uuid)


OF_TYPE: Final[tuple[ColumnElement[bool], ...]] = (
    of_installation(bindparam("named_uuid")),
    installation.c.resource_type == bindparam("named_type"),
)
"""The conditions for the installation's row for a type; the parameters are those of :func:`named`.
"""

INSTALLATION_REF: Final = select(installation.c.id).where(*OF_TYPE).scalar_subquery()

IS_NAMED: Final[tuple[ColumnElement[bool], ...]] = (
    instance.c.instance_id == bindparam("named_id"),
    instance.c.installation_ref == INSTALLATION_REF,
)
"""The conditions for the row of an instance; the parameters are those of :func:`named`."""


def installation_refs(installation_uuid: Any, resource_type: Any) -> Select[Any]:
    """Return the query for the rows of installations that match; ``None`` means no restriction."""
    query = select(installation.c.id)
    if installation_uuid is not None:
        query = query.where(of_installation(installation_uuid))
    if resource_type is not None:
        query = query.where(installation.c.resource_type == resource_type)
    return query


def instance_refs(installation_uuid: Any, instance_id: Any, resource_type: Any) -> Select[Any]:
    """Return the query for the instances with this ID; ``None`` means no restriction."""
    query = select(instance.c.id).where(instance.c.instance_id == instance_id)
    if installation_uuid is None and resource_type is None:
        return query
    homes = installation_refs(installation_uuid, resource_type)
    return query.where(instance.c.installation_ref.in_(homes))


def get_or_create_project(connection: Connection, project_id: str | None) -> int | None:
    """Return the primary key of the project, after creating it if needed; ``None`` for ``None``.

    The row is looked up first: an insert consumes a key even if the row exists, and the keys of
    this table are integers of 32 bits.
    """
    if project_id is None:
        return None
    known = connection.execute(select(project_ref(project_id))).scalar()
    return known or get_or_create(connection, project, {"project_id": project_id})[0]


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
