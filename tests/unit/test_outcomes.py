"""Outcomes: an hour of virtual traffic on nodes that are not as the catalogue says, learning, shrinkage, drift."""

from datetime import timedelta

import numpy as np
import pytest

from crosslogic.compass.capacity.load import requests
from crosslogic.compass.capacity.step_model import Evidence, StepModel
from crosslogic.compass.capacity.virtual import ReplicaLimits, Samples, simulate
from crosslogic.compass.manifests.model import Expected, PlannedForecast
from crosslogic.compass.outcomes.bias import DRIFT_WINDOWS, after, corrected, factors, learned, prior
from crosslogic.compass.outcomes.expecting import expecting
from crosslogic.compass.outcomes.model import Learned, Observation, checked
from crosslogic.compass.ranking.model import Candidate
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.specification.lengths import Lengths
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest
from tests.planner_samples import LLAMA, SPEC, planner

CANDIDATE = Candidate(LLAMA, "h100_sxm", 1, "fp8")
LIMITS = ReplicaLimits(400_000)
RATE = 5.0
WINDOW_S = 300.0
NOW = ManualClock().now()
EXPECTED = Expected(100.0, 80.0, 125.0)


def hour(true: StepModel) -> list[Observation]:
    """Twelve windows of five minutes on one replica that is as `true` says."""
    load = requests(int(RATE * 3700), Lengths(512, 1000), Lengths(256, 500), cv=2.0, seed=3)
    return windows(simulate(true, LIMITS, load, RATE))


def windows(samples: Samples) -> list[Observation]:
    found = []
    start = float(samples.arrived_s[0])
    while start + WINDOW_S <= samples.arrived_s[-1]:
        here = (samples.arrived_s >= start) & (samples.arrived_s < start + WINDOW_S)
        ttft, itl, e2e = (
            float(np.nanquantile(each[here], 0.95)) * 1e3 for each in (samples.ttft_s, samples.itl_s, samples.e2e_s)
        )
        at = NOW + timedelta(seconds=start)
        found.append(
            Observation(
                start=at,
                end=at + timedelta(seconds=WINDOW_S),
                requests=int(here.sum()),
                replicas=1,
                prompt_tokens=512.0,
                output_tokens=256.0,
                ttft_p95_ms=ttft,
                itl_p95_ms=itl,
                e2e_p95_ms=e2e,
            )
        )
        start += WINDOW_S
    return found


@pytest.mark.parametrize(("itl", "ttft"), [(1.4, 1.6), (0.7, 0.75)])
def test_after_an_hour_of_virtual_traffic_the_forecast_error_halves(itl: float, ttft: float) -> None:
    """The nodes' true coefficients differ from the catalogue's; nobody tells the planner but the outcomes."""
    model = planner().model(CANDIDATE, SPEC)
    bias = prior(model.evidence)
    seen = hour(model.scaled(itl, ttft))
    assert len(seen) >= 9
    before = [expecting(model, LIMITS, each, bias, output_p95=500.0) for each in seen]
    for each in seen:
        bias, _ = after(bias, each, expecting(model, LIMITS, each, bias, output_p95=500.0), model.evidence)
    now = [expecting(model, LIMITS, each, bias, output_p95=500.0) for each in seen]
    for figure in ("itl_p95_ms", "ttft_p95_ms", "e2e_p95_ms"):
        was, became = (
            np.mean([abs(getattr(o, figure) / getattr(f, figure).value - 1) for o, f in zip(seen, those, strict=True)])
            for those in (before, now)
        )
        assert became <= was / 2, (figure, was, became)


