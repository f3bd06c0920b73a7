"""A scripted engine that tells one story to everybody, goes on with it wherever it is told to, and fails as planned."""

import asyncio
from collections.abc import Awaitable, Callable
from itertools import pairwise
from typing import Any

import msgspec

from tests.flow.scripted import EVENTS, JSON, Turn

WORDS = [
    "Once",
    " upon",
    " a",
    " time",
    " there",
    " was",
    " a",
    " node",
    " that",
    " died",
    ".",
    "\n\n",
    "The",
    " end",
    ".",
]
STORY = "".join(WORDS)
PROMPT_TOKENS = 7
DEAD = {"error": {"message": "EngineCore encountered an issue.", "type": "InternalServerError", "code": 500}}

Fault = Callable[["Storyteller", Turn], Awaitable[None]]


class Storyteller:
    """A script for `ScriptedNodes`: its n-th request meets the n-th of `faults`, None and all after them go well.

    With `always` every request does, and with `by_node` those of one node.
    """

    def __init__(
        self, *faults: Fault | None, always: Fault | None = None, by_node: dict[int, Fault] | None = None
    ) -> None:
        self._faults = list(faults)
        self._always = always
        self.by_node = by_node or {}
        self.asked: list[tuple[float, int, dict[str, Any]]] = []  # loop time, node, body

    async def __call__(self, turn: Turn) -> None:
        self.asked.append((asyncio.get_running_loop().time(), turn.node, msgspec.json.decode(turn.body)))
        fault = self._faults.pop(0) if self._faults else self.by_node.get(turn.node, self._always)
        await (fault or whole)(self, turn)

    @property
    def pauses_s(self) -> list[float]:
        """Between one request and the next."""
        times = [asked_s for asked_s, _, _ in self.asked]
        return [later - earlier for earlier, later in pairwise(times)]

    @property
    def nodes(self) -> list[int]:
        return [node for _, node, _ in self.asked]


def _given(body: dict[str, Any]) -> int:
    """How many words of the story the request brings along."""
    told = body["messages"][-1]["content"] if body.get("continue_final_message") else body.get("prompt", "")
    return next((n for n in range(len(WORDS), 0, -1) if told and told.endswith("".join(WORDS[:n]).rstrip())), 0)


def _chunk(body: dict[str, Any], text: str | None, finish: str | None = None, **more: object) -> dict[str, Any]:
    chat = "messages" in body
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish}
    choice |= {"delta": {} if text is None else {"content": text}} if chat else {"text": text or ""}
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {
        "id": f"id-{id(body)}",
        "object": kind,
        "created": id(body) % 1000,
        "model": body["model"],
        "choices": [choice],
    } | more


def events_of(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Role, words, finish reason and usage of an answer that goes well."""
    given = _given(body)
    words = WORDS[given:]
    if "".join(WORDS[:given]).rstrip() != "".join(WORDS[:given]):
        words = [WORDS[given - 1], *words]  # the white space was not resent
        given -= 1
    limit = body.get("max_tokens", 1000)
    told = words[:limit]
    events = [_chunk(body, word) for word in told]
    if "messages" in body:
        role = _chunk(body, "")
        role["choices"][0]["delta"] = {"role": "assistant", "content": ""}
        events.insert(0, role)
    events.append(_chunk(body, None, "length" if len(told) < len(words) else "stop"))
    prompt = PROMPT_TOKENS + given
    usage = {"prompt_tokens": prompt, "completion_tokens": len(told), "total_tokens": prompt + len(told)}
    return [*events, _chunk(body, None) | {"choices": [], "usage": usage}]


async def whole(teller: Storyteller, turn: Turn) -> None:
    body = msgspec.json.decode(turn.body)
    events = events_of(body)
    if body.get("stream"):
        turn.events(*events)
        turn.exchange.end(b"data: [DONE]\n\n")
        return
    text = "".join(event["choices"][0].get("delta", {}).get("content", "") for event in events[:-1])
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    answer = {
        "id": "x",
        "object": "chat.completion",
        "model": body["model"],
        "choices": [choice],
        "usage": events[-1]["usage"],
    }
    turn.exchange.respond(200, JSON, msgspec.json.encode(answer))


def told(count: int, then: Callable[[Turn], None]) -> Fault:
    """So many words, then something happens."""

    async def fault(teller: Storyteller, turn: Turn) -> None:
        body = msgspec.json.decode(turn.body)
        turn.events(*events_of(body)[: count + ("messages" in body)])
        await asyncio.sleep(0.05)
        then(turn)

    return fault


def cut(turn: Turn) -> None:
    turn.exchange.abort()


def reset(turn: Turn) -> None:
    turn.exchange.abort(reset=True)


def stall(turn: Turn) -> None:
    """Nothing more; the connection stays open."""


def crash(turn: Turn) -> None:
    """As vLLM when its engine is killed."""
    turn.events(DEAD)
    turn.exchange.end(b"data: [DONE]\n\n")


def status(code: int, error: dict[str, Any] | None = None, headers: bytes = b"") -> Fault:
    async def fault(teller: Storyteller, turn: Turn) -> None:
        body = {"error": error or {"message": "simulated", "type": "x", "code": code}}
        turn.exchange.respond(code, JSON + headers, msgspec.json.encode(body))

    return fault


def rejects_continuation(teller: Storyteller, turn: Turn) -> Awaitable[None]:
    """An engine, or a model's template, that takes no last message of the assistant."""
    if msgspec.json.decode(turn.body).get("continue_final_message"):
        return status(400, {"message": "the last message must be the user's", "type": "BadRequestError", "code": 400})(
            teller, turn
        )
    return whole(teller, turn)


async def reset_at_once(teller: Storyteller, turn: Turn) -> None:
    turn.exchange.abort(reset=True)


async def silence(teller: Storyteller, turn: Turn) -> None:
    """The request is read and never answered."""


def late(seconds: float) -> Fault:
    async def fault(teller: Storyteller, turn: Turn) -> None:
        turn.exchange.start(200, EVENTS)
        await asyncio.sleep(seconds)
        await whole(teller, turn)

    return fault


async def malformed(teller: Storyteller, turn: Turn) -> None:
    events = [msgspec.json.encode(event) for event in events_of(msgspec.json.decode(turn.body))]
    turn.events(*events[:4], b'{"id":"broken","choices":[{"ind', *events[4:])
    turn.exchange.end(b"data: [DONE]\n\n")


def unfinished(*, usage: bool, closes: bool) -> Fault:
    """All that was to be told, with its finish reason, but no `[DONE]`."""

    async def fault(teller: Storyteller, turn: Turn) -> None:
        events = events_of(msgspec.json.decode(turn.body))
        turn.events(*(events if usage else events[:-1]))
        if closes:
            turn.exchange.abort()  # a reset might overtake what was written

    return fault
