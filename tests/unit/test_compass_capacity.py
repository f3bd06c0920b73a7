"""How much a replica carries: memory, step time, queueing, the scheduler in virtual time, and the surface."""

from itertools import pairwise

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.capacity.load import Gaps, replayed, requests, thinned_cv
from crosslogic.compass.capacity.memory import MemoryFit, engine_memory, memory_fit
from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.queueing import greatest_rate
from crosslogic.compass.capacity.rows import Load, packaged_rows
from crosslogic.compass.capacity.step_model import Evidence, StepModel, never_falling, step_model
from crosslogic.compass.capacity.surface import Traffic, at_rate, curve, rate_within
from crosslogic.compass.capacity.targets import at_rate as observed_at
from crosslogic.compass.capacity.targets import meets
from crosslogic.compass.capacity.virtual import ReplicaLimits, observe, simulate
from crosslogic.compass.specification.lengths import Lengths, fixed
from crosslogic.compass.specification.model import Slo
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator.fit import Configuration
from crosslogic.simulator.model import StepTime
from tests.planner_samples import LLAMA, planner

LIMITS = ReplicaLimits(kv_tokens=400_000)
MODEL = StepModel(
    StepTime(6e-3, 4e-5, 1.5e-8, 2e-5), ((0, 0.03), (1000, 0.13)), Evidence.CALIBRATED, 0.1, 0.3, "a test's own"
)
SHORT, LONG = Lengths(256, 600), Lengths(512, 1200)


def llama_on(gpu: str, tp: int = 1, precision: str = "bf16") -> MemoryFit:
    return fit_of(LLAMA, gpu, tp, precision)


def fit_of(model: str, gpu: str, tp: int = 1, precision: str = "bf16", tokens: float = 1000) -> MemoryFit:
    card, device = find_card(model), find_gpu(gpu)
    assert card is not None
    assert device is not None
    return memory_fit(card, device, tp, precision, sequence_tokens=tokens, longest_tokens=8192)


def test_the_cache_beside_llama_8b_on_an_h100_is_what_vllm_reports() -> None:
    card, device = find_card(LLAMA), find_gpu("h100_sxm")
    assert card is not None
    assert device is not None
    fit = memory_fit(card, device, 1, "bf16", sequence_tokens=1000, longest_tokens=8192, utilization=0.95)
    assert fit.kv_tokens == pytest.approx(476_016, rel=0.015)  # planner notes §4: vLLM 0.19


def test_what_does_not_fit_is_said_with_numbers() -> None:
    assert llama_on("h100_sxm").fits
    assert not fit_of("meta-llama/Llama-3.3-70B-Instruct", "h100_sxm").fits
    assert "exceed" in fit_of("meta-llama/Llama-3.3-70B-Instruct", "h100_sxm").why
    assert fit_of("meta-llama/Llama-3.3-70B-Instruct", "h100_sxm", 4).fits
    assert "attention heads cannot be split" in llama_on("h100_sxm", 3).why
    assert not llama_on("t4").fits


def test_latent_caches_are_on_every_gpu_and_windows_keep_less() -> None:
    short, long = (fit_of("google/gemma-3-27b-it", "h100_sxm", tokens=tokens) for tokens in (500, 20_000))
    assert long.kv_tokens > 2 * short.kv_tokens
    gpu = find_gpu("b200_sxm")
    deepseek = find_card("deepseek-ai/DeepSeek-V3")
    assert gpu is not None
    assert deepseek is not None
    fit = memory_fit(deepseek, gpu, 8, "fp8", sequence_tokens=1000, longest_tokens=8192)
    assert fit.kv_tokens == pytest.approx(fit.kv_gib * 2**30 / deepseek.kv_bytes_per_token(), rel=0.01)


def test_what_an_engine_takes_for_itself_depends_on_its_version() -> None:
    assert engine_memory("0.6.3").batched_tokens == 2048
    assert engine_memory("0.24.1") == engine_memory(None) == engine_memory("nightly")


