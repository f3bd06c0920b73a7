"""Tokens, certificates, reports and what operators ask of agents, over HTTP, on both databases."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest_asyncio
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.agent.papers import new_key
from crosslogic.api.services import ApiServices
from crosslogic.fleet.agents import LogLine
from crosslogic.fleet.identity import NodeIdentity
from crosslogic.fleet.join_token import read_token
from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.registry import Registration
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import NodeId
from crosslogic.settings import SettingsSource, load_settings
from crosslogic.store.tables import engine_counters
from crosslogic.wiring.agents import AgentEntrance
from tests.contract.test_api_admin import HASH, HEADERS, client_of, error_of, services_on


class Control:
    """The API with agents let in, and whoever it serves."""

    def __init__(self, engine: AsyncEngine, directory: Path) -> None:
        self.engine = engine
        services = services_on(engine)
        flags = {"data_dir": str(directory), "control": {"agent_port": 0, "agent_host": "agents.example"}}
        settings = load_settings(SettingsSource(flags=flags))
        entrance = AgentEntrance(settings, engine, services.nodes, ManualClock(), HASH)
        self.services = ApiServices(**{**vars(services), "agents": entrance.services})
        self.agents = entrance.services.agents
        self.operator = client_of(self.services, **HEADERS)
        self.anybody = client_of(self.services)

    async def join(self, token: str, node_id: str = "") -> httpx.Response:
        read, key = read_token(token), new_key()
        fields = {
            "public_key": read.public_key,
            "signature": read.signature(key.csr_der, node_id),
            "csr": key.csr_der,
        }
        body = {name: base64.b64encode(data).decode() for name, data in fields.items()}
        return await self.anybody.post("/nodes/join", json={**body, "node_id": node_id, "of_the_future": 1})

    async def post(self, path: str, body: Any = None, status: int = 200) -> Any:
        answer = await self.operator.post(path, json=body)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def get(self, path: str, **query: Any) -> Any:
        answer = await self.operator.get(path, params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()


@pytest_asyncio.fixture
async def control(engine: AsyncEngine, tmp_path: Path) -> AsyncIterator[Control]:
    control = Control(engine, tmp_path)
    await control.services.tenancy.create_org("acme")
    yield control
    await control.operator.aclose()
    await control.anybody.aclose()


async def test_a_machine_joins_with_a_token_and_is_revoked(control: Control) -> None:
    made = await control.post("/admin/node-tokens", {"org": "acme", "region": "eu", "ttl_s": 600}, 201)
    joined = await control.join(made["token"], "gpu-7")
    assert joined.status_code == 200, joined.text
    said = joined.json()
    assert (said["node_id"], said["region"], said["agent_host"]) == ("gpu-7", "eu", "agents.example")
    assert said["org_id"] == (await control.services.tenancy.org("acme")).id
    assert "BEGIN CERTIFICATE" in said["certificate"]
    assert error_of(await control.join(made["token"]))[0] == 401

    (token,) = (await control.get("/admin/node-tokens", org="acme"))["data"]
    assert (token["status"], token["used_by"]) == ("used", "gpu-7")
    assert "token" not in token
    (certificate,) = (await control.get("/admin/node-certificates", node="gpu-7"))["data"]
    assert certificate["status"] == "valid"
    revoked = await control.post("/admin/nodes/gpu-7/revoke")
    assert revoked["serials"] == [certificate["serial"]]
    assert (await control.get("/admin/node-certificates"))["data"][0]["status"] == "revoked"
    actions = [entry["action"] for entry in (await control.get("/admin/audit"))["data"]]
    assert actions == ["node.revoke", "node.refuse", "node.join", "node_token.create", "org.create"]


async def test_tokens_are_listed_page_by_page_and_revoked(control: Control) -> None:
    made = [await control.post("/admin/node-tokens", {}, 201) for _ in range(3)]
    first = await control.get("/admin/node-tokens", limit=2)
    rest = await control.get("/admin/node-tokens", limit=2, cursor=first["next_cursor"])
    assert [row["id"] for row in first["data"] + rest["data"]] == [row["id"] for row in made]
    gone = (await control.operator.delete(f"/admin/node-tokens/{made[0]['id']}")).json()
    assert gone["status"] == "revoked"
    assert error_of(await control.join(made[0]["token"]))[0] == 401
    for body in ({"ttl_s": 0}, {"ttl_s": 10**8}, {"org": "nobody"}, {"regoin": "eu"}):
        assert (await control.operator.post("/admin/node-tokens", json=body)).status_code in (400, 404)


async def test_nobody_joins_without_a_token_of_ours(control: Control) -> None:
    for body in ({}, {"public_key": "??", "signature": "AA==", "csr": "AA=="}):
        assert (await control.anybody.post("/nodes/join", json=body)).status_code == 400
    body = {"public_key": "AA==", "signature": "AA==", "csr": "AA=="}
    assert error_of(await control.anybody.post("/nodes/join", json=body))[0] == 401


async def test_operators_see_what_agents_say_and_ask_them_to_upgrade(control: Control) -> None:
    who = NodeIdentity(NodeId("gpu-7"))
    said = Registration(endpoint_url="http://10.0.0.7:8000", models=("m",))
    await control.agents.register(who, said, {"engine_version": "0.32.0"})
    control.agents.metrics(who, {"engine_restarts": 2, "engine": {"vllm:generation_tokens_total": 70.0}})
    control.agents.logs(who, [LogLine("t", "engine", f"line {number}") for number in range(5)])
    report = await control.get("/admin/nodes/gpu-7/report")
    assert report["report"]["facts"]["engine_version"] == "0.32.0"
    assert report["report"]["metrics"]["engine_restarts"] == 2
    lines = (await control.get("/admin/nodes/gpu-7/logs", limit=2))["data"]
    assert [line["text"] for line in lines] == ["line 3", "line 4"]
    async with control.engine.connect() as conn:
        assert (await conn.scalars(select(engine_counters.c.generated_tokens))).all() == [70]

    assert (await control.agents.heartbeat(who, Heartbeat())).wanted_version is None
    asked = await control.post("/admin/nodes/gpu-7/upgrade", {"version": "0.2.0"}, 202)
    assert asked["wanted_version"] == "0.2.0"
    assert (await control.agents.heartbeat(who, Heartbeat())).wanted_version == "0.2.0"
    for wrong in ("--index-url=x", "1.0; x", ""):
        answer = await control.operator.post("/admin/nodes/gpu-7/upgrade", json={"version": wrong})
        assert answer.status_code == 400

    warned = await control.post("/admin/nodes/gpu-7/spot-warning", {"cloud": "oci", "action": "terminate"})
    assert warned["status"] == "draining"
    assert (await control.get("/admin/nodes/gpu-7/report"))["report"]["spot_notice"]["cloud"] == "oci"
    for path in ("report", "logs"):
        assert (await control.operator.get(f"/admin/nodes/nobody/{path}")).status_code == 404
