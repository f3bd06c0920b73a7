"""Which requests may be answered from the cache, and who decides."""

import json

import pytest

from crosslogic.cache.key import meaning_of, read_fields
from crosslogic.cache.model import CacheChoice, CachePolicy, Use, in_force
from crosslogic.cache.policy import Wish, is_cacheable, wish


def cacheable(more: dict[str, object], sampled: bool = False, *, generates: bool = True) -> bool:
    fields = read_fields(json.dumps({"messages": [{"role": "user", "content": "hi"}], **more}).encode())
    assert fields is not None
    return is_cacheable(fields, meaning_of(fields), generates=generates, sampled=sampled)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, False),
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.01}, False),
        ({"temperature": "0"}, False),
        ({"temperature": False}, False),
        ({"temperature": 1, "seed": 7}, True),
        ({"seed": 0}, True),
        ({"seed": None}, False),
        ({"seed": True}, False),
        ({"temperature": 0, "n": 1}, True),
        ({"temperature": 0, "n": None}, True),
        ({"temperature": 0, "n": 2}, False),
        ({"temperature": 0, "best_of": 3}, False),
    ],
)
def test_only_what_an_engine_would_say_again(more: dict[str, object], expected: bool) -> None:
    assert cacheable(more) is expected


def test_what_only_reads_its_prompt_is_deterministic_without_a_temperature() -> None:
    assert cacheable({"input": ["a", "b"]}, generates=False)


def test_sampled_answers_are_taken_only_where_everything_is() -> None:
    assert cacheable({"temperature": 1.5, "n": 3}, sampled=True)


@pytest.mark.parametrize(
    "more",
    [
        {"background": True},
        {"store": True},
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"tools": [{"type": "function"}, {"type": "web_search"}]},
        {"tools": [{"type": "mcp", "server_url": "x"}]},
        {"tools": ["python"]},
        {"tools": {"a": 1}},
    ],
)
@pytest.mark.parametrize("sampled", [False, True])
def test_nothing_with_effects_beyond_its_answer_under_any_policy(more: dict[str, object], sampled: bool) -> None:
    assert not cacheable({"temperature": 0, **more}, sampled)


@pytest.mark.parametrize(
    "more", [{"store": False}, {"tools": []}, {"tools": None}, {"tools": [{"type": "function"}, {"name": "anthropic"}]}]
)
def test_tools_that_the_caller_runs_itself_do_no_harm(more: dict[str, object]) -> None:
    assert cacheable({"temperature": 0, **more})


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.org/today.png"}}, False),
        ({"type": "image_url", "image_url": {"url": "HTTP://example.org/today.png"}}, False),
        ({"type": "input_image", "image_url": "https://example.org/today.png"}, False),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}, True),
        ({"type": "text", "text": 'say "url":"https://example.org" and nothing else'}, True),
    ],
)
def test_what_lies_behind_an_address_may_change(part: dict[str, object], expected: bool) -> None:
    mine = {"temperature": 0, "messages": [{"role": "user", "content": [part]}]}
    assert cacheable(mine) is expected
    assert cacheable(mine, sampled=True)


@pytest.mark.parametrize(
    ("policy", "header", "expected"),
    [
        (CachePolicy(), None, Wish.BYPASS),
        (CachePolicy(), b"use", Wish.USE),
        (CachePolicy(), b" Refresh ", Wish.REFRESH),
        (CachePolicy(), b"no-store", Wish.BYPASS),
        (CachePolicy(), b"yes please", Wish.BYPASS),
        (CachePolicy(Use.ON), None, Wish.USE),
        (CachePolicy(Use.ON), b"no-store", Wish.BYPASS),
        (CachePolicy(Use.OFF), b"use", Wish.BYPASS),
    ],
)
def test_a_request_opts_in_or_out_within_what_its_environment_allows(
    policy: CachePolicy, header: bytes | None, expected: Wish
) -> None:
    assert wish(policy, header) is expected


CONFIGURED = CachePolicy(Use.OPT_IN, sampled=False, ttl_s=600.0)


@pytest.mark.parametrize(
    ("env", "org", "expected"),
    [
        (CacheChoice(), CacheChoice(), CONFIGURED),
        (CacheChoice(Use.ON), CacheChoice(Use.OFF), CachePolicy(Use.ON, sampled=False, ttl_s=600.0)),
        (CacheChoice(), CacheChoice(Use.OFF, ttl_s=5.0), CachePolicy(Use.OFF, sampled=False, ttl_s=5.0)),
        (CacheChoice(sampled=False), CacheChoice(sampled=True), CONFIGURED),
        (CacheChoice(ttl_s=9.0), CacheChoice(Use.ON, True, 5.0), CachePolicy(Use.ON, sampled=True, ttl_s=9.0)),
    ],
)
def test_each_field_of_a_choice_comes_from_the_nearest_that_says_it(
    env: CacheChoice, org: CacheChoice, expected: CachePolicy
) -> None:
    assert in_force(CONFIGURED, env, org) == expected
