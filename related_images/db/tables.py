"""The tables.

A comment on each index names its queries. The names of tables and indexes have the prefix
``related_``, since the tables may be in Glance's database. The names of indexes are unique in a
whole SQLite database or PostgreSQL schema.
"""

from typing import Any, Final

from sqlalchemy import (
    Boolean,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
    true,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from related_images.db.column_types import (
    KEY,
    KIND_CODES,
    SOURCE_CODES,
    WITNESS_CODES,
    Coded,
    IdList,
    UtcDateTime,
    UuidText,
    exact_text,
)
from related_images.model import BACKUP, SERVER, SNAPSHOT

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
"""Without AUTOINCREMENT, SQLite uses the primary key of a removed row again."""

installation = Table(
    "related_installation",
    metadata,
    Column("id", Integer, primary_key=True),
    # of an installation; in a row for another type than servers, a random one
    Column("uuid", UuidText, nullable=False, unique=True),
    Column("name", exact_text(255)),
    # for filters of the version before `service_users`: see installations.py
    Column("service_user_id", exact_text(255)),
    Column("registered_at", UtcDateTime),
    Column("resource_type", exact_text(64), nullable=False, server_default=SERVER),
    # of the installation, in a row for another type than servers; else null
    Column("installation_uuid", UuidText),
    # the service users to which the installation is bound, as JSON
    Column("service_users", Text),
    # uniqueness of the rows for other types than servers
    Index(None, "installation_uuid", "resource_type", unique=True),
    **_OPTIONS,
)
"""The installations, one row for each type of resource that they have.

The row for servers is the registration of the installation. An instance refers to the row for its
type. So a server and a volume with the same ID differ in ``installation_ref``, and the row of an
instance needs no column for the type. The column ``uuid`` is unique, because versions before
resource types rely on that.
"""

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
    # the latest image of each kind, without deleted images; the epoch without an image
    Column("latest_snapshot_at", UtcDateTime, nullable=False, server_default="0"),
    Column("latest_backup_at", UtcDateTime, nullable=False, server_default="0"),
    # one instance by installation and server ID, or all instances with a server ID
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
"""The column with the time of the latest image, by kind. Other kinds have none."""

image = Table(
    "related_image",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("uuid", UuidText, nullable=False, unique=True),
    Column("deleted_at", UtcDateTime),
    # as Glance reports it; the epoch while it is unknown
    Column("created_at", UtcDateTime, nullable=False, server_default="0"),
    # the ID of the image, after another image took it; `uuid` is then a random one
    Column("former_uuid", UuidText),
    **_OPTIONS,
)
# the images to purge. The index is partial in SQLite, and in PostgreSQL by its migration: the
# option `postgresql_where` here would make every Glance load that dialect
Index(None, image.c.deleted_at, sqlite_where=image.c.deleted_at.is_not(None))
# the former images with an ID; partial in the same way
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
    # the number of reports that rely on this row: see relations.record
    Column("claimed", SmallInteger, nullable=False, server_default="0"),
    # uniqueness, and the relations of an image
    UniqueConstraint("image_ref", "instance_ref", "kind"),
    # the images of an instance, by kind and time
    Index(None, "instance_ref", "kind", "created_at"),
    # the relations that a project sees, newest first, and its instances
    Index(None, "project_ref", "created_at"),
    Index(None, "project_ref", "instance_ref"),
    # all relations, newest first
    Index(None, "created_at"),
    **_OPTIONS,
)
# the images with a relation of a kind, and whether an image has one: for all projects, and for one,
# which must not read the relations of others. SQLite, which does not know how many relations have a
# kind, uses these partial indexes only for queries with their condition HAS_KIND. With kind > 0, it
# would take this condition for a range of the index, and read all relations of a project
_of_kind: Final[dict[str, Any]] = {"sqlite_where": text("kind + 0 > 0")}
Index(None, relation.c.kind, relation.c.image_ref, **_of_kind)
Index(None, relation.c.project_ref, relation.c.kind, relation.c.image_ref, **_of_kind)


class HasKind(FunctionElement[bool]):
    """The condition of the partial indexes by kind on SQLite, which every relation meets."""

    type = Boolean()
    inherit_cache = True

    def self_group(self, against: Any = None) -> Any:
        return self  # SQLAlchemy would write "= 1" after it, and SQLite would not recognize it


@compiles(HasKind)
def _always(element: HasKind, compiler: Any, **options: Any) -> str:
    return str(compiler.process(true(), **options))


@compiles(HasKind, "sqlite")
def _of_partial_index(element: HasKind, compiler: Any, **options: Any) -> str:
    return "related_relation.kind + 0 > 0"


HAS_KIND: Final = HasKind()

_EXTENSION: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}

rebuild = Table(
    "related_rebuild",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("started_at", UtcDateTime, primary_key=True),
    **_EXTENSION,
)
"""The times at which an instance was rebuilt from an image from which it had been started before.
"""

relation_end = Table(
    "related_relation_end",
    metadata,
    # the relations that ended although their image existed, of which there are few
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("ended_at", UtcDateTime, nullable=False),
    **_EXTENSION,
)
"""The ends of ``shelved`` relations: see :mod:`related_images.db.shelving`."""

