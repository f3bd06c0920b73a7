"""Bodies of usage and money. Amounts are exact decimals as text: JSON numbers are floats to most readers."""

from datetime import datetime

from pydantic import BaseModel, Field

from crosslogic.kernel.money import PUSD_PER_USD, microdollars
from crosslogic.metering.model import UsageSum


def exact_usd(amount: int) -> str:
    dollars, rest = divmod(abs(amount), PUSD_PER_USD)
    return f"{'-' if amount < 0 else ''}{dollars}.{rest:012d}"


class UsageSumView(BaseModel):
    group: dict[str, str] = Field(description="the values of group_by that this row sums")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int
    cost_usd: str = Field(description="exact decimal, never rounded")
    cost_microdollars: int = Field(description="rounded half-even to millionths of a dollar")

    @classmethod
    def of(cls, usage: UsageSum) -> "UsageSumView":
        return cls(
            group=usage.group,
            requests=usage.requests,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            total_tokens=usage.total_tokens,
            cost_usd=exact_usd(usage.cost_pusd),
            cost_microdollars=microdollars(usage.cost_pusd),
        )


class UsageView(BaseModel):
    org_id: str
    start: datetime | None
    end: datetime | None
    data: list[UsageSumView]
    totals: UsageSumView
