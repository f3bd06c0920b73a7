"""The two ways to reach a node, direct and by tunnel, are the same to whoever sends requests: one suite over both."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from crosslogic.net.client import ConnectFailed, Failure, Origin
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer, ServerLimits
from tests.contract.test_net_http import Collector, ask, echo, request
from tests.tunnel_rig import TunnelRig

Reach = Callable[..., Awaitable[Origin]]
BIG = 8 * 2**20


@pytest.fixture(params=["direct", "tunnel"])
async def reach(request: pytest.FixtureRequest) -> AsyncIterator[Reach]:
    """Gives an origin for an engine: a handler, or the port of one that runs already."""
    servers: list[HttpServer] = []
    origins: list[Origin] = []

    async with TunnelRig() as rig:

        async def start(engine: Callable[[Exchange], None] | int) -> Origin:
            if isinstance(engine, int):
                port = engine
            else:
                server = HttpServer(engine, ServerLimits(max_body_bytes=2 * BIG))
                servers.append(server)
                port = await server.listen("127.0.0.1", 0)
            if request.param == "direct":
                origin = Origin(f"http://127.0.0.1:{port}")
            else:
                rig.agent(port)
                origin = rig.origin()
            origins.append(origin)
            return origin

        yield start
        for origin in origins:
            origin.close()
        for server in servers:
            await server.close(0)


async def test_requests_are_answered_one_after_the_other_over_one_connection(reach: Reach) -> None:
    origin = await reach(echo)

    answers = [await ask(origin, request("/a", b"x" * size)) for size in (0, 1, 100_000)]

    assert [len(answer.body) for answer in answers] == [0, 1, 100_000]
    assert answers[0].headers[b"x-path"] == b"/a"
    assert len(origin._idle) == 1


async def test_big_bodies_go_both_ways_unchanged(reach: Reach) -> None:
    origin = await reach(echo)
    body = bytes(range(256)) * (BIG // 256)

    answer = await ask(origin, request("/", body))

    assert answer.failure is None
    assert answer.body == body


async def test_a_stream_arrives_as_it_is_written(reach: Reach) -> None:
    going = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        async def answer() -> None:
            exchange.start(200, b"")
            exchange.write(b"one ")
            await going.wait()
            exchange.end(b"two")

        handler.task = asyncio.create_task(answer())  # type: ignore[attr-defined]

    origin = await reach(handler)
    sink = Collector()
    (await origin.connect()).send(sink, request("/"))
    await asyncio.wait_for(sink.got_data.wait(), 5)
    assert sink.body == b"one "
    going.set()
    await asyncio.wait_for(sink.ended.wait(), 5)
    assert (sink.body, sink.failure) == (b"one two", None)


async def test_an_engine_hears_at_once_that_its_caller_left(reach: Reach) -> None:
    left, begun = asyncio.Event(), asyncio.Event()

    def handler(exchange: Exchange) -> None:
        exchange.on_closed = left.set
        exchange.start(200, b"")
        exchange.write(b"x")
        begun.set()

    origin = await reach(handler)
    sink = Collector()
    connection = await origin.connect()
    connection.send(sink, request("/"))
    await asyncio.wait_for(begun.wait(), 5)
    connection.cancel()
    await asyncio.wait_for(left.wait(), 5)
    assert sink.failure is Failure.CANCELLED


async def test_an_engine_that_dies_in_mid_answer_is_a_cut(reach: Reach) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        exchange.write(b"half")
        asyncio.get_running_loop().call_later(0.05, exchange.abort)

    origin = await reach(handler)
    answer = await ask(origin, request("/"))
    assert (answer.body, answer.failure) == (b"half", Failure.CUT)


async def test_a_slow_reader_holds_the_engine_back(reach: Reach) -> None:
    """What is buffered on the way is bounded: the engine cannot write on while nobody reads."""
    written = 0
    piece = b"x" * 65_536
    total = 64 * 2**20

    async def engine(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        while written < total:
            writer.write(piece)
            await writer.drain()
            written += len(piece)

    server = await asyncio.start_server(engine, "127.0.0.1", 0)
    origin = await reach(server.sockets[0].getsockname()[1])
    sink = Collector()
    connection = await origin.connect()
    received = 0

    def count(data: bytes) -> None:
        nonlocal received
        received += len(data)
        if received == len(data):
            connection.pause()
            sink.got_data.set()

    sink.on_data = count  # type: ignore[method-assign]
    connection.send(sink, request("/"))
    await asyncio.wait_for(sink.got_data.wait(), 5)
    await asyncio.sleep(0.5)
    held_at = written
    await asyncio.sleep(0.3)
    assert written == held_at < total / 2
    connection.resume()
    await asyncio.wait_for(sink.ended.wait(), 30)
    assert received == total
    server.close()


async def test_a_hundred_requests_at_once_are_all_answered(reach: Reach) -> None:
    def handler(exchange: Exchange) -> None:
        asyncio.get_running_loop().call_later(0.1, echo, exchange)

    origin = await reach(handler)
    await ask(origin, request("/"))

    answers = await asyncio.gather(*(ask(origin, request(f"/{n}", b"%d" % n)) for n in range(100)))

    assert [answer.body for answer in answers] == [b"%d" % n for n in range(100)]
    assert all(answer.headers[b"x-path"] == b"/%d" % n for n, answer in enumerate(answers))


async def test_nobody_there_is_told_within_the_timeout() -> None:
    direct = Origin("http://127.0.0.1:1", connect_timeout_s=0.3)
    async with TunnelRig() as rig:
        for origin in (direct, rig.origin(connect_timeout_s=0.3)):
            with pytest.raises(ConnectFailed):
                await asyncio.wait_for(origin.connect(), 5)
