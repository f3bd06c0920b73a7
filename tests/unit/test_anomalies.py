"""What is unusual, and that an episode is told once."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.compass.ranking.scaling import ScalingAction, Urgency
from crosslogic.insight.anomalies.episodes import go_on, notice_of
from crosslogic.insight.anomalies.model import WINDOW, Anomaly, AnomalyType, Finding, Window
from crosslogic.insight.anomalies.rules import LEAST_WINDOWS, short_of_capacity, unusual, unusual_usage
from crosslogic.insight.forecast.model import ScalingRecommendation
from crosslogic.insight.forecast.predict import WEEK
from crosslogic.insight.forecast.sql import Series
from crosslogic.insight.notices.model import Severity
from tests.unit.test_forecast import trace

START = datetime(2026, 3, 2, tzinfo=UTC)


def window(number: int = 0, **changed: object) -> Window:
    fields: dict[str, object] = {
        "at": START + number * WINDOW,
        "model": "m",
        "region": "eu",
        "requests": 200,
        "failed": 0,
        "answered": 180,
        "odd": 9,
        "first_token_ms": 300.0,
        "token_ms": 20.0,
    }
    return Window(**fields | changed)  # type: ignore[arg-type]


USUAL = [
    window(number, first_token_ms=300.0 + 40 * np.sin(number / 9), token_ms=20.0 + (number % 5)) for number in range(72)
]


def found(sensitivity: float = 1.0, before: list[Window] | None = None, **changed: object) -> list[AnomalyType]:
    seen = unusual(window(72, **changed), USUAL if before is None else before, sensitivity)
    return [each.kind for each in seen]


class TestService:
    def test_what_was_so_before_is_not_unusual(self) -> None:
        assert found() == []
        assert [kind for each in USUAL for kind in unusual(each, USUAL, 1.0)] == []

    def test_much_slower_than_usual_is(self) -> None:
        assert found(first_token_ms=1200.0) == [AnomalyType.LATENCY_SPIKE]
        assert found(token_ms=60.0) == [AnomalyType.LATENCY_SPIKE]
        assert found(first_token_ms=400.0) == []
        assert found(first_token_ms=30.0) == []  # quicker is no trouble

    def test_failures_are_whatever_was_before(self) -> None:
        assert found(failed=40) == [AnomalyType.ERROR_RATE_HIGH]
        assert found(failed=40, before=[]) == [AnomalyType.ERROR_RATE_HIGH]
        assert found(failed=3) == []
        assert found(failed=2, requests=20) == []  # one in ten, of twenty: chance
        assert found(failed=200) == [AnomalyType.ERROR_RATE_HIGH]

    def test_failures_that_are_usual_here_are_not_told(self) -> None:
        assert found(failed=40, before=[window(number, failed=35) for number in range(72)]) == []

    def test_empty_or_endless_answers_are_a_drop_of_quality(self) -> None:
        assert found(odd=90) == [AnomalyType.QUALITY_DROP]
        assert found(odd=30) == []
        assert found(odd=90, before=[]) == []  # callers may want it so

    def test_a_few_requests_or_a_short_past_say_nothing(self) -> None:
        assert found(requests=19, failed=19) == []
        assert found(first_token_ms=9000.0, before=USUAL[: LEAST_WINDOWS - 1]) == []

    def test_higher_sensitivity_finds_more(self) -> None:
        assert found(first_token_ms=420.0, sensitivity=3.0) == [AnomalyType.LATENCY_SPIKE]
        assert found(first_token_ms=1200.0, sensitivity=0.1) == []

    @given(st.integers(20, 10_000), st.data())
    def test_more_failures_never_say_less(self, requests: int, data: st.DataObject) -> None:
        few = data.draw(st.integers(0, requests))
        many = data.draw(st.integers(few, requests))
        said = [found(requests=requests, failed=each, before=[]) for each in (few, many)]
        assert len(said[0]) <= len(said[1])


class TestUsage:
    def usage(self, counts: np.ndarray, sensitivity: float = 1.0) -> list[Finding]:  # type: ignore[type-arg]
        return list(unusual_usage(Series("m", "eu", counts, 100.0, 50.0), START, sensitivity))

    @pytest.mark.parametrize("model", ["m-large", "m-mid", "m-small"])
    def test_of_real_traffic_hardly_an_hour_is(self, model: str) -> None:
        """One hour in three of the second week, beside what was before it. Some outages are in the traces."""
        counts = trace()[model]
        told = [hour for hour in range(WEEK + 1, len(counts), 3) if self.usage(counts[: hour + 1])]
        assert len(told) <= 3

    @pytest.mark.parametrize("model", ["m-large", "m-mid", "m-small"])
    def test_a_flood_and_a_silence_are(self, model: str) -> None:
        counts = trace()[model]
        flood, silence = counts.copy(), counts.copy()
        flood[-1], silence[-1] = 12 * counts[-25:-1].max(), 0.0
        assert [each.severity for each in self.usage(flood)] == [Severity.WARNING]
        assert [each.severity for each in self.usage(silence)] == [Severity.ERROR]

    def test_the_first_week_and_a_handful_of_requests_are_no_measure(self) -> None:
        assert self.usage(np.append(np.full(WEEK - 1, 100.0), 10_000.0)) == []
        assert self.usage(np.append(np.full(WEEK + 1, 2.0), 40.0)) == []


def test_capacity_is_low_when_more_is_asked_for_now_than_is_carried() -> None:
    def advice(urgency: Urgency, nodes: float) -> ScalingRecommendation:
        return ScalingRecommendation("m", "eu", ScalingAction.SCALE_UP, nodes, 4, urgency, "why")

    assert [each.kind for each in short_of_capacity([advice(Urgency.CRITICAL, 2)])] == [AnomalyType.CAPACITY_LOW]
    assert not list(short_of_capacity([advice(Urgency.HIGH, 2), advice(Urgency.CRITICAL, 0)]))


def finding(kind: AnomalyType = AnomalyType.LATENCY_SPIKE, severity: Severity = Severity.WARNING) -> Finding:
    return Finding(kind, "m", "eu", severity, "slow", "look", {})


class TestEpisodes:
    def play(self, course: list[list[Finding]]) -> list[Anomaly]:
        """Looks, ten minutes each; every episode there was, as it stands in the end."""
        known: dict[str, Anomaly] = {}
        for number, seen in enumerate(course):
            at = START + number * WINDOW
            standing = [each for each in known.values() if each.ended_at is None]
            known |= {each.id: each for each in go_on(standing, seen, at, at + WINDOW)}
        return list(known.values())

    def test_what_comes_and_goes_is_one_episode_until_it_is_quiet(self) -> None:
        one = [finding()]
        (episode,) = self.play([one, one, [], one, [], [], []])
        assert episode.started_at == START
        assert episode.ended_at == episode.seen_at == START + 4 * WINDOW
        first, second = self.play([one, [], [], [], one])
        assert (first.ended_at, second.ended_at) == (START + WINDOW, None)
        assert notice_of(first, START).once != notice_of(second, START).once

    def test_it_may_get_worse_and_stays_the_same(self) -> None:
        (episode,) = self.play([[finding()], [finding(severity=Severity.ERROR)], [finding()]])
        assert episode.severity is Severity.ERROR
        assert notice_of(episode, START).once == notice_of(self.play([[finding()]])[0], START).once

    def test_what_is_looked_at_hourly_is_not_over_in_between(self) -> None:
        usage = [finding(AnomalyType.UNUSUAL_USAGE)]
        assert len(self.play([usage, *[[]] * 5, usage, *[[]] * 3])) == 1

    def test_judging_a_window_again_changes_nothing(self) -> None:
        seen = [finding(), finding(AnomalyType.ERROR_RATE_HIGH), finding(severity=Severity.ERROR)]
        first = go_on([], seen, START, START + WINDOW)
        assert [each.severity for each in first] == [Severity.ERROR, Severity.WARNING]
        assert go_on(first, seen, START, START + WINDOW) == first

    def test_a_notice_says_since_when_what_and_what_to_do(self) -> None:
        (episode,) = self.play([[finding()]])
        notice = notice_of(episode, START + timedelta(hours=1))
        assert notice.title == "m in eu is slower than usual"
        assert notice.text == "Since 2026-03-02 00:00 UTC: slow. look"
        assert notice.facts["type"] == "latency_spike"
