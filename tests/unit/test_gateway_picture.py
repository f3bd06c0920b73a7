"""A gateway goes by what it last read of its database, but only for so long."""

import logging

import pytest

from crosslogic.gateway import picture
from crosslogic.gateway.picture import Picture


def told(_age_s: float) -> None:
    """Nobody looks at the metric."""


def test_it_gets_too_old_only_after_the_time_that_was_set() -> None:
    seen = Picture(60.0, 1_000.0, told)
    seen.check(1_059.9)
    assert not seen.outdated
    seen.check(1_060.0)
    assert seen.outdated


def test_a_reading_renews_it_from_when_the_reading_began() -> None:
    """What changes while a reading waits for its answer need not be in it."""
    seen = Picture(60.0, 1_000.0, told)
    seen.confirmed(1_030.0)
    seen.check(1_089.9)
    assert not seen.outdated
    seen.check(1_090.0)
    assert seen.outdated
    seen.confirmed(1_010.0)
    seen.check(1_010.0)
    seen.check(1_090.0)
    assert seen.outdated, "an older reading makes it no younger"


def test_it_serves_again_with_the_first_reading_and_not_with_the_next_check() -> None:
    seen = Picture(60.0, 0.0, told)
    seen.check(100.0)
    seen.confirmed(100.0)
    assert not seen.outdated


def test_zero_is_for_ever() -> None:
    seen = Picture(0.0, 0.0, told)
    seen.check(1e9)
    assert not seen.outdated


def test_its_age_is_told_at_each_check() -> None:
    ages: list[float] = []
    seen = Picture(60.0, 0.0, ages.append)
    seen.check(1.0)
    seen.confirmed(1.5)
    seen.check(2.0)
    seen.check(90.0)
    assert ages == [1.0, 0.5, 88.5]


def test_the_log_says_it_once_when_it_begins_and_once_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, picture.__name__)
    seen = Picture(60.0, 0.0, told)
    for now_s in range(0, 200, 10):
        seen.check(now_s)
    for now_s in range(200, 230, 10):
        seen.confirmed(now_s)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]
