"""Create the table of the volume snapshots that an image of a server refers to."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"

TABLE = "related_volume_snapshot"
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("relation_ref", KEY, nullable=False),
        sa.Column("snapshot_ids", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("relation_ref", name=f"pk_{TABLE}"),
        sa.ForeignKeyConstraint(
            ["relation_ref"],
            ["related_relation.id"],
            name=f"fk_{TABLE}_relation_ref",
            ondelete="CASCADE",
        ),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )


def downgrade() -> None:
    op.drop_table(TABLE, if_exists=True)
