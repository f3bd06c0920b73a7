"""What GPUs cost to rent: by cloud, region and market, each price with its date and source.

Invariant: a price is of a whole instance and for an hour; one without a date is never called fresh.
"""

from datetime import date
from enum import StrEnum

import msgspec

from crosslogic.kernel.money import PUSD_PER_USD


class PriceMarket(StrEnum):
    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"


class GpuPrice(msgspec.Struct, frozen=True, kw_only=True):
    """What one instance costs in one place. `gpu` is an id of the catalogue."""

    cloud: str
    region: str
    zone: str | None = None
    instance_type: str
    gpu: str
    gpu_count: int
    market: PriceMarket
    per_hour_pusd: int
    as_of: date | None = None  # None: unknown, hence stale
    source: str = ""
    doubts: tuple[str, ...] = ()  # what data health found against it, by the names of its rules

    @property
    def per_gpu_hour_usd(self) -> float:
        return self.per_hour_pusd / self.gpu_count / PUSD_PER_USD
