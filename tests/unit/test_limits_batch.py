"""Which errors of Redis mean "again later" and which "never again"."""

import pytest

from crosslogic.limits.batch import failed_for_good


@pytest.mark.parametrize(
    "error",
    [
        "LOADING Redis is loading the dataset in memory",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR Error running script (call to f_1): -OOM command not allowed when used memory > 'maxmemory'.",
        "READONLY You can't write against a read only replica.",
        "the connection to Redis at 127.0.0.1:6379 was lost",
    ],
)
def test_a_passing_state_is_waited_out(error: str) -> None:
    assert not failed_for_good(error)


def test_a_script_that_fails_is_not_sent_for_ever() -> None:
    assert failed_for_good("ERR Error running script (call to f_1): @user_script:40: Bad data format in input.")
