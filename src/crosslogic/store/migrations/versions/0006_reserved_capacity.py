"""Reserved capacity: reservations of capacity units, and reserves and allocations of resources."""

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "capacity_reservations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("region", sa.Text()),
        sa.Column("nodes", DOCUMENT, nullable=False),
        sa.Column("shared_fallback", sa.Boolean(), nullable=False),
        sa.Column("price_per_month_pusd", MONEY),
        sa.Column("cancelled_at", TIME),
        sa.Column("creation_ref", sa.Text()),
        sa.Column("creation_digest", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_capacity_reservations"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_capacity_reservations_org_id"),
        sa.UniqueConstraint("creation_ref", name="uq_capacity_reservations_creation_ref"),
    )
    op.create_index("ix_capacity_reservations_org_id", "capacity_reservations", ["org_id"])
    op.create_index("ix_capacity_reservations_expires_at", "capacity_reservations", ["expires_at"])
    op.create_table(
        "resource_reserves",
        sa.Column("id", sa.Text(), nullable=False),
        *_resources(),
        sa.Column("expires_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_resource_reserves"),
        sa.ForeignKeyConstraint(["id"], ["orgs.id"], name="fk_resource_reserves_id"),
    )
    op.create_table(
        "resource_allocations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        *_resources(),
        sa.Column("allocated_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_resource_allocations"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_resource_allocations_org_id"),
    )
    op.create_index("ix_resource_allocations_org_id", "resource_allocations", ["org_id"])
    op.create_index("ix_resource_allocations_expires_at", "resource_allocations", ["expires_at"])


def _resources() -> tuple["sa.Column[Any]", ...]:
    return (
        sa.Column("gpu_memory_mb", sa.BigInteger(), nullable=False),
        sa.Column("cpu_cores", sa.Float(53), nullable=False),
        sa.Column("concurrency", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    for table in ("resource_allocations", "resource_reserves", "capacity_reservations"):
        op.drop_table(table)
