"""Outcomes on both databases: seen in the ledger and by Prometheus, judged once, learnt of, kept from other orgs."""

import asyncio
import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.outcomes.ledger import from_ledger
from crosslogic.compass.outcomes.model import Observation
from crosslogic.compass.outcomes.prometheus import Prometheus
from crosslogic.compass.outcomes.sql import OutcomesSql
from crosslogic.compass.ranking.model import Candidate
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.kernel.ids import first_request_id
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.contract.test_store_tables import put, usage_row
from tests.manifest_samples import KSERVE, PLAN
from tests.planner_samples import LLAMA, SPEC, planner

CANDIDATE = Candidate(LLAMA, "h100_sxm", 1, "fp8")
LIMITS = ReplicaLimits(400_000)
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
END = START + timedelta(minutes=5)


def seen(number: int = 0, **fields: Any) -> Observation:
    start = START + number * timedelta(minutes=5)
    usual = {
        "start": start,
        "end": start + timedelta(minutes=5),
        "requests": 1500,
        "replicas": 1,
        "prompt_tokens": 512.0,
        "output_tokens": 256.0,
        "ttft_p95_ms": 900.0,
        "itl_p95_ms": 40.0,
        "e2e_p95_ms": 12_000.0,
    }
    return Observation(**{**usual, **fields})


@pytest.fixture
async def planned(engine: AsyncEngine) -> tuple[str, str]:
    """An org, and a deployment of it."""
    clock = ManualClock()
    org = await TenancyService(TenancySql(engine), key_hasher(), clock).create_org("acme")
    plan = type(PLAN)(**{name: getattr(PLAN, name) for name in PLAN.__struct_fields__} | {"org_id": org.id})
    made = await DeploymentsSql(engine, clock).add(plan, KSERVE, AuditTrail(digest=key_hasher(), clock=clock))
    return org.id, made.id


async def test_a_window_is_judged_once_and_the_next_forecast_is_nearer(
    engine: AsyncEngine, planned: tuple[str, str]
) -> None:
    org_id, deployment_id = planned
    store = OutcomesSql(engine, ManualClock())
    model = planner().model(CANDIDATE, SPEC)
    assert await store.bias(org_id, CANDIDATE.id) is None
    first = await store.record(org_id, deployment_id, CANDIDATE.id, seen(), model, LIMITS)
    bias = await store.bias(org_id, CANDIDATE.id)
    again = await store.record(org_id, deployment_id, CANDIDATE.id, seen(itl_p95_ms=1.0), model, LIMITS)
    assert again == first
    assert await store.bias(org_id, CANDIDATE.id) == bias
    second = await store.record(org_id, deployment_id, CANDIDATE.id, seen(1), model, LIMITS)
    assert first.itl_error is not None
    assert second.itl_error is not None
    assert abs(second.itl_error) < abs(first.itl_error)
    kept = await store.page(deployment_id, after=None, limit=10)
    assert [judged for _, judged in kept] == [second, first]
    assert await store.page(deployment_id, after=kept[0][0], limit=10) == kept[1:]
    factors = await store.factors(org_id)
    assert factors[CANDIDATE.id].itl > 1
    assert await store.factors("org_other") == {}


async def test_windows_that_are_judged_at_once_all_teach(engine: AsyncEngine, planned: tuple[str, str]) -> None:
    org_id, deployment_id = planned
    store = OutcomesSql(engine, ManualClock())
    model = planner().model(CANDIDATE, SPEC)
    numbers = (0, 0, 1, 2)
    await asyncio.gather(
        *(store.record(org_id, deployment_id, CANDIDATE.id, seen(each), model, LIMITS) for each in numbers)
    )
    bias = await store.bias(org_id, CANDIDATE.id)
    assert bias is not None
    assert bias.itl.windows == 3


async def test_what_nobody_can_have_seen_is_refused_and_teaches_nothing(
    engine: AsyncEngine, planned: tuple[str, str]
) -> None:
    store = OutcomesSql(engine, ManualClock())
    with pytest.raises(InvalidRequest):
        await store.record(*planned, CANDIDATE.id, seen(replicas=0), planner().model(CANDIDATE, SPEC), LIMITS)
    assert await store.bias(planned[0], CANDIDATE.id) is None


