"""Chargebacks; credits taken back for refunds; invoices that are owed again; why an org was suspended."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None

MONEY = sa.Numeric(38, 0).with_variant(sa.Text(), "sqlite")
TIME = sa.DateTime(timezone=True)

# What of an issued invoice may change, and where its status may go.
OLD_LATER = ("status", "paid_minor", "credited_minor", "paid_at", "overdue_at", "voided_at", "void_reason")
LATER = (*OLD_LATER, "reopened_at")
OLD_MOVES = (
    "draft>issued", "draft>void", "issued>paid", "issued>overdue", "issued>void", "overdue>paid", "overdue>void",
)  # fmt: skip
MOVES = (*OLD_MOVES, "paid>disputed", "paid>issued", "disputed>paid", "disputed>issued")
OLD_STANDING, STANDING = "status <> 'failed'", "status <> 'failed' AND NOT charged_back"


def upgrade() -> None:
    _chargebacks()
    op.create_table(
        "credit_returns",
        sa.Column("ref", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("source_ref", sa.Text(), nullable=False),
        sa.Column("owner_ref", sa.Text(), nullable=False),
        sa.Column("amount", MONEY, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.PrimaryKeyConstraint("ref", name="pk_credit_returns"),
    )
    op.create_index("ix_credit_returns_source_ref", "credit_returns", ["source_ref"])
    op.create_index("ix_credit_returns_owner_ref", "credit_returns", ["owner_ref"])
    op.add_column("payments", sa.Column("disputed_minor", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
    op.add_column("payments", sa.Column("charged_back", sa.Boolean(), nullable=False, server_default=sa.false()))
    _standing(STANDING)
    op.add_column("invoices", sa.Column("reopened_at", TIME))
    op.add_column("orgs", sa.Column("suspended_for", sa.Text()))
    _guard_invoices(LATER, MOVES)


def _chargebacks() -> None:
    op.create_table(
        "chargebacks",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text()),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("withdrawn_minor", sa.BigInteger(), nullable=False),
        sa.Column("lost_minor", sa.BigInteger(), nullable=False),
        sa.Column("respond_by", TIME),
        sa.Column("opened_at", TIME, nullable=False),
        sa.Column("closed_at", TIME),
        sa.Column("updated_at", TIME, nullable=False),
        sa.Column("next_look_at", TIME),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.CheckConstraint("lost_minor >= 0 AND lost_minor <= withdrawn_minor", name="ck_chargebacks_lost"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_chargebacks_org_id"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_chargebacks_payment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_chargebacks"),
        sa.UniqueConstraint("provider", "provider_ref", name="uq_chargebacks_provider_provider_ref"),
    )
    op.create_index("ix_chargebacks_org_id_id", "chargebacks", ["org_id", "id"])
    op.create_index("ix_chargebacks_payment_id", "chargebacks", ["payment_id"])
    op.create_index("ix_chargebacks_next_look_at", "chargebacks", ["next_look_at"])


def _standing(where: str) -> None:
    op.drop_index("uq_payments_standing", "payments")
    op.create_index(
        "uq_payments_standing",
        "payments",
        ["invoice_id"],
        unique=True,
        postgresql_where=sa.text(where),
        sqlite_where=sa.text(where),
    )


def _guard_invoices(later: tuple[str, ...], moves: tuple[str, ...]) -> None:
    listed = ", ".join(f"'{move}'" for move in moves)
    if op.get_context().dialect.name == "postgresql":
        free = " ".join(f"- '{name}'" for name in later)
        op.execute(f"""
            CREATE OR REPLACE FUNCTION invoices_guard() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
                IF TG_OP <> 'UPDATE' THEN
                    RAISE EXCEPTION 'invoices are immutable: they are never deleted';
                END IF;
                IF NEW.status <> OLD.status AND NOT (OLD.status || '>' || NEW.status) IN ({listed}) THEN
                    RAISE EXCEPTION 'invoices are immutable: no move from % to %', OLD.status, NEW.status;
                END IF;
                IF OLD.status <> 'draft' AND to_jsonb(NEW) {free} <> to_jsonb(OLD) {free} THEN
                    RAISE EXCEPTION 'invoices are immutable once they are issued';
                END IF;
                RETURN NEW;
            END $$
        """)
        return
    op.execute("DROP TRIGGER invoices_moves")
    op.execute(
        "CREATE TRIGGER invoices_moves BEFORE UPDATE OF status ON invoices WHEN NEW.status <> OLD.status "
        f"AND (OLD.status || '>' || NEW.status) NOT IN ({listed}) "
        "BEGIN SELECT RAISE(ABORT, 'invoices are immutable'); END"
    )


def downgrade() -> None:
    _guard_invoices(OLD_LATER, OLD_MOVES)
    op.drop_column("orgs", "suspended_for")
    op.drop_column("invoices", "reopened_at")
    _standing(OLD_STANDING)
    op.drop_column("payments", "charged_back")
    op.drop_column("payments", "disputed_minor")
    op.drop_table("credit_returns")
    op.drop_table("chargebacks")
