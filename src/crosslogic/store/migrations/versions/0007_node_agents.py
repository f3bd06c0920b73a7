"""Join tokens and certificates of nodes, and what their agents report."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "node_join_tokens",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("used_at", TIME),
        sa.Column("used_by", sa.Text()),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_node_join_tokens"),
        sa.UniqueConstraint("token_hash", name="uq_node_join_tokens_token_hash"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_node_join_tokens_org_id_orgs"),
    )
    op.create_table(
        "node_certificates",
        sa.Column("serial", sa.Text(), nullable=False),
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("revoked_at", TIME),
        sa.PrimaryKeyConstraint("serial", name="pk_node_certificates"),
    )
    op.create_index("ix_node_certificates_node_id", "node_certificates", ["node_id"])
    op.create_table(
        "node_agents",
        sa.Column("node_id", sa.Text(), nullable=False),
        sa.Column("report", DOCUMENT, nullable=False),
        sa.Column("wanted_version", sa.Text()),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("node_id", name="pk_node_agents"),
    )


def downgrade() -> None:
    for table in ("node_agents", "node_certificates", "node_join_tokens"):
        op.drop_table(table)
