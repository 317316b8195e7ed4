"""Create the table of the ends of relations of the kind ``shelved``."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"

TABLE = "related_relation_end"
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("relation_ref", KEY, nullable=False),
        sa.Column("ended_at", sa.BigInteger, nullable=False),
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
