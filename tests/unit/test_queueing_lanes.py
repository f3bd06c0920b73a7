"""Reserved lanes and guaranteed rates, as arithmetic."""

import pytest

from crosslogic.queueing.lanes import Guarantee, GuaranteedRates, Lane, kept_places

KEY = ("org", "m")


@pytest.mark.parametrize(
    ("free", "reserved_running", "may"),
    [
        (10, 0, True),  # idle places are lent
        (3, 0, True),
        (2, 0, False),  # these two are kept ready
        (2, 3, True),  # of four kept three are in use: only one is owed
        (1, 3, False),
        (1, 4, True),  # all kept places are in use by those whom they are kept for
        (1, 9, True),
        (0, 9, False),
        (-1, 9, False),
    ],
)
def test_shared_traffic_may_have_all_but_what_is_owed(free: int, reserved_running: int, may: bool) -> None:
    assert Lane(kept=4, ready=2).shared_may_start(free, reserved_running) is may


def test_a_lane_that_keeps_nothing_holds_nobody_back() -> None:
    assert Lane().shared_may_start(1, 0)


@pytest.mark.parametrize(("kept", "ready"), [(1, 2), (-1, -1), (1, -1)])
def test_an_impossible_lane_is_refused(kept: int, ready: int) -> None:
    with pytest.raises(ValueError, match="lane"):
        Lane(kept, ready)


def test_places_follow_from_the_rate() -> None:
    assert kept_places(0.0, 50.0, 32) == 0
    assert kept_places(15.0, 50.0, 32) == 1
    assert kept_places(101.0, 50.0, 32) == 3
    assert kept_places(1e6, 50.0, 32) == 32


def test_an_org_gets_its_rate_whatever_the_sizes_of_its_requests() -> None:
    for size in (20, 70, 4000):
        rates = GuaranteedRates(burst_s=10.0)
        rates.replace({KEY: Guarantee(100.0)})
        covered = 0
        for step in range(10_000):  # it asks for far more, all the time
            covered += size if rates.covers("org", "m", size, step * 0.1) else 0
        assert 0.99 * 100.0 * 1000.0 <= covered <= 100.0 * 1000.0 + 1000.0 + size


def test_what_was_not_used_is_given_back_but_never_more_than_the_burst() -> None:
    rates = GuaranteedRates(burst_s=1.0)
    rates.replace({KEY: Guarantee(100.0)})
    assert rates.covers("org", "m", 100, 0.0)
    assert not rates.covers("org", "m", 1, 0.0)
    rates.settle("org", "m", 99, 0.0)
    assert rates.covers("org", "m", 99, 0.0)
    assert not rates.covers("org", "m", 1, 0.0)
    rates.settle("org", "m", 10_000, 0.0)
    assert rates.covers("org", "m", 100, 0.0)
    assert not rates.covers("org", "m", 1, 0.0)


def test_a_guarantee_is_one_orgs_on_one_line_until_it_expires() -> None:
    rates = GuaranteedRates()
    rates.replace({KEY: Guarantee(100.0, expires_at_s=50.0)})
    assert rates.covers("org", "m", 1, 49.0)
    assert not rates.covers("other", "m", 1, 49.0)
    assert not rates.covers("org", "n", 1, 49.0)
    assert not rates.covers("org", "m", 1, 50.0)
    assert (rates.tokens_per_s("m", 49.0), rates.tokens_per_s("m", 50.0)) == (100.0, 0.0)
    rates.settle("other", "m", 5, 49.0)


def test_a_changed_guarantee_keeps_its_level() -> None:
    rates = GuaranteedRates(burst_s=10.0)
    rates.replace({KEY: Guarantee(100.0)})
    assert rates.covers("org", "m", 1000, 0.0)
    rates.replace({KEY: Guarantee(100.0), ("new", "m"): Guarantee(5.0)})
    assert not rates.covers("org", "m", 1, 0.0)
    assert rates.covers("new", "m", 50, 0.0)
    assert rates.tokens_per_s("m", 0.0) == 105.0
