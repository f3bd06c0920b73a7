"""Asks a node how many tokens a prompt had, when its caller left before the engine told its usage.

Nobody waits for this any more, but a record does: so it is bounded in time and in number, and whatever goes wrong,
the estimate stands.
"""

import asyncio

import msgspec

from crosslogic.fleet.backends.known import backend_of
from crosslogic.fleet.model import Node
from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.request import Call
from crosslogic.gateway.upstream import Upstreams
from crosslogic.net.client import ConnectFailed, Failure

TIMEOUT_S = 1.0
MOST_AT_ONCE = 16
MAX_ANSWER_BYTES = 16 * 1024 * 1024  # some engines list all tokens


class PromptCounter:
    """Counts by the node that served the call: only it has the model's tokenizer and chat template."""

    def __init__(self, upstreams: Upstreams, *, timeout_s: float = TIMEOUT_S) -> None:
        self._upstreams = upstreams
        self._timeout_s = timeout_s
        self._running = 0

    async def count(self, node: Node, call: Call) -> int | None:
        """Tokens of the call's prompt; None when the node cannot tell, or not now."""
        path = backend_of(node.backend).tokenize_path
        question = tokenize_body(call)
        if path is None or question is None or self._running >= MOST_AT_ONCE:
            return None
        self._running += 1
        try:
            return await self._ask(node, path, question)
        finally:
            self._running -= 1

    async def tokens_of(self, node: Node, model: str, text: str) -> tuple[int, tuple[int, ...]] | None:
        """How many tokens a text has for the node, and which (none where it does not tell); None as in `count`."""
        path = backend_of(node.backend).tokenize_path
        if path is None or self._running >= MOST_AT_ONCE:
            return None
        self._running += 1
        try:
            question = msgspec.json.encode({"model": model, "prompt": text, "add_special_tokens": False})
            body = await self._answer(node, path, question)
        finally:
            self._running -= 1
        try:
            found = None if body is None else _tokens.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        if found is None or found.count < 1:
            return None
        return found.count, found.tokens if len(found.tokens) == found.count else ()

    async def _ask(self, node: Node, path: str, question: bytes) -> int | None:
        body = await self._answer(node, path, question)
        return None if body is None else read_count(body)

    async def _answer(self, node: Node, path: str, question: bytes) -> bytes | None:
        answer = _WholeAnswer()
        connection = None
        try:
            async with asyncio.timeout(self._timeout_s):
                connection = await self._upstreams.origin(node).connect(fresh=True)
                connection.send(answer, self._upstreams.post(node, path, question))
                return await answer.done
        except (ConnectFailed, TimeoutError):
            if connection is not None:
                connection.cancel()
            return None


class _Question(msgspec.Struct):
    model: str
    input: object = None
    instructions: object = None


class _Count(msgspec.Struct):
    count: int


class _Tokens(msgspec.Struct):
    count: int
    tokens: tuple[int, ...] = ()


_tokens = msgspec.json.Decoder(_Tokens)
_questions = msgspec.json.Decoder(_Question)
_counts = msgspec.json.Decoder(_Count)


def tokenize_body(call: Call) -> bytes | None:
    """The call's prompt as `/tokenize` takes it; None where it has no form for that.

    It reads a chat's messages and tools, or a completion's text, and takes no offence at the other fields. Several
    prompts at once, or a list of input items, are more than it can read.
    """
    if call.endpoint.dialect is Dialect.OPENAI:
        return call.body
    if call.endpoint.dialect is not Dialect.RESPONSES:
        return None  # Messages begin with the number of prompt tokens
    asked = _questions.decode(call.body)
    if not isinstance(asked.input, str):
        return None
    messages = [{"role": "user", "content": asked.input}]
    if isinstance(asked.instructions, str):
        messages.insert(0, {"role": "system", "content": asked.instructions})
    return msgspec.json.encode({"model": asked.model, "messages": messages})


def read_count(body: bytes) -> int | None:
    """The number in an answer of `/tokenize`; None when it is no sensible one."""
    try:
        count = _counts.decode(body).count
    except (msgspec.DecodeError, RecursionError):
        return None
    return count if count > 0 else None


class _WholeAnswer:
    """Collects one answer; `done` has its body, or None when it is not a whole success."""

    def __init__(self) -> None:
        self.done: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._status = 0
        self._body = bytearray()

    def on_head(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._status = status

    def on_data(self, data: bytes) -> None:
        if len(self._body) + len(data) <= MAX_ANSWER_BYTES:
            self._body += data
        else:
            self._resolve(None)

    def on_end(self) -> None:
        self._resolve(bytes(self._body) if self._status == 200 else None)

    def on_failure(self, failure: Failure) -> None:
        self._resolve(None)

    def _resolve(self, body: bytes | None) -> None:
        if not self.done.done():
            self.done.set_result(body)
