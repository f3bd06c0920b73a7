"""Benchmarks by exact traffic, and scenarios of the planner."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)
FIGURES = (
    "ttft_p95",
    "itl_p95",
    "e2e_p95",
    "ttft_mean",
    "itl_mean",
    "e2e_mean",
    "requests_per_second",
    "offered_per_second",
    "concurrency",
    "mean_input_tokens",
    "mean_output_tokens",
)


def upgrade() -> None:
    op.create_table(
        "benchmarks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("model_hf_repo", sa.Text(), nullable=False),
        sa.Column("hardware", sa.Text(), nullable=False),
        sa.Column("hardware_count", sa.Integer(), nullable=False),
        sa.Column("precision", sa.Text(), nullable=False),
        sa.Column("backend", sa.Text(), nullable=False),
        sa.Column("backend_version", sa.Text()),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("output_tokens", sa.Integer(), nullable=False),
        *(sa.Column(name, sa.Float()) for name in FIGURES),
        sa.Column("requests", sa.Integer()),
        sa.Column("failed", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("measured_at", TIME),
        sa.Column("imported_at", TIME, nullable=False),
        sa.Column("stale", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.PrimaryKeyConstraint("id", name="pk_benchmarks"),
        sa.UniqueConstraint("digest", name="uq_benchmarks_digest"),
    )
    op.create_index(
        "ix_benchmarks_traffic",
        "benchmarks",
        ["model_hf_repo", "hardware", "hardware_count", "prompt_tokens", "output_tokens"],
    )
    op.create_table(
        "compass_scenarios",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("specification", DOCUMENT, nullable=False),
        sa.Column("changes", DOCUMENT, nullable=False),
        sa.Column("outcome", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_scenarios"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_compass_scenarios_org_id"),
        sa.UniqueConstraint("org_id", "owner", "name", name="uq_compass_scenarios_org_id_owner_name"),
    )


def downgrade() -> None:
    op.drop_table("compass_scenarios")
    op.drop_table("benchmarks")
