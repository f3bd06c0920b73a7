"""A stream may break anywhere: what was delivered and what is made elsewhere are together the answer, in one piece.

Real vLLM streams (`captured/`) and made-up ones are cut at any event and into any packets; the node that goes on is
played by what the request for the rest asks of it.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st

from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.request import Call, ModelBounds, read_call
from crosslogic.gateway.rescue.join import Matcher
from crosslogic.gateway.rescue.leg import NextLeg, delivered_of
from crosslogic.gateway.rescue.model import Delivered, Way
from crosslogic.gateway.rescue.resend import continued, overlap_of
from crosslogic.gateway.rescue.terms import may_continue, may_join, may_restart, terms_of
from crosslogic.gateway.stream import OpenAiStream

CAPTURED = Path(__file__).parent / "captured"
DEAD = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\ndata: [DONE]\n\n'
PROMPT_TOKENS, MAXIMUM = 14, 64
NAMES = ("id", "object", "created", "model")


def chat_event(delta: dict[str, Any], finish: str | None = None, **names: object) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 7, "model": "m", **names}
    return b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n"


def completion_event(text: str, finish: str | None = None, **names: object) -> bytes:
    choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
    chunk = {"id": "cmpl-1", "object": "text_completion", "created": 7, "model": "m", **names}
    return b"data: " + json.dumps(chunk | {"choices": [choice]}).encode() + b"\n\n"


def usage_event(prompt: int, completion: int, **names: object) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return (
        b"data: "
        + json.dumps({"id": "x", "created": 8, "model": "m", **names, "choices": [], "usage": usage}).encode()
        + b"\n\n"
    )


def stream_of(words: list[str], chat: bool, prompt_tokens: int = PROMPT_TOKENS, **names: object) -> list[bytes]:
    """The events of an engine that says these words, one token each."""
    made = chat_event if chat else completion_event
    events = [chat_event({"role": "assistant", "content": ""}, **names)] if chat else []
    for number, word in enumerate(words, 1):
        finish = "stop" if number == len(words) else None
        events.append(made({"content": word} if chat else word, finish, **names))  # type: ignore[operator]
    return [*events, usage_event(prompt_tokens, len(words), **names), b"data: [DONE]\n\n"]


def call_of(chat: bool, **more: object) -> Call:
    endpoint = BY_PATH[b"/v1/chat/completions" if chat else b"/v1/completions"]
    asked = {"messages": [{"role": "user", "content": "Go"}]} if chat else {"prompt": "Go:"}
    body = {"model": "m", "stream": True, "max_tokens": MAXIMUM, "stream_options": {"include_usage": True}}
    raw = json.dumps(body | asked | more).encode()
    return read_call(endpoint, raw, {"m": ModelBounds("m")}, default_output_tokens=100)


def chunks_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in stream.split(b"\n\n") if line.startswith(b"data: {")]


def text_of(chunks: list[dict[str, Any]]) -> str:
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in choices)


def feed(reader: OpenAiStream, stream: bytes, cuts: list[int]) -> bytes:
    edges = sorted({0, len(stream), *(cut % (len(stream) + 1) for cut in cuts)})
    return b"".join(reader.feed(stream[a:b]) for a, b in pairwise(edges))


def play_continuation(
    call: Call, before: Delivered, words: list[str], chat: bool, cuts: list[int]
) -> tuple[NextLeg, bytes]:
    """What a node that goes on from the text it is given sends, and what the caller sees of that."""
    terms = terms_of(call)
    assert terms is not None
    assert may_continue(call, terms, before)
    overlap = overlap_of(call, before.text)
    text = before.text[: len(before.text) - overlap]
    resent_tokens = before.tokens - sum(len("".join(words[:n])) > len(text) for n in range(1, before.tokens + 1))
    resent = continued(call, terms, text, resent_tokens=resent_tokens)
    assert resent is not None
    body = json.loads(resent.body)
    assert body["max_tokens"] == MAXIMUM - resent_tokens
    if chat:
        assert (body["continue_final_message"], body["add_generation_prompt"]) == (True, False)
        assert body["messages"][:-1] == json.loads(call.body)["messages"]
        given = body["messages"][-1]["content"]
    else:
        given = body["prompt"].removeprefix("Go:")
    whole = "".join(words)
    assert whole.startswith(given)
    rest = _split(whole[len(given) :], words)
    events = stream_of(rest, chat, PROMPT_TOKENS + resent_tokens, id="other", created=9, model="m")
    leg = NextLeg(before, Way.CONTINUED, asked_for_usage=True, overlap=overlap, resent_tokens=resent_tokens)
    return leg, feed(leg, b"".join(events), cuts)


def _split(rest: str, words: list[str]) -> list[str]:
    """The rest in the words that it was made of; the first may be what was left of one."""
    found: list[str] = []
    for word in reversed(words):
        if len(rest) == 0:
            break
        found.insert(0, rest[-len(word) :] if word else "")
        rest = rest[: len(rest) - len(found[0])] if found[0] else rest
    return [word for word in found if word] or [""]


def check_one_answer(first: bytes, second: bytes, whole: str, names: dict[str, Any]) -> list[dict[str, Any]]:
    chunks = chunks_of(first + second)
    assert text_of(chunks) == whole
    assert sum("role" in choice.get("delta", {}) for chunk in chunks for choice in chunk["choices"]) <= 1
    for chunk in chunks:
        assert {name: chunk.get(name) for name in names} == names
    assert sum(choice["finish_reason"] is not None for chunk in chunks for choice in chunk["choices"]) == 1
    return chunks


words_lists = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6), min_size=2, max_size=12
)
cut_lists = st.lists(st.integers(0, 10_000), max_size=8)


class TestRealStreams:
    @given(st.sampled_from(["chat", "completions"]), st.integers(0, 20), cut_lists, cut_lists, st.booleans())
    def test_cut_anywhere_and_continued(
        self, name: str, at: int, first_cuts: list[int], second_cuts: list[int], dies: bool
    ) -> None:
        chat = name == "chat"
        stream = (CAPTURED / f"vllm_{name}.sse").read_bytes()
        events = [event + b"\n\n" for event in stream.split(b"\n\n") if event]
        original = chunks_of(stream)
        words = [text_of([chunk]) for chunk in original if text_of([chunk])]
        at %= len(events) - 2  # the last but one tells the usage
        first = OpenAiStream(asked_for_usage=True)
        seen = feed(first, b"".join(events[:at]) + (DEAD if dies else b""), first_cuts)
        before = delivered_of(first)
        assume(not first.complete)
        names = {name: original[0][name] for name in NAMES}
        if before.nothing:
            assert may_restart(call_of(chat), before)
            leg = NextLeg(before, Way.RESTARTED, asked_for_usage=True)
            again = stream_of(words, chat, id=original[0]["id"], created=original[0]["created"], model="tiny-llama")
            rest = feed(leg, b"".join(again), second_cuts)
        else:
            leg, rest = play_continuation(call_of(chat), before, words, chat, second_cuts)
        chunks = check_one_answer(seen, rest, "".join(words), {} if not before.event else names)
        assert leg.complete
        assert leg.held_end == b"data: [DONE]\n\n"
        assert chunks[-1]["usage"]["completion_tokens"] == len(words)
        assert chunks[-1]["usage"]["prompt_tokens"] == PROMPT_TOKENS
        assert leg.usage is not None
        assert (leg.usage.prompt_tokens, leg.usage.completion_tokens) == (PROMPT_TOKENS, len(words))


class TestAnyStream:
    @given(words_lists, st.booleans(), st.integers(1, 20), st.integers(1, 20), cut_lists)
    def test_cut_twice_and_continued(self, words: list[str], chat: bool, one: int, two: int, cuts: list[int]) -> None:
        events = stream_of(words, chat)
        shown = 1 + one % (len(words) - 1)
        first = OpenAiStream(asked_for_usage=True)
        seen = feed(first, b"".join(events[: shown + chat]), cuts)
        before = delivered_of(first)
        assume(before.text.strip())
        _, rest = play_continuation(call_of(chat), before, words, chat, cuts)
        check_one_answer(seen, rest, "".join(words), {"id": "chatcmpl-1" if chat else "cmpl-1", "created": 7})
        # The same once more, with the second node cut as well.
        resent_events = [event + b"\n\n" for event in rest.split(b"\n\n") if event][: two % len(words)]
        again = NextLeg(before, Way.CONTINUED, asked_for_usage=True, resent_tokens=before.tokens)
        part = feed(again, b"".join(resent_events), cuts)
        assume(not again.complete)
        between = delivered_of(again)
        assert between.text == text_of(chunks_of(seen + part))
        _, last = play_continuation(call_of(chat), between, words, chat, cuts)
        check_one_answer(seen + part, last, "".join(words), {"id": "chatcmpl-1" if chat else "cmpl-1", "created": 7})

    @given(words_lists, words_lists, st.booleans(), st.integers(0, 20), cut_lists)
    def test_replayed_and_joined(
        self, words: list[str], others: list[str], chat: bool, at: int, cuts: list[int]
    ) -> None:
        """The replay may come in other pieces, or say something else: then nothing of it is shown."""
        first = OpenAiStream(asked_for_usage=True)
        seen = feed(first, b"".join(stream_of(words, chat)[: at % len(words) + chat]), cuts)
        before = delivered_of(first)
        call = call_of(chat, temperature=0)
        terms = terms_of(call)
        assert terms is not None
        assert may_join(call, terms, before)
        whole = "".join(words)
        pieces = [whole[i : i + 2] for i in range(0, len(whole), 2)]
        leg = NextLeg(before, Way.JOINED, asked_for_usage=True)
        rest = feed(leg, b"".join(stream_of(pieces, chat, id="other")), cuts)
        check_one_answer(
            seen, rest, whole, {} if not before.event else {"created": 7, "id": json.loads(before.event)["id"]}
        )
        assert leg.complete

        other = NextLeg(before, Way.JOINED, asked_for_usage=True)
        shown = feed(other, b"".join(stream_of(others, chat)), cuts)
        if "".join(others).startswith(before.text):
            assert before.text + text_of(chunks_of(shown)) == "".join(others)
        else:
            assert other.diverged
            assert not other.complete
            assert text_of(chunks_of(shown)) == ""
            assert delivered_of(other).text == before.text

    @given(st.text(max_size=30), st.lists(st.text(max_size=5), max_size=12))
    def test_a_replay_is_shown_only_beyond_what_it_repeats(self, known: str, pieces: list[str]) -> None:
        matcher = Matcher(known)
        shown = "".join(matcher.take(piece) for piece in pieces)
        said = "".join(pieces)
        if said.startswith(known):
            assert (matcher.joined, known + shown) == (True, said)
        else:
            assert (matcher.joined, shown) == (False, "")
            assert matcher.diverged is not known.startswith(said)
