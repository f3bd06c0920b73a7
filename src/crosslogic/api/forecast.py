"""`/admin/forecast`: what will be used, when today's nodes are too few, and what would carry it. For operators."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Query

from crosslogic.api.auth import Services
from crosslogic.api.compass_models import MODELS_IN_FORCE
from crosslogic.api.models import Word
from crosslogic.insight.forecast.model import Need
from crosslogic.insight.forecast.service import MOST_DAYS, CapacityPlanner, Question
from crosslogic.kernel.errors import Unavailable

router = APIRouter(prefix="/admin/forecast", tags=["forecast"], dependencies=[MODELS_IN_FORCE])

Target = Annotated[float, Query(gt=0, le=3_600_000, allow_inf_nan=False)]


def _planner(services: Services) -> CapacityPlanner:
    if services.forecast is None:
        raise Unavailable("this process forecasts nothing")
    return services.forecast


def _question(
    days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = 3,
    model: Word | None = None,
    region: Word | None = None,
    ttft_p95_ms: Target = 1000.0,
    itl_p95_ms: Target = 50.0,
) -> Question:
    return Question(days, model, region, ttft_p95_ms, itl_p95_ms)


Planner = Annotated[CapacityPlanner, Depends(_planner)]
Asked = Annotated[Question, Depends(_question)]


@router.get("/capacity")
async def capacity(
    planner: Planner,
    asked: Asked,
    hours: Annotated[bool, Query(description="also each hour of each model and region")] = False,
) -> dict[str, Any]:
    """Requests and tokens of the next days with their bounds, the nodes that they take, and when those are too few."""
    found = await planner.predict_capacity(asked)
    document: dict[str, Any] = msgspec.to_builtins(found)
    document["needs"] = [_need(need, hours) for need in found.needs]
    return document


@router.get("/scaling")
async def scaling(planner: Planner, asked: Asked) -> dict[str, Any]:
    """Of each model and region: more nodes or fewer, how many, how soon, and why."""
    return {"recommendations": msgspec.to_builtins(await planner.recommend_scaling(asked))}


@router.get("/allocation")
async def allocation(planner: Planner, asked: Asked) -> dict[str, Any]:
    """Which kind of node would serve each model in each region at the least cost, beside what does so today."""
    found: dict[str, Any] = msgspec.to_builtins(await planner.optimize_allocation(asked))
    return found


def _need(need: Need, hours: bool) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(need)
    if not hours:
        del document["hours"]
    return {**document, "gpus": need.gpus, "extra_usd_per_hour": need.extra_usd_per_hour}
