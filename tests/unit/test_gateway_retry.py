"""When a node may be asked again, and how long to wait before another one is."""

import pytest

from crosslogic.gateway.retry import LONGEST_RETRY_AFTER_S, backoff_s, retry_after_s

NOW_S = 1_445_412_480.0  # Wed, 21 Oct 2015 07:28:00 GMT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"2", 2.0),
        (b" 1.5 ", 1.5),
        (b"0", 0.0),
        (b"-3", 0.0),
        (b"1e9", LONGEST_RETRY_AFTER_S),
        (b"Wed, 21 Oct 2015 07:28:30 GMT", 30.0),
        (b"Wed, 21 Oct 2015 07:27:00 GMT", 0.0),
        (b"", None),
        (b"soon", None),
        (b"nan", None),
        (b"inf", LONGEST_RETRY_AFTER_S),
    ],
)
def test_retry_after_is_a_number_or_a_date(value: bytes, expected: float | None) -> None:
    assert retry_after_s(value, NOW_S) == expected


def test_the_pause_doubles_and_is_drawn_from_its_upper_half() -> None:
    assert backoff_s(0.1, 0, 0.9) == 0.0
    assert [backoff_s(0.1, failed, 0.0) for failed in (1, 2, 3)] == [0.05, 0.1, 0.2]
    assert backoff_s(0.1, 3, 0.999) == pytest.approx(0.4, rel=0.01)
