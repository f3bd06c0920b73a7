"""The planner over the management API, on both databases: recommended, compared, kept, shared, never across orgs."""

from typing import Any

import httpx
import msgspec
import pytest

from tests.contract.test_api_admin import client, error_of, house
from tests.planner_samples import SPEC

__all__ = ["client"]  # a fixture

SPECIFICATION = msgspec.to_builtins(SPEC)
OWN = "/api/v1/compass"


async def tenant(client: httpx.AsyncClient, org: str) -> dict[str, str]:
    """Headers of an admin of a new org."""
    made = await house(client, org)
    body = {"org": made["org"], "environment": made["env"], "name": "planning", "role": "admin"}
    token = (await client.post("/admin/keys", json=body)).json()["key"]
    return {"Authorization": f"Bearer {token}"}


async def test_a_specification_is_answered_with_deployments_and_reasons(client: httpx.AsyncClient) -> None:
    headers = await tenant(client, "acme")
    found = await client.post(f"{OWN}/recommendations", json={"specification": SPECIFICATION}, headers=headers)
    assert found.status_code == 200, found.text
    best = found.json()["options"][0]
    assert best["id"].startswith("meta-llama/Llama-3.1-8B-Instruct@")
    assert best["forecast"]["ttft_p95"]["low"] < best["forecast"]["ttft_p95"]["value"] <= 300
    assert best["forecast"]["itl_p95"]["evidence"] in ("calibrated", "estimated")
    assert any("requests/s at the peak" in reason for reason in best["reasons"])
    asked = {"specification": SPECIFICATION, "change": {"traffic_times": 10}}
    compared = (await client.post(f"{OWN}/comparisons", json=asked, headers=headers)).json()
    lines = {line["name"]: line for line in compared["differences"]}
    assert lines["cost a month"]["difference"].startswith("+$")
    doubted = await client.post(f"{OWN}/risks", json={"specification": SPECIFICATION, "draws": 100}, headers=headers)
    assert "likely to meet TTFT" in doubted.json()["risk"]["sentence"]


async def test_scenarios_are_kept_shared_and_never_seen_by_other_orgs(client: httpx.AsyncClient) -> None:
    acme, bolt = await tenant(client, "acme"), await tenant(client, "bolt")
    body = {"name": "twice", "specification": SPECIFICATION, "change": {"traffic_times": 2}}
    made = await client.post(f"{OWN}/scenarios", json=body, headers=acme)
    assert made.status_code == 201, made.text
    scenario = made.json()
    assert scenario["change"] == {"traffic_times": 2.0}
    assert scenario["outcome"]["options"]
    path = f"{OWN}/scenarios/{scenario['id']}"
    assert error_of(await client.post(f"{OWN}/scenarios", json=body, headers=acme))[0] == 409
    assert (await client.get(path, headers=acme)).json() == scenario
    for method in ("GET", "PATCH", "DELETE"):
        foreign = await client.request(method, path, json={}, headers=bolt)
        unknown = await client.request(method, f"{OWN}/scenarios/scen_absent", json={}, headers=acme)
        assert error_of(foreign) == error_of(unknown)
        assert foreign.status_code == 404
    colleague = {"org": "acme", "environment": "prod", "name": "second", "role": "admin"}
    other = {"Authorization": f"Bearer {(await client.post('/admin/keys', json=colleague)).json()['key']}"}
    assert (await client.get(path, headers=other)).status_code == 404
    assert (await client.patch(path, json={"shared": True}, headers=acme)).json()["shared"] is True
    assert (await client.get(path, headers=other)).status_code == 200
    listed = (await client.get(f"{OWN}/scenarios", headers=other)).json()["data"]
    assert [each["id"] for each in listed] == [scenario["id"]]
    assert (await client.get(f"{OWN}/scenarios", headers=bolt)).json()["data"] == []
    assert (await client.delete(path, headers=acme)).status_code == 204
    actions = [e["action"] for e in (await client.get("/admin/audit", params={"action": "scenario"})).json()["data"]]
    assert actions == ["scenario.delete", "scenario.change", "scenario.create"]


