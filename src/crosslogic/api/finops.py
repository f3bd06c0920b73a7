"""`/admin/finops`: what the nodes cost against what their tokens earn. For operators alone."""

from datetime import datetime
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from pydantic import Field

from crosslogic.api.auth import Services
from crosslogic.api.models import Instant, View, in_utc
from crosslogic.api.usage_models import exact_usd
from crosslogic.insight.finops.model import Margin

router = APIRouter(prefix="/admin/finops", tags=["finops"])


class MarginView(View):
    group: dict[str, str] = Field(description="an empty org and model: what nodes cost while nobody used them")
    gpu_hours: float
    prompt_tokens: int
    completion_tokens: int
    cost_usd: str = Field(description="exact decimal, as all amounts here")
    revenue_usd: str
    margin_usd: str
    cost_usd_per_gpu_hour: str | None
    cost_usd_per_million_tokens: str | None = Field(description="prompt and answer together")

    @classmethod
    def of(cls, margin: Margin) -> "MarginView":
        return cls(
            group=margin.group,
            gpu_hours=margin.gpu_hours,
            prompt_tokens=margin.prompt_tokens,
            completion_tokens=margin.completion_tokens,
            cost_usd=exact_usd(margin.cost_pusd),
            revenue_usd=exact_usd(margin.revenue_pusd),
            margin_usd=exact_usd(margin.margin_pusd),
            cost_usd_per_gpu_hour=_usd(margin.cost_per_gpu_hour_pusd),
            cost_usd_per_million_tokens=_usd(margin.cost_per_million_tokens_pusd),
        )


class MarginsView(View):
    groups: list[MarginView]


@router.get("")
async def margins(
    services: Services,
    group_by: Annotated[list[Literal["org", "model", "region", "node", "spot"]], Query()] = [],  # noqa: B006 - FastAPI copies it
    start: Instant | None = None,
    end: Instant | None = None,
) -> MarginsView:
    """By whole hours (UTC) that begin from `start` (included) to `end` (not included)."""
    found = await services.finops.margins(group_by, start=_utc(start), end=_utc(end))
    return MarginsView(groups=[MarginView.of(each) for each in found])


def _utc(instant: datetime | None) -> datetime | None:
    return None if instant is None else in_utc(instant)


def _usd(pusd: int | None) -> str | None:
    return None if pusd is None else exact_usd(pusd)
