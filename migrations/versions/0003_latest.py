"""Add the time of the latest image of each kind to the row of the instance."""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit, fill, within

revision = "0003"
down_revision = "0002"

CODES = {"latest_snapshot_at": 1, "latest_backup_at": 2}

instance = sa.table("related_instance", sa.column("id"), *map(sa.column, CODES))
image = sa.table("related_image", sa.column("id"), sa.column("deleted_at"))
relation = sa.table(
    "related_relation",
    *map(sa.column, ("instance_ref", "image_ref", "kind", "created_at")),
)


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    columns = {column["name"] for column in found.get_columns("related_instance")}
    indexes = {index["name"] for index in found.get_indexes("related_instance")}
    for name in CODES:
        if name not in columns:
            column = sa.Column(name, sa.BigInteger, nullable=False, server_default="0")
            op.add_column("related_instance", column)
            commit()
        if _index(name) not in indexes:
            op.create_index(_index(name), "related_instance", [name, "id"])
            commit()
    latest = instance.update().values({name: _latest(code) for name, code in CODES.items()})
    fill(instance, latest.where(within(instance.c.id)))


def downgrade() -> None:
    for name in CODES:
        op.drop_index(_index(name), "related_instance", if_exists=True)
        op.drop_column("related_instance", name)


def _index(column: str) -> str:
    return f"ix_related_instance_{column}_id"


def _latest(code: int) -> sa.ColumnElement[int]:
    latest = (
        sa.select(sa.func.max(relation.c.created_at))
        .select_from(relation.join(image, relation.c.image_ref == image.c.id))
        .where(relation.c.instance_ref == instance.c.id, relation.c.kind == code)
        .where(image.c.deleted_at.is_(None))
    )
    return sa.func.coalesce(latest.correlate(instance).scalar_subquery(), 0)
