"""The load generator: closed loop, open loop, and many slow streams, over keep-alive connections on one thread.

It waits on epoll and sends bytes made beforehand, because every microsecond here is taken from the upstream that shares
its core. Every answer is checked (status, framing, content), and one that fails counts as failed, never as fast.

Open loop is free of coordinated omission: request i is due at start + i/rate whatever came before, and its latency
counts from when it was due, not from when a connection was free to send it.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.response import BrokenAnswer, Response
from bench.upstream import ANSWER_TOKENS, MODEL, WORD

_now = time.perf_counter_ns
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Request:
    """The bytes of one request, and what its answer must hold."""

    data: bytes
    words: int
    stream: bool

    def fault(self, answer: Response) -> str | None:
        """Why the answer is not the whole answer; None when it is."""
        if answer.status != 200:
            return f"status {answer.status}: {answer.body[:120]!r}"
        words = answer.body.count(WORD.encode())
        if words != self.words:
            return f"{words} words of {self.words}"
        if self.stream and b"data: [DONE]" not in answer.body:
            return "stream without [DONE]"
        return None


def chat_request(
    port: int, headers: Mapping[str, str], *, stream_chunks: int = 0, path: str = "/v1/chat/completions"
) -> Request:
    """A chat completion with a 1 KB prompt and 16 tokens, streamed when `stream_chunks` is not 0."""
    words = "The quick brown fox jumps over the lazy dog and runs away. " * 18
    body: dict[str, object] = {"model": MODEL, "messages": [{"role": "user", "content": words[:1024]}]}
    body |= {"max_tokens": stream_chunks or ANSWER_TOKENS, "temperature": 0}
    if stream_chunks:
        body["stream"] = True
    data = json.dumps(body, separators=(",", ":")).encode()
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", "content-type: application/json"]
    lines += [f"content-length: {len(data)}", "user-agent: crosslogic-bench", "accept: */*"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"
    return Request(head + data, stream_chunks or ANSWER_TOKENS, bool(stream_chunks))


@dataclass
class Outcome:
    """What one run of load saw; times in nanoseconds."""

    done: int = 0
    elapsed_ns: int = 0
    latencies_ns: array[int] = field(default_factory=lambda: array("q"))
    faults: Counter[str] = field(default_factory=Counter)
    most_open: int = 0

    @property
    def failed(self) -> int:
        """How many answers were wrong, cut or missing."""
        return sum(self.faults.values())

    @property
    def per_second(self) -> float:
        """Right answers a second."""
        return self.done * 1e9 / self.elapsed_ns if self.elapsed_ns else 0.0


class _Connection:
    __slots__ = ("answer", "since_ns", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.answer = Response()
        self.since_ns = 0


class Pool:
    """Connections to one server, and the ways to drive it; use as a context manager."""

    def __init__(self, port: int, connections: int) -> None:
        self.port = port
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        for _ in range(connections):
            self._connect()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._open.values():
            connection.sock.close()
        self._open.clear()
        self._epoll.close()

    def _connect(self) -> _Connection:
        sock = socket.create_connection(("127.0.0.1", self.port), timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        connection = self._open[sock.fileno()] = _Connection(sock)
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return connection

    def _drop(self, connection: _Connection) -> None:
        number = connection.sock.fileno()
        self._epoll.unregister(number)
        del self._open[number]
        connection.sock.close()

    def _send(self, connection: _Connection, request: Request, since_ns: int) -> None:
        connection.since_ns = since_ns
        connection.answer.reset()
        try:
            connection.sock.sendall(request.data)
        except OSError:
            # Seen again as an end of file by the next receive, which counts it.
            connection.since_ns = since_ns

    def _receive(self, number: int, request: Request, outcome: Outcome) -> _Connection | None:
        """Reads what has come; the connection, ready for its next request, when its answer is over."""
        connection = self._open[number]
        answer = connection.answer
        try:
            data = connection.sock.recv(65_536)
            if not data:
                raise BrokenAnswer("connection closed inside an answer")
            if not answer.feed(data):
                return None
            fault = request.fault(answer)
        except (OSError, BrokenAnswer) as error:
            fault = str(error)
            answer.keep_alive = False
        if fault is None:
            outcome.done += 1
            outcome.latencies_ns.append(_now() - connection.since_ns)
        else:
            outcome.faults[fault] += 1
        if answer.keep_alive:
            return connection
        self._drop(connection)
        return self._connect()

    def closed(
        self,
        request: Request,
        *,
        seconds: float | None = None,
        count: int | None = None,
        per_connection: int | None = None,
    ) -> Outcome:
        """Keeps one request in flight on every connection for that long, or until that many are answered."""
        outcome = Outcome()
        flying = len(self._open)
        limit = count if count is not None else per_connection * flying if per_connection is not None else None
        with _no_collection():
            start = last = _now()
            end = start + int(seconds * 1e9) if seconds is not None else None
            sent = 0
            for connection in list(self._open.values()):
                self._send(connection, request, _now())
                sent += 1
            while flying:
                events = self._epoll.poll(PATIENCE_S)
                if not events:
                    outcome.faults["no answer in time"] += flying
                    break
                for number, _ in events:
                    ready = self._receive(number, request, outcome)
                    if ready is None:
                        continue
                    last = _now()
                    if (end is not None and last >= end) or (limit is not None and sent >= limit):
                        flying -= 1
                        continue
                    self._send(ready, request, last)
                    sent += 1
            outcome.elapsed_ns = last - start
        return outcome

    def open(self, request: Request, *, rate: float, seconds: float, warm_s: float = 1.0) -> Outcome:
        """Sends at a fixed rate; latencies count from when each request was due. The first `warm_s` is left out."""
        outcome = Outcome()
        idle, late = deque(self._open.values()), deque[int]()
        total, spacing_ns = int(rate * (seconds + warm_s)), 1e9 / rate
        warm = int(rate * warm_s)
        over = sent = 0
        with _no_collection():
            start = _now() + 10_000_000
            deadline = start + int((seconds + warm_s + PATIENCE_S) * 1e9)
            while over < total:
                now = _now()
                if now > deadline:
                    outcome.faults["no answer in time"] += total - over
                    break
                while sent < total and (due := start + int(sent * spacing_ns)) <= now:
                    if idle:
                        self._send(idle.popleft(), request, due)
                    else:
                        late.append(due)
                    sent += 1
                wait_ns = start + int(sent * spacing_ns) - _now() if sent < total else 100_000_000
                # epoll's own timeout counts in milliseconds; select's counts in microseconds, and takes an epoll too.
                if wait_ns > 0 and not select.select([self._epoll.fileno()], [], [], wait_ns / 1e9)[0]:
                    continue
                for number, _ in self._epoll.poll(0):
                    ready = self._receive(number, request, outcome)
                    if ready is None:
                        continue
                    over += 1
                    if late:
                        self._send(ready, request, late.popleft())
                    else:
                        idle.append(ready)
            outcome.elapsed_ns = _now() - start
        del outcome.latencies_ns[: min(warm, len(outcome.latencies_ns))]
        return outcome

    def slow_streams(
        self, request: Request, *, count: int, rate: float, patience_s: float, when_all_open: Callable[[], None]
    ) -> Outcome:
        """Opens that many streams at that rate, calls back once all of them flow, and waits for their ends."""
        outcome = Outcome()
        flowing: set[int] = set()
        begun = over = 0
        told = False
        with _no_collection():
            start = _now()
            deadline = start + int(patience_s * 1e9)
            while over < count and _now() < deadline:
                while begun < count and start + int(begun * 1e9 / rate) <= _now():
                    self._send(self._connect(), request, _now())
                    begun += 1
                for number, _ in self._epoll.poll(0.002 if begun < count else 0.1, 256):
                    over += self._stream_event(number, request, outcome, flowing)
                outcome.most_open = max(outcome.most_open, len(flowing))
                if not told and begun == count and len(flowing) + over == count:
                    told = True
                    when_all_open()
            if over < count:
                outcome.faults["stream not finished in time"] += count - over
            outcome.elapsed_ns = _now() - start
        return outcome

    def _stream_event(self, number: int, request: Request, outcome: Outcome, flowing: set[int]) -> int:
        """Reads one stream's bytes; 1 when it is over, else 0."""
        connection = self._open[number]
        fault: str | None = None
        try:
            data = connection.sock.recv(65_536)
            if not data:
                raise BrokenAnswer("connection closed inside an answer")
            if not connection.answer.feed(data):
                if connection.answer.begun:
                    flowing.add(number)
                return 0
            fault = request.fault(connection.answer)
        except (OSError, BrokenAnswer) as error:
            fault = str(error)
        if fault is None:
            outcome.done += 1
        else:
            outcome.faults[fault] += 1
        flowing.discard(number)
        self._drop(connection)
        return 1


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keeps the garbage collector from pausing the generator, and so the clock, in the middle of a measurement."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def percentile(values: array[int], share: float) -> float:
    """The nearest-rank percentile (share 0.99 is p99) of what was measured, in the unit of the values."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return float(ordered[min(len(ordered) - 1, max(0, -(-int(share * 1_000_000) * len(ordered) // 1_000_000) - 1))])
