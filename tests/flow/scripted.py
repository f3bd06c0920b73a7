"""Model servers in this process that do to each request exactly what a test says: slow, odd, broken, or silent.

They listen on real sockets in a thread of their own. What the simulated node cannot be asked for is written here byte
by byte; `requests` is the proof of what reached a node at all.
"""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer

JSON = b"content-type: application/json\r\n"
EVENTS = b"content-type: text/event-stream\r\n"
START_TIMEOUT_S = 10.0

Script = Callable[["Turn"], Awaitable[None]]


class Turn:
    """One request at one node."""

    def __init__(self, exchange: Exchange, node: int) -> None:
        self.exchange = exchange
        self.node = node
        self.body = exchange.body
        self.headers = dict(exchange.headers)
        self.left_s: float | None = None  # when the gateway hung up, by time.monotonic
        self._writable = asyncio.Event()
        self._writable.set()
        exchange.on_closed = self._left
        exchange.on_pause = self._writable.clear
        exchange.on_resume = self._writable.set

    def _left(self) -> None:
        self.left_s = time.monotonic()
        self._writable.set()

    async def drained(self) -> None:
        """Until the gateway takes more, or has left; other requests have their turn meanwhile."""
        await asyncio.sleep(0)
        await self._writable.wait()

    def events(self, *events: bytes | dict[str, Any]) -> None:
        """Write server-sent events, beginning the answer if need be."""
        if not self.exchange.started:
            self.exchange.start(200, EVENTS)
        for event in events:
            data = event if isinstance(event, bytes) else msgspec.json.encode(event)
            self.exchange.write(b"data: " + data + b"\n\n")


def delta(text: str | None, finish: str | None = None, usage: dict[str, int] | None = None) -> dict[str, Any]:
    """A chunk of a chat stream."""
    content = {} if text is None else {"content": text}
    chunk: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "model": "scripted",
        "choices": [{"index": 0, "delta": content, "finish_reason": finish}],
    }
    return chunk | ({"usage": usage} if usage else {})


USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
WHOLE = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "model": "scripted",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}


async def answer_well(turn: Turn) -> None:
    """A whole answer, or a stream of two tokens when asked for one."""
    if not msgspec.json.decode(turn.body).get("stream"):
        turn.exchange.respond(200, JSON, msgspec.json.encode(WHOLE))
        return
    turn.events(delta("Hel"), delta("lo"), delta(None, "stop"), {"choices": [], "usage": USAGE})
    turn.exchange.end(b"data: [DONE]\n\n")


class ScriptedNodes:
    """`count` servers of one model. All POSTs go to `script`, which a test sets and `forget` sets back."""

    def __init__(self, model: str, count: int) -> None:
        self.urls: list[str] = []
        self.turns: list[Turn] = []
        self.script: Script = answer_well
        self._model = model
        self._count = count
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._servers: list[HttpServer] = []
        self._tasks: set[asyncio.Task[None]] = set()

    def __enter__(self) -> "ScriptedNodes":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(START_TIMEOUT_S)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(START_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def forget(self) -> None:
        """Answer well from now on, and count from nought."""
        self.script = answer_well
        self.turns.clear()

    def run(self, action: Callable[[], object]) -> None:
        """Do something in the nodes' own thread, such as setting an event that a script waits for."""
        self._loop.call_soon_threadsafe(action)

    async def _listen(self) -> None:
        for number in range(self._count):
            server = HttpServer(lambda exchange, number=number: self._handle(exchange, number))
            self.urls.append(f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}")
            self._servers.append(server)

    async def _close(self) -> None:
        for server in self._servers:
            await server.close(0)
        for task in self._tasks:
            task.cancel()

    def _handle(self, exchange: Exchange, number: int) -> None:
        if exchange.path == b"/tokenize":
            exchange.respond(404, JSON, b'{"detail":"Not Found"}')
        elif exchange.method == b"POST":
            turn = Turn(exchange, number)
            self.turns.append(turn)
            task = self._loop.create_task(self._play(turn))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        elif exchange.path == b"/v1/models":
            card = {"id": self._model, "object": "model", "created": 1, "owned_by": "tests"}
            exchange.respond(200, JSON, msgspec.json.encode({"object": "list", "data": [card]}))
        else:
            exchange.respond(200, b"", b"")

    async def _play(self, turn: Turn) -> None:
        await self.script(turn)
