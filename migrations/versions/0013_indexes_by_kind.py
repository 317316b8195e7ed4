"""Replace the condition of the partial indexes by kind on SQLite.

The condition ``kind > 0``, which an earlier form of revision 0011 used, is also a range of these
indexes. SQLite preferred this range to the kind and the image, and read all relations of a project.
"""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit

revision = "0013"
down_revision = "0012"

TABLE = "related_relation"
FORMER = "kind > 0"
CONDITION = "kind + 0 > 0"
INDEXES = (("kind", "image_ref"), ("project_ref", "kind", "image_ref"))


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    for columns in INDEXES:
        name = f"ix_{TABLE}_{'_'.join(columns)}"
        if _definition(name).endswith(FORMER):
            op.drop_index(name, TABLE)
            op.create_index(name, TABLE, [*columns], sqlite_where=sa.text(CONDITION))
            commit()


def downgrade() -> None:
    """Leave the indexes: the filter of revision 0012 works with them too."""


def _definition(index: str) -> str:
    find = sa.text("SELECT sql FROM sqlite_master WHERE type = 'index' AND name = :name")
    return str(op.get_bind().execute(find, {"name": index}).scalar())
