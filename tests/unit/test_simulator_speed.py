"""The engine against measured serving results: it reproduces their latency curves, and saturates as they do."""

import statistics
from importlib import resources
from pathlib import Path
from random import Random

import pytest

from crosslogic.catalog.models import find_model, load_models
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.simulator.fit import (
    Configuration,
    Row,
    fit,
    held_out_itl_errors,
    non_negative_least_squares,
    read_rows,
    replay,
)
from crosslogic.simulator.model import EngineConfig, StepTime
from crosslogic.simulator.profile import Evidence, find_profile, load_table, packaged_table
from crosslogic.simulator.sweep import closed_loop, open_loop

MEASURED = Path(str(resources.files("crosslogic.simulator").joinpath("data/measured_e2e_silicon.csv.gz")))
# Three models, three GPUs, three engines, dense and mixture of experts.
CURVES = [
    Configuration("meta-llama/Llama-3.1-8B-Instruct", "h100_sxm", "bf16", "trtllm", 1, ""),
    Configuration("meta-llama/Llama-3.1-70B", "h200_sxm", "fp8", "vllm", 2, ""),
    Configuration("openai/gpt-oss-120b", "h100_sxm", "fp4", "vllm", 2, ""),
    Configuration("deepseek-ai/DeepSeek-R1", "h200_sxm", "fp8", "sglang", 8, ""),
    Configuration("Qwen/Qwen3-32B", "h100_sxm", "fp8", "trtllm", 4, ""),
]


@pytest.fixture(scope="module")
def measured() -> dict[Configuration, list[Row]]:
    return read_rows(MEASURED)


def _replayable(rows: list[Row]) -> list[Row]:
    return [row for row in rows if row.output_tokens <= 2048]


def _itl_error(step_time: StepTime, rows: list[Row]) -> float:
    return statistics.median(abs(replay(step_time, row)[1] / row.itl_s - 1) for row in rows)


@pytest.mark.parametrize("configuration", CURVES, ids=lambda c: f"{c.model.split('/')[1]}-{c.gpu}-tp{c.tp}")
def test_a_concurrency_sweep_reproduces_the_measured_itl_curve(
    measured: dict[Configuration, list[Row]], configuration: Configuration
) -> None:
    rows = _replayable(measured[configuration])
    assert len({row.clients for row in rows}) >= 4, "not much of a sweep"
    entry = next(e for e in packaged_table().entries if _key(e) == configuration)
    assert _itl_error(entry.step_time, rows) <= 0.10


@pytest.mark.parametrize("configuration", CURVES, ids=lambda c: f"{c.model.split('/')[1]}-{c.gpu}-tp{c.tp}")
def test_rows_that_the_fit_never_saw_are_predicted_too(
    measured: dict[Configuration, list[Row]], configuration: Configuration
) -> None:
    assert statistics.median(held_out_itl_errors(measured[configuration])) <= 0.10


def test_the_packaged_table_is_what_the_fit_makes_of_the_packaged_rows(
    measured: dict[Configuration, list[Row]],
) -> None:
    configuration = CURVES[0]
    entry = next(e for e in packaged_table().entries if _key(e) == configuration)
    assert fit(configuration, measured[configuration]) == entry


def test_most_configurations_are_reproduced_well() -> None:
    errors = sorted(entry.itl_median_error for entry in packaged_table().entries)
    assert len(errors) >= 100
    assert statistics.median(errors) <= 0.05
    assert errors[int(0.9 * len(errors))] <= 0.11
    assert statistics.median(entry.held_out_itl_median_error for entry in packaged_table().entries) <= 0.06


