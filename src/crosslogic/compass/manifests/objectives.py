"""The service level objectives in PromQL: alerts, recorded figures and the panels of the dashboard. Pure.

Invariant: queries name namespace and service alone, both of which are DNS labels, so that no model name can stand in
one. vLLM's metric names hold colons.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from crosslogic.compass.manifests.model import DeploymentPlan

METRICS = {
    "ttft": "vllm:time_to_first_token_seconds",
    "itl": "vllm:inter_token_latency_seconds",
    "e2e": "vllm:e2e_request_latency_seconds",
}
RUNNING = "vllm:num_requests_running"
WAITING = "vllm:num_requests_waiting"
KV_CACHE = "vllm:kv_cache_usage_perc"
SERVED = "vllm:request_success_total"
TITLES = {"ttft": "Time to first token", "itl": "Inter-token latency", "e2e": "End to end"}


class Objective(msgspec.Struct, frozen=True):
    """One target, and the query that gives what there is instead, in seconds."""

    short: str
    title: str
    limit_s: float
    query: str


def selector(namespace: str, service: str) -> str:
    return f'{{namespace="{namespace}",service="{service}"}}'


def percentile(short: str, at: str, window: str = "5m", share: float = 0.95) -> str:
    return f"histogram_quantile({share:g}, sum by (le) (rate({METRICS[short]}_bucket{at}[{window}])))"


def objectives(plan: DeploymentPlan, at: str) -> list[Objective]:
    limits = {"ttft": plan.slo.ttft_p95_ms, "itl": plan.slo.itl_p95_ms, "e2e": plan.slo.e2e_p95_ms}
    return [
        Objective(short, TITLES[short], float(f"{limit / 1e3:.6g}"), percentile(short, at))
        for short, limit in limits.items()
        if limit is not None
    ]


def dashboard(plan: DeploymentPlan, name: str, at: str) -> str:
    """Grafana's JSON, in ASCII. Titles hold the deployment's safe name, never the model's."""
    panels: list[dict[str, Any]] = []

    def add(title: str, unit: str, *queries: tuple[str, str], limit: float | None = None) -> None:
        place = len(panels)
        steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
        if limit is not None:
            steps.append({"color": "red", "value": limit})
        panels.append(
            {
                "id": place + 1,
                "title": title,
                "type": "timeseries",
                "datasource": {"type": "prometheus", "uid": "${datasource}"},
                "gridPos": {"h": 8, "w": 12, "x": 12 * (place % 2), "y": 8 * (place // 2)},
                "fieldConfig": {
                    "defaults": {
                        "unit": unit,
                        "thresholds": {"mode": "absolute", "steps": steps},
                        "custom": {"thresholdsStyle": {"mode": "off" if limit is None else "line"}},
                    },
                    "overrides": [],
                },
                "targets": [
                    {"refId": chr(65 + number), "expr": query, "legendFormat": legend}
                    for number, (legend, query) in enumerate(queries)
                ],
            }
        )

    limits = {each.short: each.limit_s for each in objectives(plan, at)}
    for short, title in TITLES.items():
        shares = (("p50", 0.5), ("p95", 0.95), ("p99", 0.99))
        queries = [(legend, percentile(short, at, share=share)) for legend, share in shares]
        add(title, "s", *queries, limit=limits.get(short))
    add("Requests a second", "reqps", ("served", f"sum(rate({SERVED}{at}[5m]))"))
    tokens = ("vllm:prompt_tokens_total", "vllm:generation_tokens_total")
    add("Tokens a second", "short", *((name_, f"sum(rate({name_}{at}[5m]))") for name_ in tokens))
    add("Requests in the engine", "short", ("running", f"sum({RUNNING}{at})"), ("waiting", f"sum({WAITING}{at})"))
    add("Used KV cache", "percentunit", ("mean", f"avg({KV_CACHE}{at})"), ("highest", f"max({KV_CACHE}{at})"))
    add("Replicas", "short", ("up", f"sum(up{at})"))
    board = {
        "title": f"CrossLogic: {name}",
        "uid": f"crosslogic-{name}"[:40],
        "tags": ["crosslogic"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {
            "list": [{"name": "datasource", "type": "datasource", "query": "prometheus", "label": "Prometheus"}]
        },
        "panels": panels,
    }
    return json.dumps(board, indent=1)
