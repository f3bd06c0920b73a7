"""What Prometheus saw of a deployment's vLLM, over its HTTP API.

Percentiles of histograms are as coarse as vLLM's buckets; `inter_token_latency` is of single tokens, not of requests'
means. Invariant: a query that has no answer is None, never 0.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from math import isfinite

import httpx

from crosslogic.compass.manifests.objectives import SERVED, percentile, selector
from crosslogic.compass.outcomes.model import Observation
from crosslogic.kernel.errors import Unavailable

TIMEOUT_S = 10.0


class Prometheus:
    """One server, asked for values at an instant."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self._url = url.rstrip("/")
        self._http = http

    async def close(self) -> None:
        await self._http.aclose()

    async def observe(
        self, namespace: str, service: str, *, start: datetime, end: datetime, cost_per_hour_pusd: int | None = None
    ) -> Observation | None:
        """None where nothing was served in the window."""
        at = selector(namespace, service)
        window = f"{max(1, int((end - start).total_seconds()))}s"

        def increase(name: str) -> str:
            return f"sum(increase({name}{at}[{window}]))"

        served, prompt, output, replicas, ttft, itl, e2e = await asyncio.gather(
            self._value(increase(SERVED), end),
            self._value(increase("vllm:prompt_tokens_total"), end),
            self._value(increase("vllm:generation_tokens_total"), end),
            self._value(f"sum(avg_over_time(up{at}[{window}]))", end),
            *(self._value(percentile(each, at, window), end) for each in ("ttft", "itl", "e2e")),
        )
        if not served or served < 1 or not prompt or not output:
            return None
        return Observation(
            start=start,
            end=end,
            requests=round(served),
            replicas=max(1, round(replicas or 1)),
            prompt_tokens=prompt / served,
            output_tokens=output / served,
            ttft_p95_ms=_ms(ttft),
            itl_p95_ms=_ms(itl),
            e2e_p95_ms=_ms(e2e),
            cost_per_hour_pusd=cost_per_hour_pusd,
            source="prometheus",
        )

    async def _value(self, query: str, at: datetime) -> float | None:
        try:
            answer = await self._http.post(
                f"{self._url}/api/v1/query", data={"query": query, "time": str(at.timestamp())}, timeout=TIMEOUT_S
            )
            body = answer.json()
        except (httpx.HTTPError, ValueError):
            raise Unavailable(f"Prometheus at {self._url} does not answer") from None
        if not isinstance(body, dict) or body.get("status") != "success":
            said = str(body.get("error", ""))[:200] if isinstance(body, dict) else ""
            raise Unavailable(f"Prometheus at {self._url} refuses a query: {said or answer.status_code}")
        try:
            value = float(body["data"]["result"][0]["value"][1])
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        return value if isfinite(value) else None


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None or seconds <= 0 else seconds * 1e3
