"""Counting the prompt of a caller that left: by the simulated node's tokenizer, and against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import httpx
import msgspec
import pytest

from crosslogic.fleet.model import BackendKind, Node, NodeStatus
from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.prompt_count import MOST_AT_ONCE, PromptCounter
from crosslogic.gateway.request import Call, ModelBounds, read_call
from crosslogic.gateway.upstream import Upstreams
from crosslogic.kernel.ids import NodeId
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
JSON = b"content-type: application/json\r\n"
QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why is the sea salty?"}]


def call_of(path: str, **body: object) -> Call:
    encoded = msgspec.json.encode({"model": MODEL, "stream": True, "max_tokens": 9} | body)
    return read_call(BY_PATH[path.encode()], encoded, {MODEL: ModelBounds(MODEL)}, default_output_tokens=100)


def node_at(url: str, backend: BackendKind = BackendKind.VLLM) -> Node:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return Node(NodeId("node_1"), url, (MODEL,), NodeStatus.ACTIVE, now, backend=backend, api_key="sk-node")


@pytest.fixture
async def simulated() -> AsyncIterator[SimulatedNode]:
    async with SimulatedNode(find_profile(MODEL), NodeOptions(api_key="sk-node", speedup=100)) as node:
        yield node


@asynccontextmanager
async def counter(timeout_s: float = 5.0) -> AsyncIterator[PromptCounter]:
    upstreams = Upstreams(connect_timeout_s=1.0)
    yield PromptCounter(upstreams, timeout_s=timeout_s)
    upstreams.close()


@asynccontextmanager
async def server(handle: Callable[[Exchange], None]) -> AsyncIterator[str]:
    listening = HttpServer(handle)
    yield f"http://127.0.0.1:{await listening.listen('127.0.0.1', 0)}"
    await listening.close(0)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": QUESTION}),
        ("/v1/completions", {"prompt": "Why is the sea salty?"}),
        ("/v1/responses", {"input": "Why is the sea salty?", "instructions": "Be brief."}),
    ],
)
async def test_it_is_the_number_that_the_engine_bills(
    simulated: SimulatedNode, path: str, body: dict[str, object]
) -> None:
    async with httpx.AsyncClient(base_url=simulated.url, headers={"authorization": "Bearer sk-node"}) as client:
        answer = (await client.post(path, json={"model": MODEL, "max_tokens": 1} | body)).json()
    billed = answer["usage"].get("prompt_tokens", answer["usage"].get("input_tokens"))

    async with counter() as prompt_counter:
        assert await prompt_counter.count(node_at(simulated.url), call_of(path, **body)) == billed


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": [{"role": "user", "content": "Hello"}]}),
        ("/v1/messages", {"messages": QUESTION}),
    ],
)
async def test_what_has_no_form_for_the_tokenizer_is_not_asked(path: str, body: dict[str, object]) -> None:
    asked: list[bytes] = []
    async with server(lambda exchange: asked.append(exchange.path)) as url, counter() as prompt_counter:
        assert await prompt_counter.count(node_at(url), call_of(path, **body)) is None
    assert asked == []


async def test_an_engine_without_a_tokenizer_is_not_asked(simulated: SimulatedNode) -> None:
    call = call_of("/v1/chat/completions", messages=QUESTION)
    async with counter() as prompt_counter:
        assert await prompt_counter.count(node_at(simulated.url, BackendKind.OLLAMA), call) is None


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"nonsense"),
        (200, b'{"count":"many"}'),
        (200, b'{"count":0}'),
        (200, b'{"count":-3}'),
        (200, b'{"tokens":[]}'),
        (400, b'{"count":7}'),
        (500, b""),
    ],
)
async def test_no_sensible_answer_is_no_count(status: int, body: bytes) -> None:
    call = call_of("/v1/chat/completions", messages=QUESTION)
    async with (
        server(lambda exchange: exchange.respond(status, JSON, body)) as url,
        counter() as prompt_counter,
    ):
        assert await prompt_counter.count(node_at(url), call) is None


async def test_a_silent_node_is_given_up_and_left() -> None:
    left = asyncio.Event()

    def listen_only(exchange: Exchange) -> None:
        exchange.on_closed = left.set

    call = call_of("/v1/chat/completions", messages=QUESTION)
    async with server(listen_only) as url, counter(timeout_s=0.05) as prompt_counter:
        assert await prompt_counter.count(node_at(url), call) is None
        await asyncio.wait_for(left.wait(), 5)


async def test_a_node_that_is_gone_counts_nothing() -> None:
    async with server(lambda exchange: None) as url:
        pass
    async with counter() as prompt_counter:
        assert await prompt_counter.count(node_at(url), call_of("/v1/completions", prompt="Hello")) is None


async def test_a_wave_of_leaving_callers_asks_only_so_much_at_once() -> None:
    waiting: list[Exchange] = []
    all_there = asyncio.Event()

    def hold(exchange: Exchange) -> None:
        waiting.append(exchange)
        if len(waiting) == MOST_AT_ONCE:
            all_there.set()

    call = call_of("/v1/chat/completions", messages=QUESTION)
    async with server(hold) as url, counter() as prompt_counter:
        wave = [asyncio.ensure_future(prompt_counter.count(node_at(url), call)) for _ in range(MOST_AT_ONCE)]
        await asyncio.wait_for(all_there.wait(), 5)
        assert await prompt_counter.count(node_at(url), call) is None
        for exchange in waiting:
            exchange.respond(200, JSON, b'{"count":11}')
        assert await asyncio.gather(*wave) == [11] * MOST_AT_ONCE
    assert len(waiting) == MOST_AT_ONCE
