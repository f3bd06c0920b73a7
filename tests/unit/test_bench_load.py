"""The load generator, against the real fake upstream, and against servers that answer wrongly."""

import asyncio
import json
import threading
from array import array
from collections.abc import Callable, Iterator

import pytest
from bench.load import Pool, Request, chat_request, percentile
from bench.processes import http_get
from bench.upstream import ANSWER_TOKENS, Connection, Shape

CHUNKS = 5


class Served:
    """An asyncio server on a thread of its own, as the generator blocks."""

    def __init__(self, protocol: Callable[[], asyncio.Protocol]) -> None:
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(self.loop.create_server(protocol, "127.0.0.1", 0))
        self.port: int = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.server.close()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()


@pytest.fixture
def upstream() -> Iterator[Served]:
    served = serve_upstream(Shape(chunks=CHUNKS, interval_ms=2))
    yield served
    served.close()


def serve_upstream(shape: Shape) -> Served:
    return Served(lambda: Connection(shape))


class Answers(asyncio.Protocol):
    """Answers each request with the same bytes after a while, and may hang up then."""

    def __init__(self, data: bytes, delay_s: float = 0.0, hang_up: bool = False) -> None:
        self.data, self.delay_s, self.hang_up = data, delay_s, hang_up

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        asyncio.get_running_loop().call_later(self.delay_s, self._answer)

    def _answer(self) -> None:
        self.transport.write(self.data)
        if self.hang_up:
            self.transport.close()


def stats(port: int) -> dict[str, int]:
    return dict(json.loads(http_get(f"http://127.0.0.1:{port}/stats")[1]))


def test_closed_loop_sends_exactly_as_many_as_it_was_told(upstream: Served) -> None:
    with Pool(upstream.port, 4) as pool:
        outcome = pool.closed(chat_request(upstream.port, {}), count=50)
    assert (outcome.done, outcome.failed, len(outcome.latencies_ns)) == (50, 0, 50)
    assert stats(upstream.port)["requests"] == 50


def test_streams_are_read_to_their_end(upstream: Served) -> None:
    with Pool(upstream.port, 3) as pool:
        outcome = pool.closed(chat_request(upstream.port, {}, stream_chunks=CHUNKS), per_connection=2)
    assert (outcome.done, outcome.failed) == (6, 0)
    assert min(outcome.latencies_ns) >= CHUNKS * 2_000_000 * 0.9
    assert stats(upstream.port) == {"requests": 6, "streams": 6, "cut": 0, "open": 0}


def test_a_stream_with_a_word_too_few_is_a_failure(upstream: Served) -> None:
    with Pool(upstream.port, 1) as pool:
        outcome = pool.closed(chat_request(upstream.port, {}, stream_chunks=CHUNKS + 1), count=2)
    assert outcome.done == 0
    assert outcome.faults == {f"{CHUNKS} words of {CHUNKS + 1}": 2}


def test_slow_streams_are_all_open_at_once_before_any_ends() -> None:
    served = serve_upstream(Shape(chunks=3, interval_ms=150))
    open_then: list[int] = []
    try:
        with Pool(served.port, 0) as pool:
            outcome = pool.slow_streams(
                chat_request(served.port, {}, stream_chunks=3),
                count=40,
                rate=1000,
                patience_s=10,
                when_all_open=lambda: open_then.append(stats(served.port)["open"]),
            )
    finally:
        served.close()
    assert open_then == [40]
    assert (outcome.done, outcome.failed, outcome.most_open) == (40, 0, 40)


def test_open_loop_keeps_its_rate(upstream: Served) -> None:
    with Pool(upstream.port, 8) as pool:
        outcome = pool.open(chat_request(upstream.port, {}), rate=200, seconds=0.5, warm_s=0.1)
    assert (outcome.done, outcome.failed) == (120, 0)
    assert len(outcome.latencies_ns) == 100
    assert outcome.elapsed_ns >= 0.59e9


def test_open_loop_counts_the_wait_for_a_connection() -> None:
    """One connection, 20 ms an answer, 100 requests/s: each waits for all before it, which a closed loop would hide."""
    whole = Shape(CHUNKS, 1).completion
    served = Served(lambda: Answers(whole, delay_s=0.02))
    try:
        with Pool(served.port, 1) as pool:
            outcome = pool.open(chat_request(served.port, {}), rate=100, seconds=0.3, warm_s=0)
    finally:
        served.close()
    assert outcome.done == 30
    assert outcome.latencies_ns[0] < 100_000_000
    # The last was due at 290 ms and could not be answered before 30 × 20 ms.
    assert outcome.latencies_ns[-1] >= 300_000_000


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"HTTP/1.1 503 Busy\r\ncontent-length: 2\r\n\r\nno", "status 503: b'no'"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", f"0 words of {ANSWER_TOKENS}"),
    ],
)
def test_a_wrong_answer_is_no_success(data: bytes, fault: str) -> None:
    served = Served(lambda: Answers(data))
    try:
        with Pool(served.port, 1) as pool:
            outcome = pool.closed(chat_request(served.port, {}), count=3)
    finally:
        served.close()
    assert outcome.done == 0
    assert outcome.faults == {fault: 3}


def test_an_answer_cut_short_is_no_success_and_the_generator_connects_again() -> None:
    served = Served(lambda: Answers(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{", hang_up=True))
    try:
        with Pool(served.port, 1) as pool:
            outcome = pool.closed(chat_request(served.port, {}), count=3)
    finally:
        served.close()
    assert outcome.faults == {"connection closed inside an answer": 3}


def test_request_is_whole_http_with_the_headers_given() -> None:
    request: Request = chat_request(8080, {"authorization": "Bearer x"}, stream_chunks=7)
    head, _, body = request.data.partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
    assert b"\r\nauthorization: Bearer x" in head
    assert f"\r\ncontent-length: {len(body)}".encode() in head
    sent = json.loads(body)
    assert len(sent["messages"][0]["content"]) == 1024
    assert (sent["stream"], sent["max_tokens"]) == (True, 7)


def test_percentile_is_the_nearest_rank() -> None:
    values = array("q", range(1, 101))
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile(array("q", [7]), 0.99) == 7
