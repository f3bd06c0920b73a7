"""Which figures are worth an alert, and that each threshold is told once."""

from datetime import UTC, date, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from crosslogic.insight.alerts.model import Budget, DailySpend, ExpiringCredit, ReservedHour
from crosslogic.insight.alerts.rules import (
    BUDGET_PERCENTS,
    budget_alerts,
    capacity_alerts,
    credit_alerts,
    spike_alerts,
)
from crosslogic.kernel.money import PUSD_PER_USD

NOW = datetime(2026, 3, 14, 12, tzinfo=UTC)
USD = PUSD_PER_USD


def budget(spent_usd: int, cap_usd: int = 100, env: str | None = None, month: str = "2026-03") -> Budget:
    return Budget("org_1", env, "acme", month, cap_usd * USD, spent_usd * USD)


class TestBudgets:
    def test_a_threshold_is_met_exactly_and_not_a_moment_before(self) -> None:
        told = {spent: [each.facts["percent"] for each in budget_alerts([budget(spent)], NOW)] for spent in range(120)}
        for spent, percents in told.items():
            expected = [percent for percent in BUDGET_PERCENTS if spent >= percent][-1:]
            assert percents == expected

    def test_each_threshold_of_each_month_and_budget_has_a_name_of_its_own(self) -> None:
        budgets = [
            budget(spent, env=env, month=m) for spent in (50, 80, 100) for env in (None, "e") for m in ("1", "2")
        ]
        assert len({each.once for each in budget_alerts(budgets, NOW)}) == 12
        assert {each.once for each in budget_alerts(budgets, NOW)} == {
            each.once for each in budget_alerts(budgets, NOW + timedelta(hours=1))
        }

    @given(st.lists(st.integers(0, 30), max_size=30))
    def test_however_spending_grows_no_threshold_is_told_twice(self, steps: list[int]) -> None:
        spent, told = 0, list[str]()
        for step in steps:
            spent += step
            told += [each.once for each in budget_alerts([budget(spent)], NOW) if each.once not in told]
        assert len(told) == len(set(told)) <= len(BUDGET_PERCENTS)
        assert bool(told) is (spent >= BUDGET_PERCENTS[0])

    def test_a_cap_of_nothing_is_no_news(self) -> None:
        assert not list(budget_alerts([budget(0, cap_usd=0)], NOW))


class TestSpikes:
    def spike(self, today_usd: int, *before_usd: int) -> bool:
        spend = DailySpend("org_1", date(2026, 3, 14), today_usd * USD, tuple(each * USD for each in before_usd))
        return bool(list(spike_alerts([spend], NOW)))

    def test_more_than_ten_times_the_average_day_is_one(self) -> None:
        assert not self.spike(20, 1, 2, 3)
        assert self.spike(21, 1, 2, 3)

    def test_a_tenants_first_days_are_no_measure(self) -> None:
        assert not self.spike(1000, 1, 1)

    def test_ten_times_next_to_nothing_is_nothing(self) -> None:
        assert not self.spike(0, 0, 0, 0)

    def test_it_is_told_once_a_day(self) -> None:
        spend = DailySpend("org_1", date(2026, 3, 14), 100 * USD, (USD, USD, USD))
        first, later = (next(spike_alerts([spend], NOW + timedelta(hours=hours))) for hours in (0, 5))
        assert first.once == later.once


class TestCredits:
    def told(self, left: int, **before: float) -> list[str]:
        credit = ExpiringCredit("org_1", "grant_1", "USD", left, NOW + timedelta(**before))
        return [each.once for each in credit_alerts([credit], NOW)]

    def test_it_is_told_a_week_and_a_day_before(self) -> None:
        assert self.told(USD, days=7.1) == []
        assert self.told(USD, days=6) == ["credit:grant_1:7d"]
        assert self.told(USD, hours=20) == ["credit:grant_1:1d"]

    def test_what_is_used_up_or_over_is_not_told(self) -> None:
        assert self.told(0, hours=20) == self.told(USD, hours=-1) == []


class TestCapacity:
    def test_an_hour_beyond_what_is_reserved_is_told_once_a_day(self) -> None:
        hours = [
            ReservedHour("org_1", "m", None, datetime(2026, 3, 14, hour, tzinfo=UTC), 10, used)
            for hour, used in ((1, 36_000), (2, 36_001), (3, 90_000))
        ]
        told = list(capacity_alerts(hours, NOW))
        assert [each.facts["used_tokens"] for each in told] == [36_001, 90_000]
        assert len({each.once for each in told}) == 1
