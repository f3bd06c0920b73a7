"""Bad keys from one address: how many are looked at, and how the pause grows."""

import pytest

from crosslogic.tenancy.strangers import LONGEST_PAUSE_S, MOST_ADDRESSES, Strangers

HERE = "203.0.113.7"


def knock(strangers: Strangers, now_s: float, address: str = HERE) -> int | None:
    """One bad key: the pause it is told, or None when it was looked at."""
    wait_s = strangers.wait_s(address, now_s)
    if wait_s is None:
        strangers.failed(address, now_s)
    return wait_s


def test_a_minutes_worth_is_looked_at_and_the_next_is_not() -> None:
    strangers = Strangers(5)
    assert [knock(strangers, 100.0) for _ in range(6)] == [None] * 5 + [1]


def test_the_pause_doubles_for_whoever_comes_back_and_ends_at_five_minutes() -> None:
    strangers, now_s, pauses = Strangers(5), 100.0, []
    for _ in range(5):
        knock(strangers, now_s)
    for _ in range(12):
        pause_s = knock(strangers, now_s)
        assert pause_s is not None
        pauses.append(pause_s)
        now_s += pause_s  # exactly as long as it was told: then it is looked at
        assert knock(strangers, now_s) is None
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S]


def test_a_knock_during_the_pause_does_not_make_it_longer() -> None:
    strangers = Strangers(1)
    knock(strangers, 0.0)
    assert [knock(strangers, now_s) for now_s in (0.1, 0.5, 0.9)] == [1, 1, 1]
    assert knock(strangers, 1.0) is None


def test_a_slow_trickle_is_never_slowed() -> None:
    strangers = Strangers(20)
    assert {knock(strangers, 3.0 * number) for number in range(200)} == {None}


def test_after_a_quiet_minute_all_is_forgotten() -> None:
    strangers = Strangers(2)
    for now_s in (0.0, 0.0, 1.0):
        knock(strangers, now_s)  # the third doubles the pause: closed until 3
    assert strangers.wait_s(HERE, 1.5) == 2
    later_s = 3.0 + 60.1
    assert [knock(strangers, later_s) for _ in range(3)] == [None, None, 1]


def test_other_addresses_are_not_concerned() -> None:
    strangers = Strangers(1)
    knock(strangers, 0.0)
    assert strangers.wait_s("198.51.100.1", 0.1) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("::ffff:203.0.113.7", HERE, True),
        ("fe80::1%eth0", "fe80::2%eth1", True),
        ("", "", True),
    ],
)
def test_a_network_of_ipv6_is_one_place(one: str, other: str, same: bool) -> None:
    strangers = Strangers(1)
    knock(strangers, 0.0, one)
    assert (strangers.wait_s(other, 0.1) is not None) is same


def test_memory_is_bounded_and_the_latest_is_in_it() -> None:
    strangers = Strangers(1)
    for number in range(MOST_ADDRESSES + 500):
        knock(strangers, 0.0, f"address-{number}")
    assert len(strangers) == MOST_ADDRESSES
    assert strangers.wait_s(f"address-{MOST_ADDRESSES + 499}", 0.1) == 1


def test_nobody_is_slowed_where_it_is_switched_off() -> None:
    strangers = Strangers(0)
    assert {knock(strangers, 0.0) for _ in range(100)} == {None}
    assert len(strangers) == 0