async def test_the_ledger_tells_what_the_gateway_saw(engine: AsyncEngine) -> None:
    def row(number: int, **fields: Any) -> dict[str, Any]:
        request_id = first_request_id(int(START.timestamp() * 1000) + number * 1000)
        usual = {"seq": number + 1, "timestamp": START, "model": LLAMA, "failed_nodes": None, "completion_tokens": 11}
        return usage_row(f"{request_id}{number:020x}", **{**usual, "first_token_ms": 100, "latency_ms": 300, **fields})

    await put(
        engine,
        *(row(number) for number in range(20)),
        row(20, failed_nodes="node_7", first_token_ms=9_000, latency_ms=9_500),
        row(21, outcome="upstream_error", completion_tokens=0),
        row(22, org_id="org_2", latency_ms=50_000),
        row(23, model="another", latency_ms=50_000),
        row(400, latency_ms=50_000),
    )
    found = await from_ledger(
        engine, org_id="org_1", model=LLAMA, start=START, end=END, replicas=2, cost_per_hour_pusd=7
    )
    assert found is not None
    assert (found.requests, found.failed, found.replicas, found.cost_per_hour_pusd) == (21, 1, 2, 7)
    assert found.ttft_p95_ms == pytest.approx(100)
    assert found.itl_p95_ms == pytest.approx(20)
    assert found.e2e_p95_ms == pytest.approx(300, abs=1)
    assert found.output_tokens == 11
    elsewhere = {"org_id": "org_1", "model": LLAMA, "start": START, "end": END, "replicas": 1}
    assert await from_ledger(engine, **elsewhere, nodes=["node_9"]) is None  # type: ignore[arg-type]


class _Prometheus(BaseHTTPRequestHandler):
    """Answers by a part of the query; what it was asked is kept."""

    values: dict[str, float | str]
    queries: list[str]

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        query = parse_qs(self.rfile.read(length).decode())["query"][0]
        self.queries.append(query)
        found = [value for part, value in self.values.items() if part in query]
        result = [{"metric": {}, "value": [0, str(found[0])]}] if found else []
        body: dict[str, Any] = {"status": "success", "data": {"resultType": "vector", "result": result}}
        if found == ["refused"]:
            body = {"status": "error", "error": "parse error"}
        data = json.dumps(body).encode()
        self.send_response(200 if body["status"] == "success" else 400)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def prometheus() -> Iterator[tuple[str, type[_Prometheus]]]:
    handler = type("Handler", (_Prometheus,), {"values": {}, "queries": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler
    server.shutdown()
    server.server_close()
    thread.join(5)


async def test_prometheus_tells_the_same_by_vllms_own_metrics(prometheus: tuple[str, type[_Prometheus]]) -> None:
    url, handler = prometheus
    async with httpx.AsyncClient(trust_env=False) as http:
        server = Prometheus(url, http)
        window = {"start": START, "end": END}
        assert await server.observe("tenant-acme", "chat-metrics", **window) is None
        handler.values |= {
            "request_success": 1500.0,
            "prompt_tokens": 1500 * 512.0,
            "generation_tokens": 1500 * 256.0,
            "avg_over_time(up": 2.0,
            "time_to_first_token": 0.25,
            "inter_token_latency": 0.02,
            "e2e_request_latency": "NaN",
        }
        found = await server.observe("tenant-acme", "chat-metrics", **window)
        assert found is not None
        assert (found.requests, found.replicas, found.prompt_tokens, found.output_tokens) == (1500, 2, 512.0, 256.0)
        assert (found.ttft_p95_ms, found.itl_p95_ms, found.e2e_p95_ms) == (250.0, 20.0, None)
        assert all('{namespace="tenant-acme",service="chat-metrics"}' in query for query in handler.queries)
        handler.values["request_success"] = "refused"
        with pytest.raises(Unavailable, match="parse error"):
            await server.observe("tenant-acme", "chat-metrics", **window)
        with pytest.raises(Unavailable, match="does not answer"):
            await Prometheus("http://127.0.0.1:9", http).observe("n", "s", **window)
