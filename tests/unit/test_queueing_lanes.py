"""Reserved lanes, as arithmetic."""

import pytest

from crosslogic.queueing.lanes import Lane, kept_places


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
    assert kept_places(15.0, 50.0, 32) == 2
    assert kept_places(100.0, 50.0, 32) == 5
    assert kept_places(800.0, 50.0, 32) == 23
    assert kept_places(1e6, 50.0, 32) == 32
