"""What a request body is read as, and which ones are refused with the field's name."""

from typing import Any

import pytest

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import requests, tokens
from crosslogic.simulator.requests import MAX_CHOICES

USER = {"role": "user", "content": "Hello there"}
CHAT = {"model": "m", "messages": [USER]}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}


def test_a_chat_prompt_counts_its_text_and_its_template() -> None:
    one = requests.read_chat(CHAT)
    two = requests.read_chat({**CHAT, "messages": [{"role": "system", "content": "Be brief"}, USER]})
    assert one.prompts[0].tokens > tokens.count("Hello there")
    assert two.prompts[0].tokens > one.prompts[0].tokens
    assert two.prompts[0].question == "Hello there"


def test_both_names_of_the_token_limit_are_read_and_the_newer_one_wins() -> None:
    assert requests.read_chat({**CHAT, "max_tokens": 5}).max_tokens == 5
    assert requests.read_chat({**CHAT, "max_tokens": 5, "max_completion_tokens": 7}).max_tokens == 7
    assert requests.read_chat(CHAT).max_tokens is None
    assert requests.read_completion({"model": "m", "prompt": "x"}).max_tokens == 16


def test_content_parts_images_and_tool_results_are_accepted() -> None:
    parts = [{"type": "text", "text": "see"}, {"type": "image_url", "image_url": {"url": "data:,"}}]
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "sunny"},
    ]
    assert requests.read_chat({**CHAT, "messages": messages}).prompts[0].question.startswith("see")


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        (None, None),
        ("none", None),
        ("auto", None),
        ("required", "weather"),
        ({"type": "function", "function": {"name": "weather"}}, "weather"),
    ],
)
def test_tool_choice_forces_a_call_when_it_should(choice: Any, forced: str | None) -> None:
    assert requests.read_chat({**CHAT, "tools": [TOOL], "tool_choice": choice}).forced_tool == forced


def test_a_tool_that_the_user_names_is_called_without_being_forced() -> None:
    asked = [{"role": "user", "content": "What is the weather?"}]
    assert requests.read_chat({**CHAT, "messages": asked, "tools": [TOOL]}).forced_tool == "weather"
    off = {**CHAT, "messages": asked, "tools": [TOOL], "tool_choice": "none"}
    assert requests.read_chat(off).forced_tool is None


@pytest.mark.parametrize(
    ("prompt", "lengths"),
    [("one two", [2]), (["a", "b c"], [1, 2]), ([1, 2, 3], [3]), ([[1], [2, 3]], [1, 2])],
)
def test_completion_prompts_are_texts_or_token_ids(prompt: Any, lengths: list[int]) -> None:
    read = requests.read_completion({"model": "m", "prompt": prompt})
    assert [p.tokens for p in read.prompts] == lengths


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [1]}, "messages"),
        ({"messages": [{"content": "no role"}]}, "messages"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages"),
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": MAX_CHOICES + 1}, "n"),
        ({"temperature": 3}, "temperature"),
        ({"top_p": -0.1}, "top_p"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stop": 5}, "stop"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"tools": [{"function": {}}]}, "tools"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": {"function": {"name": "absent"}}}, "tool_choice"),
        ({"response_format": {"type": "yaml"}}, "response_format"),
    ],
)
def test_wrong_fields_are_named(change: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        requests.read_chat(CHAT | change)
    assert caught.value.param == param


@pytest.mark.parametrize("prompt", [None, "", [], [[]], [""], [1, "x"], {"a": 1}, [True]])
def test_prompts_that_are_none_of_these_are_refused(prompt: Any) -> None:
    with pytest.raises(InvalidRequest, match="prompt"):
        requests.read_completion({"model": "m", "prompt": prompt})


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'{"a":NaN}', b"[" * 100_000, b"\xff"])
def test_bodies_that_are_no_json_object_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        requests.decode(body)


def test_messages_needs_a_token_limit_as_anthropic_does() -> None:
    with pytest.raises(InvalidRequest, match="max_tokens"):
        requests.read_messages(CHAT)
    read = requests.read_messages({**CHAT, "max_tokens": 9, "system": [{"type": "text", "text": "s"}]})
    assert read.max_tokens == 9