def test_the_greatest_rate_is_that_of_all_places_at_once() -> None:
    """100 tokens of 10 ms each: a request a second from one place, and the step takes as long however many share it."""
    model = msgspec.structs.replace(MODEL, step_time=StepTime(0.01, 0.0, 0.0, 0.0))
    assert greatest_rate(model, 1, 1, 100) == pytest.approx(1.0)
    assert greatest_rate(model, 32, 1, 100) == pytest.approx(32.0)


def test_arrivals_have_the_mean_rate_and_the_burstiness_that_was_asked_for() -> None:
    for gaps in Gaps:
        for cv in (0.0, 1.0, 2.5):
            load = requests(20_000, fixed(10), fixed(10), cv=cv, gaps=gaps)
            between = np.diff(load.at)
            assert between.mean() == pytest.approx(1, rel=0.02)
            assert between.std() == pytest.approx(cv, abs=0.2)
    lengths = requests(4000, LONG, SHORT)
    assert np.quantile(lengths.prompt, 0.95) == pytest.approx(1200, rel=0.05)
    assert thinned_cv(3.0, 8) == pytest.approx(2**0.5)
    with pytest.raises(InvalidRequest):
        requests(10, LONG, SHORT, cv=float("nan"))
    with pytest.raises(InvalidRequest):
        replayed([(0.0, 1, 1), (0.0, 1, 1)])


@pytest.mark.parametrize("rate", [4.0, 12.0])
def test_littles_law_holds_within_a_percent(rate: float) -> None:
    """Counted over time from arrivals and departures, against the rate times the time in the system."""
    load = requests(6000, LONG, SHORT, cv=2)
    samples = simulate(msgspec.structs.replace(MODEL, front=()), LIMITS, load, rate)
    arrived = samples.arrived_s
    mean_rate = (len(arrived) - 1) / (arrived[-1] - arrived[0])
    assert samples.mean_running == pytest.approx(mean_rate * samples.e2e_s.mean(), rel=0.01)


def test_more_replicas_are_never_worse_and_more_load_is_never_better() -> None:
    load = requests(2400, LONG, SHORT, cv=2)
    by_replicas = [observe(simulate(MODEL, LIMITS, load, 40.0, count)) for count in (2, 3, 4, 6)]
    for fewer, more in pairwise(by_replicas):
        assert more.ttft_p95_ms <= fewer.ttft_p95_ms
        assert more.itl_p95_ms <= fewer.itl_p95_ms
        assert more.e2e_p95_ms <= fewer.e2e_p95_ms
    by_rate = [observe(simulate(MODEL, LIMITS, load, rate)).e2e_p95_ms for rate in (1, 5, 10, 15)]
    assert by_rate == sorted(by_rate)


def test_targets_are_met_up_to_a_rate_and_missed_by_one_alone_or_when_a_request_is_refused() -> None:
    slo = Slo(200.0, 12.0, 7000.0, e2e_output_tokens=256)
    load = requests(2400, LONG, SHORT, cv=2)
    kept = [meets(observed_at(MODEL, LIMITS, load, rate, slo), slo) for rate in (1.0, 2.0, 4.0, 8.0, 16.0)]
    assert kept[0]
    assert not kept[-1]
    assert kept == sorted(kept, reverse=True)
    lone = observed_at(MODEL, LIMITS, load, 1.0, slo)
    assert not meets(lone, Slo(1.0, None, None))
    assert not meets(lone, Slo(None, 1.0, None))
    assert not meets(lone, Slo(None, None, 1.0))
    assert not meets(msgspec.structs.replace(lone, refused=1), slo)


@pytest.mark.parametrize("cv", [1.0, 2.5])
def test_the_surface_says_what_the_scheduler_finds(cv: float) -> None:
    load = requests(2400, LONG, SHORT, cv=cv, seed=3)
    traffic = Traffic(512, 512, 256, 600, cv)
    line = curve(MODEL, LIMITS, traffic)
    for loaded in (0.2, 0.4, 0.6):
        rate = float(line.rates[-1]) * loaded
        seen = observe(simulate(MODEL, LIMITS, load, rate))
        assert at_rate(line.itl_p95, line, rate) * 1e3 == pytest.approx(seen.itl_p95_ms, rel=0.2)
        assert at_rate(line.ttft_p95, line, rate) * 1e3 == pytest.approx(seen.ttft_p95_ms, rel=0.2)
    largest = rate_within(line.itl_p95, line, 0.012)
    assert observe(simulate(MODEL, LIMITS, load, largest * 0.8)).itl_p95_ms <= 12.0
    assert observe(simulate(MODEL, LIMITS, load, largest * 1.25)).itl_p95_ms > 12.0


