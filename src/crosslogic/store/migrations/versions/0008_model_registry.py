"""The model registry: models, their deployments, and the rollouts from one to the next."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "registered_models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("card", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_registered_models"),
    )
    op.create_table(
        "deployments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("replicas", sa.Integer(), nullable=False),
        sa.Column("share", sa.Integer(), nullable=False),
        sa.Column("config", DOCUMENT, nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deployments"),
        sa.ForeignKeyConstraint(
            ["model_id"], ["registered_models.id"], name="fk_deployments_model_id_registered_models"
        ),
    )
    op.create_index("ix_deployments_model_id", "deployments", ["model_id"])
    op.create_table(
        "rollouts",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("model_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("old", sa.Text(), nullable=False),
        sa.Column("new", sa.Text(), nullable=False),
        sa.Column("step", sa.Integer(), nullable=False),
        sa.Column("step_since", TIME, nullable=False),
        sa.Column("rules", DOCUMENT, nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_rollouts"),
        sa.ForeignKeyConstraint(["model_id"], ["registered_models.id"], name="fk_rollouts_model_id_registered_models"),
        sa.ForeignKeyConstraint(["new"], ["deployments.id"], name="fk_rollouts_new_deployments"),
    )
    op.create_index("ix_rollouts_model_id", "rollouts", ["model_id"])
    op.add_column("nodes", sa.Column("deployment_id", sa.Text()))
    op.add_column("usage_records", sa.Column("failed_nodes", sa.Text()))
    if op.get_context().dialect.name == "sqlite":
        _guard_ledger_on_sqlite()


def _guard_ledger_on_sqlite() -> None:
    """PostgreSQL's trigger compares whole rows; SQLite's names the columns, so a new one needs a new trigger."""
    columns = [c["name"] for c in sa.inspect(op.get_bind()).get_columns("usage_records")]
    guarded = ", ".join(f'"{name}"' for name in columns if name != "billed")
    op.execute("DROP TRIGGER usage_records_immutable")
    op.execute(
        f"CREATE TRIGGER usage_records_immutable BEFORE UPDATE OF {guarded} ON usage_records "
        "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
    )


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TRIGGER usage_records_immutable")  # it names the column
    op.drop_column("usage_records", "failed_nodes")
    if op.get_context().dialect.name == "sqlite":
        op.execute(
            "CREATE TRIGGER usage_records_immutable BEFORE UPDATE ON usage_records "
            "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
        )
    op.drop_column("nodes", "deployment_id")
    for table in ("rollouts", "deployments", "registered_models"):
        op.drop_table(table)
