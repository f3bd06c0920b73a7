"""Deployments that were planned, their revisions and outcomes, and what outcomes taught."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "compass_deployments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("applied_revision", sa.Integer()),
        sa.Column("message", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_deployments"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_compass_deployments_org_id"),
        sa.UniqueConstraint("org_id", "name", name="uq_compass_deployments_org_id_name"),
    )
    op.create_table(
        "compass_revisions",
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("plan", DOCUMENT, nullable=False),
        sa.Column("surroundings", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("applied_at", TIME),
        sa.PrimaryKeyConstraint("deployment_id", "revision", name="pk_compass_revisions"),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["compass_deployments.id"], name="fk_compass_revisions_deployment_id"
        ),
    )
    op.create_table(
        "compass_outcomes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.Text(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("window_start", TIME, nullable=False),
        sa.Column("window_end", TIME, nullable=False),
        sa.Column("judged", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_outcomes"),
        sa.ForeignKeyConstraint(
            ["deployment_id"], ["compass_deployments.id"], name="fk_compass_outcomes_deployment_id"
        ),
        sa.UniqueConstraint("deployment_id", "window_start", name="uq_compass_outcomes_deployment_id_window_start"),
    )
    op.create_table(
        "compass_biases",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("configuration", sa.Text(), nullable=False),
        sa.Column("bias", DOCUMENT, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("org_id", "configuration", name="pk_compass_biases"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_compass_biases_org_id"),
    )


def downgrade() -> None:
    for table in ("compass_biases", "compass_outcomes", "compass_revisions", "compass_deployments"):
        op.drop_table(table)
