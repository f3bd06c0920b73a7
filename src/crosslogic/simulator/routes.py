"""The HTTP face of the simulated node: which path does what, and what a wrong request is told.

Invariant: every request is answered, unless a fault says otherwise: errors in OpenAI's shape (Anthropic's on its
path), 401 before anything else, 404 for a model that is not served, 429 when the queue is full.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Callable
from random import Random
from typing import TYPE_CHECKING, Any

import msgspec

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import embedding, requests, tokens
from crosslogic.simulator.answer import compose
from crosslogic.simulator.dialects import MessagesWriter, ResponsesWriter, messages_error
from crosslogic.simulator.engine import Refusal, Sequence
from crosslogic.simulator.faults import NO_FAULT, Fault, FaultRule, parse_fault
from crosslogic.simulator.job import JSON_LINES, Job
from crosslogic.simulator.replies import ChatWriter, CompletionWriter, Usage, error_body
from crosslogic.simulator.requests import Generation, Json, Prompt

if TYPE_CHECKING:
    from crosslogic.net.exchange import Exchange
    from crosslogic.simulator.node import SimulatedNode

VERSION = "0.0.0-simulated"
METRICS_LINES = b"content-type: text/plain; version=0.0.4; charset=utf-8\r\n"
MAX_DIMENSIONS = 8192
_KINDS = {400: "BadRequestError", 401: "AuthenticationError", 404: "NotFoundError", 429: "TooManyRequestsError"}

_Reader = Callable[[Json], Generation]
_Pooled = Callable[[Json], "tuple[list[Prompt], Callable[[], Json]]"]


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
        pooled: dict[str, _Pooled] = {
            "/v1/embeddings": self._embeddings,
            "/v1/rerank": self._rerank,
            "/rerank": self._rerank,
            "/v1/score": self._score,
            "/score": self._score,
        }
        self._table: dict[tuple[bytes, str], Callable[[Exchange, str], None]] = {
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
        self._paths = {path for _, path in self._table}

    def handle(self, exchange: Exchange) -> None:
        """Answer one request, now or when the engine is done with it."""
        path = exchange.path.decode("latin-1")
        method = b"GET" if exchange.method == b"HEAD" else exchange.method
        route = self._table.get((method, path))
        if route is None:
            if path.startswith("/v1/models/") and method == b"GET":
                route = self._one_model
            else:
                known = path in self._paths
                self._error(exchange, 405 if known else 404, "Method Not Allowed" if known else "Not Found")
                return
        if not self._allowed(exchange, path):
            exchange.respond(401, JSON_LINES, b'{"error":"Unauthorized"}')
            return
        try:
            route(exchange, path)
        except InvalidRequest as error:
            self._error(exchange, 400, str(error), error.param)

    # -- generating ------------------------------------------------------------------------------------------

    def _generating(self, read: _Reader, writer_type: type[Any]) -> Callable[[Exchange, str], None]:
        def route(exchange: Exchange, path: str) -> None:
            fault = self._fault(exchange, path)
            if self._struck_at_once(exchange, fault):
                return
            request = read(requests.decode(exchange.body))
            if not self._serves(exchange, request.model):
                return
            job = self._job(exchange, request, writer_type, fault)
            self._later(exchange, job, fault)

        return route

    def _job(self, exchange: Exchange, request: Generation, writer_type: type[Any], fault: Fault) -> Job:
        node = self._node
        answers, sequences = [], []
        prompt_tokens = cached_tokens = 0
        for prompt in request.prompts:
            limit = self._limit(prompt, request.max_tokens)
            # Token ids have no text to look up; the template's tokens come last and are never cached.
            cached = node.cached_tokens(tokens.split(prompt.text)) if prompt.question else 0
            cached = min(cached, prompt.tokens - 1)
            prompt_tokens += prompt.tokens
            cached_tokens += cached
            for choice in range(request.choices):
                # A text seeds Random the same way in every process.
                rng = Random(f"{node.options.seed}|{request.seed}|{choice}|{prompt.text}")
                answer = compose(request, prompt, limit, rng)
                answers.append(answer)
                sequences.append(Sequence(prompt.tokens, len(answer.pieces), cached_tokens=cached))
        generated = sum(len(a.pieces) for a in answers)
        identity = exchange.header(b"x-request-id")
        request_id = identity.decode("latin-1") if identity else secrets.token_hex(16)
        return Job(
            exchange,
            writer_type(request, answers, request_id, int(time.time()), prompt_tokens),
            sequences,
            Usage(prompt_tokens, generated, cached_tokens),
            finish_reason="length" if any(a.finish_reason == "length" for a in answers) else "stop",
            stream=request.stream,
            fault=fault,
            started_s=asyncio.get_running_loop().time(),
            on_end=node.ended,
            on_crash=node.crash,
        )

    def _limit(self, prompt: Prompt, max_tokens: int | None) -> int:
        """How many tokens the answer may have. Raises InvalidRequest when the window does not hold it."""
        window = self._node.max_model_len
        room = window - prompt.tokens
        if room < 1:
            raise InvalidRequest(
                f"This model's maximum context length is {window} tokens, but the prompt alone has {prompt.tokens}. "
                "Please shorten it.",
                param="messages",
            )
        if max_tokens is not None and max_tokens > room:
            raise InvalidRequest(
                f"max_tokens is too large: {max_tokens}. This model's maximum context length is {window} tokens and "
                f"the prompt has {prompt.tokens} of them.",
                param="max_tokens",
            )
        return max_tokens or room

    def _later(self, exchange: Exchange, job: Job, fault: Fault) -> None:
        """Submit after the time that the front takes, unless the client leaves before."""
        delay_s = self._node.front_s(job.usage.prompt_tokens) + fault.slow_first_token_s

        def submit() -> None:
            refusal = self._node.submit(job)
            if refusal is Refusal.QUEUE_FULL:
                exchange.on_closed = None
                self._error(exchange, 429, "The server's queue is full, try again later.")
            elif refusal is not None:
                exchange.on_closed = None
                self._error(exchange, 400, "The request does not fit into this server's KV cache.")

        timer = asyncio.get_running_loop().call_later(delay_s, submit)

        def closed() -> None:
            timer.cancel()
            job.end()

        exchange.on_closed = closed

    # -- embeddings and the like -----------------------------------------------------------------------------

    def _pooled(self, prepare: _Pooled) -> Callable[[Exchange, str], None]:
        def route(exchange: Exchange, path: str) -> None:
            fault = self._fault(exchange, path)
            if self._struck_at_once(exchange, fault):
                return
            body = requests.decode(exchange.body)
            if not self._serves(exchange, requests.text_field(body, "model")):
                return
            prompts, build = prepare(body)
            for prompt in prompts:
                self._limit(prompt, None)
            total = sum(p.tokens for p in prompts)
            job = Job(
                exchange,
                _Whole(build),
                [Sequence(p.tokens, 1) for p in prompts],  # a prefill, and nothing to decode
                Usage(total, 0),
                finish_reason="stop",
                stream=False,
                fault=fault,
                started_s=asyncio.get_running_loop().time(),
                on_end=self._node.ended,
                on_crash=self._node.crash,
            )
            self._later(exchange, job, fault)

        return route

    def _embeddings(self, body: Json) -> tuple[list[Prompt], Callable[[], Json]]:
        prompts = requests.read_inputs(body, "input")
        form = body.get("encoding_format", "float")
        if form not in ("float", "base64"):
            raise InvalidRequest("encoding_format must be float or base64", param="encoding_format")
        size = body.get("dimensions") or embedding.DEFAULT_DIMENSIONS
        if isinstance(size, bool) or not isinstance(size, int) or not 1 <= size <= MAX_DIMENSIONS:
            raise InvalidRequest(f"dimensions must be from 1 to {MAX_DIMENSIONS}", param="dimensions")

        def build() -> Json:
            data = []
            for index, prompt in enumerate(prompts):
                vector: Any = embedding.embed(prompt.text, size)
                vector = vector if form == "float" else embedding.as_base64(vector)
                data.append({"index": index, "object": "embedding", "embedding": vector})
            total = sum(p.tokens for p in prompts)
            usage = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0}
            return self._identified("embd", {"object": "list", "data": data, "usage": usage})

        return prompts, build

    def _rerank(self, body: Json) -> tuple[list[Prompt], Callable[[], Json]]:
        query = requests.text_field(body, "query")
        documents = requests.read_inputs(body, "documents")
        pairs = [Prompt(d.text, d.tokens + tokens.count(query), d.text) for d in documents]
        top = body.get("top_n") or len(documents)
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise InvalidRequest("top_n must be a positive integer", param="top_n")

        def build() -> Json:
            scored = [(embedding.similarity(query, d.text), index) for index, d in enumerate(documents)]
            scored.sort(key=lambda s: (-s[0], s[1]))
            results = [
                {"index": i, "document": {"text": documents[i].text}, "relevance_score": score}
                for score, i in scored[:top]
            ]
            return self._identified("rerank", {"results": results, "usage": _total(pairs)})

        return pairs, build

    def _score(self, body: Json) -> tuple[list[Prompt], Callable[[], Json]]:
        first = requests.read_inputs(body, "text_1")
        second = requests.read_inputs(body, "text_2")
        if len(first) == 1:
            first = first * len(second)
        if len(first) != len(second):
            raise InvalidRequest("text_1 must hold one text, or as many as text_2", param="text_1")
        pairs = [Prompt(b.text, a.tokens + b.tokens, "") for a, b in zip(first, second, strict=True)]

        def build() -> Json:
            data = [
                {"index": i, "object": "score", "score": embedding.similarity(a.text, b.text)}
                for i, (a, b) in enumerate(zip(first, second, strict=True))
            ]
            return self._identified("score", {"object": "list", "data": data, "usage": _total(pairs)})

        return pairs, build

    def _identified(self, prefix: str, body: Json) -> Json:
        head = {"id": f"{prefix}-{secrets.token_hex(16)}", "created": int(time.time()), "model": self._model}
        return head | body

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
            prompt = requests.read_chat({"model": self._model} | body)
            text = prompt.prompts[0].text
        else:
            text = requests.text_field(body, "prompt")
        ids = [tokens.token_id(piece) for piece in tokens.split(text)]
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
        """Commit those faults that need no generation; true when the request is dealt with."""
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
        if exchange.path == b"/v1/messages":
            body = messages_error(message, status)
        else:
            kind = _KINDS.get(status, "InternalServerError" if status >= 500 else "BadRequestError")
            body = error_body(message, kind, status, param)
        exchange.respond(status, lines, msgspec.json.encode(body))


class _Whole:
    """The writer of an answer that is never streamed."""

    done = b""

    def __init__(self, build: Callable[[], Json]) -> None:
        self._build = build

    def opening(self) -> bytes:
        return b""

    def token(self, choice: int, made: int) -> bytes:
        return b""

    def ending(self, usage: Usage | None) -> bytes:
        return b""

    def whole(self, usage: Usage | None) -> Json:
        body = self._build()
        if usage is None:
            body.pop("usage", None)
        return body


def _total(prompts: list[Prompt]) -> Json:
    total = sum(p.tokens for p in prompts)
    return {"prompt_tokens": total, "total_tokens": total}
