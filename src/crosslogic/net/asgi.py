"""Runs an ASGI application (the management API) behind our own HTTP server, so that one port serves both.

The request body arrives whole (the server has buffered it); the answer may be streamed. Only the `http` scope is
offered: the gateway has no WebSocket routes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import unquote

from crosslogic.net.exchange import Exchange

Message = MutableMapping[str, Any]
AsgiApp = Callable[[Message, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

log = logging.getLogger(__name__)

_HOP_BY_HOP = {b"content-length", b"transfer-encoding", b"connection"}


class AsgiBridge:
    """Calls the application in a task for each exchange."""

    def __init__(self, app: AsgiApp) -> None:
        self._app = app
        self._tasks: set[asyncio.Task[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        task = asyncio.get_running_loop().create_task(self._run(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, exchange: Exchange) -> None:
        call = _AsgiCall(exchange)
        try:
            await self._app(call.scope(), call.receive, call.send)
        except Exception:
            log.exception("management API failed on %s", exchange.path.decode("latin-1"))
            if exchange.started:
                exchange.abort()
        if not exchange.started:
            exchange.respond(
                500,
                b"content-type: application/json\r\n",
                b'{"error":{"message":"internal error","type":"server_error","code":"internal_error","param":null}}',
            )


class _AsgiCall:
    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._body_sent = False
        self._gone = asyncio.Event()
        self._status = 500
        self._head = b""
        self._length: int | None = None
        exchange.on_closed = self._gone.set

    def scope(self) -> Message:
        exchange = self._exchange
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": exchange.method.decode("latin-1"),
            "scheme": "http",
            "path": unquote(exchange.path.decode("latin-1")),
            "raw_path": exchange.path,
            "query_string": exchange.query,
            "root_path": "",
            "headers": exchange.headers,
            "client": (exchange.client_ip, 0) if exchange.client_ip else None,
            "server": None,
        }

    async def receive(self) -> Message:
        if not self._body_sent:
            self._body_sent = True
            return {"type": "http.request", "body": self._exchange.body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [(name.lower(), value) for name, value in message.get("headers", ())]
            self._status = message["status"]
            self._length = next((int(value) for name, value in headers if name == b"content-length"), None)
            self._head = b"".join(b"%b: %b\r\n" % header for header in headers if header[0] not in _HOP_BY_HOP)
            return
        body = message.get("body", b"")
        more = message.get("more_body", False)
        if not more and not self._exchange.started:
            self._exchange.respond(self._status, self._head, body)
            self._done()
            return
        if not self._exchange.started:
            self._exchange.start(self._status, self._head, self._length)
        if more:
            self._exchange.write(body)
        else:
            self._exchange.end(body)
            self._done()

    def _done(self) -> None:
        self._exchange.on_closed = None
        self._gone.set()
