"""Create the tables of witnesses: what each installation expects, and which times are covered."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = "0008"
down_revision = "0007"

WITNESS, COVERAGE, GAP = "related_witness", "related_coverage", "related_gap"
TEXT = sa.String(64).with_variant(
    mysql.VARCHAR(64, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb"
)
OPTIONS = {"if_not_exists": True, "mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}


def upgrade() -> None:
    op.create_table(
        WITNESS,
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("installation_ref", sa.Integer, nullable=False),
        sa.Column("witness", sa.SmallInteger, nullable=False),
        sa.Column("expected", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("compared_at", sa.BigInteger, nullable=False, server_default="0"),
        sa.PrimaryKeyConstraint("id", name=f"pk_{WITNESS}"),
        sa.UniqueConstraint(
            "installation_ref", "witness", name=f"uq_{WITNESS}_installation_ref_witness"
        ),
        _refers(WITNESS, "installation_ref", "related_installation"),
        sqlite_autoincrement=True,
        **OPTIONS,
    )
    op.create_table(
        COVERAGE,
        sa.Column("witness_ref", sa.Integer, nullable=False),
        sa.Column("process", TEXT, nullable=False),
        sa.Column("covered_from", sa.BigInteger, nullable=False),
        sa.Column("covered_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("witness_ref", "process", "covered_from", name=f"pk_{COVERAGE}"),
        _refers(COVERAGE, "witness_ref", WITNESS),
        **OPTIONS,
    )
    op.create_table(
        GAP,
        sa.Column("witness_ref", sa.Integer, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("lost_from", sa.BigInteger, nullable=False),
        sa.Column("lost_until", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("witness_ref", "name", name=f"pk_{GAP}"),
        _refers(GAP, "witness_ref", WITNESS),
        **OPTIONS,
    )


def downgrade() -> None:
    for table in (GAP, COVERAGE, WITNESS):
        op.drop_table(table, if_exists=True)


def _refers(table: str, column: str, other: str) -> sa.ForeignKeyConstraint:
    name = f"fk_{table}_{column}"
    return sa.ForeignKeyConstraint([column], [f"{other}.id"], name=name, ondelete="CASCADE")
