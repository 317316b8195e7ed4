"""Create the indexes for the image list by relation without an instance.

PostgreSQL records no relation while it builds an index. An operator can build both indexes before
the upgrade with ``CREATE INDEX CONCURRENTLY``, which cannot be a part of it: it would wait for a
concurrent upgrade that waits for this one.
"""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit

revision = "0011"
down_revision = "0010"

TABLE = "related_relation"
INDEXES = (("kind", "image_ref"), ("project_ref", "kind", "image_ref"))


def upgrade() -> None:
    _drop_unfinished()
    known = {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(TABLE)}
    for columns in INDEXES:
        if _name(columns) not in known:
            op.create_index(_name(columns), TABLE, [*columns])
            commit()


def downgrade() -> None:
    for columns in INDEXES:
        op.drop_index(_name(columns), TABLE, if_exists=True)


def _drop_unfinished() -> None:
    """Drop those of the indexes whose concurrent build was interrupted on PostgreSQL."""
    bind = op.get_bind()
    if bind.dialect.name != "postgresql":
        return
    unfinished = sa.text(
        "SELECT relname FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
        "WHERE indrelid = to_regclass(:table) AND NOT indisvalid"
    )
    names = bind.execute(unfinished, {"table": TABLE}).scalars().all()
    for name in {_name(columns) for columns in INDEXES}.intersection(names):
        op.drop_index(name, TABLE)


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_{TABLE}_{'_'.join(columns)}"
