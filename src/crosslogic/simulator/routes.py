"""The HTTP face of the simulated node: which path does what, and what a wrong request is told.

Invariant: every request is answered, unless a fault says otherwise: errors in OpenAI's shape (Anthropic's on its
path), 401 before anything else, 404 for a model that is not served, 429 when the queue is full.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import pooling, requests, tokens
from crosslogic.simulator.dialects import MessagesWriter, ResponsesWriter, messages_error
from crosslogic.simulator.faults import NO_FAULT, Fault, FaultRule, parse_fault
from crosslogic.simulator.generating import dispatch, generating_job, pooled_job
from crosslogic.simulator.job import JSON_LINES
from crosslogic.simulator.pooling import Prepared
from crosslogic.simulator.replies import ChatWriter, CompletionWriter, error_body
from crosslogic.simulator.requests import Generation, Json

if TYPE_CHECKING:
    from crosslogic.net.exchange import Exchange
    from crosslogic.simulator.node import SimulatedNode

_log = logging.getLogger(__name__)

VERSION = "0.0.0-simulated"
METRICS_LINES = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
_KINDS = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "TooManyRequestsError"}

_Reader = Callable[[Json], Generation]
_Route = Callable[["Exchange", str], None]


class Routes:
    """Dispatches exchanges for one node."""

    def __init__(self, node: SimulatedNode) -> None:
        self._node = node
        self._model = node.profile.model
        self._created_s = int(time.time())
        generating: dict[str, tuple[_Reader, type[Any]]] = {
            "/v1/chat/completions": (requests.read_chat, ChatWriter),
            "/v1/completions": (requests.read_completion, CompletionWriter),
            "/v1/responses": (requests.read_responses, ResponsesWriter),
            "/v1/messages": (requests.read_messages, MessagesWriter),
        }
        pooled: dict[str, Callable[[Json], Prepared]] = {
            "/v1/embeddings": pooling.embeddings,
            "/v1/rerank": pooling.rerank,
            "/rerank": pooling.rerank,
            "/v1/score": pooling.score,
            "/score": pooling.score,
        }
        self._table: dict[tuple[bytes, str], _Route] = {
            (b"GET", "/v1/models"): self._models,
            (b"GET", "/health"): self._health,
            (b"GET", "/version"): self._version,
            (b"GET", "/metrics"): self._metrics,
            (b"POST", "/tokenize"): self._tokenize,
            (b"GET", "/admin/faults"): self._list_faults,
            (b"POST", "/admin/faults"): self._add_fault,
            (b"DELETE", "/admin/faults"): self._clear_faults,
        }
        for path, (read, writer) in generating.items():
            self._table[b"POST", path] = self._generating(read, writer)
        for path, prepare in pooled.items():
            self._table[b"POST", path] = self._pooled(prepare)

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or when the engine is done with it."""
        path = exchange.path.decode("latin-1")
        method = b"GET" if exchange.method == b"HEAD" else exchange.method
        route = self._table.get((method, path))
        if route is None:
            if path.startswith("/v1/models/") and method == b"GET":
                route = self._one_model
            else:
                self._no_route(exchange, path)
                return
        if not self._allowed(exchange, path):
            exchange.respond(401, JSON_LINES, b'{"error":"Unauthorized"}')
            return
        try:
            route(exchange, path)
        except InvalidRequest as error:
            self._error(exchange, 400, str(error), error.param)
        except Exception:
            # A defect of ours must not take the connection's other requests with it.
            _log.exception("the simulated node failed on %s", path)
            self._error(exchange, 500, "The simulated node failed on this request; its log says why.")

    def _no_route(self, exchange: Exchange, path: str) -> None:
        """As the framework beneath vLLM answers, which is not OpenAI's shape."""
        allowed = sorted(method for method, known in self._table if known == path)
        if allowed:
            lines = JSON_LINES + b"allow: %b\r\n" % b", ".join(allowed)
            exchange.respond(405, lines, b'{"detail":"Method Not Allowed"}')
        else:
            exchange.respond(404, JSON_LINES, b'{"detail":"Not Found"}')

    def _generating(self, read: _Reader, writer_type: type[Any]) -> _Route:
        def route(exchange: Exchange, path: str) -> None:
            fault = self._fault(exchange, path)
            if self._struck_at_once(exchange, fault):
                return
            request = read(requests.decode(exchange.body))
            if self._serves(exchange, request.model):
                dispatch(self._node, generating_job(self._node, exchange, request, writer_type, fault, self._error))

        return route

    def _pooled(self, prepare: Callable[[Json], Prepared]) -> _Route:
        def route(exchange: Exchange, path: str) -> None:
            fault = self._fault(exchange, path)
            if self._struck_at_once(exchange, fault):
                return
            body = requests.decode(exchange.body)
            if self._serves(exchange, requests.text_field(body, "model")):
                dispatch(self._node, pooled_job(self._node, exchange, prepare(body), fault, self._error))

        return route

    # -- about the node --------------------------------------------------------------------------------------

    def _models(self, exchange: Exchange, _path: str) -> None:
        self._json(exchange, {"object": "list", "data": [self._card()]})

    def _one_model(self, exchange: Exchange, path: str) -> None:
        if self._serves(exchange, path.removeprefix("/v1/models/")):
            self._json(exchange, self._card())

    def _card(self) -> Json:
        return {
            "id": self._model,
            "object": "model",
            "created": self._created_s,
            "owned_by": "vllm",
            "root": self._model,
            "parent": None,
            "max_model_len": self._node.max_model_len,
        }

    def _health(self, exchange: Exchange, _path: str) -> None:
        exchange.respond(200 if self._node.ready else 503, b"", b"")

    def _version(self, exchange: Exchange, _path: str) -> None:
        self._json(exchange, {"version": VERSION})

    def _metrics(self, exchange: Exchange, _path: str) -> None:
        exchange.respond(200, METRICS_LINES, self._node.render_metrics())

    def _tokenize(self, exchange: Exchange, _path: str) -> None:
        body = requests.decode(exchange.body)
        if body.get("model") is not None and not self._serves(exchange, requests.text_field(body, "model")):
            return
        if "messages" in body:
            prompt = requests.read_chat({"model": self._model} | body).prompts[0]
            ids = [tokens.token_id(piece) for piece in tokens.split(prompt.text)]
            ids = [tokens.TEMPLATE_ID] * (prompt.tokens - len(ids)) + ids
        else:
            ids = [tokens.token_id(piece) for piece in tokens.split(requests.text_field(body, "prompt"))]
        self._json(exchange, {"count": len(ids), "max_model_len": self._node.max_model_len, "tokens": ids})

    # -- faults ----------------------------------------------------------------------------------------------

    def _list_faults(self, exchange: Exchange, _path: str) -> None:
        self._json(exchange, {"faults": msgspec.to_builtins(self._node.faults.rules)})

    def _add_fault(self, exchange: Exchange, path: str) -> None:
        body = requests.decode(exchange.body)
        seed = body.pop("seed", None)
        try:
            rule = msgspec.convert(body, FaultRule)
        except msgspec.ValidationError as error:
            raise InvalidRequest(str(error)) from None
        self._node.faults.add(rule, seed if isinstance(seed, int) else None)
        self._list_faults(exchange, path)

    def _clear_faults(self, exchange: Exchange, path: str) -> None:
        self._node.faults.clear()
        self._list_faults(exchange, path)

    def _fault(self, exchange: Exchange, path: str) -> Fault:
        asked = exchange.header(b"x-simulate-fault")
        return parse_fault(asked.decode("latin-1")) if asked else self._node.faults.draw(path)

    def _struck_at_once(self, exchange: Exchange, fault: Fault) -> bool:
        """Refuse while starting, and commit faults that need no generation; true when the request is dealt with."""
        if not self._node.ready:
            self._error(exchange, 503, "The model is still being loaded.")
            return True
        if fault is NO_FAULT:
            return False
        if fault.error is not None:
            lines = JSON_LINES
            if fault.retry_after_s is not None:
                lines += b"retry-after: %d\r\n" % round(fault.retry_after_s)
            self._error(exchange, fault.error, "simulated failure", lines=lines)
        elif fault.reset:
            exchange.abort(reset=True)
        elif not fault.silence:
            return False
        return True

    # -- small answers ---------------------------------------------------------------------------------------

    def _allowed(self, exchange: Exchange, path: str) -> bool:
        key = self._node.options.api_key
        # As vLLM: only the API is guarded, not health and metrics. Our own fault switch is.
        if key is None or not path.startswith(("/v1", "/admin", "/tokenize")):
            return True
        given = exchange.header(b"authorization") or b""
        scheme, _, token = given.partition(b" ")
        return scheme.lower() == b"bearer" and hmac.compare_digest(token.strip(), key.encode())

    def _serves(self, exchange: Exchange, model: str) -> bool:
        if model == self._model:
            return True
        self._error(exchange, 404, f"The model `{model}` does not exist.", "model")
        return False

    def _json(self, exchange: Exchange, body: Json) -> None:
        exchange.respond(200, JSON_LINES, msgspec.json.encode(body))

    def _error(
        self,
        exchange: Exchange,
        status: int,
        message: str,
        param: str | None = None,
        *,
        lines: bytes = JSON_LINES,
    ) -> None:
        kind = _KINDS.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
        if exchange.path == b"/v1/messages":
            body = messages_error(message, kind)
        else:
            body = error_body(message, kind, status, param)
        exchange.respond(status, lines, msgspec.json.encode(body))
