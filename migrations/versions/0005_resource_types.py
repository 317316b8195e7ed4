"""Add the resource type to the rows of installations."""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit
from sqlalchemy.dialects import mysql, postgresql

revision = "0005"
down_revision = "0004"

TABLE = "related_installation"
INDEX = "ix_related_installation_installation_uuid_resource_type"
UUID = (
    sa.LargeBinary(16)
    .with_variant(mysql.BINARY(16), "mysql", "mariadb")
    .with_variant(postgresql.UUID(as_uuid=False), "postgresql")
)
WORD = sa.String(64).with_variant(
    mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)


def upgrade() -> None:
    found = sa.inspect(op.get_bind())
    known = {column["name"] for column in found.get_columns(TABLE)}
    for column in (
        sa.Column("resource_type", WORD, nullable=False, server_default="server"),
        sa.Column("installation_uuid", UUID),
    ):
        if column.name not in known:
            op.add_column(TABLE, column)
            commit()
    if INDEX not in {index["name"] for index in found.get_indexes(TABLE)}:
        op.create_index(INDEX, TABLE, ["installation_uuid", "resource_type"], unique=True)
        commit()


def downgrade() -> None:
    """Drop the columns; the previous version shows each further type as an installation."""
    op.drop_index(INDEX, TABLE, if_exists=True)
    for name in ("installation_uuid", "resource_type"):
        op.drop_column(TABLE, name)
