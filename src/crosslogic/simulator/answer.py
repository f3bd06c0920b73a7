"""Decides, before anything is generated, every token of an answer and why it ends.

Pure: the answer follows from the request, the prompt and the state of the generator. Invariant: `pieces` has one
entry for each generated token, and unless a stop text cut it short, the joined pieces split into exactly these.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import msgspec

from crosslogic.simulator import text, tokens
from crosslogic.simulator.requests import Generation, Json, Prompt

if TYPE_CHECKING:
    from random import Random

MAX_SCHEMA_DEPTH = 6
MAX_SCHEMA_ITEMS = 8


class Answer(msgspec.Struct, frozen=True):
    """One choice of a reply."""

    pieces: list[str]  # the visible text that each token adds; empty where a stop text hides it
    finish_reason: str  # stop, length, tool_calls
    stop_text: str | None = None  # the stop text that ended it
    tool: str | None = None  # the pieces are the arguments of a call to this tool

    @property
    def text(self) -> str:
        return "".join(self.pieces)


def compose(request: Generation, prompt: Prompt, limit: int, rng: Random) -> Answer:
    """The answer of at most `limit` tokens to one prompt of the request."""
    if request.forced_tool is not None:
        schema = next(t.parameters for t in request.tools if t.name == request.forced_tool)
        return _structured(schema, rng, limit, tool=request.forced_tool)
    if request.json_schema is not None:
        return _structured(request.json_schema, rng, limit)
    task = text.task_of(prompt.question)
    natural = max(text.natural_length(task, rng), request.min_tokens)
    wanted = limit if request.ignore_eos else min(natural, limit)
    pieces: list[str] = []
    for paragraph in text.paragraphs(task, prompt.question or prompt.text, rng):
        pieces += tokens.split(paragraph)
        if len(pieces) >= wanted:
            break
    reason = "length"
    if not request.ignore_eos and len(pieces) <= limit:
        reason = "stop"  # a model that ends by itself ends with a whole sentence
        if pieces[-1].isspace() and len(pieces) > max(1, request.min_tokens):
            pieces.pop()
    del pieces[limit:]
    return _stopped(pieces, request.stop, request.min_tokens) or Answer(pieces, reason)


def logprob(piece: str, rank: int = 0) -> float:
    """A believable log-probability, the same for the same token."""
    return -math.log1p((tokens.token_id(piece) % 97) / 90) - 1.7 * rank


def _stopped(pieces: list[str], stops: tuple[str, ...], min_tokens: int) -> Answer | None:
    """The answer cut before the first stop text, as vLLM does: the tokens that make up the stop text count."""
    if not stops:
        return None
    whole = "".join(pieces)
    skip = len("".join(pieces[:min_tokens]))
    found = [(at, stop) for stop in stops if (at := whole.find(stop, skip)) >= 0]
    if not found:
        return None
    at, stop = min(found, key=lambda f: f[0] + len(f[1]))
    visible: list[str] = []
    position = 0
    for piece in pieces:
        visible.append(piece[: max(0, at - position)])
        position += len(piece)
        if position >= at + len(stop):
            break
    return Answer(visible, "stop", stop_text=stop)


def _structured(schema: Json, rng: Random, limit: int, tool: str | None = None) -> Answer:
    value = _example(schema, rng, schema.get("$defs", {}), 0)
    if not isinstance(value, dict) and tool is not None:
        value = {}
    pieces = tokens.split(msgspec.json.encode(value).decode())
    if len(pieces) > limit:
        return Answer(pieces[:limit], "length", tool=tool)
    return Answer(pieces, "stop" if tool is None else "tool_calls", tool=tool)


def _example(schema: Any, rng: Random, definitions: Any, depth: int) -> Any:
    """A value that fits the schema's types, enumerations and required fields."""
    if not isinstance(schema, dict) or depth > MAX_SCHEMA_DEPTH:
        return None
    if isinstance(reference := schema.get("$ref"), str) and isinstance(definitions, dict):
        return _example(definitions.get(reference.rsplit("/", 1)[-1]), rng, definitions, depth + 1)
    if "const" in schema:
        return schema["const"]
    for options in (schema.get("enum"), schema.get("examples")):
        if isinstance(options, list) and options:
            return rng.choice(options)
    for union in ("anyOf", "oneOf", "allOf"):
        if isinstance(schema.get(union), list) and schema[union]:
            return _example(schema[union][0], rng, definitions, depth + 1)
    kind = schema.get("type")
    if isinstance(kind, list):  # the first of several types
        kind = kind[0] if kind else None
    if kind == "object" or (kind is None and isinstance(schema.get("properties"), dict)):
        properties = schema.get("properties")
        if not isinstance(properties, dict):
            return {}
        required = schema.get("required")
        names = [n for n in required if n in properties] if isinstance(required, list) else list(properties)
        return {name: _example(properties[name], rng, definitions, depth + 1) for name in names}
    if kind == "array":
        size = min(MAX_SCHEMA_ITEMS, max(1, _whole_number(schema.get("minItems"), 1)))
        items = schema.get("items", {"type": "string"})
        return [_example(items, rng, definitions, depth + 1) for _ in range(size)]
    lower = _whole_number(schema.get("minimum"), 1)
    simple: Json = {
        "string": rng.choice(("Berlin", "example", "2026-01-15", "blue", "standard")),
        "integer": lower,
        "number": lower + 0.5,
        "boolean": rng.random() < 0.5,
        "null": None,
    }
    if kind in simple:
        return simple[kind]
    return {"answer": rng.choice(("yes", "no", "partly")), "confidence": 0.9, "items": ["first", "second"]}


def _whole_number(value: object, otherwise: int) -> int:
    """A bound of the schema, rounded up; schemas come from callers and may hold anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return otherwise
    return math.ceil(value)
