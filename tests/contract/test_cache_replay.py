"""A recorded answer given again over real connections: byte for byte, packet by packet, at the caller's own speed."""

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from crosslogic.cache.replay import replay
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from tests.cache_samples import EVENTS, recording, stream
from tests.contract.limits_rig import eventually

REQUEST = b"POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n"


class Replays:
    """A server that answers everything with one recording."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []
        self.exchanges: list[Exchange] = []
        self.made = recording()

    def handle(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)
        self.tasks.append(asyncio.create_task(replay(self.made, exchange, b"x-cache: hit\r\n")))


@pytest.fixture
async def replays() -> AsyncIterator[tuple[Replays, int]]:
    made = Replays()
    server = HttpServer(made.handle)
    yield made, await server.listen("127.0.0.1", 0)
    await server.close(0)
    for task in made.tasks:
        assert task.done()
        assert task.exception() is None


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    if b"content-length" in head:
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        return head, await reader.readexactly(length)
    chunks = []
    while size := int(await reader.readline(), 16):
        chunks.append(await reader.readexactly(size + 2))
    await reader.readline()
    return head, b"|".join(chunk[:-2] for chunk in chunks)


async def test_a_whole_answer_comes_whole_with_its_own_kind_of_content(replays: tuple[Replays, int]) -> None:
    replays[0].made = recording(b'{"a":1}')
    reader, writer = await asyncio.open_connection("127.0.0.1", replays[1])
    writer.write(REQUEST * 2)
    for _ in range(2):
        head, body = await answer(reader)
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        assert b"x-cache: hit\r\ncontent-type: application/json\r\n" in head
        assert body == b'{"a":1}'
    writer.close()


async def test_a_stream_comes_as_a_stream_packet_by_packet(replays: tuple[Replays, int]) -> None:
    replays[0].made = stream()
    reader, writer = await asyncio.open_connection("127.0.0.1", replays[1])
    writer.write(REQUEST * 2)  # and the connection is good for another request
    for _ in range(2):
        head, body = await answer(reader)
        assert b"content-type: text/event-stream" in head
        assert b"transfer-encoding: chunked" in head
        assert body == b"|".join((*EVENTS, b"data: [DONE]\n\n"))
    writer.close()


async def test_a_slow_caller_is_not_sent_more_than_it_takes(replays: tuple[Replays, int]) -> None:
    piece = b"data: " + b"x" * 65_536 + b"\n\n"
    replays[0].made = stream(*([piece] * 400))  # 26 MB: more than all buffers in between
    sock = socket.create_connection(("127.0.0.1", replays[1]))
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(sock, REQUEST)
    await asyncio.sleep(0.3)
    assert not replays[0].tasks[0].done()  # it waits for us
    reader, writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
    _, body = await answer(reader)
    assert body == b"|".join([piece] * 400)
    await eventually(lambda: replays[0].tasks[0].done())
    writer.close()


async def test_a_caller_that_leaves_ends_the_replay(replays: tuple[Replays, int]) -> None:
    replays[0].made = stream(*([b"x" * 65_536] * 400))
    reader, writer = await asyncio.open_connection("127.0.0.1", replays[1])
    writer.write(REQUEST)
    await reader.readuntil(b"\r\n\r\n")
    assert not replays[0].tasks[0].done()
    writer.transport.abort()
    await eventually(lambda: replays[0].tasks[0].done())
    exchange = replays[0].exchanges[0]
    assert (exchange.on_pause, exchange.on_resume, exchange.on_closed) == (None, None, None)


async def test_a_caller_that_has_left_already_is_sent_nothing(replays: tuple[Replays, int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", replays[1])
    writer.write(REQUEST)
    await answer(reader)
    writer.close()
    finished = replays[0].exchanges[0]
    await asyncio.wait_for(replay(stream(), finished, b""), 1.0)
    await asyncio.wait_for(replay(recording(), finished, b""), 1.0)
