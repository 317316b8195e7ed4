"""Create the indexes for the image list by relation without an instance."""

import sqlalchemy as sa
from alembic import op
from related_images.migrations.ranges import commit

revision = "0008"
down_revision = "0007"

TABLE = "related_relation"
INDEXES = (("kind", "image_ref"), ("project_ref", "kind", "image_ref"))


def upgrade() -> None:
    known = _known()
    for columns in INDEXES:
        if _name(columns) not in known:
            op.create_index(_name(columns), TABLE, [*columns])
            commit()


def downgrade() -> None:
    known = _known()
    for columns in INDEXES:
        if _name(columns) in known:
            op.drop_index(_name(columns), TABLE)


def _known() -> set[str | None]:
    return {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(TABLE)}


def _name(columns: tuple[str, ...]) -> str:
    return f"ix_{TABLE}_{'_'.join(columns)}"
