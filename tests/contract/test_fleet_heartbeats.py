"""Heartbeats of many nodes are one write, and still nothing that matters is late or lost; on both databases."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
import pytest_asyncio
from sqlalchemy import event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import Node, NodeLoad, NodeStatus
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.fleet.sync import NodeSync
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import NodeId
from crosslogic.store.changes import Following
from crosslogic.store.tables import changes

NODES = 50


class Rig:
    """A registry with nodes, this process's heartbeats, and a gateway worker's table."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.clock = ManualClock()
        self.registry = Registry(engine, self.clock)
        self.heartbeats = Heartbeats(self.registry, engine, self.clock)
        self.control = Following(engine, [self.heartbeats.sync])
        self.table: dict[NodeId, Node] = {}
        self.worker = Following(engine, [NodeSync(engine, self._update)])
        self.ids = [NodeId(f"node-{number:03d}") for number in range(NODES)]

    async def start(self) -> None:
        for number, node_id in enumerate(self.ids):
            url = f"http://10.0.0.1:{number + 1}"
            await self.registry.register(Registration(endpoint_url=url, models=("m",), node_id=node_id))
        await self.control.start()
        await self.worker.start()

    async def all_say(self, running: int) -> None:
        for node_id in self.ids:
            await self.heartbeats.heartbeat(node_id, Heartbeat(load=NodeLoad(requests_running=running)))

    async def announced(self) -> int:
        async with self.engine.connect() as conn:
            return (await conn.execute(select(func.count()).select_from(changes))).scalar_one()

    def _update(self, nodes: list[Node]) -> None:
        self.table = {node.id: node for node in nodes}


@pytest_asyncio.fixture
async def rig(engine: AsyncEngine) -> AsyncIterator[Rig]:
    rig = Rig(engine)
    await rig.start()
    yield rig


@pytest.fixture
def statements(engine: AsyncEngine) -> list[str]:
    """What is sent to the database from now on."""
    seen: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda _c, _k, text, *_: seen.append(text))
    return seen


async def test_a_round_of_the_whole_fleet_is_one_write_and_one_announcement(rig: Rig, statements: list[str]) -> None:
    before = await rig.announced()
    statements.clear()
    await rig.all_say(running=7)
    assert statements == []  # nobody waits for the database
    rig.clock.advance(1)
    assert await rig.heartbeats.flush() == NODES
    assert sum(text.startswith("UPDATE nodes") for text in statements) == 1
    assert await rig.announced() == before + 1
    assert await rig.heartbeats.flush() == 0
    await rig.worker.poll()
    assert {node.load.requests_running for node in rig.table.values()} == {7}


async def test_what_does_not_matter_to_gateways_is_written_and_not_announced(rig: Rig) -> None:
    await rig.all_say(running=20)
    await rig.heartbeats.flush()
    before = await rig.announced()
    rig.clock.advance(5)
    for running in (21, 22, 23):
        await rig.all_say(running)
        await rig.heartbeats.flush()
    assert await rig.announced() == before
    node = await rig.registry.node(rig.ids[0])
    assert node.last_heartbeat_at == rig.clock.now()
    assert node.load.requests_running == 23
    await rig.all_say(running=26)  # small steps add up against what was last told
    await rig.heartbeats.flush()
    assert await rig.announced() == before + 1


async def test_who_reports_is_not_silent_and_who_does_not_is(rig: Rig) -> None:
    quiet, *others = rig.ids
    for _ in range(4):
        rig.clock.advance(5)
        for node_id in others:
            await rig.heartbeats.heartbeat(node_id, Heartbeat())
        await rig.heartbeats.flush()
    assert [node.id for node in await rig.registry.doubtful(15.0)] == [quiet]


async def test_a_change_of_status_is_not_delayed(rig: Rig) -> None:
    node_id = rig.ids[0]
    await rig.heartbeats.heartbeat(node_id, Heartbeat(load=NodeLoad(requests_running=3)))
    after = await rig.heartbeats.heartbeat(node_id, Heartbeat(status=NodeStatus.DRAINING))
    assert after.status is NodeStatus.DRAINING
    await rig.worker.poll()  # without a flush
    assert rig.table[node_id].status is NodeStatus.DRAINING
    await rig.heartbeats.flush()
    assert (await rig.registry.node(node_id)).status is NodeStatus.DRAINING


async def test_what_another_process_decided_is_not_overwritten(rig: Rig) -> None:
    node_id = rig.ids[0]
    await rig.heartbeats.heartbeat(node_id, Heartbeat(load=NodeLoad(requests_running=3)))
    await Registry(rig.engine, rig.clock).drain(node_id)  # while the heartbeat waits here
    await rig.heartbeats.flush()
    assert (await rig.registry.node(node_id)).status is NodeStatus.DRAINING
    await rig.control.poll()
    assert (await rig.heartbeats.heartbeat(node_id, Heartbeat())).status is NodeStatus.DRAINING


async def test_a_dead_node_comes_back_at_once(rig: Rig) -> None:
    node_id = rig.ids[0]
    rig.clock.advance(20)
    await rig.registry.bury(node_id)
    await rig.control.poll()
    assert (await rig.heartbeats.heartbeat(node_id, Heartbeat())).status is NodeStatus.ACTIVE
    await rig.worker.poll()
    assert rig.table[node_id].status is NodeStatus.ACTIVE


async def test_a_node_that_is_gone_is_told_to_register(rig: Rig) -> None:
    node_id = rig.ids[0]
    await rig.heartbeats.heartbeat(node_id, Heartbeat(load=NodeLoad(requests_running=3)))
    await rig.registry.deregister(node_id)
    await rig.control.poll()
    assert await rig.heartbeats.flush() == 0
    with pytest.raises(NotFound):
        await rig.heartbeats.heartbeat(node_id, Heartbeat())


async def test_heartbeats_wait_while_the_database_is_away(rig: Rig) -> None:
    await rig.all_say(running=9)

    def refuse(*_: object) -> None:
        raise OSError("the database is away")

    event.listen(rig.engine.sync_engine, "before_cursor_execute", refuse)
    with pytest.raises(OSError, match="away"):
        await rig.heartbeats.flush()
    await rig.heartbeats.heartbeat(rig.ids[0], Heartbeat(load=NodeLoad(requests_running=40)))
    event.remove(rig.engine.sync_engine, "before_cursor_execute", refuse)
    assert await rig.heartbeats.flush() == NODES
    assert (await rig.registry.node(rig.ids[0])).load.requests_running == 40  # the newer one
    assert (await rig.registry.node(rig.ids[1])).load.requests_running == 9
    assert rig.clock.now() - (await rig.registry.node(rig.ids[1])).last_heartbeat_at < timedelta(seconds=1)  # type: ignore[operator]
