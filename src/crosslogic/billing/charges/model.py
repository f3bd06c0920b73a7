"""Values of charges: what a row of the ledger costs, and why.

Money is a whole number of pico-units, 1e-12 of the major unit of the org's currency. Invariants: `amount` is
`list_amount - discount_amount`, of a charge as of each of its lines, and the lines sum to the charge; a charge is never
changed once it is there, but for the invoice that it comes to stand on. What is wrong with usage is put right by a
further row of the ledger, and so by a further charge, whose numbers may be below zero.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId


class Item(StrEnum):
    """What is counted and paid for."""

    INPUT = "input"  # prompt tokens that the engine did read
    CACHED = "cached"  # prompt tokens that it had in its cache
    OUTPUT = "output"  # generated tokens, reasoning among them
    REQUEST = "request"  # the request itself: a rerank or embedding call that is sold by the call


class Basis(StrEnum):
    """Why a line costs what it does."""

    PAID = "paid"  # by the price list
    FREE = "free"  # within the free tokens of the month: the discount takes all of it
    RESERVED = "reserved"  # within reserved capacity, which is paid by the month: the discount takes all of it


class Reduction(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that made a line cheaper."""

    reason: str  # "plan", "batch", "commitment", "volume", "free", "reserved"
    amount: int  # pico-units
    basis_points: int | None = None  # hundredths of a percent; None: more than one step of a volume discount


class ChargeLine(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item on one basis: `quantity` times `unit_price` is `list_amount`."""

    item: Item
    basis: Basis
    quantity: int  # below zero in a correction that takes back
    unit_price: int  # pico-units for one token or request, region multiplier and exchange rate included
    list_amount: int
    discount_amount: int
    reductions: tuple[Reduction, ...] = ()  # they sum to `discount_amount`
    reservation_id: str | None = None  # whose capacity was used

    @property
    def amount(self) -> int:
        return self.list_amount - self.discount_amount


class ChargeTerms(msgspec.Struct, frozen=True, omit_defaults=True):
    """What explains a charge; kept with it as canonical JSON."""

    lines: tuple[ChargeLine, ...]
    price_pattern: str | None = None  # the model of the price list's entry, as it is written there
    region_multiplier: str | None = None  # exact decimal
    exchange_rate: str | None = None  # exact decimal: units of the currency for one of the price list's
    plan: str | None = None  # the billing plan in force
    note: str | None = None  # what else is to be said in a receipt


class Charge(msgspec.Struct, frozen=True):
    """What one row of the ledger costs. `seq` is the ledger's, 1, 2, 3, … for each org."""

    org_id: OrgId
    seq: int
    request_id: RequestId
    n: int  # 0: the original; 1 and above: its corrections
    at: datetime  # of the usage: it says in which month it belongs
    env_id: EnvId
    key_id: KeyId
    endpoint: str
    model: str
    region: str
    prompt_tokens: int
    cached_tokens: int  # among the prompt tokens
    completion_tokens: int
    currency: str  # ISO 4217, the same for all of an org
    list_amount: int
    discount_amount: int
    amount: int  # before credits
    price_version: str | None  # None: no price was known, nothing is charged
    terms: ChargeTerms
    invoice_id: str | None = None


class FeeKind(StrEnum):
    """What an org owes by the month, whatever it used."""

    PLAN = "plan"
    RESERVED_CAPACITY = "reserved_capacity"
    COMMITMENT_SHORTFALL = "commitment_shortfall"  # what it had promised to use and did not


class Fee(msgspec.Struct, frozen=True):
    """One kind of fee of one month; there is never a second one for the same `reference`, as what it is of."""

    id: str
    org_id: OrgId
    kind: FeeKind
    reference: str  # id of the plan, reservation or commitment
    month: str  # "2026-01", in UTC
    at: datetime  # when it fell due
    currency: str
    amount: int  # pico-units
    description: str
    invoice_id: str | None = None
