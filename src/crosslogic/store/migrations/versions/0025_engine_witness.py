"""What engines say that they generated: their counters as they stood last, and their growth by hour."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "engine_counters",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("generated_tokens", sa.BigInteger(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_engine_counters"),
    )
    op.create_table(
        "node_witness",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("generated_tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "hour", name="pk_node_witness"),
    )


def downgrade() -> None:
    op.drop_table("node_witness")
    op.drop_table("engine_counters")
