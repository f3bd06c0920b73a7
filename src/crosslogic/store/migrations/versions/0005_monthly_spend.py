"""What each key spent in each month, kept by the ledger itself; what happens at a spending cap; where one was met."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
CAPPED = ("orgs", "environments")


def upgrade() -> None:
    op.create_table(
        "monthly_spend",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("env_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("cost_pusd", MONEY, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("month", "org_id", "env_id", "key_id", name="pk_monthly_spend"),
    )
    op.create_table(
        "cap_hits",
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("layer", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("month", "layer", "entity_id", name="pk_cap_hits"),
    )
    for table in CAPPED:
        op.add_column(table, sa.Column("at_cap", sa.Text(), nullable=False, server_default=sa.text("'reject'")))
    sums = _sums_on_postgresql if op.get_context().dialect.name == "postgresql" else _sums_on_sqlite
    sums()


def _sums_on_postgresql() -> None:
    """Once for each statement: only rows that were really added are in `added`. Sorted, so that two writers wait for
    each other in turn instead of both ways."""
    op.execute("""
        CREATE FUNCTION usage_records_sums() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO monthly_spend AS known (month, org_id, env_id, key_id, cost_pusd, tokens)
            SELECT to_char("timestamp" AT TIME ZONE 'UTC', 'YYYY-MM') AS month, org_id, env_id, key_id,
                   sum(cost_pusd), sum(CASE WHEN evidence = 'cached' THEN 0 ELSE total_tokens END)
            FROM added GROUP BY 1, 2, 3, 4 ORDER BY 1, 2, 3, 4
            ON CONFLICT (month, org_id, env_id, key_id) DO UPDATE
            SET cost_pusd = known.cost_pusd + excluded.cost_pusd, tokens = known.tokens + excluded.tokens;
            RETURN NULL;
        END $$
    """)
    op.execute("LOCK TABLE usage_records IN SHARE ROW EXCLUSIVE MODE")  # what is written now waits for the trigger
    op.execute("""
        INSERT INTO monthly_spend (month, org_id, env_id, key_id, cost_pusd, tokens)
        SELECT to_char("timestamp" AT TIME ZONE 'UTC', 'YYYY-MM'), org_id, env_id, key_id,
               sum(cost_pusd), sum(CASE WHEN evidence = 'cached' THEN 0 ELSE total_tokens END)
        FROM usage_records GROUP BY 1, 2, 3, 4
    """)
    op.execute(
        "CREATE TRIGGER usage_records_summed AFTER INSERT ON usage_records REFERENCING NEW TABLE AS added "
        "FOR EACH STATEMENT EXECUTE FUNCTION usage_records_sums()"
    )


def _sums_on_sqlite() -> None:
    """Its integers end at 9.2 million dollars: a month's sum stops a little below, where no cap can be."""
    op.execute(_add_on_sqlite("", "FROM usage_records WHERE true"))
    op.execute(
        "CREATE TRIGGER usage_records_summed AFTER INSERT ON usage_records "
        f"BEGIN {_add_on_sqlite('NEW.', 'WHERE true')}; END"
    )


def _add_on_sqlite(row: str, source: str) -> str:
    most = 9_000_000_000_000_000_000
    return f"""
        INSERT INTO monthly_spend (month, org_id, env_id, key_id, cost_pusd, tokens)
        SELECT substr({row}timestamp, 1, 7), {row}org_id, {row}env_id, {row}key_id,
               MIN({most}, CAST({row}cost_pusd AS INTEGER)),
               CASE WHEN {row}evidence = 'cached' THEN 0 ELSE {row}total_tokens END
        {source}
        ON CONFLICT (month, org_id, env_id, key_id) DO UPDATE SET
        cost_pusd = MIN({most}, CAST(monthly_spend.cost_pusd AS INTEGER) + CAST(excluded.cost_pusd AS INTEGER)),
        tokens = tokens + excluded.tokens
    """


def downgrade() -> None:
    op.execute(
        "DROP TRIGGER usage_records_summed"
        + (" ON usage_records" if op.get_context().dialect.name == "postgresql" else "")
    )
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION usage_records_sums()")
    for table in ("cap_hits", "monthly_spend"):
        op.drop_table(table)
    for table in CAPPED:
        op.drop_column(table, "at_cap")
