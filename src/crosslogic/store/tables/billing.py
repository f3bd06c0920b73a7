"""What usage costs and what credits pay for: prices, charges, fees, grants, draws.

Charges, draws, fees and exchange rates are only ever added to (migration 0011 has the triggers); of a charge or fee
only `invoice_id` is set, once.
"""

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, Table, Text, UniqueConstraint

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Money, UtcDateTime

# One for each row of the ledger, by its position there; `billing.charges.model.Charge`.
charges = Table(
    "charges",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("request_id", Text, nullable=False),
    Column("n", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("currency", Text, nullable=False),
    Column("list_amount", Money, nullable=False),
    Column("discount_amount", Money, nullable=False),
    Column("amount", Money, nullable=False),
    Column("price_version", Text),
    Column("terms", Text, nullable=False),  # canonical JSON of `ChargeTerms`: a rebuild gives these very characters
    Column("invoice_id", Text),
    UniqueConstraint("request_id", "n"),
    Index(None, "org_id", "at"),
    Index(None, "org_id", "invoice_id"),
)

# How far each org's ledger is rated, and what rating remembers (`billing.charges.state`), as canonical JSON.
charge_cursors = Table(
    "charge_cursors",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("state", Text, nullable=False),
)

# On which terms an org is rated from a ledger position on, as canonical JSON: what a rebuild needs to know.
rating_terms = Table(
    "rating_terms",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("from_seq", BigInteger, primary_key=True, autoincrement=False),
    Column("terms", Text, nullable=False),
)

# What is owed by the month, whatever was used; `billing.charges.model.Fee`.
fees = Table(
    "fees",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("reference", Text, nullable=False),
    Column("month", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Money, nullable=False),
    Column("description", Text, nullable=False),
    Column("invoice_id", Text),
    UniqueConstraint("org_id", "kind", "reference", "month"),
    Index(None, "org_id", "invoice_id"),
)

# `billing.credits.model.Grant`.
credit_grants = Table(
    "credit_grants",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("credit_class", Text, nullable=False),
    Column("priority", Integer, nullable=False),
    Column("currency", Text, nullable=False),
    Column("amount", Money, nullable=False),
    Column("starts_at", UtcDateTime, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime),
    Column("voided_at", UtcDateTime),
    Column("source_ref", Text),
    Column("reason", Text, nullable=False),
    Column("from_seq", BigInteger, nullable=False),
    Column("void_seq", BigInteger),
    UniqueConstraint("org_id", "source_ref"),
    Index(None, "org_id", "id"),
)

# `billing.credits.model.Draw`.
credit_draws = Table(
    "credit_draws",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("grant_id", Text, primary_key=True),
    Column("amount", Money, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Index(None, "grant_id"),
)

# What was taken back of bought credits whose money went back, and what of it was given again: rows are only added.
credit_returns = Table(
    "credit_returns",
    metadata,
    Column("ref", Text, primary_key=True),  # whoever repeats it changes nothing more
    Column("org_id", Text, nullable=False),
    Column("source_ref", Text, nullable=False),  # what the credits were granted for: the payment
    Column("owner_ref", Text, nullable=False),  # for what they are taken: a refund, a chargeback
    Column("amount", Money, nullable=False),  # below zero: given again
    Column("at", UtcDateTime, nullable=False),
    Index(None, "source_ref"),
    Index(None, "owner_ref"),
)

# Price lists with the time from which they hold; `pricing.versions.PriceVersion`. Those of the configuration are here
# too, once usage was rated by them.
price_versions = Table(
    "price_versions",
    metadata,
    Column("id", Text, primary_key=True),
    Column("org_id", Text),  # null: for all orgs
    Column("status", Text, nullable=False),
    Column("source", Text, nullable=False),
    Column("currency", Text, nullable=False),
    Column("terms", Text, nullable=False),  # canonical JSON of `PriceTerms`
    Column("note", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("published_at", UtcDateTime),
    Column("effective_from", UtcDateTime),
    Column("retired_from", UtcDateTime),
    Index(None, "org_id", "effective_from"),
)

# Units of `currency` for one US dollar, from a time on.
exchange_rates = Table(
    "exchange_rates",
    metadata,
    Column("currency", Text, primary_key=True),
    Column("effective_from", UtcDateTime, primary_key=True),
    Column("rate", Text, nullable=False),  # exact decimal
    Column("source", Text, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)

# On which terms an org buys, where they are not everybody's.
billing_accounts = Table(
    "billing_accounts",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("currency", Text, nullable=False),
    Column("prepaid", Boolean, nullable=False),  # served as long as there are credits
    Column("bill_overage", Boolean, nullable=False),  # of reserved capacity
    Column("free_tokens_per_month", BigInteger),  # null: as the plan or the configuration says
    Column("commitment", Text),  # canonical JSON of `billing.charges.terms.Commitment`
    Column("updated_at", UtcDateTime, nullable=False),
)
