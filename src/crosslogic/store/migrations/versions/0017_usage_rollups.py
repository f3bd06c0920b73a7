"""The ledger summed by hour and day."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
GROUP = ("env_id", "key_id", "model", "region", "endpoint", "outcome")
COUNTS = ("requests", "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens")


def upgrade() -> None:
    for table in ("usage_hourly", "usage_daily"):
        op.create_table(
            table,
            sa.Column("org_id", sa.Text(), nullable=False),
            sa.Column("at", sa.DateTime(timezone=True), nullable=False),
            *(sa.Column(name, sa.Text(), nullable=False) for name in GROUP),
            *(sa.Column(name, sa.BigInteger(), nullable=False) for name in COUNTS),
            sa.Column("cost_pusd", MONEY, nullable=False),
            sa.PrimaryKeyConstraint("org_id", "at", *GROUP, name=f"pk_{table}"),
        )
    op.create_table(
        "usage_rollups",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_usage_rollups"),
    )


def downgrade() -> None:
    for table in ("usage_rollups", "usage_daily", "usage_hourly"):
        op.drop_table(table)
