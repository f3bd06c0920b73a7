"""Deployments over the management API: an org plans and looks, operators apply, roll back, observe and delete."""

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import first_request_id
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile
from crosslogic.tenancy.model import Role
from tests.contract.test_api_admin import HEADERS, client_of, deployed_on, error_of, services_on
from tests.contract.test_compass_deployments import cluster_at
from tests.contract.test_store_tables import put, usage_row
from tests.fake_kubernetes import State, kubernetes_server
from tests.planner_samples import LLAMA, SPEC

OWN, ADMIN = "/api/v1/compass/deployments", "/admin/compass/deployments"
START = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
WINDOW = {"start": START.isoformat(), "end": (START + timedelta(minutes=5)).isoformat()}


@pytest.fixture
def state(tmp_path: Path) -> Iterator[tuple[str, State]]:
    with kubernetes_server() as found:
        yield found


@pytest_asyncio.fixture
async def clients(
    engine: AsyncEngine, state: tuple[str, State], tmp_path: Path
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient, str]]:
    """An operator, an org's admin, and the org."""
    services = services_on(engine)
    deployed = deployed_on(engine, ManualClock(), services.planning, cluster_at(state[0], tmp_path))
    services = type(services)(**{**vars(services), "deployed": deployed})
    org = await services.tenancy.create_org("acme")
    await services.tenancy.create_environment("acme", "prod")
    key = await services.tenancy.create_key("acme", "prod", name="admin", role=Role.ADMIN)
    async with (
        client_of(services, **HEADERS) as admin,
        client_of(services, Authorization=f"Bearer {key.token}") as own,
    ):
        yield admin, own, org.id


def body(**fields: Any) -> dict[str, Any]:
    return {"name": "chat", "specification": msgspec.to_builtins(SPEC), **fields}


async def test_a_deployment_goes_from_a_specification_to_an_outcome(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient, str], state: tuple[str, State], engine: AsyncEngine
) -> None:
    admin, own, org_id = clients
    made = (await own.post(OWN, json=body(surroundings={"autoscaler": "hpa"}))).json()
    assert (made["state"], made["revision"]) == ("planned", 1)
    ref = made["id"]
    files = (await own.get(f"{OWN}/{ref}/manifests")).json()
    assert "hpa.yaml" in {each["path"] for each in files}
    assert not state[1].objects
    assert error_of(await own.post(f"{ADMIN}/{ref}/deploy", json={}))[0] == 403
    done = (await admin.post(f"{ADMIN}/{ref}/deploy", json={})).json()
    assert (done["state"], done["applied_revision"]) == ("applied", 1)
    assert (await own.get(f"{OWN}/{ref}/status")).json()["ready"] is True
    at = first_request_id(int(START.timestamp() * 1000))
    rows = [
        usage_row(
            f"{at}{number:020x}",
            seq=number + 1,
            org_id=org_id,
            model=LLAMA,
            failed_nodes=None,
            completion_tokens=201,
            prompt_tokens=512,
            first_token_ms=400,
            latency_ms=8400,
        )
        for number in range(60)
    ]
    await put(engine, *rows)
    judged = (await admin.post(f"{ADMIN}/{ref}/observe", json=WINDOW)).json()
    assert judged["observation"]["itl_p95_ms"] == pytest.approx(40)
    assert judged["itl_error"] > 0.5
    listed = (await own.get(f"{OWN}/{ref}/outcomes")).json()["data"]
    assert [each["itl_error"] for each in listed] == [judged["itl_error"]]
    detail = (await own.get(f"{OWN}/{ref}")).json()
    assert detail["forecast"]["itl_p95_ms"]["value"] > detail["plan"]["forecast"]["itl_p95_ms"]["value"]
    again = (await own.post("/api/v1/compass/recommendations", json={"specification": body()["specification"]})).json()
    before = (
        await admin.post("/admin/compass/recommendations", json={"specification": body()["specification"]})
    ).json()
    itl = {each["id"]: each["forecast"]["itl_p95"]["value"] for each in before["options"]}
    learnt = detail["plan"]["configuration"]
    assert {each["id"]: each["forecast"]["itl_p95"]["value"] for each in again["options"]}.get(learnt) != itl[learnt]
    assert error_of(await admin.post(f"{ADMIN}/{ref}/rollback", json={}))[0] == 409
    assert (await admin.delete(f"{ADMIN}/{ref}")).json()["state"] == "deleted"
    assert [each["id"] for each in (await own.get(OWN, params={"state": "deleted"})).json()["data"]] == [ref]


async def test_what_makes_no_sense_is_refused_in_a_sentence(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient, str],
) -> None:
    admin, own, _ = clients
    assert error_of(await own.post(OWN, json=body(surroundings={"autoscaler": "magic"})))[0] == 400
    assert error_of(await own.post(OWN, json=body(candidate="a@1xb/c/d")))[0] == 409
    assert error_of(await own.post(OWN, json=body(org="other")))[0] == 400
    ref = (await own.post(OWN, json=body())).json()["id"]
    assert error_of(await own.post(OWN, json=body()))[0] == 409
    for window in ({**WINDOW, "end": WINDOW["start"]}, {**WINDOW, "end": "2027-01-01T00:00:00Z"}):
        assert error_of(await admin.post(f"{ADMIN}/{ref}/observe", json=window))[0] == 400
    assert error_of(await admin.post(f"{ADMIN}/{ref}/observe", json=WINDOW))[0] == 409
    assert error_of(await admin.post(f"{ADMIN}/{ref}/observe", json={**WINDOW, "source": "prometheus"}))[0] == 503
    assert error_of(await admin.get(f"{ADMIN}/plan_absent"))[0] == 404


