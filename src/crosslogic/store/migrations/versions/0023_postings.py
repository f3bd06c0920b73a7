"""Double entry: transactions and their postings, which the database itself holds to zero."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "posting_transactions",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("ref", name="pk_posting_transactions"),
    )
    op.create_index("ix_posting_transactions_org_id_at", "posting_transactions", ["org_id", "at"])
    op.create_table(
        "postings",
        sa.Column("transaction_ref", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.ForeignKeyConstraint(
            ["transaction_ref"],
            ["posting_transactions.ref"],
            name="fk_postings_transaction_ref",
            deferrable=True,
            initially="DEFERRED",
        ),
        sa.PrimaryKeyConstraint("transaction_ref", "n", name="pk_postings"),
    )
    guard = _guard_on_postgresql if op.get_context().dialect.name == "postgresql" else _guard_on_sqlite
    guard()


def _guard_on_postgresql() -> None:
    op.execute("""
        CREATE FUNCTION postings_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% are immutable', TG_TABLE_NAME;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION postings_balance() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF (SELECT sum(amount) FROM postings WHERE transaction_ref = NEW.transaction_ref) <> 0 THEN
                RAISE EXCEPTION 'the postings of % do not sum to zero', NEW.transaction_ref;
            END IF;
            RETURN NULL;
        END $$
    """)
    op.execute(
        "CREATE CONSTRAINT TRIGGER postings_sum_to_zero AFTER INSERT ON postings DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION postings_balance()"
    )
    for table in ("postings", "posting_transactions"):
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
            "FOR EACH ROW EXECUTE FUNCTION postings_refuse()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION postings_refuse()"
        )


def _guard_on_sqlite() -> None:
    """SQLite defers no triggers: the transaction is written after its postings, looks at them, and ends them."""
    op.execute(
        "CREATE TRIGGER posting_transactions_sum_to_zero BEFORE INSERT ON posting_transactions "
        "WHEN (SELECT exact_sum(amount) FROM postings WHERE transaction_ref = NEW.ref) IS NOT '0' "
        "BEGIN SELECT RAISE(ABORT, 'the postings do not sum to zero'); END"
    )
    op.execute(
        "CREATE TRIGGER postings_complete BEFORE INSERT ON postings "
        "WHEN EXISTS (SELECT 1 FROM posting_transactions WHERE ref = NEW.transaction_ref) "
        "BEGIN SELECT RAISE(ABORT, 'the postings do not sum to zero'); END"
    )
    for table in ("postings", "posting_transactions"):
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
            )


def downgrade() -> None:
    op.drop_table("postings")
    op.drop_table("posting_transactions")
    if op.get_context().dialect.name == "postgresql":
        op.execute("DROP FUNCTION postings_balance()")
        op.execute("DROP FUNCTION postings_refuse()")