descent = Table(
    "related_descent",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("image_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    Column("parent_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    # the project that owns both the image and the instance, and so sees the link
    Column("project_ref", ForeignKey("related_project.id")),
    # a copy of the relation's column, so that a walk does not read the relation
    Column("kind", Coded(KIND_CODES), nullable=False),
    # the parent of an image
    Index(None, "image_ref", "relation_ref"),
    **_EXTENSION,
)
"""The parent of each image: see :mod:`related_images.db.parent_links`."""

# the children of an image in a stable order: all children, or the children that a project sees
children: Final = Index(None, descent.c.parent_ref, descent.c.relation_ref)
children_of_project: Final = Index(
    None, descent.c.parent_ref, descent.c.project_ref, descent.c.relation_ref
)

origin = Table(
    "related_origin",
    metadata,
    # a version before origins may remove the row of an instance
    Column("instance_ref", ForeignKey("related_instance.id", ondelete="CASCADE"), primary_key=True),
    Column("since", UtcDateTime, primary_key=True),
    # null if the instance is known to have no source
    Column("source_ref", ForeignKey("related_instance.id", ondelete="CASCADE")),
    # a copy of the instance's column: the project that sees the origin
    Column("project_ref", ForeignKey("related_project.id")),
    Column("source", Coded(SOURCE_CODES), nullable=False),
    # the instances that come from an instance
    Index(None, "source_ref", "instance_ref"),
    # all origins, or the origins that a project sees, newest first
    Index(None, "since", "instance_ref"),
    Index(None, "project_ref", "since", "instance_ref"),
    **_EXTENSION,
)
"""The instance from which an instance comes, since a time: see :mod:`related_images.db.origins`."""

volume_snapshots = Table(
    "related_volume_snapshot",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    Column("snapshot_ids", IdList, nullable=False),
    **_EXTENSION,
)
"""The volume snapshots to which an image of a server refers: see
:mod:`related_images.db.volume_snapshots`.
"""

deletion = Table(
    "related_deletion",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("image_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    Column("begun_at", UtcDateTime, nullable=False),
    Index(None, "image_ref"),
    **_OPTIONS,
)
"""Pending deletions of images: see :mod:`related_images.db.delete_protection`."""

witness = Table(
    "related_witness",
    metadata,
    Column("id", Integer, primary_key=True),
    # the row for servers
    Column(
        "installation_ref",
        ForeignKey("related_installation.id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("witness", Coded(WITNESS_CODES), nullable=False),
    # 1 if the registration of the installation declares it
    Column("expected", SmallInteger, nullable=False, server_default="0"),
    # when the last complete comparison with the service began; the epoch if there was none
    Column("compared_at", UtcDateTime, nullable=False, server_default="0"),
    # uniqueness, and the witnesses of an installation
    UniqueConstraint("installation_ref", "witness"),
    **_OPTIONS,
)
"""The witnesses of each installation: see :mod:`related_images.db.witnesses`."""

coverage = Table(
    "related_coverage",
    metadata,
    Column("witness_ref", ForeignKey("related_witness.id", ondelete="CASCADE"), primary_key=True),
    # empty in a row that joins the intervals of former processes
    Column("process", exact_text(64), primary_key=True),
    Column("covered_from", UtcDateTime, primary_key=True),
    Column("covered_until", UtcDateTime, nullable=False),
    **_EXTENSION,
)
"""The intervals in which a process of a witness lost nothing.

The primary key finds all of a witness, or those of one process.
"""

gap = Table(
    "related_gap",
    metadata,
    Column("witness_ref", ForeignKey("related_witness.id", ondelete="CASCADE"), primary_key=True),
    Column("name", exact_text(64), primary_key=True),
    Column("lost_from", UtcDateTime, nullable=False),
    Column("lost_until", UtcDateTime, nullable=False),
    **_EXTENSION,
)
"""The times in which a witness lost something, where the intervals do not show it."""
lease = Table(
    "related_lease",
    metadata,
    Column("relation_ref", ForeignKey("related_relation.id", ondelete="CASCADE"), primary_key=True),
    # copies of the relation's columns, so that leases are found without other relations
    Column("image_ref", ForeignKey("related_image.id", ondelete="CASCADE"), nullable=False),
    Column("project_ref", ForeignKey("related_project.id"), nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    # the live leases of an image
    Index(None, "image_ref", "expires_at"),
    # the live leases of a project
    Index(None, "project_ref", "expires_at"),
    # the leases to purge
    Index(None, "expires_at"),
    **_EXTENSION,
)
"""The end of each relation of the kind ``use``: see :mod:`related_images.db.leases`."""

resource_type = Table(
    "related_resource_type",
    metadata,
    Column("name", exact_text(64), primary_key=True),
    Column("longest_lease_days", Integer, nullable=False),
    Column("registered_at", UtcDateTime, nullable=False),
    **_EXTENSION,
)
"""The registered types of resources: see :mod:`related_images.db.resource_types`."""

state = Table(
    "related_state",
    metadata,
    Column("name", exact_text(64), primary_key=True),
    Column("value", Text, nullable=False),
    mysql_engine="InnoDB",
    mysql_charset="utf8mb4",
)
"""Values that the project stores about itself: see :mod:`related_images.db.stored_state`."""
