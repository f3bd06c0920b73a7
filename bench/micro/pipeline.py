"""What the request path costs in Python alone, without sockets, Redis or disk: `python -m bench.micro.pipeline`.

Real pipeline, dispatcher, limiter (in memory), scheduler over two nodes, metrics and access log; the node answers from
memory and the journal is durable at once. Prints the least µs a request over several rounds, the figure that other
programs on the machine disturb least.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import uvloop

from crosslogic.cache.null import NullCache
from crosslogic.cache.service import Answers
from crosslogic.fleet.model import BackendKind, Node, NodeStatus
from crosslogic.gateway.app import Gateway
from crosslogic.gateway.dispatch import Dispatcher
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.observer import TelemetryObserver
from crosslogic.gateway.picture import Picture
from crosslogic.gateway.pipeline import Pipeline
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.turns import NoTurns
from crosslogic.gateway.upstream import Upstreams
from crosslogic.gateway.visit import GatewaySettings
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, RequestId
from crosslogic.limits.memory import MemoryLimiter
from crosslogic.limits.model import Layer, Limits, Scope
from crosslogic.metering.model import Checkpoint, Intent, UsageRecord
from crosslogic.metering.ports import Journal
from crosslogic.net.client import Sink
from crosslogic.net.exchange import Exchange
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.telemetry.log import LogWriter
from crosslogic.telemetry.metrics import Metrics
from crosslogic.telemetry.slots import Slots
from crosslogic.tenancy.model import Principal, Role
from crosslogic.tenancy.strangers import Strangers

ROUNDS = 15
REQUESTS = 3000
AT_ONCE = 32
BODY = b'{"model":"m","messages":[{"role":"user","content":"' + b"word " * 200 + b'"}],"max_tokens":16}'
ANSWER = (
    b'{"id":"x","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant",'
    b'"content":"' + b"word " * 16 + b'"},"finish_reason":"stop"}],'
    b'"usage":{"prompt_tokens":200,"completion_tokens":16,"total_tokens":216}}'
)
HEADERS = [
    (b"host", b"x"),
    (b"authorization", b"Bearer clsk_test_x"),
    (b"content-type", b"application/json"),
    (b"accept", b"application/json"),
    (b"accept-encoding", b"gzip, deflate"),
    (b"connection", b"keep-alive"),
    (b"user-agent", b"OpenAI/Python"),
    (b"x-stainless-lang", b"python"),
    (b"x-stainless-os", b"Linux"),
    (b"x-stainless-runtime", b"CPython"),
    (b"x-stainless-retry-count", b"0"),
    (b"content-length", b"%d" % len(BODY)),
]


class Answering:
    """An upstream connection that answers from memory in the loop's next turn."""

    def send(self, sink: Sink, request: bytes) -> None:
        asyncio.get_running_loop().call_soon(self._answer, sink)

    def _answer(self, sink: Sink) -> None:
        sink.on_head(200, [(b"content-type", b"application/json")])
        sink.on_data(ANSWER)
        sink.on_end()

    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def cancel(self) -> None: ...


class Upstream:
    def __init__(self) -> None:
        self._connection = Answering()
        self.base_path = b""
        self.host_line = b"host: x\r\n"

    def idle(self) -> Answering:
        return self._connection

    async def connect(self, *, fresh: bool = False) -> Answering:
        return self._connection


class DurableAtOnce:
    healthy = True

    def __init__(self) -> None:
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)

    def intend(self, intent: Intent) -> "asyncio.Future[None]":
        return self._done

    def mark(self, checkpoint: Checkpoint) -> None: ...
    def withdraw(self, request_id: RequestId) -> None: ...
    def record(self, usage: UsageRecord) -> "asyncio.Future[None]":
        return self._done

    async def close(self) -> None: ...


class OneUser:
    def __init__(self, principal: Principal) -> None:
        self._known = {b"clsk_test_x": principal}
        self.resolve = self._known.get

    async def authenticate(self, token: bytes) -> Principal | None:
        return self.resolve(token)


class Caller:
    """Stands for a client connection: sends its next request when the last one is answered."""

    draining = False

    def __init__(self, gateway: Gateway, left: list[int], over: asyncio.Event) -> None:
        self._gateway, self._left, self._over = gateway, left, over

    def ask(self) -> None:
        if self._left[0] <= 0:
            self._over.set()
            return
        self._left[0] -= 1
        self._gateway(Exchange(self, b"POST", b"/v1/chat/completions", b"", HEADERS, BODY, True, "127.0.0.1"))

    def send(self, data: bytes) -> None: ...
    def cut(self, *, reset: bool = False) -> None: ...
    def date_line(self) -> bytes:
        return b"date: now\r\n"

    def exchange_ended(self, keep_alive: bool) -> None:
        asyncio.get_running_loop().call_soon(self.ask)


def build(journal: Journal | None = None, urls: Sequence[str] = ()) -> Gateway:
    """Over nodes at `urls`, or over two that answer from memory."""
    limits = Limits(10**9, 10**9, 10**9)
    scopes = tuple(Scope(layer, layer.value, limits) for layer in Layer)
    principal = Principal(OrgId("org"), "org", EnvId("env"), "env", KeyId("key"), Role.DEVELOPER, None, None, scopes)
    now = datetime.now(UTC)
    nodes = [
        Node(NodeId(f"node_{n}"), url, ("m",), NodeStatus.ACTIVE, now, BackendKind.VLLM)
        for n, url in enumerate(urls or ("http://127.0.0.1:1", "http://127.0.0.1:2"), 1)
    ]
    pool, models = Pool(), ModelTable()
    pool.update(nodes)
    models.serve(["m"])
    upstreams = Upstreams(connect_timeout_s=1)
    if urls:
        upstreams.update(nodes)
    else:
        upstreams._origins = {node.id: (node, Upstream()) for node in nodes}
    journal = journal or DurableAtOnce()
    observer = TelemetryObserver(Metrics(Slots()), LogWriter(bytes, buffer_lines=100))
    scheduler = Scheduler(pool, new_strategy("least_loaded"), random.Random(), SystemClock())
    dispatcher = Dispatcher(
        models=models,
        scheduler=scheduler,
        turns=NoTurns(),
        upstreams=upstreams,
        journal=journal,
        watchdog=Watchdog(),
        observer=observer,
        settings=GatewaySettings(),
    )
    pipeline = Pipeline(
        users=OneUser(principal),
        models=models,
        limiter=MemoryLimiter(SystemClock()),
        dispatcher=dispatcher,
        prompt_counter=PromptCounter(upstreams),
        journal=journal,
        observer=observer,
        strangers=Strangers(20),
        picture=Picture(0.0, 0.0, lambda _age_s: None),
        costs=CostEstimates(PriceBook(PriceList())),
        answers=Answers(NullCache(), None, SystemClock()),
    )
    return Gateway(pipeline, pool, models)


async def measure() -> None:
    gateway = build()
    best_us = float("inf")
    for _ in range(ROUNDS):
        left, over = [REQUESTS], asyncio.Event()
        began_s = time.process_time()
        for _ in range(AT_ONCE):
            Caller(gateway, left, over).ask()
        await over.wait()
        best_us = min(best_us, (time.process_time() - began_s) / REQUESTS * 1e6)
    print(f"{best_us:.1f} µs of CPU a request")


if __name__ == "__main__":
    uvloop.run(measure())
