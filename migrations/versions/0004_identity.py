"""Add the creation time and the former ID of images, and the project that sees a link."""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit, fill, within
from sqlalchemy.dialects import mysql, postgresql

revision = "0004"
down_revision = "0003"

UUID = (
    sa.LargeBinary(16)
    .with_variant(mysql.BINARY(16), "mysql", "mariadb")
    .with_variant(postgresql.UUID(as_uuid=False), "postgresql")
)
INDEX = "ix_related_image_former_uuid"
BOOT = 3

instance = sa.table("related_instance", sa.column("id"), sa.column("project_ref"))
relation = sa.table(
    "related_relation", *map(sa.column, ("id", "instance_ref", "kind", "project_ref"))
)
descent = sa.table("related_descent", sa.column("relation_ref"), sa.column("project_ref"))


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    known = {column["name"] for column in found.get_columns("related_image")}
    for column in (
        sa.Column("created_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("former_uuid", UUID),
    ):
        if column.name not in known:
            op.add_column("related_image", column)
            commit()
    if INDEX not in {index["name"] for index in found.get_indexes("related_image")}:
        former = sa.text("former_uuid IS NOT NULL")
        options = {"sqlite_where": former, "postgresql_where": former}
        op.create_index(INDEX, "related_image", ["former_uuid"], **options)
        commit()
    _fill()


def downgrade() -> None:
    """Drop the columns; the previous version identifies an image by its ID alone."""
    op.drop_index(INDEX, "related_image", if_exists=True)
    for name in ("former_uuid", "created_at"):
        op.drop_column("related_image", name)


def _fill() -> None:
    """Fill who sees a relation: a start the owner of the server, a link the owner of both."""
    owner = sa.select(instance.c.project_ref).where(instance.c.id == relation.c.instance_ref)
    starts = relation.update().where(within(relation.c.id), relation.c.kind == BOOT)
    fill(relation, starts.values(project_ref=owner.scalar_subquery()))
    own = (
        sa.select(relation.c.project_ref)
        .select_from(relation.join(instance, instance.c.id == relation.c.instance_ref))
        .where(relation.c.id == descent.c.relation_ref)
        .where(relation.c.project_ref == instance.c.project_ref)
    )
    links = descent.update().where(within(descent.c.relation_ref))
    fill(relation, links.values(project_ref=own.correlate(descent).scalar_subquery()))
