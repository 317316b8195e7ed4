"""Create the tables of leases and of the resource types that may have them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0009"
down_revision = "0008"

LEASE, TYPE = "related_lease", "related_resource_type"
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
NAME = sa.String(64).with_variant(
    mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
OPTIONS = {"if_not_exists": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
INDEXES = (("image_ref", "expires_at"), ("project_ref", "expires_at"), ("expires_at",))


def upgrade() -> None:
    op.create_table(
        TYPE,
        sa.Column("name", NAME, nullable=False),
        sa.Column("longest_lease_days", sa.Integer, nullable=False),
        sa.Column("registered_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("name", name=f"pk_{TYPE}"),
        **OPTIONS,
    )
    op.create_table(
        LEASE,
        sa.Column("relation_ref", KEY, nullable=False),
        sa.Column("image_ref", KEY, nullable=False),
        sa.Column("project_ref", sa.Integer, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("relation_ref", name=f"pk_{LEASE}"),
        _refers("relation_ref", "related_relation", ondelete="CASCADE"),
        _refers("image_ref", "related_image", ondelete="CASCADE"),
        _refers("project_ref", "related_project"),
        **OPTIONS,
    )
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(LEASE)}
    for columns in INDEXES:
        name = f"ix_{LEASE}_{'_'.join(columns)}"
        if name not in known:
            op.create_index(name, LEASE, [*columns])


def downgrade() -> None:
    op.drop_table(LEASE, if_exists=True)
    op.drop_table(TYPE, if_exists=True)


def _refers(column: str, table: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    name = f"fk_{LEASE}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{table}.id"], name=name, ondelete=ondelete)
