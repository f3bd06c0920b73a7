"""A fake OpenAI-compatible upstream that costs next to nothing, so that what is measured is the server before it.

Answers are bytes made once, when the shape of the answer is set; nothing is parsed but what decides the answer: the
path, `stream` and `stream_options.include_usage`. One process may listen on several ports and so stand for several
nodes. Invariant: a stream is `chunks` events of one word each, `interval_ms` apart (the first one interval after the
request), then a finish event, a usage event when it was asked for, and `[DONE]`.

    python -m bench.upstream --port 9001 --port 9002 --chunks 64 --interval-ms 5

`GET /shape?chunks=8&interval_ms=2000` sets the shape of later streams, `GET /stats` says what has been served.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import signal
from typing import Any, cast
from urllib.parse import parse_qs, urlsplit

import uvloop

MODEL = "bench-model"
WORD = " tok"
PROMPT_TOKENS = 256
ANSWER_TOKENS = 16

_STREAM = re.compile(rb'"stream"\s*:\s*true')
_USAGE = re.compile(rb'"include_usage"\s*:\s*true')
_LENGTH = re.compile(rb"\r\ncontent-length:\s*(\d+)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:\s*chunked", re.IGNORECASE)
_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"
)


def usage(completion_tokens: int) -> dict[str, int]:
    """The usage object of an answer of that many tokens."""
    return {
        "prompt_tokens": PROMPT_TOKENS,
        "completion_tokens": completion_tokens,
        "total_tokens": PROMPT_TOKENS + completion_tokens,
    }


def plain(body: object, status: str = "200 OK") -> bytes:
    """A complete JSON answer with its length."""
    data = json.dumps(body, separators=(",", ":")).encode()
    return b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (
        status.encode(),
        len(data),
        data,
    )


def event(choices: list[dict[str, Any]], **more: object) -> bytes:
    """One server-sent event of a chat stream, in vLLM's field order."""
    body = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": MODEL}
    return b"data: " + json.dumps({**body, "choices": choices, **more}, separators=(",", ":")).encode() + b"\n\n"


def framed(data: bytes) -> bytes:
    """One chunk of a chunked transfer."""
    return b"%x\r\n%s\r\n" % (len(data), data)


class Shape:
    """The bytes of every answer, and what has been served with them."""

    def __init__(self, chunks: int, interval_ms: float) -> None:
        self.requests = self.streams = self.cut = self.open = 0
        choice = {"index": 0, "logprobs": None, "finish_reason": "length"}
        self.completion = plain(
            {
                "id": "chatcmpl-bench",
                "object": "chat.completion",
                "created": 1_700_000_000,
                "model": MODEL,
                "choices": [choice | {"message": {"role": "assistant", "content": WORD * ANSWER_TOKENS}}],
                "usage": usage(ANSWER_TOKENS),
            }
        )
        card = {"id": MODEL, "object": "model", "created": 1_700_000_000, "owned_by": "bench"}
        self.models = plain({"object": "list", "data": [card | {"max_model_len": 32_768}]})
        self.health = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"
        self.missing = plain({"error": {"message": "no such path", "type": "not_found", "code": 404}}, "404 Not Found")
        self.refused = plain({"error": {"message": "send content-length"}}, "411 Length Required")
        self.set(chunks, interval_ms)

    def set(self, chunks: int, interval_ms: float) -> None:
        """Gives streams that start from now on this many chunks, this far apart."""
        self.chunks, self.interval_s = chunks, interval_ms / 1000
        choice = {"index": 0, "delta": {"content": WORD}, "logprobs": None, "finish_reason": None}
        self.chunk = framed(event([choice]))
        finish = framed(event([choice | {"delta": {}, "finish_reason": "length"}]))
        counted = framed(event([], usage=usage(chunks)))
        done = framed(b"data: [DONE]\n\n") + b"0\r\n\r\n"
        self.last, self.last_with_usage = finish + done, finish + counted + done

    def control(self, target: str) -> bytes:
        """Answers a GET."""
        url = urlsplit(target)
        match url.path:
            case "/health" | "/health_generate" | "/ready":
                return self.health
            case "/v1/models":
                return self.models
            case "/shape":
                query = parse_qs(url.query)
                self.set(int(query["chunks"][0]), float(query["interval_ms"][0]))
                return plain({"chunks": self.chunks, "interval_ms": self.interval_s * 1000})
            case "/stats":
                counts = ("requests", "streams", "cut", "open")
                return plain({name: getattr(self, name) for name in counts})
        return self.missing


class Connection(asyncio.Protocol):
    """One keep-alive connection; answers one request after another."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.loop = asyncio.get_running_loop()
        self.buffer = b""
        self.timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.shape.cut += 1
            self.shape.open -= 1

    def data_received(self, data: bytes) -> None:
        self.buffer = self.buffer + data if self.buffer else data
        while self.buffer and self.timer is None and self._answer_one():
            pass

    def _answer_one(self) -> bool:
        """Answers the request at the front of the buffer; False when it is not all there yet."""
        head_end = self.buffer.find(b"\r\n\r\n")
        if head_end < 0:
            return False
        head = self.buffer[:head_end]
        if head.startswith(b"GET "):
            self.buffer = self.buffer[head_end + 4 :]
            self.transport.write(self.shape.control(head.split(b" ", 2)[1].decode("latin-1")))
            return True
        length = _LENGTH.search(head)
        if length is None:
            self.transport.write(self.shape.refused if _CHUNKED.search(head) else self.shape.missing)
            self.transport.close()
            return False
        end = head_end + 4 + int(length[1])
        if len(self.buffer) < end:
            return False
        body, self.buffer = self.buffer[head_end + 4 : end], self.buffer[end:]
        self.shape.requests += 1
        if _STREAM.search(body):
            self._begin_stream(_USAGE.search(body) is not None)
        else:
            self.transport.write(self.shape.completion)
        return True

    def _begin_stream(self, with_usage: bool) -> None:
        self.shape.streams += 1
        self.shape.open += 1
        self.left, self.interval_s, self.chunk = self.shape.chunks, self.shape.interval_s, self.shape.chunk
        self.last = self.shape.last_with_usage if with_usage else self.shape.last
        self.transport.write(_STREAM_HEAD)
        self.timer = self.loop.call_later(self.interval_s, self._tick)

    def _tick(self) -> None:
        self.left -= 1
        if self.left > 0:
            self.transport.write(self.chunk)
            self.timer = self.loop.call_later(self.interval_s, self._tick)
            return
        self.timer = None
        self.shape.open -= 1
        self.transport.write(self.chunk + self.last)
        if self.buffer:
            self.data_received(b"")


async def serve(ports: list[int], chunks: int, interval_ms: float) -> None:
    """Serves on every port of the loopback address until SIGTERM or SIGINT."""
    loop = asyncio.get_running_loop()
    shape = Shape(chunks, interval_ms)
    for port in ports:
        await loop.create_server(lambda: Connection(shape), "127.0.0.1", port, backlog=4096)
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    await stopped.wait()


def main() -> None:
    """Reads the command line and serves."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, action="append", required=True)
    parser.add_argument("--chunks", type=int, default=64)
    parser.add_argument("--interval-ms", type=float, default=5.0)
    options = parser.parse_args()
    uvloop.run(serve(options.port, options.chunks, options.interval_ms))


if __name__ == "__main__":
    main()
