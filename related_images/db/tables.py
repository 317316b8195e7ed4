"""The tables. Installations, projects, instances and images are named once; relations refer.

Each index says which question it answers. Names carry the prefix ``related_``, since the tables may
live in the database of the registry, where SQLite and PostgreSQL keep one space of index names.
"""

from typing import Any, Final

from sqlalchemy import (
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
)

from related_images.db.column_types import (
    KEY,
    KIND_CODES,
    SOURCE_CODES,
    Coded,
    UtcDateTime,
    UuidText,
    exact_text,
)
from related_images.model import BACKUP, SNAPSHOT

metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

_OPTIONS: Final[dict[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "sqlite_autoincrement": True,
}
"""SQLite gives a freed row number away again unless it is told not to."""

installation = Table(
    "related_installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("uuid", UuidText, nullable=False, unique=True),
    Column("name", exact_text(255)),
    Column("service_user_id", exact_text(255)),
    Column("registered_at", UtcDateTime),
    **_OPTIONS,
)

project = Table(
    "related_project",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", exact_text(255), nullable=False, unique=True),
    **_OPTIONS,
)

instance = Table(
    "related_instance",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("installation_ref", ForeignKey("related_installation.id"), nullable=False),
    Column("instance_id", exact_text(255), nullable=False),
    Column("project_ref", ForeignKey("related_project.id")),
    Column("ended_at", UtcDateTime),
    # of the images made from it that are not deleted; the epoch where there is none
    Column("latest_snapshot_at", UtcDateTime, nullable=False, server_default="0"),
    Column("latest_backup_at", UtcDateTime, nullable=False, server_default="0"),
    # one instance by its tuple, or all that bear an id
    UniqueConstraint("instance_id", "installation_ref"),
    # the instances of an installation, page by page
    Index(None, "installation_ref", "id"),
    Index(None, "project_ref"),
    # the instances without an image of a kind since a time, longest first
    Index(None, "latest_snapshot_at", "id"),
    Index(None, "latest_backup_at", "id"),
    **_OPTIONS,
)

LATEST: Final = {
    SNAPSHOT: instance.c.latest_snapshot_at,
    BACKUP: instance.c.latest_backup_at,
}
"""Where an instance tells its latest image, by kind."""

image = Table(
    "related_image",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("uuid", UuidText, nullable=False, unique=True),
    Column("deleted_at", UtcDateTime),
    # as Glance reports it; the epoch while it is not known
    Column("created_at", UtcDateTime, nullable=False, server_default="0"),
    # the ID that it had, once another image has it; `uuid` is then one that no image has
    Column("former_uuid", UuidText),
    **_OPTIONS,
)
# what to purge; few images are deleted, so that few rows are in it. In PostgreSQL likewise, as its
# migration says: to say it here would have every Glance load that dialect
Index(None, image.c.deleted_at, sqlite_where=image.c.deleted_at.is_not(None))
# the deleted images that had an ID, likewise
Index(None, image.c.former_uuid, sqlite_where=image.c.former_uuid.is_not(None))

relation = Table(
    "related_relation",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("instance_ref", ForeignKey("related_instance.id"), nullable=False),
    Column("image_ref", ForeignKey("related_image.id"), nullable=False),
    Column("kind", Coded(KIND_CODES), nullable=False),
    Column("label", exact_text(64)),
    Column("source", Coded(SOURCE_CODES), nullable=False),
    Column("project_ref", ForeignKey("related_project.id")),
    Column("created_at", UtcDateTime, nullable=False),
    # how many rely on this row besides who made it: see removals.take_back
    Column("claimed", SmallInteger, nullable=False, server_default="0"),
    # one row a relation, and the relations of an image
    UniqueConstraint("image_ref", "instance_ref", "kind"),
    # the images of an instance, by kind and time
    Index(None, "instance_ref", "kind", "created_at"),
    # what a project sees, newest first, and which instances it has
    Index(None, "project_ref", "created_at"),
    Index(None, "project_ref", "instance_ref"),
    # what an administrator sees, newest first
    Index(None, "created_at"),
    **_OPTIONS,
)

_EXTENSION: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

rebuild = Table(
    "related_rebuild",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("started_at", UtcDateTime, primary_key=True),
    **_EXTENSION,
)
"""When an instance was started again from an image that it had been started from before another."""

descent = Table(
    "related_descent",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("image_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    Column("parent_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    # who sees the link: the project that owns both the image and the instance, if one does
    Column("project_ref", ForeignKey("related_project.id")),
    # as in the relation, so that no other row need be read on the way
    Column("kind", Coded(KIND_CODES), nullable=False),
    # what an image descends from
    Index(None, "image_ref", "relation_ref"),
    **_EXTENSION,
)
"""From which image the instance ran of which an image was made; follows from the relations."""

# what descends from an image, in a stable order: for all, and for one project
children: Final = Index(None, descent.c.parent_ref, descent.c.relation_ref)
children_of_project: Final = Index(
    None, descent.c.parent_ref, descent.c.project_ref, descent.c.relation_ref
)

deletion = Table(
    "related_deletion",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("image_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Index(None, "image_ref"),
    **_OPTIONS,
)
"""Deletions that the registry is being asked for, while no instance may be started from them."""

state = Table(
    "related_state",
    metadata,
    Column("name", exact_text(64), primary_key=True),
    Column("value", Text, nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
)
"""What the project remembers of itself: the last reconciliation, the last time it could write."""
