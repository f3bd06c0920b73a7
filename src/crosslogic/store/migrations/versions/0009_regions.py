"""Who may not leave a region, and which requests did."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Each has a default or may be null, so that processes of the version before keep writing rows.
    for table in ("orgs", "environments"):
        op.add_column(table, sa.Column("data_residency", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("usage_records", sa.Column("region_asked", sa.Text()))
    op.add_column("usage_records", sa.Column("failover", sa.Boolean(), nullable=False, server_default=sa.false()))
    _guard_ledger()


def downgrade() -> None:
    if op.get_context().dialect.name == "sqlite":
        op.execute("DROP TRIGGER usage_records_immutable")
    for column in ("failover", "region_asked"):
        op.drop_column("usage_records", column)
    _guard_ledger()
    for table in ("environments", "orgs"):
        op.drop_column(table, "data_residency")


def _guard_ledger() -> None:
    """On SQLite the trigger names its columns; PostgreSQL's compares whole rows."""
    if op.get_context().dialect.name != "sqlite":
        return
    op.execute("DROP TRIGGER IF EXISTS usage_records_immutable")
    columns = [column["name"] for column in sa.inspect(op.get_bind()).get_columns("usage_records")]
    guarded = ", ".join(f'"{name}"' for name in columns if name != "billed")
    op.execute(
        f"CREATE TRIGGER usage_records_immutable BEFORE UPDATE OF {guarded} ON usage_records "
        "BEGIN SELECT RAISE(ABORT, 'usage records are immutable'); END"
    )
