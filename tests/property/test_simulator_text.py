"""Tokens and answers for arbitrary prompts: what is said, what is counted and what is streamed agree."""

from random import Random
from typing import Any

import hypothesis.strategies as st
import msgspec
from hypothesis import given, settings

from crosslogic.simulator import tokens
from crosslogic.simulator.answer import compose
from crosslogic.simulator.going_on import answer_to
from crosslogic.simulator.requests import Generation, Prompt, Tool

SCHEMAS = st.recursive(
    st.sampled_from([{"type": t} for t in ("string", "integer", "number", "boolean", "null")])
    | st.builds(lambda v: {"enum": v}, st.lists(st.integers(), min_size=1, max_size=3)),
    lambda inner: (
        st.builds(lambda i: {"type": "array", "items": i}, inner)
        | st.builds(
            lambda p: {"type": "object", "properties": p}, st.dictionaries(st.text(max_size=5), inner, max_size=3)
        )
    ),
    max_leaves=8,
)


@given(text=st.text(), cut=st.integers(0, 100))
def test_any_leading_tokens_split_into_themselves(text: str, cut: int) -> None:
    pieces = tokens.split(text)
    assert "".join(pieces) == text
    assert tokens.split("".join(pieces[:cut])) == pieces[:cut]
    assert all(0 <= tokens.token_id(piece) < tokens.VOCABULARY_SIZE for piece in pieces)


def _prompt(text: str) -> Prompt:
    return Prompt(text, tokens.count(text) + 7, text)


@settings(deadline=None)
@given(
    text=st.text(max_size=200)
    | st.sampled_from(["write code", "summarize this", "extract json", "translate", "hello", "what?"]),
    limit=st.integers(1, 300),
    seed=st.integers(),
    ignore_eos=st.booleans(),
    min_tokens=st.integers(0, 50),
)
def test_an_answer_counts_to_its_tokens(text: str, limit: int, seed: int, ignore_eos: bool, min_tokens: int) -> None:
    request = Generation(
        model="m", prompts=(_prompt(text),), max_tokens=limit, ignore_eos=ignore_eos, min_tokens=min_tokens
    )
    answer = compose(request, request.prompts[0], limit, Random(seed))
    assert tokens.split(answer.text) == answer.pieces
    assert min(min_tokens, limit) <= len(answer.pieces) <= limit
    assert len(answer.pieces) >= 1
    if ignore_eos:
        assert (len(answer.pieces), answer.finish_reason) == (limit, "length")
    if answer.finish_reason == "length":
        assert len(answer.pieces) == limit
    assert answer == compose(request, request.prompts[0], limit, Random(seed))


@settings(deadline=None)
@given(text=st.text(max_size=100), stop=st.sampled_from([" the", "e", ".", "\n\n", "zzz"]), seed=st.integers())
def test_a_stop_text_ends_the_answer_before_it(text: str, stop: str, seed: int) -> None:
    def answer(*stops: str) -> Any:
        request = Generation(model="m", prompts=(_prompt(text),), max_tokens=80, stop=stops, ignore_eos=True)
        return compose(request, request.prompts[0], 80, Random(seed))

    free, stopped = answer(), answer(stop)
    if stop not in free.text:
        assert stopped == free
    else:
        assert stopped.text == free.text[: free.text.index(stop)]
        assert (stopped.finish_reason, stopped.stop_text) == ("stop", stop)
        # The tokens that spell the stop text were generated, and are counted.
        generated = "".join(free.pieces[: len(stopped.pieces)])
        assert stop in generated
        assert stop not in "".join(free.pieces[: len(stopped.pieces) - 1])


@settings(deadline=None)
@given(schema=SCHEMAS, seed=st.integers())
def test_structured_answers_fit_their_schema(schema: dict[str, Any], seed: int) -> None:
    request = Generation(model="m", prompts=(_prompt("x"),), max_tokens=None, json_schema=schema)
    answer = compose(request, request.prompts[0], 10_000, Random(seed))
    assert tokens.split(answer.text) == answer.pieces
    _check(msgspec.json.decode(answer.text), schema)


@settings(deadline=None)
@given(schema=st.dictionaries(st.text(max_size=8), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_a_forced_tool_gets_an_object_whatever_its_schema(schema: dict[str, Any]) -> None:
    tool = Tool("look_up", schema)
    request = Generation(model="m", prompts=(_prompt("x"),), max_tokens=None, tools=(tool,), forced_tool="look_up")
    answer = compose(request, request.prompts[0], 10_000, Random(0))
    assert isinstance(msgspec.json.decode(answer.text), dict)
    assert (answer.tool, answer.finish_reason) == ("look_up", "tool_calls")


def _check(value: Any, schema: dict[str, Any]) -> None:
    if "enum" in schema:
        assert value in schema["enum"]
    elif schema["type"] == "object":
        assert set(value) == set(schema["properties"])
        for name, inner in schema["properties"].items():
            _check(value[name], inner)
    elif schema["type"] == "array":
        assert value
        for item in value:
            _check(item, schema["items"])
    else:
        kinds: dict[str, Any] = {
            "string": str,
            "integer": int,
            "number": (int, float),
            "boolean": bool,
            "null": type(None),
        }
        assert isinstance(value, kinds[schema["type"]])


QUESTIONS = (
    "write code for lists",
    "summarize the report",
    "extract json of towns",
    "translate it",
    "hello",
    "what is rain?",
)


@settings(deadline=None)
@given(
    question=st.sampled_from(QUESTIONS),
    number=st.integers(0, 10_000),
    limit=st.integers(2, 120),
    cut=st.integers(1, 600),
    chat=st.booleans(),
    ignore_eos=st.booleans(),
)
def test_any_node_goes_on_with_an_answer_where_another_stopped(
    question: str, number: int, limit: int, cut: int, chat: bool, ignore_eos: bool
) -> None:
    """At any character; what was given counts as a part of the prompt."""
    text = f"{question} {number}\n"
    request = Generation(
        model="m",
        prompts=(_prompt(text),),
        max_tokens=limit,
        ignore_eos=ignore_eos,
        repeatable=True,
        completes=not chat,
    )
    whole = answer_to(request, request.prompts[0], limit, Random)
    given = whole.text[:cut]
    known = tokens.count(given)
    if known >= limit:
        return
    longer = Prompt(text, 0, text, given) if chat else _prompt(text + given)
    rest = answer_to(request, longer, limit - known, Random)
    assert given + rest.text == whole.text
    assert rest.finish_reason == whole.finish_reason
    assert len(rest.pieces) <= limit - known + 1
