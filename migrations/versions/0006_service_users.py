"""Add the service users of an installation, for all types of resources or for some."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

TABLE = "related_installation"
COLUMN = "service_users"


def upgrade() -> None:
    if COLUMN not in {column["name"] for column in sa.inspect(op.get_bind()).get_columns(TABLE)}:
        op.add_column(TABLE, sa.Column(COLUMN, sa.Text))


def downgrade() -> None:
    """Drop the column; the previous version knows one service user, for all types."""
    op.drop_column(TABLE, COLUMN)
