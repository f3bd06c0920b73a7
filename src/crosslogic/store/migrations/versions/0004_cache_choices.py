"""What orgs and environments choose of the response cache."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TABLES = ("orgs", "environments")


def upgrade() -> None:
    """With a default, so that processes of the version before keep writing rows."""
    for table in TABLES:
        op.add_column(table, sa.Column("cache", DOCUMENT, nullable=False, server_default=sa.text("'{}'")))


def downgrade() -> None:
    for table in TABLES:
        op.drop_column(table, "cache")
