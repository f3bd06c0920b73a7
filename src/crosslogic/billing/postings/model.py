"""Values of postings. Amounts are 1e-12 of the currency's major unit: debits above zero, credits below.

Invariants: the postings of a transaction sum to zero; a transaction is of one org and in one currency, by construction.
"""

from datetime import datetime
from enum import StrEnum

import msgspec


class Account(StrEnum):
    """The other side of each is the org, whose accounts these are, one set for each currency."""

    RECEIVABLE = "receivable"  # invoiced and not paid
    REVENUE = "revenue"
    TAX = "tax"  # that is owed to the state
    CREDITS = "credits"  # bought ahead and not billed yet
    CASH = "cash"
    ROUNDING = "rounding"  # of invoice lines
    REFUNDS = "refunds"  # given back for credits that were used already
    DISPUTES = "disputes"  # held by banks that have not decided
    LOSSES = "losses"  # lost to chargebacks for credits that were used already


class Posting(msgspec.Struct, frozen=True):
    account: Account
    amount: int


class Transaction(msgspec.Struct, frozen=True):
    """`ref` says what it tells of; whoever tells it again writes nothing more."""

    ref: str
    org_id: str
    currency: str  # in upper case
    kind: str
    at: datetime
    postings: tuple[Posting, ...]
