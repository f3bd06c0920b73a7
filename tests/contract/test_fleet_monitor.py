"""The monitor over real HTTP servers and a real database: who answers is active, who is silent is dead."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import update
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.fleet.backends.detect import Detected, detect
from crosslogic.fleet.fetch import MAX_BODY_BYTES, HttpFetch
from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import BackendKind, Node, NodeStatus
from crosslogic.fleet.monitor import Monitor, StaticNode, Timing
from crosslogic.fleet.registry import Registration, Registry
from crosslogic.kernel.clock import ManualClock, SystemClock
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import NodeId
from crosslogic.store.engine import create_engine
from crosslogic.store.tables import nodes
from tests.ports import free_port

QUICK = Timing(watch_interval_s=0.02, probe_interval_s=0.05, starting_interval_s=0.02, probe_timeout_s=0.5)


class Server:
    """An HTTP server that answers as a script says, on one port, which it keeps when stopped and started."""

    def __init__(self, pages: dict[str, tuple[int, str]], *, key: str | None = None) -> None:
        self.pages = pages
        self.key = key
        self.asked: list[str] = []
        self.delay_s = 0.0
        self._port = free_port()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            path = head.split(" ", 2)[1]
            self.asked.append(path)
            await asyncio.sleep(self.delay_s)
            status, body = self.pages.get(path, (404, "not found"))
            if self.key is not None and f"authorization: Bearer {self.key}\r\n".lower() not in head.lower():
                status, body = 401, "who are you?"
            extra = f"location: {body}\r\n" if 300 <= status < 400 else ""
            answer = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\nconnection: close\r\n{extra}\r\n{body}"
            writer.write(answer.encode())
            await writer.drain()
        writer.close()


def model_list(*names: str, owner: str = "vllm") -> tuple[int, str]:
    return 200, json.dumps({"object": "list", "data": [{"id": name, "owned_by": owner} for name in names]})


def vllm(*names: str) -> dict[str, tuple[int, str]]:
    metrics = 'vllm:num_requests_running{model_name="m"} 3.0\nvllm:kv_cache_usage_perc{model_name="m"} 0.5\n'
    return {"/health": (200, ""), "/v1/models": model_list(*names), "/metrics": (200, metrics)}


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Callable[..., Awaitable[Server]]]:
    servers: list[Server] = []

    async def start(pages: dict[str, tuple[int, str]], **options: str) -> Server:
        server = Server(pages, **options)
        await server.start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        await server.stop()


@pytest_asyncio.fixture
async def fetch() -> AsyncIterator[HttpFetch]:
    async with HttpFetch() as fetch:
        yield fetch


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def registry(engine: AsyncEngine, clock: ManualClock) -> Registry:
    return Registry(engine, clock)


@pytest.fixture
def monitor(registry: Registry, fetch: HttpFetch, clock: ManualClock) -> Monitor:
    return Monitor(registry, fetch, clock)


def static(url: str, **fields: object) -> StaticNode:
    return StaticNode(Registration(**{"endpoint_url": url, "models": (), **fields}))  # type: ignore[arg-type]


async def statuses(registry: Registry) -> dict[str, NodeStatus]:
    return {node.id: node.status for node in await registry.nodes()}


Serve = Callable[..., Awaitable[Server]]


@pytest.mark.parametrize(
    ("pages", "expected"),
    [
        (vllm("m"), Detected(BackendKind.VLLM, ("m",))),
        (
            {"/": (200, "Ollama is running"), "/v1/models": model_list("b", "a", owner="library")},
            Detected(BackendKind.OLLAMA, ("a", "b")),
        ),
        (
            {"/health": (200, "{}"), "/v1/models": model_list("m", owner="llamacpp"), "/metrics": (501, "{}")},
            Detected(BackendKind.LLAMACPP, ("m",)),
        ),
        (
            {"/metrics": (200, "sglang:num_running_reqs 1.0\n"), "/v1/models": model_list("m", owner="me")},
            Detected(BackendKind.SGLANG, ("m",)),
        ),
        ({"/v1/models": model_list("m", owner="system")}, Detected(BackendKind.OPENAI, ("m",))),
        ({"/v1/models": (503, "loading")}, None),
    ],
)
async def test_the_kind_of_a_server_is_found_out(
    serve: Serve, fetch: HttpFetch, pages: dict[str, tuple[int, str]], expected: Detected | None
) -> None:
    server = await serve(pages)
    assert await detect(fetch, server.url) == expected


async def test_nothing_at_an_address_is_no_error(fetch: HttpFetch, serve: Serve) -> None:
    server = await serve({})
    await server.stop()
    assert await detect(fetch, server.url) is None


async def test_requests_to_nodes_are_bounded_and_follow_no_redirect(fetch: HttpFetch, serve: Serve) -> None:
    target = await serve({"/": (200, "secret")})
    server = await serve({"/": (302, target.url + "/"), "/endless": (200, "x" * (MAX_BODY_BYTES + 1))})
    redirect = await fetch(server.url + "/", api_key=None, timeout_s=2.0)
    assert redirect is not None
    assert redirect.status == 302
    assert target.asked == []
    assert await fetch(server.url + "/endless", api_key=None, timeout_s=5.0) is None
    server.delay_s = 5.0
    began = time.monotonic()
    assert await fetch(server.url + "/", api_key=None, timeout_s=0.2) is None
    assert time.monotonic() - began < 4.0


async def test_a_static_node_is_active_once_it_is_healthy(
    serve: Serve, monitor: Monitor, registry: Registry, clock: ManualClock
) -> None:
    server = await serve(vllm("llama"))
    server.pages["/health"] = (503, "starting")
    (declared,) = await monitor.declare([static(server.url, region="eu")])
    assert declared.status is NodeStatus.STARTING
    assert (await monitor.probe(declared.id)).status is NodeStatus.STARTING
    server.pages["/health"] = (200, "")
    await monitor.probe(declared.id)
    node = await registry.node(declared.id)
    assert (node.status, node.backend, node.models, node.region) == (
        NodeStatus.ACTIVE,
        BackendKind.VLLM,
        ("llama",),
        "eu",
    )
    assert (node.load.requests_running, node.load.kv_cache_used_ratio) == (3, 0.5)
    assert node.last_heartbeat_at == clock.now()
    server.pages["/v1/models"] = model_list("llama", "qwen")
    assert (await monitor.probe(node.id)).models == ("llama", "qwen")


async def test_configured_models_and_kind_are_believed(serve: Serve, monitor: Monitor) -> None:
    server = await serve({"/health": (200, "")})
    registration = Registration(endpoint_url=server.url, models=("alias",), backend=BackendKind.VLLM)
    (node,) = await monitor.declare([StaticNode(registration, detect_backend=False)])
    assert (await monitor.probe(node.id)).models == ("alias",)
    assert set(server.asked) == {"/health", "/metrics"}


async def test_the_nodes_key_is_sent_to_it(serve: Serve, monitor: Monitor) -> None:
    server = await serve(vllm("m"), key="node-secret")
    (without,) = await monitor.declare([static(server.url)])
    assert (await monitor.probe(without.id)).status is NodeStatus.STARTING
    (given,) = await monitor.declare([static(server.url, api_key="node-secret")])
    assert (await monitor.probe(given.id)).status is NodeStatus.ACTIVE


async def test_a_static_node_that_stops_answering_dies_after_15_s_and_comes_back(
    serve: Serve, monitor: Monitor, registry: Registry, clock: ManualClock
) -> None:
    server = await serve(vllm("m"))
    (node,) = await monitor.declare([static(server.url)])
    await monitor.probe(node.id)
    await server.stop()
    for _ in range(3):
        assert (await statuses(registry))[node.id] is NodeStatus.ACTIVE
        clock.advance(5)
        await monitor.probe(node.id)
        await monitor.watch()
    after = await registry.node(node.id)
    assert after.status is NodeStatus.DEAD
    assert after.health_score < 0.5
    await server.start()
    assert (await monitor.probe(node.id)).status is NodeStatus.ACTIVE
    for _ in range(10):
        await monitor.probe(node.id)
    assert (await registry.node(node.id)).health_score == 1.0


async def test_only_the_silent_are_buried(monitor: Monitor, registry: Registry, clock: ManualClock) -> None:
    silent = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    loud = await registry.register(Registration(endpoint_url="http://10.0.0.1:2", models=("m",)))
    for _ in range(3):
        clock.advance(5)
        await registry.heartbeat(loud.id, Heartbeat())
        await monitor.watch()
    assert await statuses(registry) == {silent.id: NodeStatus.DEAD, loud.id: NodeStatus.ACTIVE}
    await registry.heartbeat(silent.id, Heartbeat())
    assert (await statuses(registry))[silent.id] is NodeStatus.ACTIVE


async def test_a_monitor_that_was_away_gives_nodes_time_to_be_heard(
    registry: Registry, fetch: HttpFetch, clock: ManualClock
) -> None:
    node = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    clock.advance(3600)
    late = Monitor(registry, fetch, clock)
    await late.watch()
    clock.advance(14.9)
    await late.watch()
    assert (await statuses(registry))[node.id] is NodeStatus.ACTIVE
    clock.advance(0.1)
    await late.watch()
    assert (await statuses(registry))[node.id] is NodeStatus.DEAD


async def test_a_drained_node_is_removed_after_its_ttl(
    monitor: Monitor, registry: Registry, clock: ManualClock
) -> None:
    node = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    await registry.drain(node.id)
    for second in range(0, 601, 10):
        await registry.heartbeat(node.id, Heartbeat())
        await monitor.watch()
        if second < 600:
            assert (await statuses(registry))[node.id] is NodeStatus.DRAINING
            clock.advance(10)
    with pytest.raises(NotFound):
        await registry.node(node.id)


async def test_a_drain_goes_on_where_it_was_when_another_monitor_takes_over(
    monitor: Monitor, registry: Registry, fetch: HttpFetch, clock: ManualClock, engine: AsyncEngine
) -> None:
    node = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    since = (await registry.drain(node.id)).draining_since
    assert since == clock.now()
    for _ in range(59):
        clock.advance(10)
        await registry.heartbeat(node.id, Heartbeat())
        await monitor.watch()
    assert (await registry.node(node.id)).draining_since == since
    successor = Monitor(Registry(engine, clock), fetch, clock)
    await successor.watch()
    assert (await statuses(registry))[node.id] is NodeStatus.DRAINING
    clock.advance(10)
    await registry.heartbeat(node.id, Heartbeat())
    await successor.watch()
    assert await statuses(registry) == {}


async def test_a_drain_that_nobody_dated_has_its_whole_time_from_when_it_is_seen(
    monitor: Monitor, registry: Registry, clock: ManualClock, engine: AsyncEngine
) -> None:
    """As a process of the version before leaves it."""
    node = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    await registry.drain(node.id)
    async with engine.begin() as conn:
        await conn.execute(update(nodes).values(draining_since=None))
    clock.advance(5)
    await monitor.watch()
    assert (await registry.node(node.id)).draining_since == clock.now()


async def test_the_dead_are_forgotten_after_an_hour(monitor: Monitor, registry: Registry, clock: ManualClock) -> None:
    node = await registry.register(Registration(endpoint_url="http://10.0.0.1:1", models=("m",)))
    clock.advance(15)
    await monitor.watch()
    clock.advance(3600 - 16)
    await monitor.watch()
    assert await statuses(registry) == {node.id: NodeStatus.DEAD}
    clock.advance(1)
    await monitor.watch()
    assert await statuses(registry) == {}


async def until(condition: Callable[[], Awaitable[bool]], within_s: float) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():
            await asyncio.sleep(0.01)


async def test_running_it_finds_nodes_soon_and_a_slow_one_delays_nobody(
    serve: Serve, engine: AsyncEngine, fetch: HttpFetch
) -> None:
    registry = Registry(engine, SystemClock())
    quick, slow = await serve(vllm("quick")), await serve(vllm("slow"))
    slow.delay_s = 30.0
    monitor = Monitor(registry, fetch, SystemClock(), QUICK)
    declared = await monitor.declare([static(slow.url), static(quick.url)])
    running = asyncio.create_task(monitor.run())

    async def is_active(node: Node) -> bool:
        return (await registry.node(node.id)).status is NodeStatus.ACTIVE

    try:
        await until(lambda: is_active(declared[1]), within_s=1.0)
        assert (await registry.node(declared[0].id)).status is NodeStatus.STARTING
        slow.delay_s = 0.0
        await until(lambda: is_active(declared[0]), within_s=3.0)
        third = await serve(vllm("third"))
        (added,) = await monitor.declare([static(third.url)])
        await until(lambda: is_active(added), within_s=1.0)
        assert [node.id for node in await registry.nodes()] == [added.id]
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
    asked = len(third.asked)
    await asyncio.sleep(0.2)
    assert len(third.asked) == asked


async def test_it_outlives_a_database_that_goes_away(serve: Serve, fetch: HttpFetch, sqlite_url: str) -> None:
    engine = create_engine(sqlite_url)
    registry = Registry(engine, SystemClock())
    server = await serve(vllm("m"))
    monitor = Monitor(registry, fetch, SystemClock(), QUICK)
    (node,) = await monitor.declare([static(server.url)])
    async with engine.begin() as conn:
        await conn.exec_driver_sql("ALTER TABLE nodes RENAME TO nodes_away")
    running = asyncio.create_task(monitor.run())
    await asyncio.sleep(0.2)
    assert not running.done()
    with pytest.raises(OperationalError):
        await registry.node(NodeId(node.id))
    async with engine.begin() as conn:
        await conn.exec_driver_sql("ALTER TABLE nodes_away RENAME TO nodes")

    async def is_active() -> bool:
        return (await registry.node(node.id)).status is NodeStatus.ACTIVE

    try:
        await until(is_active, within_s=2.0)
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await engine.dispose()


async def test_probing_uses_no_proxy_of_the_environment(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    proxy, server = await serve({}), await serve({"/x": (200, "direct")})
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, proxy.url)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    async with httpx.AsyncClient() as ordinary:
        assert (await ordinary.get(server.url + "/x")).text == "not found"
    proxy.asked.clear()
    async with HttpFetch() as direct:
        answer = await direct(server.url + "/x", api_key=None, timeout_s=2.0)
    assert answer is not None
    assert answer.body == b"direct"
    assert proxy.asked == []
