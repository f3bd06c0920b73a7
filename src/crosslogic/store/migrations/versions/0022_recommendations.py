"""What was recommended for each revision of a specification; windows of deployments that are out of their forecast."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    op.create_table(
        "compass_recommendations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("specification_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("best", sa.Text()),
        sa.Column("per_month_pusd", sa.BigInteger()),
        sa.Column("outcome", DOCUMENT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_recommendations"),
        sa.ForeignKeyConstraint(
            ["specification_id"], ["compass_specifications.id"], name="fk_compass_recommendations_specification_id"
        ),
    )
    op.create_index(
        "ix_compass_recommendations_specification_id_id", "compass_recommendations", ["specification_id", "id"]
    )
    op.add_column("compass_outcomes", sa.Column("drift", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("compass_outcomes", "drift")
    op.drop_table("compass_recommendations")
