"""What if: changes, comparisons side by side, Monte Carlo and sensitivity."""

import msgspec
import pytest

from crosslogic.compass.ranking.model import Option
from crosslogic.compass.scenarios.change import Change, changed, what_if
from crosslogic.compass.scenarios.risk import monte_carlo, sensitivities
from crosslogic.compass.specification.model import Slo
from crosslogic.kernel.errors import InvalidRequest
from tests.planner_samples import SPEC as SMALL
from tests.planner_samples import TRAFFIC, planner

SPEC = msgspec.structs.replace(SMALL, traffic=msgspec.structs.replace(TRAFFIC, mean_qps=100.0, peak_qps=200.0))


def best() -> Option:
    option = planner().recommend(SPEC, confirm=0).best
    assert option is not None
    return option


def test_twice_the_traffic_costs_more_and_is_told_line_by_line() -> None:
    compared = what_if(planner(), SPEC, Change(traffic_times=2.0), option=best())
    lines = {line.name: line for line in compared.differences}
    assert lines["cost a month"].difference.startswith("+$")
    assert lines["cost a month"].better is False
    assert lines["capacity"].better is True
    assert lines["model"].difference == ""
    assert compared.after.specification.traffic.peak_qps == 400


@pytest.mark.parametrize(
    "change",
    [
        Change(gpu="h200"),
        Change(quantization="fp8"),
        Change(model="Qwen/Qwen3-8B"),
        Change(prompt_tokens=256),
        Change(prefix_hit_rate=0.5),
        Change(itl_p95_ms=40),
        Change(burstiness_cv=1.0),
    ],
)
def test_other_models_gpus_targets_and_precisions_have_an_outcome(change: Change) -> None:
    compared = what_if(planner(), SPEC, change, option=best())
    assert compared.after.best is not None
    assert compared.differences


def test_a_target_that_cannot_be_is_an_outcome_too() -> None:
    compared = what_if(planner(), SPEC, Change(ttft_p95_ms=1.0), option=best())
    assert compared.after.best is None
    assert compared.differences[0].after == "nothing meets all targets"
    assert compared.differences[0].better is False


def test_changes_to_what_nobody_knows_are_refused() -> None:
    for change in (
        Change(model="x"),
        Change(gpu="abacus"),
        Change(traffic_times=-2),
        Change(prompt_tokens=float("inf")),
    ):
        with pytest.raises(InvalidRequest):
            changed(SPEC, change)


def test_how_likely_the_targets_are_met_is_between_sure_and_hopeless() -> None:
    option = best()
    risk = monte_carlo(planner(), SPEC, option, draws=200)
    assert risk == monte_carlo(planner(), SPEC, option, draws=200)
    assert 0.05 < risk.all_targets <= min(risk.ttft, risk.itl, risk.e2e) < 1
    assert "likely to meet TTFT" in risk.sentence
    assert risk.ttft_p95_ms[0] < risk.ttft_p95_ms[1] < risk.ttft_p95_ms[2]
    easy = msgspec.structs.replace(SPEC, slo=Slo(60_000.0, 2000.0, None))
    assert monte_carlo(planner(), easy, option, draws=200).all_targets > risk.all_targets
    with pytest.raises(InvalidRequest):
        monte_carlo(planner(), SPEC, option, draws=10**9)


def test_sensitivity_says_which_input_the_outcome_hangs_on() -> None:
    found = {each.name: each for each in sensitivities(planner(), SPEC, best())}
    traffic = found["traffic"]
    assert traffic.replicas_low is not None
    assert traffic.replicas_high is not None
    assert traffic.replicas_low < traffic.replicas_high
    assert "ITL target" in found
