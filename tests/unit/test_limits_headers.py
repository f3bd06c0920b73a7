"""The header bytes that clients read: OpenAI's names and durations, and a Retry-After that is never too short."""

import pytest

from crosslogic.limits.headers import duration, header_block, header_pairs
from crosslogic.limits.model import Admitted, Demand, Dimension, Headroom, Layer, Rejected


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0s"),
        (0.0001, "1ms"),
        (0.12, "120ms"),
        (0.9991, "1s"),
        (1.0, "1s"),
        (8.64, "8.64s"),
        (59.9999, "1m0s"),
        (60.0, "1m0s"),
        (72.172, "1m12.172s"),
        (360.0, "6m0s"),
        (3600.5, "1h0m0.5s"),
        (86_400.0, "24h0m0s"),
    ],
)
def test_durations_are_written_as_openai_writes_them_and_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_an_answer_carries_both_units() -> None:
    answer = Admitted((), Demand(10, 0), Headroom(60, 59, 1.0), Headroom(1000, 990, 0.6))
    assert dict(header_pairs(answer)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"59",
        b"x-ratelimit-reset-requests": b"1s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"990",
        b"x-ratelimit-reset-tokens": b"600ms",
    }


def test_what_nothing_limits_is_left_out() -> None:
    assert header_block(Admitted((), Demand(10, 0), None, None)) == b""


@pytest.mark.parametrize(("wait_s", "header"), [(0.001, b"1"), (1.0, b"1"), (1.2, b"2"), (30.0, b"30")])
def test_retry_after_is_whole_seconds_rounded_up(wait_s: float, header: bytes) -> None:
    pairs = dict(header_pairs(Rejected(Layer.KEY, Dimension.REQUESTS_PER_MINUTE, wait_s)))
    assert pairs[b"retry-after"] == header
    assert int(pairs[b"retry-after-ms"]) >= wait_s * 1000


def test_a_request_that_is_too_large_is_not_told_to_retry() -> None:
    refusal = Rejected(Layer.KEY, Dimension.TOKENS_PER_MINUTE, 60.0, too_large=True)
    assert header_pairs(refusal) == [(b"x-should-retry", b"false")]