def test_throughput_has_a_knee_where_the_seats_end() -> None:
    """Below it, twice the clients give nearly twice the answers; above it, only longer queues."""
    profile = find_profile("meta-llama/Llama-3.1-70B", "H200", 2, "fp8")
    config = EngineConfig(max_num_seqs=64, max_num_batched_tokens=8192, kv_blocks=profile.kv_tokens // 16)
    swept = {
        clients: closed_loop(config, profile.step_time, Random(1), clients=clients, input_tokens=512, output_tokens=256)
        for clients in (4, 8, 64, 128, 256)
    }
    assert swept[8].requests_per_s / swept[4].requests_per_s > 1.7
    assert swept[128].requests_per_s / swept[64].requests_per_s < 1.1
    assert swept[256].requests_per_s / swept[128].requests_per_s < 1.05
    assert swept[8].ttft_s < 0.25
    assert swept[256].ttft_s > 10 * swept[64].ttft_s
    assert swept[256].itl_s == pytest.approx(swept[128].itl_s, rel=0.1)


def test_a_small_cache_has_its_knee_earlier_and_preempts() -> None:
    step_time = find_profile("meta-llama/Llama-3.1-8B-Instruct").step_time

    def rate(kv_tokens: int) -> tuple[float, int]:
        config = EngineConfig(max_num_seqs=256, max_num_batched_tokens=8192, kv_blocks=kv_tokens // 16)
        swept = closed_loop(config, step_time, Random(1), clients=64, input_tokens=512, output_tokens=512)
        return swept.requests_per_s, swept.preemptions

    roomy, tight = rate(200_000), rate(16_000)
    assert roomy[1] == 0
    assert tight[1] > 0
    assert tight[0] < 0.6 * roomy[0]


def test_open_load_above_saturation_makes_the_queue_grow_without_end() -> None:
    profile = find_profile("meta-llama/Llama-3.1-8B-Instruct")
    config = EngineConfig(max_num_seqs=32, max_num_batched_tokens=8192, kv_blocks=profile.kv_tokens // 16)

    def late_wait_s(requests_per_s: float) -> float:
        rng = Random(3)
        arrivals, at_s = [], 0.0
        for _ in range(600):
            at_s += rng.expovariate(requests_per_s)
            arrivals.append((at_s, 512, 128))
        done = open_loop(config, profile.step_time, Random(4), arrivals)
        waits = [s.first_token_s - s.submitted_s for s in done[-100:] if s.first_token_s is not None]
        assert len(waits) == 100
        return statistics.mean(waits)

    saturation = closed_loop(
        config, profile.step_time, Random(1), clients=64, input_tokens=512, output_tokens=128
    ).requests_per_s
    assert late_wait_s(0.5 * saturation) < 0.1
    assert late_wait_s(1.5 * saturation) > 20 * late_wait_s(0.5 * saturation)


def test_non_negative_least_squares_finds_the_constrained_optimum() -> None:
    rng = Random(5)
    features = [(1.0, rng.random(), rng.random()) for _ in range(50)]
    exact = [2.0 + 3.0 * f[1] + 0.5 * f[2] for f in features]
    assert non_negative_least_squares(features, exact) == pytest.approx([2.0, 3.0, 0.5])
    # With a negative slope the best non-negative answer leaves that term out.
    falling = [2.0 - 3.0 * f[1] for f in features]
    solved = non_negative_least_squares(features, falling)
    assert solved[1] == 0.0
    assert min(solved) >= 0.0


def test_configurations_nobody_measured_are_estimated_and_say_so() -> None:
    measured = find_profile("meta-llama/Llama-3.1-8B-Instruct", "H100")
    assert measured.evidence is Evidence.CALIBRATED
    assert "measured trtllm rows" in measured.basis
    estimated = find_profile("Qwen/Qwen2.5-7B-Instruct", "NVIDIA-L4")
    assert estimated.evidence is Evidence.ESTIMATED
    assert "scaled from" in estimated.basis
    # 15 GB of weights at 300 GB/s cannot be read in less than 50 ms.
    assert 0.05 < estimated.step_time.a_s < 0.1
    unknown = find_profile("acme/brand-new-model")
    assert unknown.evidence is Evidence.ESTIMATED
    assert "not in the catalogue" in unknown.basis


def test_every_model_of_the_catalogue_runs_somewhere() -> None:
    for model in load_models():
        profile = find_profile(model, "H200", 8)
        assert 0 < profile.step_time.a_s < 0.1
        assert 1024 <= profile.context_window <= profile.kv_tokens
        info = find_model(model)
        assert info is not None
        assert profile.context_window <= info.context_window


def test_more_gpus_never_make_an_estimate_slower() -> None:
    for gpu in ("L4", "A100", "H100"):
        steps = [find_profile("Qwen/Qwen2.5-7B-Instruct", gpu, tp).step_time for tp in (1, 2)]
        assert steps[1].duration_s(32, 32_000, 512) < steps[0].duration_s(32, 32_000, 512)


@pytest.mark.parametrize(
    ("model", "gpu", "tp", "says"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "L4", 1, "does not fit"),
        ("meta-llama/Llama-3.1-8B-Instruct", "abacus", 1, "is not known; choose one of"),
        ("meta-llama/Llama-3.1-8B-Instruct", "H100", 0, "at least 1"),
    ],
)
def test_what_cannot_be_simulated_says_what_to_do(model: str, gpu: str, tp: int, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        find_profile(model, gpu, tp)


def test_own_benchmarks_may_be_rows_or_a_table(tmp_path: Path) -> None:
    columns = "model_path,system,precision,gemm_quant_mode,backend,mode,isl,osl,concurrency,tp_size,pp_size"
    columns += ",attention_dp_size,moe_ep_size,ttft_ms,tpot_ms"
    lines = [
        f"acme/own,l4,bf16,,vllm,agg,{isl},128,{n},1,1,1,1,{60 + isl / 10},{30 + n / 2}"
        for n in (1, 2, 4, 8, 16)
        for isl in (256, 1024)
    ]
    rows = tmp_path / "own.csv"
    rows.write_text("\n".join([columns, *lines]) + "\n")
    profile = find_profile("acme/own", "L4", table=load_table(rows))
    assert profile.evidence is Evidence.CALIBRATED
    assert profile.step_time.a_s == pytest.approx(0.030, rel=0.1)
    for name, content in (("broken.json", "{"), ("empty.csv", columns + "\n")):
        bad = tmp_path / name
        bad.write_text(content)
        with pytest.raises(ConfigurationError, match="BENCHMARKS_PATH"):
            load_table(bad)
    with pytest.raises(ConfigurationError, match="BENCHMARKS_PATH"):
        load_table(tmp_path / "absent.csv")


def _key(entry: object) -> Configuration:
    return Configuration(*(getattr(entry, name) for name in Configuration.__struct_fields__))
