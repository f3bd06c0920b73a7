"""The judge of chaotic days condemns what it is there for."""

from typing import Any

import pytest
from bench.chaos.callers import Known, Seen
from bench.chaos.verdict import Promise, judge

KNOWN = Known("/v1/completions", {}, text="a b c", usage=(5, 3))
ROW = {"request_id": "r1", "attempts": 1, "prompt_tokens": 5, "completion_tokens": 3}


def seen(**changes: Any) -> Seen:
    whole = {"status": 200, "request_id": "r1", "text": "a b c", "done": True, "usage": (5, 3), "names": {"cmpl-1"}}
    return Seen(KNOWN, **{**whole, **changes})


def wrong(one: Seen, *rows: dict[str, Any], promise: Promise | None = None) -> list[str]:
    return judge([one], list(rows), [], promise or Promise(delay=False)).wrong


def test_a_whole_answer_with_its_row_is_right() -> None:
    assert wrong(seen(), ROW) == []


@pytest.mark.parametrize(
    "lie",
    [
        {"text": "a b"},
        {"usage": (5, 2)},
        {"usage": None},
        {"names": {"cmpl-1", "cmpl-2"}},
    ],
    ids=["its text is cut", "its usage is short", "without usage", "two answers in one"],
)
def test_what_looks_whole_and_is_not_is_condemned(lie: dict[str, Any]) -> None:
    assert "an answer looked whole and was not" in wrong(seen(**lie), ROW)


def test_a_row_that_is_missing_doubled_or_of_other_tokens_is_condemned() -> None:
    assert wrong(seen()) == ["the ledger misses or doubles a row"]
    assert wrong(seen(), ROW, ROW) == ["the ledger misses or doubles a row"]
    (sentence,) = wrong(seen(), ROW | {"completion_tokens": 4})
    assert sentence.startswith("usage differs")


def test_an_honest_failure_is_none_of_these_but_counts_as_unanswered() -> None:
    (sentence,) = wrong(seen(done=False, error=True, text="a"), ROW)
    assert sentence.startswith("only 0.00 % were answered")


def test_a_real_engine_may_word_and_count_what_it_continued_otherwise() -> None:
    real = Promise(same_text=False, same_prompt=False, delay=False)
    assert wrong(seen(text="a b d", usage=(6, 3)), ROW | {"prompt_tokens": 6}, promise=real) == []
    assert wrong(seen(text="a b d", usage=(6, 3)), ROW, promise=real)[0].startswith("usage differs")


def test_a_cut_that_costs_more_than_its_share_is_condemned() -> None:
    rescued = seen(gap_s=0.5, first_s=0.1)
    calm = seen(request_id="r2", first_s=0.1)
    rows = [ROW | {"attempts": 2}, ROW | {"request_id": "r2"}]
    assert judge([rescued, calm], rows, [], Promise()).wrong == ["cuts delay answers for too long"]
    rescued.gap_s = 0.25
    assert judge([rescued, calm], rows, [], Promise()).wrong == []
