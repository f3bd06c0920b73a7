"""Our HTTP server and client against each other and against raw sockets: framing, limits, and both ends leaving."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from crosslogic.net.client import ConnectFailed, Failure, Origin
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer, ServerLimits

Start = Callable[..., "asyncio.Future[str]"]


class Collector:
    """A sink that keeps everything and tells when the answer ended."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.body = b""
        self.failure: Failure | None = None
        self.ended = asyncio.Event()
        self.got_data = asyncio.Event()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status, self.headers = status, dict(headers)

    def on_data(self, data: bytes) -> None:
        self.body += data
        self.got_data.set()

    def on_end(self) -> None:
        self.ended.set()

    def on_failure(self, failure: Failure) -> None:
        self.failure = failure
        self.ended.set()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., object]]:
    servers: list[HttpServer] = []

    async def start(handler: Callable[[Exchange], None], limits: ServerLimits | None = None) -> tuple[HttpServer, int]:
        server = HttpServer(handler, limits)
        servers.append(server)
        return server, await server.listen("127.0.0.1", 0)

    yield start
    for server in servers:
        await server.close(0)


def request(path: str, body: bytes = b"", extra: bytes = b"") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: test\r\ncontent-length: {len(body)}\r\n".encode()
    return head + extra + b"\r\n" + body


async def ask(origin: Origin, raw: bytes) -> Collector:
    sink = Collector()
    (await origin.connect()).send(sink, raw)
    await asyncio.wait_for(sink.ended.wait(), 5)
    return sink


async def raw_talk(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await asyncio.wait_for(reader.read(-1), 5)
    writer.close()
    return answer


def echo(exchange: Exchange) -> None:
    exchange.respond(200, b"x-path: %b\r\n" % exchange.path, exchange.body)


async def test_a_connection_serves_one_request_after_the_other(serve) -> None:
    _, port = await serve(echo)
    origin = Origin(f"http://127.0.0.1:{port}")

    answers = [await ask(origin, request("/a", b"x" * size)) for size in (0, 1, 100_000)]

    assert [len(answer.body) for answer in answers] == [0, 1, 100_000]
    assert answers[0].headers[b"x-path"] == b"/a"
    assert len(origin._idle) == 1
    origin.close()


async def test_chunks_arrive_as_they_are_written_and_end_cleanly(serve) -> None:
    going = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        async def answer() -> None:
            exchange.start(200, b"")
            exchange.write(b"one ")
            await going.wait()
            exchange.end(b"two")

        handler.task = asyncio.create_task(answer())

    _, port = await serve(handler)
    origin = Origin(f"http://127.0.0.1:{port}")
    sink = Collector()
    (await origin.connect()).send(sink, request("/"))

    await asyncio.wait_for(sink.got_data.wait(), 5)
    assert sink.body == b"one "
    going.set()
    await asyncio.wait_for(sink.ended.wait(), 5)

    assert (sink.body, sink.failure) == (b"one two", None)
    origin.close()


async def test_pipelined_requests_are_answered_in_their_order(serve) -> None:
    def handler(exchange: Exchange) -> None:
        delay_s = 0.05 if exchange.path == b"/slow" else 0
        asyncio.get_running_loop().call_later(delay_s, echo, exchange)

    _, port = await serve(handler)
    last = request("/c", b"3", b"connection: close\r\n")

    answer = await raw_talk(port, request("/slow", b"1") + request("/b", b"2") + last)

    assert [line for line in answer.split(b"\r\n") if line.startswith(b"x-path")] == [
        b"x-path: /slow",
        b"x-path: /b",
        b"x-path: /c",
    ]


async def test_a_client_that_leaves_is_noticed_at_once(serve) -> None:
    left = asyncio.Event()
    begun = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        exchange.on_closed = left.set
        exchange.start(200, b"")
        exchange.write(b"x")
        begun.set()

    _, port = await serve(handler)
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/"))
    await asyncio.wait_for(begun.wait(), 5)

    writer.close()

    await asyncio.wait_for(left.wait(), 0.1)


async def test_cancelling_upstream_closes_its_connection_at_once(serve) -> None:
    left = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        exchange.on_closed = left.set
        exchange.start(200, b"")
        exchange.write(b"x")

    _, port = await serve(handler)
    origin = Origin(f"http://127.0.0.1:{port}")
    sink = Collector()
    connection = await origin.connect()
    connection.send(sink, request("/"))
    await asyncio.wait_for(sink.got_data.wait(), 5)

    connection.cancel()

    await asyncio.wait_for(left.wait(), 0.1)
    assert sink.failure is Failure.CANCELLED


@pytest.mark.parametrize("reset", [False, True])
async def test_an_answer_that_breaks_off_is_a_failure_not_an_end(serve, reset: bool) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.start(200, b"")
        exchange.write(b"half")
        asyncio.get_running_loop().call_later(0.02, lambda: exchange.abort(reset=reset))

    _, port = await serve(handler)
    origin = Origin(f"http://127.0.0.1:{port}")

    sink = await ask(origin, request("/"))

    assert sink.failure is Failure.CUT
    assert not origin._idle


async def test_a_reused_connection_that_the_server_has_closed_is_stale_not_failed(serve) -> None:
    server, port = await serve(echo)
    origin = Origin(f"http://127.0.0.1:{port}")
    await ask(origin, request("/"))
    idle = origin._idle[0]
    # The server closes while the request is on its way: the race that keep-alive always has.
    idle._transport.pause_reading()
    for connection in list(server._connections):
        connection.cut()
    await asyncio.sleep(0.02)
    sink = Collector()
    connection = await origin.connect()
    connection.resume()

    connection.send(sink, request("/"))
    await asyncio.wait_for(sink.ended.wait(), 5)

    assert sink.failure is Failure.STALE


async def test_a_port_that_nobody_listens_on_fails_to_connect() -> None:
    with pytest.raises(ConnectFailed):
        await Origin("http://127.0.0.1:1").connect()


async def test_an_answer_without_length_ends_when_the_server_closes() -> None:
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 200 OK\r\n\r\nall of it")
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        sink = await ask(Origin(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"), request("/"))

    assert (sink.body, sink.failure) == (b"all of it", None)


LIMITS = ServerLimits(max_body_bytes=1000, max_head_bytes=2000, max_headers=20)


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 5000\r\n\r\n", 413),
        (
            b"POST / HTTP/1.1\r\nhost: here\r\ntransfer-encoding: chunked\r\n\r\n"
            + (b"1f4\r\n" + b"x" * 500 + b"\r\n") * 3,
            413,
        ),
        (b"GET / HTTP/1.1\r\nhost: here\r\nx: " + b"y" * 5000, 431),
        (b"GET / HTTP/1.1\r\nhost: here\r\n" + b"a: b\r\n" * 30 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nhost: here\r\nx: " + b"y" * 5000 + b"\r\n\r\n", 431),
        (b"nonsense\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: 4\r\ncontent-length: 5\r\n\r\nabcd", 400),
        (b"POST / HTTP/1.1\r\nhost: here\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nhost: here\r\nx : y\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nhost: one\r\nhost: other\r\n\r\n", 400),
    ],
)
async def test_what_is_too_large_or_no_http_is_refused_and_closed(serve, raw: bytes, status: int) -> None:
    seen: list[Exchange] = []
    _, port = await serve(seen.append, LIMITS)

    answer = await raw_talk(port, raw)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert not seen


async def test_a_target_that_names_its_host_means_the_same_path(serve) -> None:
    _, port = await serve(echo)

    answer = await raw_talk(
        port, b"GET http://any.host:8080/v1/models?x=1 HTTP/1.1\r\nhost: any.host:8080\r\nconnection: close\r\n\r\n"
    )

    assert b"x-path: /v1/models\r\n" in answer


async def test_a_client_may_wait_to_be_told_to_go_on(serve) -> None:
    _, port = await serve(echo)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(
        b"POST / HTTP/1.1\r\nhost: here\r\nexpect: 100-continue\r\ncontent-length: 2\r\nconnection: close\r\n\r\n"
    )

    assert await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5) == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"ok")

    assert (await reader.read(-1)).endswith(b"ok")
    writer.close()


