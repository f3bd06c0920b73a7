"""The registry keeps its promises on both databases: idempotent, one node for each address, honest announcements."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import BackendKind, Node, NodeLoad, NodeStatus
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.fleet.sql import NodeFilter
from crosslogic.fleet.sync import NodeSync
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.store.changes import Following
from crosslogic.store.tables import changes, orgs

ACME, GLOBEX = OrgId("org_acme"), OrgId("org_globex")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(engine: AsyncEngine, clock: ManualClock) -> Registry:
    return Registry(engine, clock)


async def announced(engine: AsyncEngine) -> int:
    async with engine.connect() as conn:
        return (await conn.execute(select(func.count()).select_from(changes))).scalar_one()


async def add_orgs(engine: AsyncEngine, clock: ManualClock) -> None:
    async with engine.begin() as conn:
        for org_id in (ACME, GLOBEX):
            values = {"id": org_id, "name": org_id, "status": "active", "billing_plan": "free"}
            await conn.execute(insert(orgs).values(**values, allowed_models=[], limits={}, created_at=clock.now()))


def at(port: int, **fields: object) -> Registration:
    return Registration(**{"endpoint_url": f"http://10.0.0.1:{port}", "models": ("m",), **fields})  # type: ignore[arg-type]


async def test_every_field_survives_the_database(registry: Registry, engine: AsyncEngine, clock: ManualClock) -> None:
    await add_orgs(engine, clock)
    said: dict[str, Any] = {
        "backend": BackendKind.SGLANG,
        "region": "in-mumbai",
        "cloud": "yotta",
        "spot": True,
        "gpu_type": "H100",
        "gpu_count": 8,
        "vram_total_mb": 655_360,
        "vram_free_mb": 1,
        "throughput_tokens_per_s": 12_345.5,
        "spot_price_usd_per_hour": 9.75,
        "tailnet_ip": "100.64.0.1",
        "org_id": ACME,
        "api_key": "node-secret",
    }
    registration = Registration(
        endpoint_url="http://10.0.0.1:8000/v1/",
        models=("b", "a", "b"),
        node_id=NodeId("node-1.x"),
        **said,
    )
    stored = await registry.register(registration)
    await registry.heartbeat(stored.id, Heartbeat(load=NodeLoad(3, 2, 900, 0.5, 80.0)))
    read = await registry.node(stored.id)
    assert read == Node(
        id=NodeId("node-1.x"),
        endpoint_url="http://10.0.0.1:8000",
        models=("b", "a"),
        status=NodeStatus.ACTIVE,
        created_at=clock.now(),
        **said,
        load=NodeLoad(3, 2, 900, 0.5, 80.0),
        last_heartbeat_at=clock.now(),
    )
    assert "node-secret" not in repr(read) + repr(registration)


async def test_registering_twice_is_registering_once(registry: Registry, engine: AsyncEngine) -> None:
    before = await announced(engine)
    first = await registry.register(at(1))
    assert await registry.register(at(1)) == first
    assert await registry.register(at(1, node_id=first.id)) == first
    assert await announced(engine) == before + 1
    changed = await registry.register(at(1, models=("n",)))
    assert (changed.id, changed.models) == (first.id, ("n",))
    assert await announced(engine) == before + 2
    moved = await registry.register(at(2, node_id=first.id))
    assert (moved.id, moved.endpoint_url) == (first.id, "http://10.0.0.1:2")
    assert len(await registry.nodes()) == 1


async def test_of_many_registrations_of_one_address_at_once_one_node_comes(registry: Registry) -> None:
    nodes = await asyncio.gather(*(registry.register(at(1)) for _ in range(8)))
    assert len({node.id for node in nodes}) == 1
    assert len(await registry.nodes()) == 1


async def test_an_address_is_taken_over_from_the_dead_only(registry: Registry, clock: ManualClock) -> None:
    old = await registry.register(at(1, node_id=NodeId("old")))
    with pytest.raises(Conflict):
        await registry.register(at(1, node_id=NodeId("new")))
    clock.advance(15)
    await registry.bury(old.id)
    new = await registry.register(at(1, node_id=NodeId("new")))
    assert [node.id for node in await registry.nodes()] == [new.id]


async def test_a_node_does_not_change_its_owner(registry: Registry, engine: AsyncEngine, clock: ManualClock) -> None:
    await add_orgs(engine, clock)
    node = await registry.register(at(1, org_id=ACME))
    for thief in (None, GLOBEX):
        with pytest.raises(Conflict):
            await registry.register(at(1, org_id=thief))
        with pytest.raises(Conflict):
            await registry.register(at(2, node_id=node.id, org_id=thief))
    with pytest.raises(InvalidRequest) as refused:
        await registry.register(at(3, org_id=OrgId("org_nobody")))
    assert refused.value.param == "org_id"
    assert (await registry.node(node.id)).org_id == ACME


@pytest.mark.parametrize(
    ("registration", "param"),
    [
        (at(1, endpoint_url="http://169.254.169.254/"), "endpoint_url"),
        (at(1, models=()), "model_list"),
        (at(1, models=("",)), "model_list"),
        (at(1, models=("x" * 257,)), "model_list"),
        (at(1, status=NodeStatus.DEAD), "status"),
        (at(1, status=NodeStatus.DRAINING), "status"),
        (at(1, node_id=NodeId("a/b")), "node_id"),
        (at(1, node_id=NodeId("x" * 129)), "node_id"),
    ],
)
async def test_wrong_registrations_name_the_field(registry: Registry, registration: Registration, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await registry.register(registration)
    assert refused.value.param == param
    assert await registry.nodes() == []


async def test_heartbeats_are_announced_only_when_they_say_something(
    registry: Registry, engine: AsyncEngine, clock: ManualClock
) -> None:
    node = await registry.register(at(1))
    before = await announced(engine)
    for _ in range(5):
        clock.advance(5)
        await registry.heartbeat(node.id, Heartbeat())
    assert await announced(engine) == before
    assert (await registry.node(node.id)).last_heartbeat_at == clock.now()
    await registry.heartbeat(node.id, Heartbeat(load=NodeLoad(requests_running=4)))
    assert await announced(engine) == before + 1


async def test_small_movements_of_the_load_add_up_to_an_announcement(registry: Registry, engine: AsyncEngine) -> None:
    node = await registry.register(at(1))
    await registry.heartbeat(node.id, Heartbeat(load=NodeLoad(requests_running=10)))
    before = await announced(engine)
    for running in (11, 12, 13):
        await registry.heartbeat(node.id, Heartbeat(load=NodeLoad(requests_running=running)))
    assert await announced(engine) == before + 1
    assert (await registry.node(node.id)).load.requests_running == 13


async def test_draining_death_revival_and_removal(registry: Registry, clock: ManualClock) -> None:
    node = await registry.register(at(1))
    assert (await registry.drain(node.id)).status is NodeStatus.DRAINING
    assert (await registry.drain(node.id)).status is NodeStatus.DRAINING
    assert (await registry.heartbeat(node.id, Heartbeat())).status is NodeStatus.DRAINING
    assert (await registry.register(at(1))).status is NodeStatus.ACTIVE
    clock.advance(14.9)
    assert (await registry.bury(node.id)).status is NodeStatus.ACTIVE
    clock.advance(0.1)
    assert (await registry.bury(node.id)).status is NodeStatus.DEAD
    with pytest.raises(Conflict):
        await registry.drain(node.id)
    assert (await registry.heartbeat(node.id, Heartbeat())).status is NodeStatus.ACTIVE
    await registry.deregister(node.id)
    for act in (registry.node, registry.drain, registry.deregister, registry.unanswered):
        with pytest.raises(NotFound):
            await act(node.id)
    with pytest.raises(NotFound):
        await registry.heartbeat(node.id, Heartbeat())


async def test_a_dead_node_makes_room_for_its_own_org_only(
    registry: Registry, engine: AsyncEngine, clock: ManualClock
) -> None:
    await add_orgs(engine, clock)
    dead = await registry.register(at(1, org_id=GLOBEX))
    clock.advance(15)
    await registry.bury(dead.id)
    with pytest.raises(Conflict):
        await registry.register(at(1, node_id=NodeId("theirs"), org_id=ACME))
    assert (await registry.register(at(1, node_id=NodeId("back"), org_id=GLOBEX))).id == "back"


async def test_lists_have_filters_and_pages(registry: Registry, engine: AsyncEngine, clock: ManualClock) -> None:
    await add_orgs(engine, clock)
    for index in range(7):
        await registry.register(
            at(
                index + 1,
                node_id=NodeId(f"node_{index}"),
                models=("m", "rare") if index in (1, 6) else ("m",),
                region="eu" if index % 2 else "us",
                org_id=ACME if index == 3 else None,
            )
        )
    await registry.drain(NodeId("node_5"))

    async def ids(**wanted: object) -> list[str]:
        return [node.id[-1] for node in await registry.nodes(NodeFilter(**wanted))]  # type: ignore[arg-type]

    assert await ids() == list("0123456")
    assert await ids(region="eu") == list("135")
    assert await ids(status=NodeStatus.DRAINING) == ["5"]
    assert await ids(org_id=ACME) == ["3"]
    assert await ids(model="rare") == ["1", "6"]
    assert await ids(model="rare", region="us") == ["6"]
    first = await registry.nodes(limit=3)
    second = await registry.nodes(after=first[-1].id, limit=3)
    assert [node.id[-1] for node in (*first, *second)] == list("012345")
    rare = await registry.nodes(NodeFilter(model="rare"), limit=1)
    assert [node.id for node in rare] == ["node_1"]
    assert [node.id for node in await registry.nodes(NodeFilter(model="rare"), after="node_1", limit=1)] == ["node_6"]


async def test_the_configuration_declares_its_nodes(
    registry: Registry, engine: AsyncEngine, clock: ManualClock
) -> None:
    dynamic = await registry.register(at(9))
    one, two = await registry.declare([at(1, models=()), at(2, models=())])
    assert (one.status, one.static, two.static) == (NodeStatus.STARTING, True, True)
    await registry.heartbeat(one.id, Heartbeat(models=("m",)))
    before = await announced(engine)
    again = await registry.declare([at(1, models=()), at(2, models=())])
    assert [node.id for node in again] == [one.id, two.id]
    assert again[0].status is NodeStatus.ACTIVE
    assert again[0].models == ("m",)
    assert await announced(engine) == before
    with pytest.raises(Conflict):
        await registry.deregister(one.id)
    clock.advance(20)
    assert [node.status for node in await registry.declare([at(1, models=())])] == [NodeStatus.STARTING]
    assert {node.id for node in await registry.nodes()} == {dynamic.id, one.id}


async def test_every_process_has_the_same_picture(registry: Registry, engine: AsyncEngine) -> None:
    pictures: list[list[Node]] = []
    kept = await registry.register(at(1))
    sync = Following(engine, [NodeSync(engine, pictures.append)])
    await sync.start()
    assert [node.id for node in pictures[-1]] == [kept.id]
    new = await registry.register(at(2))
    await registry.drain(kept.id)
    assert await sync.poll() == 2
    assert {node.id: node.status for node in pictures[-1]} == {
        kept.id: NodeStatus.DRAINING,
        new.id: NodeStatus.ACTIVE,
    }
    await registry.deregister(kept.id)
    await sync.poll()
    assert pictures[-1] == [new]
    seen = len(pictures)
    await registry.heartbeat(new.id, Heartbeat())
    assert await sync.poll() == 0
    assert len(pictures) == seen


async def test_a_change_is_in_every_process_within_a_second(registry: Registry, engine: AsyncEngine) -> None:
    arrived = asyncio.Event()

    def on_nodes(nodes: list[Node]) -> None:
        if nodes:
            arrived.set()

    sync = Following(engine, [NodeSync(engine, on_nodes)])
    await sync.start()
    following = asyncio.create_task(sync.run())
    await registry.register(at(1))
    try:
        async with asyncio.timeout(1):
            await arrived.wait()
    finally:
        following.cancel()


async def test_what_is_silent_draining_or_dead_is_doubtful(registry: Registry, clock: ManualClock) -> None:
    silent = await registry.register(at(1))
    clock.advance(10)
    draining = await registry.register(at(2))
    await registry.register(at(3))
    await registry.drain(draining.id)
    clock.advance(5)
    assert {node.id for node in await registry.doubtful(15.0)} == {silent.id, draining.id}
    assert clock.now() - timedelta(seconds=15) == silent.last_heartbeat_at
