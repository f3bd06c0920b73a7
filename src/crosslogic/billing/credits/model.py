"""Values of credits: what was granted to an org, and what charges drew from it.

Money is a whole number of pico-units of the org's currency. Invariant: of each grant, what it was is what was drawn,
what expired, what was voided and what remains, and none of them is below zero.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import OrgId


class CreditClass(StrEnum):
    """Where a grant comes from, and so when it is drawn (product documentation §7, "credit application order")."""

    MONTHLY_FREE = "monthly_free"
    PROMOTIONAL = "promotional"
    REFERRAL = "referral"
    SIGNUP = "signup"
    COMMITMENT = "commitment"
    PAID = "paid"


# Free allowance, then what was given, then what was bought. What a commitment has paid for comes before what can wait.
RANKS = {
    CreditClass.MONTHLY_FREE: 0,
    CreditClass.PROMOTIONAL: 1,
    CreditClass.REFERRAL: 1,
    CreditClass.SIGNUP: 1,
    CreditClass.COMMITMENT: 2,
    CreditClass.PAID: 3,
}


class Grant(msgspec.Struct, frozen=True):
    """Good for usage from `starts_at` until before `expires_at`, behind `from_seq` in the ledger.

    Once it is voided, it is good for nothing behind `void_seq`.
    """

    id: str
    org_id: OrgId
    credit_class: CreditClass
    priority: int  # lower is drawn first, among grants of the same rank
    currency: str
    amount: int
    starts_at: datetime
    created_at: datetime
    expires_at: datetime | None = None  # None: never
    voided_at: datetime | None = None
    source_ref: str | None = None  # what it was granted for; never granted twice
    reason: str = ""
    from_seq: int = 0
    void_seq: int | None = None


class Draw(msgspec.Struct, frozen=True):
    """What a charge took from a grant; below zero where a correction gives back."""

    org_id: OrgId
    seq: int  # of the charge
    grant_id: str
    amount: int
    at: datetime  # of the usage


class Standing(msgspec.Struct, frozen=True):
    """How a grant stands at some time."""

    grant: Grant
    drawn: int
    expired: int
    voided: int
    remaining: int
