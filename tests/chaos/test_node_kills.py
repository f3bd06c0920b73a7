"""Nodes are killed, stopped, taken away and drained under load, and every caller gets its whole answer all the same.

Short runs of `python -m bench.chaos`; what longer runs found is in docs/reliability.md.
"""

import pytest
from bench.chaos.__main__ import run

pytestmark = pytest.mark.chaos


def test_no_answer_suffers_from_the_death_of_its_node(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(kills=6, stops=2, nodes=4, callers=6, seed=3)
    printed = capsys.readouterr()
    assert code == 0, printed.err + printed.out
    assert 'way="continued"' in printed.out, printed.out


def test_no_stream_is_lost_where_the_end_of_a_node_is_announced(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(notices=2, drains=2, nodes=3, callers=6, seed=3)
    printed = capsys.readouterr()
    assert code == 0, printed.err + printed.out
    assert "| notice | 2 in" in printed.out, printed.out
    assert "| drain | 2 in" in printed.out, printed.out
