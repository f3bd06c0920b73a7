"""Money that comes in: customers and payment methods at the providers, payments, refunds, webhooks, exports of usage.

A payment or refund is a row before anything is sent for it; `billing/payments/states.py` says how its status may move.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Date,
    ForeignKey,
    Index,
    Integer,
    Table,
    Text,
    UniqueConstraint,
    false,
    text,
)

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Document, UtcDateTime

# As whom a provider knows an org. One row for each org and provider, for good.
payment_customers = Table(
    "payment_customers",
    metadata,
    Column("org_id", Text, ForeignKey("orgs.id"), primary_key=True),
    Column("provider", Text, primary_key=True),
    Column("customer_ref", Text, nullable=False),  # the provider's name of it
    Column("created_at", UtcDateTime, nullable=False),
    UniqueConstraint("provider", "customer_ref"),
)

# What an org may pay with. Nothing here is a secret: the provider keeps the numbers.
payment_methods = Table(
    "payment_methods",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("method_ref", Text, nullable=False),
    Column("kind", Text, nullable=False),  # card, bank_account, paypal
    Column("brand", Text),
    Column("last4", Text),
    Column("expiry_month", Integer),
    Column("expiry_year", Integer),
    Column("is_default", Boolean, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),
    UniqueConstraint("org_id", "provider", "method_ref"),
)
Index(
    "uq_payment_methods_default",
    payment_methods.c.org_id,
    unique=True,
    postgresql_where=text("is_default"),
    sqlite_where=text("is_default"),
)


def _movement() -> tuple[Column[Any], ...]:
    """What payments and refunds have in common (`billing.payments.model.Movement`), the part of who they are apart."""
    return (
        Column("amount_minor", BigInteger, nullable=False),  # whole minor units of the currency
        Column("currency", Text, nullable=False),
        Column("status", Text, nullable=False),
        Column("provider_ref", Text),  # payment intent, order, refund
        Column("failure_code", Text),
        Column("failure_message", Text),
        Column("created_at", UtcDateTime, nullable=False),
        Column("first_sent_at", UtcDateTime),
        Column("last_sent_at", UtcDateTime),
        Column("sendings", Integer, nullable=False),
        Column("answered", Boolean, nullable=False),  # the last sending was answered, with an error of the provider's
        Column("next_step_at", UtcDateTime),  # when somebody is to look again; null: never
        Column("resolved_at", UtcDateTime),
        Column("applied_at", UtcDateTime),  # when what it is for knew of it
        Column("creation_ref", Text),  # the Idempotency-Key that it was made under
    )


# One row for each attempt to take money.
payments = Table(
    "payments",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("provider", Text, nullable=False),
    Column("purpose", Text, nullable=False),  # invoice or top_up
    Column("invoice_id", Text),
    Column("attempt", Integer, nullable=False),
    Column("method_id", Text, ForeignKey("payment_methods.id"), nullable=False),
    Column("customer_present", Boolean, nullable=False),
    *_movement(),
    Column("charge_ref", Text),  # charge, capture: what refunds refer to
    Column("captured_minor", BigInteger, nullable=False),
    Column("refund_reserved_minor", BigInteger, nullable=False),  # of all refunds that have not failed
    Column("action_url", Text),  # where its payer goes on while it is pending
    Column("disputed_minor", BigInteger, nullable=False, server_default=text("0")),  # withdrawn by chargebacks, now
    Column("charged_back", Boolean, nullable=False, server_default=false()),  # some of it was lost to a chargeback
    UniqueConstraint("org_id", "creation_ref"),
    UniqueConstraint("invoice_id", "attempt"),
    CheckConstraint("amount_minor > 0", name="ck_payments_amount"),
    CheckConstraint(
        "refund_reserved_minor >= 0 AND refund_reserved_minor <= captured_minor", name="ck_payments_refunds"
    ),
    Index(None, "org_id", "id"),
    Index(None, "next_step_at"),
    Index(None, "provider", "provider_ref"),
)
# An invoice has at most one payment that is under way or has succeeded, and was not charged back.
_STANDING = text("status <> 'failed' AND NOT charged_back")
Index(
    "uq_payments_standing",
    payments.c.invoice_id,
    unique=True,
    postgresql_where=_STANDING,
    sqlite_where=_STANDING,
)

refunds = Table(
    "refunds",
    metadata,
    Column("id", Text, primary_key=True),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    *_movement(),
    Column("reason", Text),
    UniqueConstraint("payment_id", "creation_ref"),
    CheckConstraint("amount_minor > 0", name="ck_refunds_amount"),
    Index(None, "org_id", "id"),
    Index(None, "next_step_at"),
)

# Payments that their payers dispute with their banks, as the provider last told them.
chargebacks = Table(
    "chargebacks",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("payment_id", Text, ForeignKey("payments.id"), nullable=False),
    Column("invoice_id", Text),
    Column("provider", Text, nullable=False),
    Column("provider_ref", Text, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("status", Text, nullable=False),  # `billing.payments.model.ChargebackStatus`
    Column("withdrawn_minor", BigInteger, nullable=False),  # by the provider, and not reinstated
    Column("lost_minor", BigInteger, nullable=False),  # of that, for good
    Column("respond_by", UtcDateTime),
    Column("opened_at", UtcDateTime, nullable=False),
    Column("closed_at", UtcDateTime),
    Column("updated_at", UtcDateTime, nullable=False),
    Column("next_look_at", UtcDateTime),  # when to ask again, should no webhook come; null: never
    Column("version", Integer, nullable=False),  # 1, 2, … with each change
    UniqueConstraint("provider", "provider_ref"),
    CheckConstraint("lost_minor >= 0 AND lost_minor <= withdrawn_minor", name="ck_chargebacks_lost"),
    Index(None, "org_id", "id"),
    Index(None, "payment_id"),
    Index(None, "next_look_at"),
)

# What providers told us, as it came: stored before it is acted on, each event once.
inbound_events = Table(
    "inbound_events",
    metadata,
    Column("provider", Text, primary_key=True),
    Column("event_id", Text, primary_key=True),
    Column("type", Text, nullable=False),
    Column("payload", Text, nullable=False),
    Column("received_at", UtcDateTime, nullable=False),
    Column("copies", Integer, nullable=False),  # how often it came
    Column("attempts", Integer, nullable=False),
    Column("next_attempt_at", UtcDateTime),  # null: done
    Column("processed_at", UtcDateTime),
    Column("error", Text),
    Index(None, "next_attempt_at"),
)

# How an org's usage reaches its payment provider: one way, and how far it has come.
export_modes = Table(
    "export_modes",
    metadata,
    Column("org_id", Text, ForeignKey("orgs.id"), primary_key=True),
    Column("mode", Text, nullable=False),
    Column("since", UtcDateTime, nullable=False),
    Column("sealed_seq", BigInteger, nullable=False),  # charges up to here are in windows
    CheckConstraint("mode IN ('stripe_invoice', 'stripe_meter', 'none')", name="ck_export_modes_mode"),
)

# One row for each thing that is to be told to the provider, written before it is sent.
export_windows = Table(
    "export_windows",
    metadata,
    Column("id", Text, primary_key=True),  # the identifier that is sent: cic:org:meter:hour:n
    Column("org_id", Text, ForeignKey("orgs.id"), nullable=False),
    Column("mode", Text, nullable=False),
    Column("meter", Text, nullable=False),  # the event's name; of an invoice, its id
    Column("hour", UtcDateTime, nullable=False),
    Column("n", Integer, nullable=False),  # 1, 2, … of the same org, meter and hour
    Column("quantity", BigInteger, nullable=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("through_seq", BigInteger, nullable=False),
    Column("status", Text, nullable=False),
    Column("event_time", UtcDateTime),  # what the event says; set with the first sending
    Column("first_sent_at", UtcDateTime),
    Column("last_sent_at", UtcDateTime),
    Column("sendings", Integer, nullable=False),
    Column("next_step_at", UtcDateTime),
    Column("billing_failed", Boolean, nullable=False),
    Column("failure", Text),
    Column("provider_ref", Text),
    Column("replaces", Text),  # the window whose quantity this one tells instead
    Column("created_at", UtcDateTime, nullable=False),
    Column("resolved_at", UtcDateTime),
    UniqueConstraint("org_id", "meter", "hour", "n"),
    Index(None, "next_step_at"),
    Index(None, "org_id", "hour"),
)

# What the last comparisons of all books found.
reconciliations = Table(
    "reconciliations",
    metadata,
    Column("id", Text, primary_key=True),
    Column("day", Date, nullable=False),  # the last day that it looked at
    Column("days", Integer, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime, nullable=False),
    Column("checked", Document, nullable=False),  # how much of what
    Column("differences", Document, nullable=False),
    Index(None, "started_at"),
)
