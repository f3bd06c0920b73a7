"""The parts of a node's hour are the hour: nothing of its cost is lost, and nothing is counted twice."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.insight.finops.attribution import attributed
from crosslogic.insight.finops.model import IDLE, NodeHour, Work
from crosslogic.insight.finops.sql import HOUR, by_hour
from crosslogic.kernel.money import PUSD_PER_USD

START = datetime(2026, 3, 1, tzinfo=UTC)
WORK = st.builds(
    Work,
    node_id=st.just("n"),
    org_id=st.sampled_from(("org_1", "org_2")),
    model=st.sampled_from(("a", "b")),
    prompt_tokens=st.integers(0, 10**9),
    completion_tokens=st.integers(0, 10**9),
    revenue_pusd=st.integers(0, 10**15),
)


def an_hour(up_s: float = 3600.0, usd: float | None = 2.5) -> NodeHour:
    return NodeHour("n", START, up_s, usd, spot=False, gpu_type="H100", gpu_count=2, region="eu")


@given(st.lists(WORK, max_size=8), st.floats(0, 3600), st.none() | st.floats(0, 500))
def test_the_parts_are_exactly_the_cost(done: list[Work], up_s: float, usd: float | None) -> None:
    hour = an_hour(up_s, usd)
    parts = attributed(hour, done)
    assert sum(part.cost_pusd for part in parts) == round((usd or 0.0) * up_s / 3600 * PUSD_PER_USD)
    assert sum(part.gpu_s for part in parts) == pytest.approx(up_s * 2)
    assert sum(part.revenue_pusd for part in parts) == sum(work.revenue_pusd for work in done)
    assert all(part.cost_pusd >= 0 for part in parts)


def test_an_hour_without_work_is_the_platforms_own() -> None:
    (part,) = attributed(an_hour(), [])
    assert (part.org_id, part.model, part.cost_pusd) == (IDLE, IDLE, int(2.5 * PUSD_PER_USD))


def test_an_answer_counts_twice_a_prompt() -> None:
    prompt, answer = attributed(an_hour(), [Work("n", "org_1", "a", 200, 0, 0), Work("n", "org_2", "a", 0, 200, 0)])
    assert answer.cost_pusd == pytest.approx(2 * prompt.cost_pusd, abs=2)


@given(st.integers(0, 7200), st.integers(0, 4 * 3600))
def test_time_is_cut_at_the_hours_and_none_is_lost(after_s: int, lasts_s: int) -> None:
    start = START + timedelta(seconds=after_s)
    end = start + timedelta(seconds=lasts_s)
    pieces = list(by_hour(start, end))
    assert sum(seconds for _, seconds in pieces) == lasts_s
    assert all(0 < seconds <= HOUR.total_seconds() for _, seconds in pieces)
    assert len({hour for hour, _ in pieces}) == len(pieces)
