"""One agent in this process, between a real door of control and a simulated engine."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from crosslogic.agent import keeper as keeping
from crosslogic.agent import service
from crosslogic.agent.keeper import EngineKeeper
from crosslogic.agent.log_stream import LogStream
from crosslogic.agent.metadata import Metadata
from crosslogic.agent.model import AgentOptions, EngineOptions, Place
from crosslogic.agent.papers import Papers, new_key, read_papers
from crosslogic.agent.service import Agent, Ending
from crosslogic.fleet.fetch import HttpFetch
from crosslogic.fleet.join_token import read_token
from crosslogic.fleet.model import NodeStatus
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.trust import JoinRequest, Trust
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import NodeId
from crosslogic.settings import SettingsSource, load_settings
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile
from crosslogic.store.engine import create_engine
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from crosslogic.wiring.agents import AgentEntrance
from crosslogic.wiring.process import Background
from tests.flow.clouds import LLAMA

NODE = NodeId("gpu-7")


class Rig:
    """`lifetime_s` is that of certificates."""

    def __init__(self, database_url: str, directory: Path, lifetime_s: float) -> None:
        control = {"agent_port": 0, "agent_listen": "127.0.0.1", "certificate_lifetime_s": lifetime_s}
        flags = {"data_dir": str(directory), "control": control, "fleet": {"heartbeat_interval_s": 0.2}}
        self.directory = directory
        self.engine = create_engine(database_url)
        self.registry = Registry(self.engine, SystemClock())
        self.background = Background(asyncio.Event())
        settings = load_settings(SettingsSource(flags=flags))
        self.entrance = AgentEntrance(settings, self.engine, self.registry, SystemClock(), key_hasher())
        self.node = SimulatedNode(find_profile(LLAMA, "H100", 1, None, None), NodeOptions(port=0, speedup=20.0))

    async def start(self) -> None:
        await self.entrance.start(self.background)
        await self.node.start()

    async def papers(self) -> Papers:
        assert self.trust is not None
        made = await self.trust.create_token(AuditTrail(), org_id=None, region="eu")
        token, key = read_token(made.text), new_key()
        request = JoinRequest(token.public_key, token.signature(key.csr_der, NODE), key.csr_der, NODE)
        joined = await self.trust.join(request, "test")
        port = self.entrance.services.port()
        ca, certificate = joined.ca_pem.decode(), joined.certificate_pem.decode()
        return Papers(NODE, "eu", key.key_pem, certificate, ca, "127.0.0.1", port, SystemClock().now())

    @property
    def trust(self) -> Trust | None:
        return self.entrance.services.trust

    async def status(self) -> NodeStatus | None:
        try:
            return (await self.registry.node(NODE)).status
        except NotFound:
            return None

    async def until(self, wanted: Any, timeout_s: float = 20.0) -> None:
        async with asyncio.timeout(timeout_s):
            while not await wanted():
                await asyncio.sleep(0.05)

    async def close(self) -> None:
        await self.node.close(0.0)
        await self.background.close()
        await self.entrance.close()
        await self.engine.dispose()


@pytest_asyncio.fixture
async def rig(sqlite_url: str, tmp_path: Path) -> AsyncIterator[Rig]:
    rig = Rig(sqlite_url, tmp_path, lifetime_s=3.0)
    await rig.start()
    yield rig
    await rig.close()


async def test_an_agent_attached_to_a_running_engine_outlives_its_first_certificate_and_leaves(rig: Rig) -> None:
    options = AgentOptions(
        "http://unused", rig.directory, EngineOptions(url=rig.node.url), metrics_interval_s=0.2, benchmark=False
    )
    async with HttpFetch() as fetch, Metadata(options.metadata) as metadata:
        keeper = EngineKeeper(options, fetch, None)
        agent = Agent(options, await rig.papers(), keeper, metadata, Place(), rig.node.url, LogStream())
        running = asyncio.create_task(agent.run())

        async def serving() -> bool:
            return await rig.status() is NodeStatus.ACTIVE

        async def third_certificate() -> bool:
            assert rig.trust is not None
            return len(await rig.trust.certificates(node_id=NODE)) >= 3

        await rig.until(serving)
        await rig.until(third_certificate)  # the first has expired by then
        assert await serving()
        assert not running.done()
        kept = read_papers(rig.directory)
        assert kept is not None
        assert kept.is_valid(SystemClock().now())
        assert (await rig.registry.node(NODE)).models == (LLAMA,)
        metrics = (await rig.entrance.services.agents.report(NODE))["report"]["metrics"]
        assert metrics["engine"]["vllm:num_requests_running"] == 0.0
        agent.drain("tested")
        assert await asyncio.wait_for(running, 20) == Ending(0)
    assert await rig.status() is None


async def test_what_arrives_after_the_last_look_at_the_engine_is_waited_for_too(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway may send for a moment after the drain began: that the engine was idle before says nothing."""
    monkeypatch.setattr(service, "SETTLE_S", 1.0)
    monkeypatch.setattr(keeping, "LOOK_INTERVAL_S", 2.0)
    options = AgentOptions("http://unused", rig.directory, EngineOptions(url=rig.node.url), benchmark=False)
    async with HttpFetch() as fetch, Metadata(options.metadata) as metadata, httpx.AsyncClient(trust_env=False) as http:
        keeper = EngineKeeper(options, fetch, None)
        agent = Agent(options, await rig.papers(), keeper, metadata, Place(), rig.node.url, LogStream())
        running = asyncio.create_task(agent.run())

        async def serving() -> bool:
            return await rig.status() is NodeStatus.ACTIVE

        await rig.until(serving)
        agent.drain("tested")
        body = {"model": LLAMA, "prompt": "Tell:", "max_tokens": 12_000, "ignore_eos": True}
        answer = asyncio.create_task(http.post(f"{rig.node.url}/v1/completions", json=body, timeout=60))
        assert await asyncio.wait_for(running, 60) == Ending(0)
        assert answer.done()
        assert (await answer).status_code == 200
