"""Values of reserved capacity: what an org has bought, and until when (architecture document §17, §35.5).

One capacity unit (CU) is one token a second, prompt and answer together, guaranteed to an org for a model and, when
it names one, for a region.
"""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import NodeId, OrgId, ReservationId


class ReservationState(StrEnum):
    SCHEDULED = "scheduled"  # its time has not come
    ACTIVE = "active"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


class Reservation(msgspec.Struct, frozen=True):
    """In force from `starts_at` until before `expires_at`, unless it is cancelled."""

    id: ReservationId
    org_id: OrgId
    model: str
    units: int  # tokens/s
    starts_at: datetime
    expires_at: datetime
    created_at: datetime
    region: str | None = None  # None: wherever the org's requests go
    nodes: tuple[NodeId, ...] = ()  # dedicated to the org as long as this is in force
    shared_fallback: bool = True  # False: what the org's own nodes cannot serve is refused
    price_per_month_pusd: int | None = None
    cancelled_at: datetime | None = None
    creation_ref: str | None = None  # the Idempotency-Key that it was made under
    creation_digest: str | None = None  # of what was asked then

    def state(self, now: datetime) -> ReservationState:
        if self.cancelled_at is not None:
            return ReservationState.CANCELLED
        if now >= self.expires_at:
            return ReservationState.EXPIRED
        return ReservationState.SCHEDULED if now < self.starts_at else ReservationState.ACTIVE

    def in_force(self, now: datetime) -> bool:
        return self.state(now) is ReservationState.ACTIVE


class Terms(msgspec.Struct, frozen=True):
    """On which terms capacity is promised.

    `overcommit` is how many units may be promised for each token/s of a node; a node that does not say its
    throughput counts as `tokens_per_s_per_gpu` for each GPU. `burst_s`: seconds of its rate that an org may use at
    once.
    """

    overcommit: float = 1.0
    tokens_per_s_per_gpu: float = 1000.0
    burst_s: float = 10.0
