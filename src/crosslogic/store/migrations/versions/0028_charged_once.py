"""The idempotency key that a request ran under, and which other request is charged for it."""

import sqlalchemy as sa
from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

KEYED = sa.text("once IS NOT NULL")


def upgrade() -> None:
    op.add_column("usage_records", sa.Column("once", sa.Text()))
    op.add_column("usage_records", sa.Column("repeat_of", sa.Text()))
    op.create_index("ix_usage_records_once", "usage_records", ["once"], postgresql_where=KEYED, sqlite_where=KEYED)


def downgrade() -> None:
    """Logs with such rows do not verify any more."""
    op.drop_index("ix_usage_records_once", "usage_records")
    op.drop_column("usage_records", "repeat_of")
    op.drop_column("usage_records", "once")
