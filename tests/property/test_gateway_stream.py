"""A stream may be cut into packets anywhere; what the caller gets and what is metered must not depend on it."""

import json
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.stream import StreamReader, stream_reader


def chat_chunk(**members: object) -> bytes:
    return b"data: " + json.dumps({"id": "c", "object": "chat.completion.chunk", **members}).encode() + b"\n\n"


def compact(event: bytes) -> bytes:
    body = json.loads(event[len(b"data: ") :])
    return b"data: " + json.dumps(body, separators=(",", ":")).encode() + b"\n\n"


def token(text: str) -> bytes:
    return chat_chunk(choices=[{"index": 0, "delta": {"content": text}, "finish_reason": None}])


ROLE = chat_chunk(choices=[{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
FINISH = chat_chunk(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
USAGE = chat_chunk(choices=[], usage={"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18})
DONE = b"data: [DONE]\n\n"
ERROR = b'data: {"error": {"message": "EngineCore died", "code": 500}}\n\n'

texts = st.lists(st.text(max_size=12), min_size=1, max_size=8)


def feed_in_pieces(reader: StreamReader, stream: bytes, cuts: list[int]) -> bytes:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return b"".join(reader.feed(stream[a:b]) for a, b in pairwise(edges))


@given(texts, st.lists(st.integers(0, 10_000), max_size=20), st.booleans(), st.booleans())
def test_any_cut_gives_the_same_bytes_usage_and_end(
    words: list[str], cuts: list[int], asked: bool, narrow: bool
) -> None:
    tokens = [token(word) for word in words]
    events = [ROLE, *tokens, FINISH, USAGE]
    if narrow:
        events = [compact(event) for event in events]
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=asked)

    passed = feed_in_pieces(reader, b"".join(events) + DONE, cuts)

    assert passed == b"".join(events if asked else events[:-1])
    assert reader.held_end == DONE
    assert reader.complete
    assert reader.finish_reason == "stop"
    assert reader.usage is not None
    assert (reader.usage.prompt_tokens, reader.usage.completion_tokens) == (11, 7)


@given(texts, st.lists(st.integers(0, 10_000), max_size=20))
def test_carriage_returns_between_events_are_as_good(words: list[str], cuts: list[int]) -> None:
    events = [event.replace(b"\n\n", b"\r\n\r\n") for event in (ROLE, *map(token, words), FINISH)]
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=True)

    passed = feed_in_pieces(reader, b"".join(events) + b"data: [DONE]\r\n\r\n", cuts)

    assert passed == b"".join(events)
    assert reader.complete


@given(texts, st.lists(st.integers(0, 10_000), max_size=20))
def test_an_error_event_is_never_followed_by_a_success(words: list[str], cuts: list[int]) -> None:
    """How vLLM 0.32 ends a stream when its engine dies: an error, then `[DONE]` as if nothing had happened."""
    before = b"".join([ROLE, *map(token, words)])
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=False)

    passed = feed_in_pieces(reader, before + ERROR + DONE, cuts)

    assert passed == before
    assert reader.failed
    assert not reader.complete
    assert reader.held_end == b""


@given(texts, st.integers(0, 10_000))
def test_a_stream_that_is_cut_is_not_complete_and_shows_whole_events_only(words: list[str], cut: int) -> None:
    whole = b"".join([ROLE, *map(token, words)])
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=False)

    passed = reader.feed(whole[: cut % len(whole)])

    assert not reader.complete
    assert whole.startswith(passed)
    assert passed == b"" or passed.endswith(b"}\n\n")


@given(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=30), st.lists(st.integers(0, 10_000)))
def test_without_usage_the_events_that_carried_text_are_counted(words: list[str], cuts: list[int]) -> None:
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=False)

    feed_in_pieces(reader, b"".join([ROLE, *map(token, words)]), cuts)

    assert reader.events_counted == len(words)


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=10), st.sampled_from(Dialect))
def test_no_bytes_whatever_make_the_reader_raise(noise: bytes, cuts: list[int], dialect: Dialect) -> None:
    reader = stream_reader(dialect, asked_for_usage=False)

    passed = feed_in_pieces(reader, noise, cuts)

    assert len(passed) <= len(noise)


def event(kind: str, **members: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **members})}\n\n".encode()


@given(texts, st.lists(st.integers(0, 10_000), max_size=20))
def test_responses_hold_their_last_event_back(words: list[str], cuts: list[int]) -> None:
    deltas = [event("response.output_text.delta", delta=word) for word in words]
    usage = {"input_tokens": 5, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}
    last = event("response.completed", response={"status": "completed", "usage": usage})
    reader = stream_reader(Dialect.RESPONSES, asked_for_usage=False)

    passed = feed_in_pieces(reader, event("response.created", response={}) + b"".join(deltas) + last, cuts)

    assert passed == event("response.created", response={}) + b"".join(deltas)
    assert reader.held_end == last
    assert reader.complete
    assert reader.usage is not None
    assert reader.usage.cached_tokens == 2
    assert reader.events_counted == len(words)


@given(texts, st.lists(st.integers(0, 10_000), max_size=20))
def test_messages_sum_usage_over_their_events(words: list[str], cuts: list[int]) -> None:
    usage = {"input_tokens": 5, "cache_read_input_tokens": 4, "output_tokens": 1}
    start = event("message_start", message={"usage": usage})
    deltas = [event("content_block_delta", index=0, delta={"type": "text_delta", "text": word}) for word in words]
    stop = event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 9})
    end = event("message_stop")
    reader = stream_reader(Dialect.MESSAGES, asked_for_usage=False)

    passed = feed_in_pieces(reader, start + b"".join(deltas) + stop + end, cuts)

    assert passed == start + b"".join(deltas) + stop
    assert reader.held_end == end
    assert reader.complete
    assert reader.usage is not None
    assert (reader.usage.prompt_tokens, reader.usage.cached_tokens, reader.usage.completion_tokens) == (9, 4, 9)
