"""Where Prometheus scrapes: on the server's own port, or on one of its own that callers cannot reach."""

from contextlib import AsyncExitStack

from crosslogic.gateway.errors import NOT_FOUND
from crosslogic.gateway.operations import Operations
from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from crosslogic.settings.model import Settings
from crosslogic.telemetry.slots import Slots


def public_metrics_path(settings: Settings) -> str | None:
    """The path on the server's port; None where metrics are off or have a port of their own."""
    own_port = settings.metrics.port is not None
    return settings.metrics.path if settings.metrics.enabled and not own_port else None


async def serve_metrics(settings: Settings, slots: Slots, stack: AsyncExitStack) -> None:
    """Listen on `metrics.port`, when there is one. Raises OSError when it cannot be had."""
    if not settings.metrics.enabled or settings.metrics.port is None:
        return
    server = HttpServer(Operations({}, slots, _nothing_else, metrics_path=settings.metrics.path))
    await server.listen(settings.server.host, settings.metrics.port)
    stack.push_async_callback(server.close, 0.0)


def _nothing_else(exchange: Exchange) -> None:
    exchange.respond(NOT_FOUND.status, NOT_FOUND.header_lines(), NOT_FOUND.body())
