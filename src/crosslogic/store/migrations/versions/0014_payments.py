"""Payments: customers and methods at providers, payments, refunds, webhooks, exports of usage, reconciliations."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

DOCUMENT = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "inbound_events",
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("payload", sa.Text(), nullable=False),
        sa.Column("received_at", TIME, nullable=False),
        sa.Column("copies", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TIME),
        sa.Column("processed_at", TIME),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("provider", "event_id", name="pk_inbound_events"),
    )
    op.create_index("ix_inbound_events_next_attempt_at", "inbound_events", ["next_attempt_at"])
    op.create_table(
        "reconciliations",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("days", sa.Integer(), nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("ended_at", TIME, nullable=False),
        sa.Column("checked", DOCUMENT, nullable=False),
        sa.Column("differences", DOCUMENT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_reconciliations"),
    )
    op.create_index("ix_reconciliations_started_at", "reconciliations", ["started_at"])
    op.create_table(
        "export_modes",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("since", TIME, nullable=False),
        sa.Column("sealed_seq", sa.BigInteger(), nullable=False),
        sa.CheckConstraint("mode IN ('stripe_invoice', 'stripe_meter', 'none')", name="ck_export_modes_mode"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_export_modes_org_id"),
        sa.PrimaryKeyConstraint("org_id", name="pk_export_modes"),
    )
    op.create_table(
        "export_windows",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("mode", sa.Text(), nullable=False),
        sa.Column("meter", sa.Text(), nullable=False),
        sa.Column("hour", TIME, nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.Column("quantity", sa.BigInteger(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("through_seq", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("event_time", TIME),
        sa.Column("first_sent_at", TIME),
        sa.Column("last_sent_at", TIME),
        sa.Column("sendings", sa.Integer(), nullable=False),
        sa.Column("next_step_at", TIME),
        sa.Column("billing_failed", sa.Boolean(), nullable=False),
        sa.Column("failure", sa.Text()),
        sa.Column("provider_ref", sa.Text()),
        sa.Column("replaces", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("resolved_at", TIME),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_export_windows_org_id"),
        sa.PrimaryKeyConstraint("id", name="pk_export_windows"),
        sa.UniqueConstraint("org_id", "meter", "hour", "n", name="uq_export_windows_org_id_meter_hour_n"),
    )
    op.create_index("ix_export_windows_next_step_at", "export_windows", ["next_step_at"])
    op.create_index("ix_export_windows_org_id_hour", "export_windows", ["org_id", "hour"])
    op.create_table(
        "payment_customers",
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("customer_ref", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_payment_customers_org_id"),
        sa.PrimaryKeyConstraint("org_id", "provider", name="pk_payment_customers"),
        sa.UniqueConstraint("provider", "customer_ref", name="uq_payment_customers_provider_customer_ref"),
    )
    op.create_table(
        "payment_methods",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("method_ref", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("brand", sa.Text()),
        sa.Column("last4", sa.Text()),
        sa.Column("expiry_month", sa.Integer()),
        sa.Column("expiry_year", sa.Integer()),
        sa.Column("is_default", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("removed_at", TIME),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_payment_methods_org_id"),
        sa.PrimaryKeyConstraint("id", name="pk_payment_methods"),
        sa.UniqueConstraint("org_id", "provider", "method_ref", name="uq_payment_methods_org_id_provider_method_ref"),
    )
    op.create_index(
        "uq_payment_methods_default",
        "payment_methods",
        ["org_id"],
        unique=True,
        postgresql_where=sa.text("is_default"),
        sqlite_where=sa.text("is_default"),
    )
    op.create_table(
        "payments",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("provider", sa.Text(), nullable=False),
        sa.Column("purpose", sa.Text(), nullable=False),
        sa.Column("invoice_id", sa.Text()),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("method_id", sa.Text(), nullable=False),
        sa.Column("customer_present", sa.Boolean(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text()),
        sa.Column("charge_ref", sa.Text()),
        sa.Column("captured_minor", sa.BigInteger(), nullable=False),
        sa.Column("refund_reserved_minor", sa.BigInteger(), nullable=False),
        sa.Column("action_url", sa.Text()),
        sa.Column("failure_code", sa.Text()),
        sa.Column("failure_message", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("first_sent_at", TIME),
        sa.Column("last_sent_at", TIME),
        sa.Column("sendings", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("next_step_at", TIME),
        sa.Column("resolved_at", TIME),
        sa.Column("applied_at", TIME),
        sa.Column("creation_ref", sa.Text()),
        sa.CheckConstraint("amount_minor > 0", name="ck_payments_amount"),
        sa.CheckConstraint(
            "refund_reserved_minor >= 0 AND refund_reserved_minor <= captured_minor", name="ck_payments_refunds"
        ),
        sa.ForeignKeyConstraint(["method_id"], ["payment_methods.id"], name="fk_payments_method_id"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_payments_org_id"),
        sa.PrimaryKeyConstraint("id", name="pk_payments"),
        sa.UniqueConstraint("invoice_id", "attempt", name="uq_payments_invoice_id_attempt"),
        sa.UniqueConstraint("org_id", "creation_ref", name="uq_payments_org_id_creation_ref"),
    )
    op.create_index("ix_payments_next_step_at", "payments", ["next_step_at"])
    op.create_index("ix_payments_org_id_id", "payments", ["org_id", "id"])
    op.create_index("ix_payments_provider_provider_ref", "payments", ["provider", "provider_ref"])
    op.create_index(
        "uq_payments_standing",
        "payments",
        ["invoice_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'failed'"),
        sqlite_where=sa.text("status <> 'failed'"),
    )
    op.create_table(
        "refunds",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("payment_id", sa.Text(), nullable=False),
        sa.Column("org_id", sa.Text(), nullable=False),
        sa.Column("amount_minor", sa.BigInteger(), nullable=False),
        sa.Column("currency", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text()),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("provider_ref", sa.Text()),
        sa.Column("failure_code", sa.Text()),
        sa.Column("failure_message", sa.Text()),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("first_sent_at", TIME),
        sa.Column("last_sent_at", TIME),
        sa.Column("sendings", sa.Integer(), nullable=False),
        sa.Column("answered", sa.Boolean(), nullable=False),
        sa.Column("next_step_at", TIME),
        sa.Column("resolved_at", TIME),
        sa.Column("applied_at", TIME),
        sa.Column("creation_ref", sa.Text()),
        sa.CheckConstraint("amount_minor > 0", name="ck_refunds_amount"),
        sa.ForeignKeyConstraint(["org_id"], ["orgs.id"], name="fk_refunds_org_id"),
        sa.ForeignKeyConstraint(["payment_id"], ["payments.id"], name="fk_refunds_payment_id"),
        sa.PrimaryKeyConstraint("id", name="pk_refunds"),
        sa.UniqueConstraint("payment_id", "creation_ref", name="uq_refunds_payment_id_creation_ref"),
    )
    op.create_index("ix_refunds_next_step_at", "refunds", ["next_step_at"])
    op.create_index("ix_refunds_org_id_id", "refunds", ["org_id", "id"])


def downgrade() -> None:
    for table in (
        "refunds",
        "payments",
        "payment_methods",
        "payment_customers",
        "export_windows",
        "export_modes",
        "reconciliations",
        "inbound_events",
    ):
        op.drop_table(table)
