"""The OpenAI-compatible edge: which path goes where. Hot routes first, everything else to the management API."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from urllib.parse import unquote

import msgspec

from crosslogic.gateway import errors
from crosslogic.gateway.endpoints import BY_PATH, Endpoint
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.pipeline import Pipeline, is_home
from crosslogic.net.exchange import Exchange
from crosslogic.scheduling.model import ModelListing
from crosslogic.scheduling.pool import Pool
from crosslogic.tenancy.model import Principal

log = logging.getLogger(__name__)

_AFTER_BASE_URL = (b"v1/", b"admin/", b"api/")
_MANAGEMENT = b"/api/"  # `/api/v1` is no tenant's address

JSON_HEADER = errors.JSON_HEADER


class Gateway:
    """A handler for `HttpServer`. What it does not know goes to `fallback` (the management API), or is a 404."""

    def __init__(
        self,
        pipeline: Pipeline,
        pool: Pool,
        models: ModelTable,
        fallback: Callable[[Exchange], None] | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._pool = pool
        self._models = models
        self._fallback = fallback
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()

    def __call__(self, exchange: Exchange) -> None:
        endpoint = BY_PATH.get(exchange.path)
        if endpoint is not None:
            self._serve(exchange, endpoint, None)
        elif b"/v1/" in exchange.path and not exchange.path.startswith(_MANAGEMENT):
            self._route(exchange)
        elif self._fallback is not None:
            self._fallback(exchange)
        else:
            _respond(exchange, errors.NOT_FOUND)

    async def finish(self, timeout_s: float) -> None:
        """Wait for the records of requests whose callers are gone, at most `timeout_s` seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    def _serve(self, exchange: Exchange, endpoint: Endpoint, address: tuple[str, str, str] | None) -> None:
        if exchange.method != b"POST":
            _respond(exchange, errors.METHOD_NOT_ALLOWED)
            return
        self._begin(self._serve_safely(exchange, endpoint, address))

    def _begin(self, answering: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(answering)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve_safely(self, exchange: Exchange, endpoint: Endpoint, address: tuple[str, str, str] | None) -> None:
        try:
            await self._pipeline.serve(exchange, endpoint, address)
        except Exception:
            log.exception("a request failed unexpectedly on %s", endpoint.name)
            if exchange.started:
                exchange.abort()
            else:
                _respond(exchange, errors.INTERNAL_ERROR)

    def _route(self, exchange: Exchange) -> None:
        """Models, and the form that names its tenant: `/{org}/{env}/{model}/v1/…` (product documentation §6.3)."""
        prefix, _, rest = exchange.path.partition(b"/v1/")
        address = _address(prefix) if prefix else None
        if prefix and address is None:
            _respond(exchange, errors.NOT_FOUND)
            return
        endpoint = BY_PATH.get(b"/v1/" + rest)
        if endpoint is not None:
            self._serve(exchange, endpoint, address)
        elif rest == b"models" or rest.startswith(b"models/"):
            self._begin(self._answer_models(exchange, unquote(rest[7:].decode("latin-1")), address))
        elif not prefix and rest.startswith(_AFTER_BASE_URL) and not rest.startswith(b"v1/v1/"):
            # Clients that add `/v1` (Anthropic's SDK) or look for the rest of us are often given the base URL with it.
            exchange.path = b"/" + rest
            self(exchange)
        else:
            _respond(exchange, errors.NOT_FOUND)

    async def _answer_models(self, exchange: Exchange, name: str, address: tuple[str, str, str] | None) -> None:
        if exchange.method not in (b"GET", b"HEAD"):
            _respond(exchange, errors.METHOD_NOT_ALLOWED)
            return
        principal = self._pipeline.identify(exchange)
        if isinstance(principal, Refusal):
            _respond(exchange, principal)
            return
        if address is not None and not is_home(principal, address[0], address[1]):
            _respond(exchange, errors.NOT_FOUND)
            return
        room = await self._pipeline.room_left(principal)
        listings = {listing.name: self._describe(listing) for listing in self._visible(principal)}
        if not name:
            body: dict[str, object] = {"object": "list", "data": list(listings.values())}
        elif name in listings:
            body = listings[name]
        else:
            _respond(exchange, errors.model_refusal(name), room)
            return
        exchange.respond(200, room + JSON_HEADER, msgspec.json.encode(body))

    def _visible(self, principal: Principal) -> list[ModelListing]:
        allowed = principal.allowed_models
        return [
            listing for listing in self._pool.models(principal.org_id) if allowed is None or listing.name in allowed
        ]

    def _describe(self, listing: ModelListing) -> dict[str, object]:
        described: dict[str, object] = {
            "id": listing.name,
            "object": "model",
            "created": listing.created_s,
            "owned_by": "organization" if listing.own else "crosslogic",
        }
        bounds = self._models.by_name.get(listing.name)
        if bounds is not None and bounds.context_window is not None:
            described["max_model_len"] = bounds.context_window
        return described


def _address(prefix: bytes) -> tuple[str, str, str] | None:
    """(org, environment, model); the model may contain slashes."""
    parts = prefix.decode("latin-1").split("/", 3)
    if len(parts) < 4 or parts[0] or not all(parts[1:]):
        return None
    return unquote(parts[1]), unquote(parts[2]), unquote(parts[3])


def _respond(exchange: Exchange, refusal: Refusal, room: bytes = b"") -> None:
    exchange.respond(refusal.status, room + refusal.header_lines(), refusal.body())
