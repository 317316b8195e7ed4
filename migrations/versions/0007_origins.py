"""Create the table of origins: the resource from which a resource comes."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

TABLE = "related_origin"
KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")
INDEXES = (
    ("source_ref", "instance_ref"),
    ("since", "instance_ref"),
    ("project_ref", "since", "instance_ref"),
)


def upgrade() -> None:
    op.create_table(
        TABLE,
        sa.Column("instance_ref", KEY, nullable=False),
        sa.Column("since", sa.BigInteger, nullable=False),
        sa.Column("source_ref", KEY),
        sa.Column("project_ref", sa.Integer),
        sa.Column("source", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("instance_ref", "since", name=f"pk_{TABLE}"),
        _refers("instance_ref", "related_instance", ondelete="CASCADE"),
        _refers("source_ref", "related_instance", ondelete="CASCADE"),
        _refers("project_ref", "related_project"),
        if_not_exists=True,
        mysql_engine="InnoDB",
        mysql_charset="utf8mb4",
    )
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(TABLE)}
    for columns in INDEXES:
        name = f"ix_{TABLE}_{'_'.join(columns)}"
        if name not in known:
            op.create_index(name, TABLE, [*columns])


def downgrade() -> None:
    op.drop_table(TABLE, if_exists=True)


def _refers(column: str, table: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    name = f"fk_{TABLE}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{table}.id"], name=name, ondelete=ondelete)