@pytest.mark.parametrize("gpu", ["h100_sxm", "a100_80"])
def test_tensor_parallelism_never_makes_a_jump(gpu: str) -> None:
    """The benchmark file of a simulator elsewhere has 38 times from 1 to 4 GPUs (planner notes §1)."""
    rates = []
    for tp in (1, 2, 4, 8):
        model = step_model(planner().pool, Configuration(LLAMA, gpu, "bf16", "vllm", tp, ""), 512, 256)
        limits = ReplicaLimits(llama_on(gpu, tp).kv_tokens)
        line = curve(model, limits, Traffic(512, 512, 256, 600, 2.0))
        rates.append(rate_within(line.itl_p95, line, 0.03))
    for one, twice in pairwise(rates):
        assert 0.8 < twice / one < 3.5


def test_a_configuration_with_rows_is_drawn_to_them_and_one_without_is_less_sure() -> None:
    pool = planner().pool
    rows = [row for row in pool.rows if row.configuration.model == LLAMA and row.configuration.tp == 1]
    configuration = rows[0].configuration
    known = pool.predict(configuration, [row.load for row in rows if row.configuration == configuration])
    measured = [row.itl_s for row in rows if row.configuration == configuration]
    errors = [abs(each.itl_s / itl - 1) for each, itl in zip(known, measured, strict=True)]
    assert np.median(errors) < 0.05
    unknown = Configuration("google/gemma-2-27b-it", "l40s", "bf16", "vllm", 2, "")
    load = [Load(8, 512, 256)]
    assert pool.predict(unknown, load)[0].itl_deviation > 1.5 * pool.predict(configuration, load)[0].itl_deviation
    assert step_model(pool, configuration, 1024, 256).evidence is Evidence.CALIBRATED
    assert step_model(pool, unknown, 1024, 256).evidence is Evidence.ESTIMATED


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0.1, 10)), min_size=1, max_size=12))
def test_a_course_that_never_falls_is_as_near_as_it_can_be(course: list[tuple[float, float]]) -> None:
    values, weights = ([each[place] for each in course] for place in (0, 1))
    found = never_falling(values, weights)
    assert all(one <= other for one, other in pairwise(found))
    assert np.average(found, weights=weights) == pytest.approx(np.average(values, weights=weights), abs=1e-9)
    rising = sorted(values)
    assert never_falling(rising, weights) == rising

    def apart(of: list[float]) -> float:
        return float(np.dot(weights, np.square(np.subtract(of, values))))

    assert apart(found) <= apart(list(np.maximum.accumulate(values))) + 1e-9


def test_a_load_that_nobody_measured_does_not_lift_those_that_were() -> None:
    """Light loads are measured from 4 requests at once on; what is said of 1 and 2 lies above that of 4 here."""
    configuration = Configuration("deepseek-ai/DeepSeek-R1", "b200_sxm", "fp8", "sglang", 8, "")
    pool = planner().pool
    model = step_model(pool, configuration, 1024, 1024)
    for running in (4, 8, 16, 64):
        said = pool.predict(configuration, [Load(running, 1024, 1024)])[0]
        assert abs(np.log(model.itl_s(running, 1024, 1024) / said.itl_s)) < 0.15


def test_no_row_is_said_twice_and_what_nobody_knows_is_refused() -> None:
    assert len(set(packaged_rows())) == len(packaged_rows()) > 2000
    with pytest.raises(InvalidRequest):
        Pool(())
    with pytest.raises(InvalidRequest):
        planner().pool.predict(Configuration("nobody/knows", "h100_sxm", "bf16", "vllm", 1, ""), [Load(1, 1, 1)])
