"""Whole hours of usage by model and region, from the roll-ups. One grouped query, however many requests there were."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime

import msgspec
import numpy as np
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.insight.finops.sql import HOUR
from crosslogic.insight.forecast.predict import Array
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_hourly


class Series(msgspec.Struct, frozen=True):
    """Requests of each hour from the first that had any until `until`, and the tokens of a request."""

    model: str
    region: str
    counts: Array
    prompt_tokens: float
    output_tokens: float


async def series_of(
    engine: AsyncEngine, start: datetime, until: datetime, *, model: str | None = None, region: str | None = None
) -> list[Series]:
    """Of the hours from `start` to before `until`. Both are whole hours."""
    t = usage_hourly.c
    query = (
        select(
            t.model,
            t.region,
            t.at,
            func.sum(t.requests).label("requests"),
            func.sum(t.prompt_tokens).label("prompt"),
            func.sum(t.completion_tokens).label("output"),
        )
        .where(t.at >= start, t.at < until)
        .group_by(t.model, t.region, t.at)
    )
    if model is not None:
        query = query.where(t.model == model)
    if region is not None:
        query = query.where(t.region == region)
    hours: dict[tuple[str, str], dict[datetime, tuple[int, int, int]]] = defaultdict(dict)
    async with reading(engine) as conn:
        for row in await conn.execute(query):
            hours[row.model, row.region][row.at] = (int(row.requests), int(row.prompt), int(row.output))
    return [_series(name, place, seen, until) for (name, place), seen in sorted(hours.items())]


def _series(model: str, region: str, seen: dict[datetime, tuple[int, int, int]], until: datetime) -> Series:
    first = min(seen)
    length = int((until - first) / HOUR)
    counts = np.zeros(length)
    for at, (requests, _, _) in seen.items():
        counts[int((at - first) / HOUR)] = requests
    requests, prompt, output = (sum(each) for each in zip(*seen.values(), strict=True))
    return Series(model, region, counts, prompt / max(1, requests), output / max(1, requests))
