"""Notices: channels, what was raised, and what became of each delivery; and what nodes cost by the hour."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "notification_channels",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text()),
        sa.Column("notices", DOCUMENT, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notification_channels"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_notification_channels_org_id"),
    )
    op.create_index("ix_notification_channels_org_id", "notification_channels", ["org_id"])
    op.create_table(
        "notices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("once", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("facts", DOCUMENT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.UniqueConstraint("once", name="uq_notices_once"),
    )
    op.create_index("ix_notices_org_id_id", "notices", ["org_id", "id"])
    op.create_table(
        "notice_deliveries",
        sa.Column("notice_id", sa.Text(), nullable=False),
        sa.Column("channel_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("due_at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.Column("problem", sa.Text()),
        sa.PrimaryKeyConstraint("notice_id", "channel_id", name="pk_notice_deliveries"),
        sa.ForeignKeyConstraint(["notice_id"], ["notices.id"], name="fk_notice_deliveries_notice_id"),
        sa.ForeignKeyConstraint(["channel_id"], ["notification_channels.id"], name="fk_notice_deliveries_channel_id"),
    )
    op.create_index("ix_notice_deliveries_status_due_at", "notice_deliveries", ["status", "due_at"])
    op.create_table(
        "node_clocks",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("counted_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_clocks"),
    )
    op.create_table(
        "node_hours",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("up_s", sa.Float(53), nullable=False),
        sa.Column("usd_per_hour", sa.Float(53)),
        sa.Column("spot", sa.Boolean(), nullable=False),
        sa.Column("gpu_type", sa.Text()),
        sa.Column("gpu_count", sa.Integer(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("node_id", "hour", name="pk_node_hours"),
    )
    op.create_index("ix_node_hours_hour", "node_hours", ["hour"])
    op.create_table(
        "node_margins",
        sa.Column("hour", TIME, nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("spot", sa.Boolean(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("revenue_pusd", MONEY, nullable=False),
        sa.Column("cost_pusd", MONEY, nullable=False),
        sa.Column("gpu_s", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("hour", "node_id", "org_id", "model", name="pk_node_margins"),
    )


def downgrade() -> None:
    for table in ("node_margins", "node_hours", "node_clocks"):
        op.drop_table(table)
    op.drop_table("notice_deliveries")
    op.drop_table("notices")
    op.drop_table("notification_channels")
