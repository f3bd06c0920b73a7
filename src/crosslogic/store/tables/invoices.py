"""Invoices with their lines, credit notes and numbers; whom they are addressed to, and what is to be told of them.

Invariants, kept by triggers: no invoice, line, credit note or payment is ever deleted; once an invoice is issued, its
number, amounts, lines, document and digest never change, and its status only goes where `billing/invoices/states.py`
lets it. Amounts that end in `_minor` are whole minor units (cents, paise); the exact ones are 1e-12 of the major unit.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
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
from crosslogic.store.types import Document, Money, UtcDateTime

# To whom an org's invoices are addressed, and on which terms; an org without a row has the configured ones.
billing_profiles = Table(
    "billing_profiles",
    metadata,
    Column("org_id", Text, ForeignKey("orgs.id"), primary_key=True),
    Column("profile", Document, nullable=False),  # `billing.profiles.model.BillingProfile`
    Column("updated_at", UtcDateTime, nullable=False),
)

invoices = Table(
    "invoices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # `billing.invoices.model.InvoiceKind`
    Column("period_start", UtcDateTime, nullable=False),
    Column("period_end", UtcDateTime, nullable=False),  # not included
    Column("revision", Integer, nullable=False, server_default=text("1")),  # 2, 3, … in place of a void one
    Column("root_id", Text, nullable=False),  # the first revision: what charges name
    Column("status", Text, nullable=False),
    Column("series", Text),
    Column("fiscal_year", Text),
    Column("serial", BigInteger),  # 1, 2, 3, … without a hole in its series and fiscal year
    Column("number", Text, unique=True),  # what people read; null as long as it is a draft
    Column("currency", Text, nullable=False),
    Column("subtotal_minor", BigInteger, nullable=False),
    Column("discount_minor", BigInteger, nullable=False),
    Column("credit_minor", BigInteger, nullable=False),  # given credits, before tax
    Column("tax_minor", BigInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),  # subtotal - discount - credit + tax
    Column("prepaid_minor", BigInteger, nullable=False),  # of the total, paid before with bought credits
    Column("exact_amount", Money, nullable=False),  # the lines before tax and bought credits, not rounded
    Column("rounding_amount", Money, nullable=False),  # the same lines as rounded, minus exact_amount
    Column("line_count", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("issued_at", UtcDateTime),
    Column("due_at", UtcDateTime),
    Column("grace_days", Integer, nullable=False, server_default=text("0")),
    Column("auto_charge", Boolean, nullable=False, server_default=false()),
    Column("document", Text),  # canonical JSON: the invoice itself
    Column("digest", Text),  # SHA-256 of `document`, hexadecimal
    # What becomes of it later.
    Column("paid_minor", BigInteger, nullable=False, server_default=text("0")),
    Column("credited_minor", BigInteger, nullable=False, server_default=text("0")),  # by credit notes
    Column("paid_at", UtcDateTime),
    Column("overdue_at", UtcDateTime),
    Column("voided_at", UtcDateTime),
    Column("void_reason", Text),
    Column("reopened_at", UtcDateTime),  # when it was owed again: what had paid it was charged back
    UniqueConstraint("org_id", "kind", "period_start", "currency", "revision"),
    UniqueConstraint("series", "fiscal_year", "serial"),
    CheckConstraint("credited_minor >= 0 AND credited_minor <= total_minor", name="ck_invoices_credited"),
    Index(None, "org_id", "period_end"),
    Index(None, "root_id"),
    Index(None, "status", "due_at"),
)

invoice_lines = Table(
    "invoice_lines",
    metadata,
    Column("invoice_id", Text, ForeignKey("invoices.id"), primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),  # 1, 2, 3, …
    Column("kind", Text, nullable=False),  # `billing.invoices.model.LineKind`
    Column("description", Text, nullable=False),
    Column("model", Text),
    Column("region", Text),
    Column("quantity", Document, nullable=False),  # requests, and tokens by kind
    Column("details", Document, nullable=False),  # of a credit its grant, of a tax its rate, …
    Column("exact_amount", Money, nullable=False),
    Column("amount_minor", BigInteger, nullable=False),  # what it takes off is negative
)

credit_notes = Table(
    "credit_notes",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("invoice_id", Text, ForeignKey("invoices.id"), nullable=False),
    Column("series", Text, nullable=False),
    Column("fiscal_year", Text, nullable=False),
    Column("serial", BigInteger, nullable=False),
    Column("number", Text, nullable=False, unique=True),
    Column("currency", Text, nullable=False),
    Column("net_minor", BigInteger, nullable=False),
    Column("tax_minor", BigInteger, nullable=False),
    Column("total_minor", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
    Column("ref", Text, nullable=False),  # whoever repeats it under the same one gets the same credit note
    Column("issued_at", UtcDateTime, nullable=False),
    Column("document", Text, nullable=False),
    Column("digest", Text, nullable=False),
    UniqueConstraint("series", "fiscal_year", "serial"),
    UniqueConstraint("invoice_id", "ref"),
    Index(None, "org_id", "id"),
)

# The last number given out. Whoever takes the next one locks the row until its invoice is committed.
invoice_numbers = Table(
    "invoice_numbers",
    metadata,
    Column("series", Text, primary_key=True),
    Column("fiscal_year", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)

invoice_payments = Table(
    "invoice_payments",
    metadata,
    Column("invoice_id", Text, ForeignKey("invoices.id"), primary_key=True),
    Column("payment_ref", Text, primary_key=True),
    Column("amount_minor", BigInteger, nullable=False),  # below zero where money went back: refunds, chargebacks
    Column("at", UtcDateTime, nullable=False),
    Column("recorded_at", UtcDateTime, nullable=False),
)

# Double entry: a transaction is of one org and currency; its postings sum to zero. It is written after them, in one
# transaction of the database, which then looks at the sum.
posting_transactions = Table(
    "posting_transactions",
    metadata,
    Column("ref", Text, primary_key=True),  # what it tells of: "invoice:inv_…", "receipt:inv_…:pay_…"
    Column("org_id", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "org_id", "at"),
)
postings = Table(
    "postings",
    metadata,
    Column(
        "transaction_ref",
        Text,
        ForeignKey("posting_transactions.ref", deferrable=True, initially="DEFERRED"),
        primary_key=True,
    ),
    Column("n", Integer, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),  # `billing.postings.model.Account`
    Column("amount", Money, nullable=False),  # debits above zero, credits below
)

# What an org is to be told of its invoices: written in the transaction that makes it true, sent by a notifier.
billing_notices = Table(
    "billing_notices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # "invoice.issued", "invoice.reminder", …
    Column("entity_id", Text, nullable=False),  # of the invoice or credit note
    Column("step", Text, nullable=False, server_default=text("''")),  # which of several of a kind
    Column("payload", Document, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("sent_at", UtcDateTime),
    UniqueConstraint("entity_id", "kind", "step"),  # everything is told once
    Index(None, "sent_at", "id"),
)