def test_the_next_recommendation_uses_what_was_learnt() -> None:
    model = planner().model(CANDIDATE, SPEC)
    bias = prior(model.evidence)
    for each in hour(model.scaled(1.4, 1.4)):
        bias, _ = after(bias, each, expecting(model, LIMITS, each, bias, output_p95=500.0), model.evidence)
    taught = Planner(planner().pool, biases={CANDIDATE.id: factors(bias)})
    assert taught.model(CANDIDATE, SPEC).itl_s(8, 512, 256) > 1.25 * model.itl_s(8, 512, 256)
    plain, wiser = (
        next(o for o in p.recommend(SPEC, confirm=0).options if o.candidate == CANDIDATE) for p in (planner(), taught)
    )
    assert wiser.sizing.rate_per_replica < plain.sizing.rate_per_replica


def test_little_is_learnt_of_what_was_measured_and_much_of_what_was_estimated() -> None:
    moved = [
        learned(prior(each).itl, 130.0, EXPECTED, 400, prior(each).itl.variance).log_factor
        for each in (Evidence.MEASURED, Evidence.CALIBRATED, Evidence.ESTIMATED)
    ]
    assert moved == sorted(moved)
    assert 0 < moved[0] < moved[-1] < np.log(1.3)


def test_windows_of_few_requests_or_without_a_figure_teach_nothing() -> None:
    known = prior(Evidence.ESTIMATED).itl
    assert learned(known, 200.0, EXPECTED, 49, 0.16) == known
    assert learned(known, None, EXPECTED, 500, 0.16) == known


def test_one_accident_moves_the_factor_no_more_than_twice() -> None:
    found = learned(prior(Evidence.ESTIMATED).itl, 1e6, EXPECTED, 10_000, 0.16)
    assert found.log_factor <= np.log(2)


def test_drift_is_raised_in_the_third_window_outside_and_ends_with_one_inside() -> None:
    known = Learned(variance=1e-9)
    counts = []
    for seen in (130.0, 130.0, 130.0, 100.0, 70.0):
        known = learned(known, seen, EXPECTED, 400, 1e-9)
        counts.append(known.outside)
    assert counts == [1, 2, DRIFT_WINDOWS, 0, 1]


def test_a_plans_forecast_is_corrected_with_a_narrower_interval() -> None:
    forecast = PlannedForecast(EXPECTED, EXPECTED, EXPECTED, EXPECTED)
    bias = prior(Evidence.ESTIMATED)
    assert corrected(forecast, bias) == forecast
    seen = Observation(
        start=NOW,
        end=NOW + timedelta(minutes=5),
        requests=1000,
        replicas=1,
        prompt_tokens=1.0,
        output_tokens=1.0,
        itl_p95_ms=130.0,
        cost_per_hour_pusd=3_600_000,
    )
    model = planner().model(CANDIDATE, SPEC)
    told = expecting(model, LIMITS, seen, bias)
    for _ in range(12):
        bias, judged = after(bias, seen, type(told)(EXPECTED, EXPECTED, EXPECTED), Evidence.ESTIMATED)
        break
    assert judged.itl_error == pytest.approx(0.3)
    assert judged.ttft_error is None
    found = corrected(forecast, bias)
    assert found.itl_p95_ms is not None
    assert 120 < found.itl_p95_ms.value < 130
    assert found.ttft_p95_ms == EXPECTED
    assert found.tokens_per_s == EXPECTED
    assert seen.cost_per_million_tokens_pusd == pytest.approx(3_600_000 / (1000 / 300 * 2 * 3600) * 1e6, abs=1)


@pytest.mark.parametrize(
    "fields",
    [{"end": NOW}, {"requests": -1}, {"replicas": 0}, {"prompt_tokens": 0.0}, {"itl_p95_ms": float("nan")}],
)
def test_what_nobody_can_have_seen_is_refused(fields: dict[str, object]) -> None:
    usual = {
        "start": NOW,
        "end": NOW + timedelta(minutes=5),
        "requests": 100,
        "replicas": 1,
        "prompt_tokens": 5.0,
        "output_tokens": 5.0,
    }
    with pytest.raises(InvalidRequest):
        checked(Observation(**{**usual, **fields}))  # type: ignore[arg-type]
