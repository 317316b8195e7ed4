"""Create the tables of installations, projects, instances, images, relations and state."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql, postgresql

revision = "0001"
down_revision = None

KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
UUID = (
    sa.LargeBinary(16)
    .with_variant(mysql.BINARY(16), "mysql", "mariadb")
    .with_variant(postgresql.UUID(as_uuid=False), "postgresql")
)
OPTIONS = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "sqlite_autoincrement": True}


def text(length: int) -> sa.types.TypeEngine[str]:
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return sa.String(length).with_variant(exact, "mysql", "mariadb")


def index(table: str, *columns: str, **options: Any) -> None:
    """Create an index, unless an interrupted upgrade created it before."""
    name = f"ix_{table}_{'_'.join(columns)}"
    known = sa.inspect(op.get_bind()).get_indexes(table)
    if name not in {found["name"] for found in known}:
        op.create_index(name, table, columns, **options)


def upgrade() -> None:
    _installation()
    _project()
    _instance()
    _image()
    _relation()
    _state()


def downgrade() -> None:
    for name in ("state", "relation", "image", "instance", "project", "installation"):
        op.drop_table(f"related_{name}", if_exists=True)


def _installation() -> None:
    op.create_table(
        "related_installation",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("uuid", UUID, nullable=False),
        sa.Column("name", text(255)),
        sa.Column("service_user_id", text(255)),
        sa.Column("registered_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_related_installation"),
        sa.UniqueConstraint("uuid", name="uq_related_installation_uuid"),
        if_not_exists=True,
        **OPTIONS,
    )


def _project() -> None:
    op.create_table(
        "related_project",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("project_id", text(255), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_related_project"),
        sa.UniqueConstraint("project_id", name="uq_related_project_project_id"),
        if_not_exists=True,
        **OPTIONS,
    )


def _instance() -> None:
    op.create_table(
        "related_instance",
        sa.Column("id", KEY, nullable=False),
        sa.Column("installation_ref", sa.Integer, nullable=False),
        sa.Column("instance_id", text(255), nullable=False),
        sa.Column("project_ref", sa.Integer),
        sa.Column("ended_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_related_instance"),
        sa.UniqueConstraint(
            "instance_id",
            "installation_ref",
            name="uq_related_instance_instance_id_installation_ref",
        ),
        sa.ForeignKeyConstraint(
            ["installation_ref"],
            ["related_installation.id"],
            name="fk_related_instance_installation_ref",
        ),
        sa.ForeignKeyConstraint(
            ["project_ref"], ["related_project.id"], name="fk_related_instance_project_ref"
        ),
        if_not_exists=True,
        **OPTIONS,
    )
    index("related_instance", "installation_ref", "id")
    index("related_instance", "project_ref")


def _image() -> None:
    op.create_table(
        "related_image",
        sa.Column("id", KEY, nullable=False),
        sa.Column("uuid", UUID, nullable=False),
        sa.Column("deleted_at", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_related_image"),
        sa.UniqueConstraint("uuid", name="uq_related_image_uuid"),
        if_not_exists=True,
        **OPTIONS,
    )
    deleted = sa.text("deleted_at IS NOT NULL")
    index("related_image", "deleted_at", sqlite_where=deleted, postgresql_where=deleted)


def _relation() -> None:
    op.create_table(
        "related_relation",
        sa.Column("id", KEY, nullable=False),
        sa.Column("instance_ref", KEY, nullable=False),
        sa.Column("image_ref", KEY, nullable=False),
        sa.Column("kind", sa.SmallInteger, nullable=False),
        sa.Column("label", text(64)),
        sa.Column("source", sa.SmallInteger, nullable=False),
        sa.Column("project_ref", sa.Integer),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("claimed", sa.SmallInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name="pk_related_relation"),
        sa.UniqueConstraint(
            "image_ref",
            "instance_ref",
            "kind",
            name="uq_related_relation_image_ref_instance_ref_kind",
        ),
        sa.ForeignKeyConstraint(
            ["instance_ref"], ["related_instance.id"], name="fk_related_relation_instance_ref"
        ),
        sa.ForeignKeyConstraint(
            ["image_ref"], ["related_image.id"], name="fk_related_relation_image_ref"
        ),
        sa.ForeignKeyConstraint(
            ["project_ref"], ["related_project.id"], name="fk_related_relation_project_ref"
        ),
        if_not_exists=True,
        **OPTIONS,
    )
    index("related_relation", "instance_ref", "kind", "created_at")
    index("related_relation", "project_ref", "created_at")
    index("related_relation", "project_ref", "instance_ref")
    index("related_relation", "created_at")


def _state() -> None:
    op.create_table(
        "related_state",
        sa.Column("name", text(64), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_related_state"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )
