"""What may go on elsewhere, and the request for it."""

import json
from typing import Any

import pytest

from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.request import Call, ModelBounds, read_call
from crosslogic.gateway.rescue.join import Overlap
from crosslogic.gateway.rescue.leg import NextLeg, end_event
from crosslogic.gateway.rescue.model import Delivered, Way
from crosslogic.gateway.rescue.resend import continued, overlap_of
from crosslogic.gateway.rescue.terms import may_continue, may_join, may_restart, terms_of
from crosslogic.metering.model import Usage

MESSAGES = [{"role": "user", "content": "Go"}]
TEXT = Delivered("Once upon", tokens=2, event=b'{"id":"a","object":"chat.completion.chunk","created":1,"model":"m"}')


def call_of(path: bytes = b"/v1/chat/completions", **members: object) -> Call:
    asked = {"model": "m", "stream": True} | members
    if path == b"/v1/chat/completions":
        asked.setdefault("messages", MESSAGES)
    return read_call(BY_PATH[path], json.dumps(asked).encode(), {"m": ModelBounds("m")}, default_output_tokens=100)


def ways(call: Call, delivered: Delivered = TEXT) -> tuple[bool, bool]:
    terms = terms_of(call)
    assert terms is not None
    return may_continue(call, terms, delivered), may_join(call, terms, delivered)


class TestWhatMayGoOn:
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, (True, False)),
            ({"temperature": 0.7}, (True, False)),
            ({"temperature": 0}, (True, True)),
            ({"seed": 3}, (True, True)),
            ({"top_k": 1}, (True, True)),
            ({"tools": [{"type": "function"}], "tool_choice": "auto"}, (True, False)),
            ({"response_format": {"type": "text"}, "logprobs": False, "n": 1, "top_logprobs": 0}, (True, False)),
            ({"include_stop_str_in_output": True, "seed": 1}, (False, True)),
        ],
    )
    def test_plain_text_does(self, asked: dict[str, Any], expected: tuple[bool, bool]) -> None:
        assert ways(call_of(**asked)) == expected

    @pytest.mark.parametrize(
        "asked",
        [
            {"n": 2},
            {"logprobs": True},
            {"top_logprobs": 3},
            {"response_format": {"type": "json_object"}},
            {"response_format": {"type": "json_schema", "json_schema": {}}},
            {"guided_json": {"type": "object"}},
            {"guided_choice": ["a"]},
            {"structured_outputs": {"regex": "a"}},
            {"regex": "a"},
            {"tool_choice": "required"},
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
            {"use_beam_search": True},
            {"best_of": 2},
            {"return_token_ids": True},
        ],
    )
    def test_more_than_text_does_not(self, asked: dict[str, Any]) -> None:
        assert ways(call_of(temperature=0, **asked)) == (False, False)

    def test_what_came_decides_too(self) -> None:
        call = call_of(temperature=0)
        assert ways(call, Delivered("a", tokens=1, plain=False)) == (False, False)
        assert ways(call, Delivered("", reasoning="hm", tokens=1)) == (False, True)
        assert ways(call, Delivered("a", reasoning="hm", tokens=2)) == (False, True)

    @pytest.mark.parametrize(
        ("delivered", "expected"),
        [
            (Delivered(), True),
            (Delivered(plain=False), True),
            (Delivered("\n\n", tokens=1), True),
            (Delivered("a", tokens=1), False),
            (Delivered(tokens=1, plain=False), False),
            (Delivered(reasoning="hm", tokens=1), False),
        ],
    )
    def test_anew_only_where_nothing_is_lost(self, delivered: Delivered, expected: bool) -> None:
        assert may_restart(call_of(n=2), delivered) is expected
        assert not may_restart(call_of(b"/v1/responses", input="Go"), delivered)

    @pytest.mark.parametrize(
        ("prompt", "expected"),
        [("a", True), (["a"], True), ([1, 2], True), ([[1, 2]], True), (["a", "b"], False), ([[1], [2]], False)],
    )
    def test_one_prompt_only(self, prompt: object, expected: bool) -> None:
        assert ways(call_of(b"/v1/completions", prompt=prompt))[0] is expected


def rest_of(call: Call, text: str = "Once upon", **more: Any) -> dict[str, Any] | None:
    terms = terms_of(call)
    assert terms is not None
    found = continued(call, terms, text, **({"resent_tokens": 2} | more))
    return None if found is None else json.loads(found.body)


class TestTheRequestForTheRest:
    def test_a_chat_has_the_text_as_its_last_message(self) -> None:
        rest = rest_of(call_of(max_completion_tokens=10, min_tokens=5, temperature=0.3, stop=["x"]))
        assert rest is not None
        assert rest["messages"] == [*MESSAGES, {"role": "assistant", "content": "Once upon"}]
        assert (rest["continue_final_message"], rest["add_generation_prompt"]) == (True, False)
        assert (rest["max_completion_tokens"], rest["min_tokens"]) == (8, 3)
        assert (rest["temperature"], rest["stop"], rest["stream"]) == (0.3, ["x"], True)

    def test_what_the_caller_began_itself_goes_on(self) -> None:
        began = [*MESSAGES, {"role": "assistant", "content": "Tale: "}]
        rest = rest_of(call_of(messages=began, continue_final_message=True, add_generation_prompt=False))
        assert rest is not None
        assert rest["messages"] == [*MESSAGES, {"role": "assistant", "content": "Tale: Once upon"}]
        parts = [*MESSAGES, {"role": "assistant", "content": [{"type": "text", "text": "Tale"}]}]
        assert rest_of(call_of(messages=parts, continue_final_message=True)) is None

    @pytest.mark.parametrize(
        ("prompt", "ids", "expected"),
        [
            ("Tell: ", None, "Tell: Once upon"),
            (["Tell: "], None, ["Tell: Once upon"]),
            ([1, 2], (8, 9), [1, 2, 8, 9]),
            ([[1, 2]], (8, 9), [[1, 2, 8, 9]]),
            ([1, 2], None, None),
        ],
    )
    def test_a_completion_has_a_longer_prompt(self, prompt: object, ids: Any, expected: object) -> None:
        rest = rest_of(call_of(b"/v1/completions", prompt=prompt, max_tokens=9), text_ids=ids)
        assert rest == expected if rest is None else (rest["prompt"], rest["max_tokens"]) == (expected, 7)

    def test_the_engines_own_maximum_holds_where_the_caller_named_none(self) -> None:
        rest = rest_of(call_of(b"/v1/completions", prompt="a"), default_tokens=16)
        assert rest is not None
        assert rest["max_tokens"] == 14
        rest = rest_of(call_of())
        assert rest is not None
        assert "max_tokens" not in rest

    def test_white_space_at_the_end_is_not_resent_to_a_chat(self) -> None:
        assert overlap_of(call_of(), "a \n\n") == 3
        assert overlap_of(call_of(b"/v1/completions", prompt="a"), "a \n\n") == 0

    @pytest.mark.parametrize(
        ("pieces", "shown"), [([" ", "\n\n", "b"], "\nb"), (["b"], "b"), ([" b"], "b"), (["\n", "\n", "\n", "b"], "b")]
    )
    def test_and_is_not_shown_again(self, pieces: list[str], shown: str) -> None:
        overlap = Overlap(3) if len(pieces) > 1 else Overlap(1)
        if shown == "\nb":
            overlap = Overlap(2)
        assert "".join(overlap.take(piece) for piece in pieces) == shown


class TestWhatTheCallerSees:
    def test_usage_is_that_of_one_answer(self) -> None:
        leg = NextLeg(TEXT, Way.CONTINUED, asked_for_usage=True, resent_tokens=2)
        usage = {"prompt_tokens": 12, "completion_tokens": 5, "total_tokens": 17}
        details = {"prompt_tokens_details": {"cached_tokens": 11}}
        shown = leg.feed(b"data: " + json.dumps({"choices": [], "usage": usage | details}).encode() + b"\n\n")
        assert leg.usage == Usage(10, 7, 10, 0)
        told = json.loads(shown[6:])["usage"]
        assert (told["prompt_tokens"], told["completion_tokens"], told["total_tokens"]) == (10, 7, 17)
        assert told["prompt_tokens_details"]["cached_tokens"] == 10

    def test_an_engine_that_counts_oddly_makes_no_negative_usage(self) -> None:
        leg = NextLeg(TEXT, Way.CONTINUED, asked_for_usage=True, resent_tokens=50)
        leg.feed(b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n')
        assert leg.usage == Usage(1, 3)

    def test_tools_of_a_new_start_pass_under_the_first_name(self) -> None:
        leg = NextLeg(Delivered(event=TEXT.event), Way.RESTARTED, asked_for_usage=True)
        call = {"index": 0, "delta": {"role": "assistant", "tool_calls": [{"index": 0}]}, "finish_reason": None}
        shown = json.loads(leg.feed(b"data: " + json.dumps({"id": "b", "choices": [call]}).encode() + b"\n\n")[6:])
        assert shown["id"] == "a"
        assert shown["choices"][0]["delta"] == {"tool_calls": [{"index": 0}]}

    def test_a_comment_alone_is_no_role(self) -> None:
        """The caller has seen `: ping` and nothing else: the role of the next node is its first."""
        leg = NextLeg(Delivered(), Way.RESTARTED, asked_for_usage=True)
        role = b'data: {"id":"b","choices":[{"index":0,"delta":{"role":"assistant"},"finish_reason":null}]}\n\n'
        assert json.loads(leg.feed(role)[6:])["choices"][0]["delta"] == {"role": "assistant"}

    def test_a_finish_reason_that_was_lost_is_written_in_the_answers_own_form(self) -> None:
        chat = json.loads(end_event(TEXT, "length")[6:])
        assert (chat["id"], chat["choices"][0]["finish_reason"], chat["choices"][0]["delta"]) == ("a", "length", {})
        completion = json.loads(end_event(Delivered(event=b'{"id":"c","object":"text_completion"}'), "length")[6:])
        assert completion["choices"][0]["text"] == ""

    def test_reasoning_is_joined_as_text_is(self) -> None:
        before = Delivered("", "Let me", 2, event=TEXT.event)
        leg = NextLeg(before, Way.JOINED, asked_for_usage=True)

        def event(**delta: str) -> bytes:
            choice = {"index": 0, "delta": delta, "finish_reason": None}
            return b"data: " + json.dumps({"id": "b", "choices": [choice]}).encode() + b"\n\n"

        shown = leg.feed(event(role="assistant", content="") + event(reasoning="Let") + event(reasoning=" me see"))
        deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in shown.split(b"\n\n") if line]
        assert deltas == [{"reasoning": " see"}]
        assert leg.delivered().reasoning == "Let me see"
