"""What the edge reads of a request, what it refuses, and what it changes before a node gets it."""

import json

import pytest

from crosslogic.gateway.endpoints import BY_PATH, Endpoint
from crosslogic.gateway.request import BadRequest, Call, ModelBounds, read_call

MODELS = {
    "small": ModelBounds("small", context_window=1000, max_output_tokens=200),
    "alias": ModelBounds("small", context_window=1000, max_output_tokens=200),
    "unbounded": ModelBounds("unbounded"),
}
CHAT = BY_PATH[b"/v1/chat/completions"]
MESSAGES = [{"role": "user", "content": "hello"}]


def read(body: object, endpoint: Endpoint = CHAT, **options: str) -> Call:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_call(endpoint, raw, MODELS, default_output_tokens=64, **options)


def refusal(body: object, endpoint: Endpoint = CHAT) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        read(body, endpoint)
    return caught.value


def test_a_plain_body_reaches_the_node_as_it_came() -> None:
    raw = b'{ "model" : "small", "messages":[{"role":"user","content":"h\xc3\xa9"}], "unknown": {"x": 1.50} }'

    call = read(raw)

    assert call.body == raw
    assert call.model == "small"
    assert not call.stream


def test_a_stream_is_made_to_tell_its_usage_and_nothing_else_changes() -> None:
    body = {"model": "small", "stream": True, "messages": MESSAGES, "tools": [{"type": "function"}]}

    call = read(body)

    assert json.loads(call.body) == {**body, "stream_options": {"include_usage": True}}
    assert not call.asked_for_usage


def test_a_caller_that_asks_for_usage_gets_its_bytes_through_untouched() -> None:
    raw = json.dumps(
        {"model": "small", "stream": True, "messages": MESSAGES, "stream_options": {"include_usage": True}}
    ).encode()

    call = read(raw)

    assert call.body == raw
    assert call.asked_for_usage


def test_other_stream_options_are_kept() -> None:
    options = {"include_usage": False, "continuous_usage_stats": True}

    call = read({"model": "small", "stream": True, "messages": MESSAGES, "stream_options": options})

    assert json.loads(call.body)["stream_options"] == {"include_usage": True, "continuous_usage_stats": True}


def test_an_alias_becomes_the_name_that_nodes_know_and_large_numbers_keep_their_digits() -> None:
    raw = b'{"model":"alias","seed":12345678901234567890123,"top_p":0.10,"messages":[{"role":"user"}]}'

    call = read(raw)

    assert call.model == "small"
    assert b'"seed":12345678901234567890123' in call.body
    assert b'"top_p":0.10' in call.body
    assert json.loads(call.body)["model"] == "small"


def test_the_model_of_the_path_wins_over_the_body() -> None:
    call = read({"model": "unbounded", "messages": MESSAGES}, model_in_path="small")

    assert call.model == "small"
    assert json.loads(call.body)["model"] == "small"


def test_prompt_and_maximum_are_reserved_for_every_choice() -> None:
    call = read({"model": "small", "messages": MESSAGES, "max_tokens": 50, "n": 3})

    assert call.tokens_to_reserve == call.prompt_tokens_estimate + 150


def test_without_a_maximum_the_default_is_reserved_within_the_models_bound() -> None:
    assert read({"model": "unbounded", "messages": MESSAGES}).max_output_tokens == 64


def test_an_inline_image_does_not_count_as_text() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 400_000}}

    call = read({"model": "small", "messages": [{"role": "user", "content": [image]}]})

    assert call.prompt_tokens_estimate < 2000


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        (b"", "invalid_json", None),
        (b"{", "invalid_json", None),
        (b'{"model":"small"} x', "invalid_json", None),
        (b'{"model":"small","messages":[{}],"temperature":NaN}', "invalid_json", None),
        (b'{"model":"small","messages":[{"content":"\xff"}]}', "invalid_json", None),
        (b'{"model":"small","messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_json", None),
        (b"[]", "invalid_type", None),
        ({"messages": MESSAGES}, "missing_required_parameter", "model"),
        ({"model": 3, "messages": MESSAGES}, "invalid_type", "model"),
        ({"model": None, "messages": MESSAGES}, "invalid_type", "model"),
        ({"model": "small"}, "missing_required_parameter", "messages"),
        ({"model": "small", "messages": None}, "missing_required_parameter", "messages"),
        ({"model": "small", "messages": "hi"}, "invalid_type", "messages"),
        ({"model": "small", "messages": []}, "invalid_type", "messages"),
        ({"model": "small", "messages": ["hi"]}, "invalid_type", "messages"),
        ({"model": "small", "messages": MESSAGES, "stream": "yes"}, "invalid_type", "stream"),
        ({"model": "small", "messages": MESSAGES, "max_tokens": "5"}, "invalid_type", "max_tokens"),
        ({"model": "small", "messages": MESSAGES, "max_tokens": -1}, "invalid_value", "max_tokens"),
        ({"model": "small", "messages": MESSAGES, "max_tokens": 201}, "max_tokens_exceeded", "max_tokens"),
        ({"model": "small", "messages": MESSAGES, "n": 0}, "invalid_value", "n"),
        ({"model": "small", "messages": MESSAGES, "n": 129}, "invalid_value", "n"),
        ({"model": "small", "messages": [{"content": "word " * 2000}]}, "context_length_exceeded", "messages"),
    ],
)
def test_what_no_node_should_see_is_refused_with_a_stable_code(body: object, code: str, param: str | None) -> None:
    error = refusal(body)

    assert (error.code, error.param, error.status) == (code, param, 400)


def test_an_unknown_model_is_not_found() -> None:
    error = refusal({"model": "nope", "messages": MESSAGES})

    assert (error.code, error.status) == ("model_not_found", 404)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (b"/v1/completions", {"model": "small", "prompt": "once"}),
        (b"/v1/completions", {"model": "small", "prompt": [1, 2, 3]}),
        (b"/v1/embeddings", {"model": "small", "input": ["a", "b"]}),
        (b"/v1/responses", {"model": "small", "input": "hi", "max_output_tokens": 5}),
        (b"/v1/messages", {"model": "small", "messages": MESSAGES, "max_tokens": 5}),
        (b"/v1/rerank", {"model": "small", "query": "q", "documents": ["a"]}),
        (b"/v1/score", {"model": "small", "text_1": "q", "text_2": ["a"]}),
    ],
)
def test_every_endpoint_of_the_table_is_read(path: bytes, body: dict[str, object]) -> None:
    call = read(body, BY_PATH[path])

    assert json.loads(call.body) == body
    assert call.prompt_tokens_estimate >= 1
    assert (call.max_output_tokens > 0) is BY_PATH[path].generates
