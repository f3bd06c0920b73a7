"""On which terms an org is rated, as far as they are its own: currency, free tokens, reserved capacity, commitment.

Rating notes them down with the ledger position from which they hold, so that what was rated can be rated again.
"""

from datetime import datetime

import msgspec

from crosslogic.pricing.versions import USD


class ReservedCapacity(msgspec.Struct, frozen=True):
    """`units` tokens a second of a model, from `starts_at` until before `ends_at`."""

    id: str
    model: str
    region: str | None
    units: int
    starts_at: datetime
    ends_at: datetime

    def covers(self, model: str, region: str, at: datetime) -> bool:
        return self.model == model and self.region in (None, region) and self.starts_at <= at < self.ends_at


class Commitment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an org has promised to use in each month, in pico-units; what it does not use, it pays all the same."""

    amount_per_month: int
    starts_at: datetime
    ends_at: datetime | None = None

    def in_force(self, at: datetime) -> bool:
        return self.starts_at <= at and (self.ends_at is None or at < self.ends_at)


class OrgTerms(msgspec.Struct, frozen=True):
    """`free_tokens_per_month` count for usage while no reserved capacity is in force."""

    currency: str = USD
    plan: str = ""
    free_tokens_per_month: int = 0
    bill_overage: bool = True  # what goes beyond reserved capacity
    reservations: tuple[ReservedCapacity, ...] = ()
    commitment: Commitment | None = None

    def has_reserved(self, at: datetime) -> bool:
        return any(each.starts_at <= at < each.ends_at for each in self.reservations)
