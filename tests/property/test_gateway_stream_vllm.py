"""What vLLM 0.32 really sends (`captured/`), cut into packets anywhere: whole answers, and those of a killed engine.

The files are the bodies as they came over the wire; of the crashes only the first and last events are kept.
"""

import re
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.stream import StreamReader, stream_reader
from crosslogic.metering.model import Usage

CAPTURED = Path(__file__).parent / "captured"
DIALECTS = {
    "chat": Dialect.OPENAI,
    "completions": Dialect.OPENAI,
    "responses": Dialect.RESPONSES,
    "messages": Dialect.MESSAGES,
}
# (usage, finish reason, events with tokens)
WHOLE = {
    "chat": (Usage(14, 4), "length", 4),
    "completions": (Usage(1, 3), "length", 3),
    # Two events for four tokens: what the engine made while the server was busy comes in one.
    "responses": (Usage(14, 4), "incomplete", 2),
    "messages": (Usage(14, 4), "max_tokens", 4),
}
LAST = {
    "chat": b"data: [DONE]\n\n",
    "completions": b"data: [DONE]\n\n",
    "responses": b"event: response.completed\n",
    "messages": b"event: message_stop\n",
}
USAGE_CHUNK = re.compile(rb'data: \{[^\n]*"choices":\[\],"usage":[^\n]*\n\n')

cuts = st.lists(st.integers(0, 5_000), max_size=20)
answers = st.sampled_from(sorted(DIALECTS))


def captured(name: str) -> bytes:
    return (CAPTURED / f"vllm_{name}.sse").read_bytes()


def read(name: str, stream: bytes, cut_at: list[int], *, asked: bool = True) -> tuple[StreamReader, bytes]:
    """The reader after the stream, and what it let through."""
    reader = stream_reader(DIALECTS[name], asked_for_usage=asked)
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cut_at)})
    return reader, b"".join(reader.feed(stream[a:b]) for a, b in pairwise(edges))


@given(answers, cuts)
def test_a_whole_answer_passes_but_for_its_end(name: str, cut_at: list[int]) -> None:
    stream = captured(name)

    reader, passed = read(name, stream, cut_at)

    assert passed + reader.held_end == stream
    assert reader.held_end.startswith(LAST[name])
    assert reader.complete
    assert (reader.usage, reader.finish_reason, reader.events_counted) == WHOLE[name]


@given(st.sampled_from(["chat", "completions"]), cuts)
def test_only_the_usage_chunk_is_taken_out(name: str, cut_at: list[int]) -> None:
    stream = captured(name)
    assert len(USAGE_CHUNK.findall(stream)) == 1

    reader, passed = read(name, stream, cut_at, asked=False)

    assert passed + reader.held_end == USAGE_CHUNK.sub(b"", stream)
    assert reader.usage == WHOLE[name][0]


@given(answers, cuts)
def test_a_killed_engine_leaves_no_whole_answer(name: str, cut_at: list[int]) -> None:
    """Chats end with an error and `[DONE]`, Messages with an error alone, Responses just stop."""
    stream = captured(f"{name}_crash")

    reader, passed = read(name, stream, cut_at)

    assert not reader.complete
    assert reader.usage is None
    assert reader.held_end == b""
    assert reader.failed == (name != "responses")
    assert stream.startswith(passed)
    assert b"error" not in passed
    assert reader.events_counted >= 3


@given(cuts)
def test_messages_tell_the_prompt_tokens_before_the_answer(cut_at: list[int]) -> None:
    reader, _ = read("messages", captured("messages_crash"), cut_at)

    assert reader.prompt_tokens == 14


@pytest.mark.parametrize("ending", [b"data: [DONE]\n\n", b'data: {"error": {"code": 500}}\n\ndata: [DONE]\n\n'])
def test_responses_need_their_own_last_event(ending: bytes) -> None:
    """`[DONE]` is not this dialect's end: an engine that dies may well write it."""
    reader, _ = read("responses", captured("responses_crash") + ending, [])

    assert not reader.complete
