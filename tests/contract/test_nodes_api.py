"""`/admin/nodes` over HTTP, with the documents' field names, on a real database."""

from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api import errors
from crosslogic.api.nodes import nodes_router
from crosslogic.fleet.registry import Registry
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId

BODY = {
    "node_id": "node-7",
    "region": "india",
    "cloud": "yotta",
    "spot": True,
    "gpu_type": "L40S",
    "vram_total": "48 GB",
    "vram_free": 40,
    "throughput_tokens_per_sec": 2400,
    "model_list": ["llama-3-8b"],
    "endpoint_url": "http://10.1.2.3:8000",
    "tailnet_ip": "100.64.0.9",
    "api_key": "node-secret",
    "gpu_temperature_c": 61,
}


@pytest.fixture
def registry(engine: AsyncEngine) -> Registry:
    return Registry(engine, ManualClock())


@pytest_asyncio.fixture
async def client(registry: Registry) -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    app.include_router(nodes_router(lambda: registry))
    errors.install(app)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://control") as client:
        yield client


async def test_a_node_registers_reports_drains_and_leaves(client: httpx.AsyncClient, registry: Registry) -> None:
    registered = await client.post("/admin/nodes/register", json=BODY)
    assert registered.status_code == 200
    seen = registered.json()
    assert seen["node_id"] == "node-7"
    assert seen["model_list"] == ["llama-3-8b"]
    assert (seen["vram_total_mb"], seen["vram_free_mb"]) == (49152, 40960)
    assert seen["throughput_tokens_per_sec"] == 2400
    assert seen["status"] == "active"
    assert seen["created_at"].endswith("Z")
    assert (await client.post("/admin/nodes/register", json=BODY)).json() == seen

    beat = {"requests_running": 5, "requests_waiting": 1, "kv_cache_used_ratio": 0.4, "vram_free_mb": 7}
    answer = await client.post("/admin/nodes/node-7/heartbeat", json=beat)
    assert answer.json() == {"node_id": "node-7", "status": "active", "heartbeat_interval_s": 5.0}
    assert (await client.post("/admin/nodes/node-7/heartbeat")).status_code == 200
    one = (await client.get("/admin/nodes/node-7")).json()
    assert one["vram_free_mb"] == 7
    assert one["load"]["requests_running"] == 0  # the empty heartbeat said that it is idle

    drained = await client.post("/admin/nodes/node-7/drain")
    assert drained.json()["status"] == "draining"
    assert (await client.post("/admin/nodes/node-7/heartbeat")).json()["status"] == "draining"
    gone = await client.delete("/admin/nodes/node-7")
    assert (gone.status_code, gone.content) == (204, b"")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/drain"), ("POST", "/heartbeat")):
        answer = await client.request(method, f"/admin/nodes/node-7{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


async def test_the_nodes_own_key_is_written_and_never_read(client: httpx.AsyncClient, registry: Registry) -> None:
    answers = [
        await client.post("/admin/nodes/register", json=BODY),
        await client.get("/admin/nodes"),
        await client.get("/admin/nodes/node-7"),
        await client.post("/admin/nodes/node-7/drain"),
        await client.post("/admin/nodes/register", json={**BODY, "region": 5}),
    ]
    assert all("node-secret" not in answer.text for answer in answers)
    assert (await registry.node(NodeId("node-7"))).api_key == "node-secret"


async def test_our_names_are_as_good_as_the_documents(client: httpx.AsyncClient) -> None:
    body = {"endpoint_url": "http://10.1.2.3:8000", "models": ["m"], "vram_total_mb": 100, "engine": "vllm"}
    seen = (await client.post("/admin/nodes/register", json=body)).json()
    assert (seen["model_list"], seen["vram_total_mb"], seen["backend"]) == (["m"], 100, "vllm")
    assert seen["node_id"].startswith("node_")


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"endpoint_url": "http://169.254.169.254/latest"}, "endpoint_url"),
        ({"endpoint_url": "http://a:b@node:8000"}, "endpoint_url"),
        ({"endpoint_url": 5}, "endpoint_url"),
        ({"model_list": []}, "model_list"),
        ({"model_list": "llama"}, "model_list"),
        ({"status": "dead"}, "status"),
        ({"status": "healthy"}, "status"),
        ({"org_id": "org_nobody"}, "org_id"),
        ({"vram_total": "much"}, "vram_total"),
        ({"throughput_tokens_per_sec": -1}, "throughput_tokens_per_sec"),
        ({"node_id": "a/b"}, "node_id"),
    ],
)
async def test_what_is_wrong_is_named(client: httpx.AsyncClient, changes: dict[str, object], param: str) -> None:
    refused = await client.post("/admin/nodes/register", json={**BODY, **changes})
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == param
    assert (await client.get("/admin/nodes")).json()["data"] == []


async def test_an_address_that_is_taken_is_a_conflict(client: httpx.AsyncClient) -> None:
    await client.post("/admin/nodes/register", json=BODY)
    refused = await client.post("/admin/nodes/register", json={**BODY, "node_id": "other"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "conflict")


async def test_lists_have_filters_and_cursor_pages(client: httpx.AsyncClient) -> None:
    for index in range(5):
        body = {"node_id": f"node-{index}", "endpoint_url": f"http://10.0.0.{index}:8000"}
        await client.post(
            "/admin/nodes/register", json={**body, "models": ["m"], "region": "eu" if index == 4 else "us"}
        )
    await client.post("/admin/nodes/node-2/drain")
    names: list[str] = []
    cursor: str | None = None
    for _ in range(3):
        params = {"limit": 2} | ({"cursor": cursor} if cursor else {})
        page = (await client.get("/admin/nodes", params=params)).json()
        names += [node["node_id"] for node in page["data"]]
        cursor = page["next_cursor"]
    assert names == [f"node-{index}" for index in range(5)]
    assert cursor is None

    async def found(**params: str) -> list[str]:
        return [node["node_id"] for node in (await client.get("/admin/nodes", params=params)).json()["data"]]

    assert await found(status="draining") == ["node-2"]
    assert await found(region="eu") == ["node-4"]
    assert await found(model="absent") == []
    assert (await client.get("/admin/nodes", params={"limit": 0})).status_code == 400
    assert (await client.get("/admin/nodes", params={"status": "asleep"})).status_code == 400