async def test_a_plan_is_made_anew_and_keeps_its_history(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient, str], state: tuple[str, State]
) -> None:
    admin, own, _ = clients
    ref = (await own.post(OWN, json=body())).json()["id"]
    await admin.post(f"{ADMIN}/{ref}/deploy", json={})
    tried = (await admin.post(f"{ADMIN}/{ref}/deploy", json={"dry_run": True})).json()
    assert (tried["state"], tried["revision"]) == ("applied", 1)
    spec = msgspec.to_builtins(SPEC)
    more = {**spec, "traffic": {**spec["traffic"], "peak_qps": 200.0}}
    revised = await own.post(f"{OWN}/{ref}/revisions", json={"specification": more})
    assert revised.status_code == 201, revised.text
    assert (revised.json()["revision"], revised.json()["applied_revision"]) == (2, 1)
    stored = await own.post("/api/v1/compass/specifications", json={"description": "a chatbot for 300 users on H100"})
    again = await own.post(f"{OWN}/{ref}/revisions", json={"specification_id": stored.json()["specification"]["id"]})
    assert again.json()["revision"] == 3
    history = (await own.get(f"{OWN}/{ref}/revisions")).json()["data"]
    assert [each["revision"] for each in history] == [3, 2, 1]
    assert history[1]["cost_per_month_usd"] > history[2]["cost_per_month_usd"]
    assert [each["revision"] for each in (await own.get(f"{OWN}/{ref}/revisions?applied=true")).json()["data"]] == [1]
    assert [each["revision"] for each in (await own.get(f"{OWN}/{ref}/revisions?cursor=3")).json()["data"]] == [2, 1]
    assert [each["id"] for each in (await own.get(OWN, params={"name": "chat"})).json()["data"]] == [ref]
    assert (await own.get(OWN, params={"name": "other"})).json()["data"] == []
    assert error_of(await own.post(f"{OWN}/{ref}/revisions", json={}))[0] == 400
    both = {"specification": spec, "specification_id": "spec_x"}
    assert error_of(await own.post(f"{OWN}/{ref}/revisions", json=both))[0] == 400
    assert error_of(await own.post(f"{OWN}/{ref}/revisions", json={"specification_id": "spec_x"}))[0] == 404


async def test_operators_choose_where_and_organisations_do_not(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient, str],
) -> None:
    admin, own, org_id = clients
    for around in ({"platform": "nodes"}, {"namespace": "tenant-other"}):
        assert error_of(await own.post(OWN, json=body(surroundings=around)))[0] == 403
    made = await admin.post(ADMIN, json=body(org="acme", surroundings={"namespace": "shared"}))
    assert made.status_code == 201, made.text
    assert made.json()["org_id"] == org_id
    files = (await own.get(f"{OWN}/{made.json()['id']}/manifests")).json()
    assert 'namespace: "shared"' in next(each["text"] for each in files if each["path"] == "metrics.yaml")
    assert error_of(await admin.post(ADMIN, json=body(org="nobody")))[0] == 404


async def test_a_prompt_reaches_the_engine_and_says_how_long_it_took(
    clients: tuple[httpx.AsyncClient, httpx.AsyncClient, str], state: tuple[str, State]
) -> None:
    admin, own, _ = clients
    ref = (await own.post(OWN, json=body(surroundings={"simulator": True}))).json()["id"]
    asked = {"prompt": "What is the capital of France?", "max_tokens": 16}
    assert "apply it before" in (await own.post(f"{OWN}/{ref}/test", json=asked)).json()["error"]["message"]
    await admin.post(f"{ADMIN}/{ref}/deploy", json={})
    assert error_of(await own.post(f"{OWN}/{ref}/test", json=asked))[0] == 503
    state[1].forbidden.add(("create", "services/proxy"))
    refused = await own.post(f"{OWN}/{ref}/test", json=asked)
    assert (refused.status_code, "services/proxy" in refused.text) == (403, True)
    state[1].forbidden.clear()
    async with SimulatedNode(find_profile(LLAMA), NodeOptions(port=0, speedup=50.0)) as engine:
        state[1].engine_url = engine.url
        answer = await own.post(f"{OWN}/{ref}/test", json=asked)
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert (found["model"], found["output_tokens"]) == (LLAMA, 16)
        assert found["text"]
        assert 0 < found["latency_ms"] < 60_000
        codes = [(await own.post(f"{OWN}/{ref}/test", json=asked)).status_code for _ in range(10)]
    assert codes[-1] == 503  # nothing of it is metered, so not without end
    for wrong in ({"prompt": ""}, {"prompt": "x", "max_tokens": 10_000}, {"prompt": "x" * 5000}):
        assert error_of(await own.post(f"{OWN}/{ref}/test", json=wrong))[0] == 400
