"""The planner: conversations, specifications with their history, imported models and prices."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "compass_conversations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("specification_id", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_conversations"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_compass_conversations_org_id"),
    )
    op.create_index("ix_compass_conversations_org_id_id", "compass_conversations", ["org_id", "id"])
    op.create_table(
        "compass_turns",
        sa.Column("conversation_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("role", sa.Text(), nullable=False),
        sa.Column("content", sa.Text(), nullable=False),
        sa.Column("asked", sa.Text()),
        sa.Column("extractor", sa.Text()),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("conversation_id", "number", name="pk_compass_turns"),
        sa.ForeignKeyConstraint(
            ["conversation_id"], ["compass_conversations.id"], name="fk_compass_turns_conversation_id"
        ),
    )
    op.create_table(
        "compass_specifications",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("specification", DOCUMENT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_compass_specifications"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_compass_specifications_org_id"),
    )
    op.create_index("ix_compass_specifications_org_id_id", "compass_specifications", ["org_id", "id"])
    op.create_table(
        "compass_specification_revisions",
        sa.Column("specification_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("changes", DOCUMENT, nullable=False),
        sa.Column("specification", DOCUMENT, nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("specification_id", "revision", name="pk_compass_specification_revisions"),
        sa.ForeignKeyConstraint(
            ["specification_id"],
            ["compass_specifications.id"],
            name="fk_compass_specification_revisions_specification_id",
        ),
    )
    op.create_table(
        "catalog_models",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("card", DOCUMENT, nullable=False),
        sa.Column("imported_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_catalog_models"),
    )
    op.create_table(
        "catalog_prices",
        sa.Column("cloud", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("zone", sa.Text(), nullable=False),
        sa.Column("instance_type", sa.Text(), nullable=False),
        sa.Column("gpu", sa.Text(), nullable=False),
        sa.Column("gpu_count", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column("market", sa.Text(), nullable=False),
        sa.Column("per_hour_pusd", sa.BigInteger(), nullable=False),
        sa.Column("as_of", sa.Date()),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("doubts", DOCUMENT, nullable=False),
        sa.Column("imported_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint(
            "cloud", "region", "zone", "instance_type", "gpu", "gpu_count", "market", name="pk_catalog_prices"
        ),
    )


def downgrade() -> None:
    for table in (
        "catalog_prices",
        "catalog_models",
        "compass_specification_revisions",
        "compass_specifications",
        "compass_turns",
        "compass_conversations",
    ):
        op.drop_table(table)
