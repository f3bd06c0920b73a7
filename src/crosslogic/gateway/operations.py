"""`/health`, `/ready` and `/metrics`, answered by every process that serves HTTP. None of them asks for a key."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from crosslogic.net.exchange import Exchange
from crosslogic.telemetry.exposition import CONTENT_TYPE, render
from crosslogic.telemetry.slots import Slots

CHECK_TIMEOUT_S = 1.0
JSON_HEADER = b"content-type: application/json\r\n"

Check = Callable[[], Awaitable[None]]
_log = logging.getLogger(__name__)


class Operations:
    """Answers its paths and hands everything else on."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        slots: Slots,
        following: Callable[[Exchange], None],
        *,
        metrics_path: str | None = "/metrics",
    ) -> None:
        self._checks = checks
        self._slots = slots
        self._following = following
        self._routes: dict[bytes, Callable[[Exchange], Awaitable[None]]] = {
            b"/health": self._health,
            b"/ready": self._ready,
        }
        if metrics_path is not None:
            self._routes[metrics_path.encode()] = self._metrics
        self._tasks: set[asyncio.Future[None]] = set()

    def __call__(self, exchange: Exchange) -> None:
        route = self._routes.get(exchange.path.removeprefix(b"/v1"))
        if route is None or exchange.method not in (b"GET", b"HEAD"):
            self._following(exchange)
            return
        task = asyncio.ensure_future(route(exchange))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _health(self, exchange: Exchange) -> None:
        """The process runs and its event loop turns."""
        exchange.respond(200, JSON_HEADER, b'{"status":"ok"}')

    async def _ready(self, exchange: Exchange) -> None:
        """All checks at once; 503 names those that fail, and only names: why is in the log."""
        names = list(self._checks)
        passed = await asyncio.gather(*(_passes(name, self._checks[name]) for name in names))
        failing = [name for name, ok in zip(names, passed, strict=True) if not ok]
        body = msgspec.json.encode({"status": "unavailable" if failing else "ready", "failing": failing})
        exchange.respond(503 if failing else 200, JSON_HEADER, body)

    async def _metrics(self, exchange: Exchange) -> None:
        body = await asyncio.to_thread(render, self._slots)
        exchange.respond(200, b"content-type: %b\r\n" % CONTENT_TYPE.encode(), body)


async def _passes(name: str, check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_S):
            await check()
    except Exception as error:  # whatever a dependency throws, it is not ready
        _log.warning("readiness: %s fails (%s)", name, type(error).__name__)
        return False
    return True
