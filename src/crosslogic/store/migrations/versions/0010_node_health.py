"""Since when a node drains, how well it is, and what is remembered to judge that."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    # Both may be left out by processes of the version before, which keep writing rows.
    op.add_column("nodes", sa.Column("draining_since", TIME))
    op.add_column("nodes", sa.Column("health", DOCUMENT, nullable=False, server_default=sa.text("'{}'")))
    op.create_table(
        "node_health",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("history", DOCUMENT, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_health"),
    )


def downgrade() -> None:
    op.drop_table("node_health")
    op.drop_column("nodes", "health")
    op.drop_column("nodes", "draining_since")