async def test_a_head_request_gets_no_body(serve) -> None:
    _, port = await serve(lambda exchange: exchange.respond(200, b"", b"hidden"))

    answer = await raw_talk(port, b"HEAD / HTTP/1.1\r\nhost: here\r\nconnection: close\r\n\r\n")

    assert answer.endswith(b"\r\n\r\n")
    assert b"content-length: 6" in answer


async def test_an_offer_to_upgrade_is_ignored(serve) -> None:
    _, port = await serve(echo)

    answer = await raw_talk(port, b"GET / HTTP/1.1\r\nhost: here\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"connection: close" in answer


async def test_closing_lets_running_answers_finish(serve) -> None:
    begun = asyncio.Event()

    def handler(exchange: Exchange) -> None:
        begun.set()
        asyncio.get_running_loop().call_later(0.1, echo, exchange)

    server, port = await serve(handler)
    answer = asyncio.create_task(raw_talk(port, request("/", b"late")))
    await asyncio.wait_for(begun.wait(), 5)

    await server.close(drain_s=5)

    assert (await answer).endswith(b"late")


async def test_a_slow_reader_pauses_its_writer(serve) -> None:
    paused, resumed = asyncio.Event(), asyncio.Event()

    def handler(exchange: Exchange) -> None:
        exchange.on_pause = paused.set
        exchange.on_resume = resumed.set
        exchange.start(200, b"")
        exchange.write(b"x" * 20_000_000)

    _, port = await serve(handler)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request("/"))

    await asyncio.wait_for(paused.wait(), 5)
    await reader.readexactly(20_000_000)
    await asyncio.wait_for(resumed.wait(), 5)
    writer.close()