async def test_benchmarks_are_imported_once_and_listed(client: httpx.AsyncClient) -> None:
    row = {
        "model": "meta-llama/Llama-3.1-8B-Instruct",
        "gpu": "A100",
        "prompt_tokens": 512,
        "output_tokens": 256,
        "ttft_p95_ms": 45.2,
        "itl_p95_ms": 12.8,
        "offered_per_second": 5,
        "requests_per_second": 5,
        "requests": 100,
        "source": "a test",
    }
    saturated = {**row, "offered_per_second": 50}
    path = "/admin/compass/benchmarks"
    first = (await client.post(path, json={"benchmarks": [row, saturated]})).json()
    assert first["added"] == 1
    assert "over-saturated" in first["left_out"][0]
    assert (await client.post(path, json={"benchmarks": [row]})).json()["added"] == 0
    (listed,) = (await client.get(path, params={"gpu": "a100"})).json()["data"]
    assert (listed["gpu"], listed["ttft_p95_ms"], listed["stale"]) == ("a100_80", 45.2, False)
    assert error_of(await client.post(path, json={"benchmarks": [{**row, "gpu": "abacus"}]}))[0] == 400
    assert error_of(await client.post(path, json={"benchmarks": [{**row, "ttft_p95_ms": -1}]}))[0] == 400


def nonsense() -> list[Any]:
    traffic = SPECIFICATION["traffic"]
    return [
        {},
        {"use_case": "juggling"},
        {**SPECIFICATION, "traffic": {**traffic, "peak_qps": 1e12}},
        {**SPECIFICATION, "traffic": {**traffic, "peak_qps": -1}},
        {**SPECIFICATION, "traffic": {**traffic, "prompt_tokens": {"mean": -5, "p95": 1}}},
        {**SPECIFICATION, "wishes": {"preferred_gpus": ["abacus"]}},
    ]


@pytest.mark.parametrize("specification", nonsense())
async def test_nonsense_is_a_clear_answer(client: httpx.AsyncClient, specification: Any) -> None:
    answer = await client.post("/admin/compass/recommendations", json={"specification": specification})
    assert error_of(answer)[0] == 400


PRICES = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone\n"
    "acme.h100,H100,1,26,200,0.99,,mars-1,\n"
)
CONFIG = {
    "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32,
    "num_hidden_layers": 32, "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 32768,
}  # fmt: skip


async def test_imported_prices_are_planned_with_at_once(client: httpx.AsyncClient) -> None:
    headers = await tenant(client, "acme")
    asked = {"specification": SPECIFICATION}

    async def best() -> dict[str, Any]:
        found = await client.post(f"{OWN}/recommendations", json=asked, headers=headers)
        assert found.status_code == 200, found.text
        return dict(found.json()["options"][0])

    before = await best()
    body = {"format": "skypilot", "cloud": "acme", "as_of": "2026-01-01", "content": PRICES}
    imported = await client.post("/admin/catalog/prices", json=body)
    assert imported.status_code == 201, imported.text
    assert imported.json()["imported"] == 1
    after = await best()
    assert (after["cost"]["cloud"], after["cost"]["region"]) == ("acme", "mars-1")
    assert after["cost"]["per_month_pusd"] < before["cost"]["per_month_pusd"]
    assert (await client.delete("/admin/catalog/prices/acme")).status_code == 204
    assert (await best())["cost"] == before["cost"]


async def test_imported_models_are_understood_planned_and_deployed(client: httpx.AsyncClient) -> None:
    headers = await tenant(client, "acme")
    wishes = {"preferred_models": ["acme/superlm-8b"], "preferred_gpus": ["h100_sxm"]}
    asked = {"specification": {**SPECIFICATION, "wishes": wishes}}
    unknown = await client.post(f"{OWN}/recommendations", json=asked, headers=headers)
    assert "import its config.json" in unknown.json()["error"]["message"]
    body = {"id": "acme/superlm-8b", "config": CONFIG, "quality": "high"}
    assert (await client.post("/admin/catalog/models", json=body)).status_code == 201
    found = await client.post(f"{OWN}/recommendations", json=asked, headers=headers)
    assert found.status_code == 200, found.text
    best = found.json()["options"][0]
    assert best["candidate"]["model"] == "acme/superlm-8b"
    assert best["forecast"]["itl_p95"]["evidence"] == "estimated"
    said = {"description": "a chatbot for 300 users with acme/superlm-8b on H100"}
    specified = (await client.post(f"{OWN}/specifications", json=said, headers=headers)).json()
    assert specified["specification"]["fields"]["wishes.preferred_models"] == ["acme/superlm-8b"]
    assert specified["specification"]["findings"] == []
    planned = await client.post(f"{OWN}/deployments", json={"name": "own", **asked}, headers=headers)
    assert planned.status_code == 201, planned.text
    changed = {**asked, "change": {"model": "meta-llama/Llama-3.1-8B-Instruct"}}
    compared = await client.post(f"{OWN}/comparisons", json=changed, headers=headers)
    assert {line["name"]: line["before"] for line in compared.json()["differences"]}["model"] == "acme/superlm-8b"
    assert (await client.delete("/admin/catalog/models/acme/superlm-8b")).status_code == 204
    assert error_of(await client.post(f"{OWN}/recommendations", json=asked, headers=headers))[0] == 400
