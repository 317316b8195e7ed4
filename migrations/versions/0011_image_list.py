"""Create the indexes for the image list by relation without an instance.

On SQLite they are partial, so that it uses them only for queries with their condition: it does not
know how many relations have a kind. On PostgreSQL they are built concurrently: filters record
relations meanwhile. MariaDB does that by itself.
"""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit

revision = "0011"
down_revision = "0010"

TABLE = "related_relation"
CONDITION = "kind + 0 > 0"
INDEXES = (("kind", "image_ref"), ("project_ref", "kind", "image_ref"))


def upgrade() -> None:
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(TABLE)}
    for columns in INDEXES:
        if op.get_bind().dialect.name == "postgresql":
            _build_concurrently(columns)
        elif _name(columns) not in known:
            op.create_index(_name(columns), TABLE, [*columns], sqlite_where=sa.text(CONDITION))
            commit()


def downgrade() -> None:
    for columns in INDEXES:
        op.drop_index(_name(columns), TABLE, if_exists=True)


def _build_concurrently(columns: tuple[str, ...]) -> None:
    """Build an index on PostgreSQL, after removing one whose build was interrupted."""
    name, bind = _name(columns), op.get_bind()
    is_valid = sa.text("SELECT indisvalid FROM pg_index WHERE indexrelid = to_regclass(:name)")
    found = bind.execute(is_valid, {"name": name}).scalar()
    # a build waits for transactions that use the table, and cannot be a part of one
    commit()
    if found:
        return
    with bind.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if found is not None:
            connection.execute(sa.text(f"DROP INDEX CONCURRENTLY {name}"))
        listed = ", ".join(columns)
        connection.execute(sa.text(f"CREATE INDEX CONCURRENTLY {name} ON {TABLE} ({listed})"))


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_{TABLE}_{'_'.join(columns)}"
