"""What our own gateway saw of a deployment, from the ledger: every answer with its times and tokens.

Only streamed answers tell when their first token came. ITL is each request's mean, as load generators report it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.outcomes.model import Observation
from crosslogic.kernel.ids import first_request_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records

MOST_ROWS = 50_000


async def from_ledger(
    engine: AsyncEngine,
    *,
    org_id: str | None,
    model: str,
    start: datetime,
    end: datetime,
    replicas: int,
    cost_per_hour_pusd: int | None = None,
    nodes: Sequence[str] = (),
) -> Observation | None:
    """None where no answer of the window was whole. `nodes`: only what these served.

    Without an org it is everybody's: nodes are as fast as all their requests together let them be.
    """
    t = usage_records.c
    query = (
        select(
            t.outcome, t.streamed, t.first_token_ms, t.latency_ms, t.prompt_tokens, t.completion_tokens, t.failed_nodes
        )
        .where(
            t.model == model,
            t.n == 0,
            t.request_id >= first_request_id(int(start.timestamp() * 1000)),
            t.request_id < first_request_id(int(end.timestamp() * 1000)),
        )
        .order_by(t.request_id)
        .limit(MOST_ROWS)
    )
    if org_id is not None:
        query = query.where(t.org_id == org_id)
    if nodes:
        query = query.where(t.node_id.in_(nodes))
    async with reading(engine) as conn:
        rows = (await conn.execute(query)).all()
    whole = [row for row in rows if row.outcome == "completed" and row.completion_tokens > 0]
    if not whole:
        return None
    # What another node failed first says nothing of this deployment's speed.
    timed = [row for row in whole if row.streamed and row.first_token_ms and not row.failed_nodes]
    return Observation(
        start=start,
        end=end,
        requests=len(whole),
        replicas=replicas,
        prompt_tokens=max(1.0, float(np.mean([row.prompt_tokens for row in whole]))),
        output_tokens=float(np.mean([row.completion_tokens for row in whole])),
        ttft_p95_ms=_p95([float(row.first_token_ms) for row in timed]),
        itl_p95_ms=_p95([each for row in timed if (each := _between(row)) is not None]),
        e2e_p95_ms=_p95([float(row.latency_ms) for row in whole if row.latency_ms]),
        cost_per_hour_pusd=cost_per_hour_pusd,
        failed=len(rows) - len(whole),
        source="ledger",
    )


def _between(row: Any) -> float | None:
    steps = row.completion_tokens - 1
    spent = row.latency_ms - row.first_token_ms
    return spent / steps if steps > 0 and spent > 0 else None


def _p95(values: list[float]) -> float | None:
    return float(np.quantile(values, 0.95)) if values else None
