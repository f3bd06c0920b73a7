"""What a node cost in an hour, what was done with it, and whose it was."""

from datetime import datetime

import msgspec

IDLE = ""  # org and model of what a node cost while nobody used it


class NodeHour(msgspec.Struct, frozen=True):
    """One node in one hour (UTC)."""

    node_id: str
    hour: datetime
    up_s: float  # how long it was up, at most an hour
    usd_per_hour: float | None  # None: nobody has said what it costs
    spot: bool
    gpu_type: str | None
    gpu_count: int
    region: str


class Work(msgspec.Struct, frozen=True):
    """What a node did for an org in an hour, of one model."""

    node_id: str
    org_id: str
    model: str
    prompt_tokens: int
    completion_tokens: int
    revenue_pusd: int  # as the ledger rated it


class Attribution(msgspec.Struct, frozen=True):
    """A part of a node's hour, and what it earned."""

    hour: datetime
    node_id: str
    org_id: str
    model: str
    region: str
    spot: bool
    prompt_tokens: int
    completion_tokens: int
    revenue_pusd: int
    cost_pusd: int
    gpu_s: float


class Margin(msgspec.Struct, frozen=True):
    """One group of attributions, summed."""

    group: dict[str, str]
    gpu_hours: float
    prompt_tokens: int
    completion_tokens: int
    cost_pusd: int
    revenue_pusd: int

    @property
    def margin_pusd(self) -> int:
        return self.revenue_pusd - self.cost_pusd

    @property
    def cost_per_million_tokens_pusd(self) -> int | None:
        """Of prompt and answer together; None where there were none."""
        tokens = self.prompt_tokens + self.completion_tokens
        return self.cost_pusd * 10**6 // tokens if tokens else None

    @property
    def cost_per_gpu_hour_pusd(self) -> int | None:
        return round(self.cost_pusd / self.gpu_hours) if self.gpu_hours > 0 else None
