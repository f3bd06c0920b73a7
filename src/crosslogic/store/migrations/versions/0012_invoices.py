"""Invoices, their lines, credit notes, numbers, payments and notices; billing profiles of orgs."""

from collections.abc import Iterable

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)

# What of an issued invoice may change.
LATER = ("status", "paid_minor", "credited_minor", "paid_at", "overdue_at", "voided_at", "void_reason")
MOVES = ("draft>issued", "draft>void", "issued>paid", "issued>overdue", "issued>void", "overdue>paid", "overdue>void")
TABLES = (
    "billing_notices",
    "invoice_payments",
    "invoice_numbers",
    "credit_notes",
    "invoice_lines",
    "invoices",
    "billing_profiles",
)


def upgrade() -> None:
    _profiles()
    _invoices()
    _lines()
    _credit_notes()
    _around_invoices()
    guard = _guard_on_postgresql if op.get_context().dialect.name == "postgresql" else _guard_on_sqlite
    guard()


def _profiles() -> None:
    op.create_table(
        "billing_profiles",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("profile", DOCUMENT, nullable=False),
        sa.Column("updated_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("org_id", name="pk_billing_profiles"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_billing_profiles_org_id"),
    )


def _invoices() -> None:
    amounts = ("subtotal", "discount", "credit", "tax", "total", "prepaid")
    op.create_table(
        "invoices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("period_start", TIME, nullable=False),
        sa.Column("period_end", TIME, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False, server_default=sa.text("1")),
        sa.Column("root_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("series", sa.Text()),
        sa.Column("fiscal_year", sa.Text()),
        sa.Column("serial", sa.BigInteger()),
        sa.Column("number", sa.Text()),
        sa.Column("currency", sa.Text(), nullable=False),
        *(sa.Column(f"{amount}_minor", sa.BigInteger(), nullable=False) for amount in amounts),
        sa.Column("exact_amount", MONEY, nullable=False),
        sa.Column("rounding_amount", MONEY, nullable=False),
        sa.Column("line_count", sa.Integer(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("issued_at", TIME),
        sa.Column("due_at", TIME),
        sa.Column("grace_days", sa.Integer(), nullable=False, server_default=sa.text("0")),
        sa.Column("auto_charge", sa.Boolean(), nullable=False, server_default=sa.false()),
        sa.Column("document", sa.Text()),
        sa.Column("digest", sa.Text()),
        sa.Column("paid_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("credited_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")),
        sa.Column("paid_at", TIME),
        sa.Column("overdue_at", TIME),
        sa.Column("voided_at", TIME),
        sa.Column("void_reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_invoices"),
        sa.UniqueConstraint("number", name="uq_invoices_number"),
        sa.UniqueConstraint(
            "org_id",
            "kind",
            "period_start",
            "currency",
            "revision",
            name="uq_invoices_org_id_kind_period_start_currency_revision",
        ),
        sa.UniqueConstraint("series", "fiscal_year", "serial", name="uq_invoices_series_fiscal_year_serial"),
        sa.CheckConstraint("credited_minor >= 0 AND credited_minor <= total_minor", name="ck_invoices_credited"),
    )
    op.create_index("ix_invoices_org_id_period_end", "invoices", ["org_id", "period_end"])
    op.create_index("ix_invoices_root_id", "invoices", ["root_id"])
    op.create_index("ix_invoices_status_due_at", "invoices", ["status", "due_at"])


def _lines() -> None:
    op.create_table(
        "invoice_lines",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("model", sa.Text()),
        sa.Column("region", sa.Text()),
        sa.Column("quantity", DOCUMENT, nullable=False),
        sa.Column("details", DOCUMENT, nullable=False),
        sa.Column("exact_amount", MONEY, nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("invoice_id", "n", name="pk_invoice_lines"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name="fk_invoice_lines_invoice_id"),
    )


def _credit_notes() -> None:
    op.create_table(
        "credit_notes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("fiscal_year", sa.Text(), nullable=False),
        sa.Column("serial", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Text(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("net_minor", sa.BigInteger(), nullable=False),
        sa.Column("tax_minor", sa.BigInteger(), nullable=False),
        sa.Column("total_minor", sa.BigInteger(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("issued_at", TIME, nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_credit_notes"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name="fk_credit_notes_invoice_id"),
        sa.UniqueConstraint("number", name="uq_credit_notes_number"),
        sa.UniqueConstraint("series", "fiscal_year", "serial", name="uq_credit_notes_series_fiscal_year_serial"),
        sa.UniqueConstraint("invoice_id", "ref", name="uq_credit_notes_invoice_id_ref"),
    )
    op.create_index("ix_credit_notes_org_id_id", "credit_notes", ["org_id", "id"])


def _around_invoices() -> None:
    op.create_table(
        "invoice_numbers",
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("fiscal_year", sa.Text(), nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("series", "fiscal_year", name="pk_invoice_numbers"),
    )
    op.create_table(
        "invoice_payments",
        sa.Column("invoice_id", sa.Text(), nullable=False),
        sa.Column("payment_ref", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("recorded_at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("invoice_id", "payment_ref", name="pk_invoice_payments"),
        sa.ForeignKeyConstraint(["invoice_id"], ["invoices.id"], name="fk_invoice_payments_invoice_id"),
    )
    op.create_table(
        "billing_notices",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("entity_id", sa.Text(), nullable=False),
        sa.Column("step", sa.Text(), nullable=False, server_default=sa.text("''")),
        sa.Column("payload", DOCUMENT, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("sent_at", TIME),
        sa.PrimaryKeyConstraint("id", name="pk_billing_notices"),
        sa.UniqueConstraint("entity_id", "kind", "step", name="uq_billing_notices_entity_id_kind_step"),
    )
    op.create_index("ix_billing_notices_sent_at_id", "billing_notices", ["sent_at", "id"])


def _guard_on_postgresql() -> None:
    """Compares whole rows, so that columns added later are guarded as well."""
    later = " ".join(f"- '{name}'" for name in LATER)
    moves = ", ".join(f"'{move}'" for move in MOVES)
    op.execute(f"""
        CREATE FUNCTION invoices_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP <> 'UPDATE' THEN
                RAISE EXCEPTION 'invoices are immutable: they are never deleted';
            END IF;
            IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status) IN ({moves}) THEN
                RAISE EXCEPTION 'invoices are immutable: no move from % to %', OLD.status, NEW.status;
            END IF;
            IF OLD.status <> 'draft' AND to_jsonb(NEW) {later} <> to_jsonb(OLD) {later} THEN
                RAISE EXCEPTION 'invoices are immutable once they are issued';
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION invoice_lines_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'TRUNCATE' THEN
                RAISE EXCEPTION 'lines of issued invoices are immutable';
            END IF;
            IF TG_OP IN ('INSERT', 'UPDATE') AND
               (SELECT status FROM invoices WHERE id = NEW.invoice_id) IS DISTINCT FROM 'draft' THEN
                RAISE EXCEPTION 'lines of issued invoices are immutable';
            END IF;
            IF TG_OP IN ('UPDATE', 'DELETE') AND
               (SELECT status FROM invoices WHERE id = OLD.invoice_id) IS DISTINCT FROM 'draft' THEN
                RAISE EXCEPTION 'lines of issued invoices are immutable';
            END IF;
            IF TG_OP = 'DELETE' THEN
                RETURN OLD;
            END IF;
            RETURN NEW;
        END $$
    """)
    op.execute("""
        CREATE FUNCTION billing_documents_guard() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% are immutable', TG_TABLE_NAME;
        END $$
    """)
    guards = (
        ("invoices", "UPDATE OR DELETE", "invoices_guard"),
        ("invoice_lines", "INSERT OR UPDATE OR DELETE", "invoice_lines_guard"),
        ("credit_notes", "UPDATE OR DELETE", "billing_documents_guard"),
        ("invoice_payments", "UPDATE OR DELETE", "billing_documents_guard"),
    )
    for table, what, function in guards:
        op.execute(
            f"CREATE TRIGGER {table}_immutable BEFORE {what} ON {table} FOR EACH ROW EXECUTE FUNCTION {function}()"
        )
        op.execute(
            f"CREATE TRIGGER {table}_not_truncated BEFORE TRUNCATE ON {table} "
            f"FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
        )


def _guard_on_sqlite() -> None:
    """Names every column that is guarded: a migration that adds one re-creates the triggers (a test checks it)."""
    columns = [c["name"] for c in sa.inspect(op.get_bind()).get_columns("invoices")]
    guarded = ", ".join(f'"{name}"' for name in columns if name not in LATER)
    moves = ", ".join(f"'{move}'" for move in MOVES)
    _refuse("invoices_immutable", f"UPDATE OF {guarded} ON invoices WHEN OLD.status <> 'draft'", "invoices")
    _refuse("invoices_undeletable", "DELETE ON invoices", "invoices")
    _refuse(
        "invoices_moves",
        "UPDATE OF status ON invoices WHEN NEW.status <> OLD.status "
        f"AND (OLD.status || '>' || NEW.status) NOT IN ({moves})",
        "invoices",
    )
    for verb, rows in (("INSERT", ("NEW",)), ("UPDATE", ("OLD", "NEW")), ("DELETE", ("OLD",))):
        drafts = [f"(SELECT status FROM invoices WHERE id = {row}.invoice_id) IS NOT 'draft'" for row in rows]  # noqa: S608
        _refuse(f"invoice_lines_{verb.lower()}", f"{verb} ON invoice_lines WHEN {' OR '.join(drafts)}", "invoice lines")
    for table in ("credit_notes", "invoice_payments"):
        for verb in ("UPDATE", "DELETE"):
            _refuse(f"{table}_{verb.lower()}", f"{verb} ON {table}", table)


def _refuse(name: str, when: str, what: str) -> None:
    op.execute(f"CREATE TRIGGER {name} BEFORE {when} BEGIN SELECT RAISE(ABORT, '{what} are immutable'); END")


def downgrade() -> None:
    _drop(TABLES)
    if op.get_context().dialect.name == "postgresql":
        for function in ("invoices_guard", "invoice_lines_guard", "billing_documents_guard"):
            op.execute(f"DROP FUNCTION {function}()")


def _drop(tables: Iterable[str]) -> None:
    for table in tables:
        op.drop_table(table)
