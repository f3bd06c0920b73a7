"""Prices with dates, what usage costs by them, and credits."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)
TABLES = (
    "billing_accounts",
    "exchange_rates",
    "price_versions",
    "credit_draws",
    "credit_grants",
    "fees",
    "rating_terms",
    "charge_cursors",
    "charges",
)
# Rows that are only ever added, and the columns of theirs that are set once.
SET_ONCE = {
    "charges": ("invoice_id",),
    "fees": ("invoice_id",),
    "credit_draws": (),
    "rating_terms": (),
    "exchange_rates": (),
    "credit_grants": ("voided_at", "void_seq"),
}


def upgrade() -> None:
    _charges()
    _credits()
    _prices()
    guard = _guard_on_postgresql if op.get_context().dialect.name == "postgresql" else _guard_on_sqlite
    for table, columns in SET_ONCE.items():
        guard(table, columns)


def _charges() -> None:
    op.create_table(
        "charges",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("env_id", sa.Text(), nullable=False),
        sa.Column("key_id", sa.Text(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("model", sa.Text(), nullable=False),
        sa.Column("region", sa.Text(), nullable=False),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cached_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("list_amount", MONEY, nullable=False),
        sa.Column("discount_amount", MONEY, nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("price_version", sa.Text()),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text()),
        sa.PrimaryKeyConstraint("org_id", "seq", name="pk_charges"),
        sa.UniqueConstraint("request_id", "n", name="uq_charges_request_id_n"),
    )
    op.create_index("ix_charges_org_id_at", "charges", ["org_id", "at"])
    op.create_index("ix_charges_org_id_invoice_id", "charges", ["org_id", "invoice_id"])
    op.create_table(
        "charge_cursors",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_charge_cursors"),
    )
    op.create_table(
        "rating_terms",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("org_id", "from_seq", name="pk_rating_terms"),
    )
    op.create_table(
        "fees",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("reference", sa.Text(), nullable=False),
        sa.Column("month", sa.Text(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_fees"),
        sa.UniqueConstraint("org_id", "kind", "reference", "month", name="uq_fees_org_id_kind_reference_month"),
    )
    op.create_index("ix_fees_org_id_invoice_id", "fees", ["org_id", "invoice_id"])


def _credits() -> None:
    op.create_table(
        "credit_grants",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("credit_class", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("starts_at", TIME, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME),
        sa.Column("voided_at", TIME),
        sa.Column("source_ref", sa.Text()),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("void_seq", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_credit_grants"),
        sa.UniqueConstraint("org_id", "source_ref", name="uq_credit_grants_org_id_source_ref"),
    )
    op.create_index("ix_credit_grants_org_id_id", "credit_grants", ["org_id", "id"])
    op.create_table(
        "credit_draws",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("grant_id", sa.Text(), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("org_id", "seq", "grant_id", name="pk_credit_draws"),
    )
    op.create_index("ix_credit_draws_grant_id", "credit_draws", ["grant_id"])


def _prices() -> None:
    op.create_table(
        "price_versions",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("published_at", TIME),
        sa.Column("effective_from", TIME),
        sa.Column("retired_from", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_price_versions"),
    )
    op.create_index("ix_price_versions_org_id_effective_from", "price_versions", ["org_id", "effective_from"])
    op.create_table(
        "exchange_rates",
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("effective_from", TIME, nullable=False),
        sa.Column("rate", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("currency", "effective_from", name="pk_exchange_rates"),
    )
    op.create_table(
        "billing_accounts",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("prepaid", sa.Boolean(), nullable=False),
        sa.Column("bill_overage", sa.Boolean(), nullable=False),
        sa.Column("free_tokens_per_month", sa.BigInteger()),
        sa.Column("commitment", sa.Text()),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_billing_accounts"),
    )


def _guard_on_postgresql(table: str, set_once: tuple[str, ...]) -> None:
    """Whole rows are compared, so that columns added later are guarded as well."""
    free = "".join(f" - '{column}'" for column in set_once)
    unset = " AND ".join(f"(OLD.{c} IS NULL OR NEW.{c} = OLD.{c})" for c in set_once)
    allowed = f"TG_OP = 'UPDATE' AND to_jsonb(NEW){free} = to_jsonb(OLD){free} AND {unset}" if set_once else "false"
    op.execute(f"""
        CREATE FUNCTION {table}_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {allowed} THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION '{table} are immutable';
        END $$
    """)
    op.execute(
        f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OR DELETE ON {table} "
        f"FOR EACH ROW EXECUTE FUNCTION {table}_guard()"
    )
    op.execute(
        f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} "
        f"FOR EACH STATEMENT EXECUTE FUNCTION {table}_guard()"
    )


def _guard_on_sqlite(table: str, set_once: tuple[str, ...]) -> None:
    """Names every column that is not set once: a migration that adds one re-creates the trigger."""
    columns = [column["name"] for column in sa.inspect(op.get_bind()).get_columns(table)]
    guarded = ", ".join(f'"{name}"' for name in columns if name not in set_once)
    refuse = f"BEGIN SELECT RAISE(ABORT, '{table} are immutable'); END"
    op.execute(f"CREATE TRIGGER {table}_immutable BEFORE UPDATE OF {guarded} ON {table} {refuse}")
    op.execute(f"CREATE TRIGGER {table}_undeletable BEFORE DELETE ON {table} {refuse}")
    for column in set_once:
        op.execute(
            f"CREATE TRIGGER {table}_{column}_once BEFORE UPDATE OF {column} ON {table} "
            f"WHEN OLD.{column} IS NOT NULL AND NEW.{column} IS NOT OLD.{column} {refuse}"
        )


def downgrade() -> None:
    for table in TABLES:
        op.drop_table(table)
    if op.get_context().dialect.name == "postgresql":
        for table in SET_ONCE:
            op.execute(f"DROP FUNCTION {table}_guard()")
