"""How fast a model runs on a GPU and how much KV cache it leaves: calibrated where rows were measured, else estimated.

Invariant: a figure that was not fitted to measured rows of this very configuration is labelled `estimated`, with
how it was come by; nothing here is ever called measured. The packaged table is made by `fit.py`.
"""

from __future__ import annotations

import math
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path

import msgspec

from crosslogic.catalog.gpus import GpuType, find_gpu, load_gpus
from crosslogic.catalog.models import ModelInfo, find_model
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.simulator.fit import Entry, Table, fit_all
from crosslogic.simulator.model import StepTime

REFERENCE_MODEL = "meta-llama/Llama-3.1-8B-Instruct"  # stands in for models nobody knows
DEFAULT_GPU = "h100_sxm"
BANDWIDTH_EFFICIENCY = 0.8  # planner notes §4: share of the peak that reading weights reaches
MEMORY_UTILIZATION = 0.9  # vLLM's default gpu_memory_utilization
ACTIVATION_BYTES = 1.9e9
RUNTIME_BYTES = {1: 0.25e9}  # outside torch; with tensor parallelism about 2.1 GB (planner notes §4)
RUNTIME_BYTES_PARALLEL = 2.1e9
BYTES_PER_PARAMETER = {"bf16": 2.0, "fp8": 1.0, "int8": 1.0, "fp4": 0.5, "int4": 0.5}
_BACKENDS = ("vllm", "sglang", "trtllm")  # we simulate vLLM: its rows first


class Evidence(StrEnum):
    """Where a figure comes from; `measured` is reserved for the rows themselves."""

    CALIBRATED = "calibrated"
    ESTIMATED = "estimated"


class Profile(msgspec.Struct, frozen=True):
    """All that the engine needs to know of one deployment."""

    model: str
    gpu: str
    tp: int
    precision: str
    step_time: StepTime
    front_s: float  # from request to queue: HTTP, tokenizer
    front_s_per_token: float
    kv_tokens: int
    context_window: int
    evidence: Evidence
    basis: str  # one sentence: from what these figures follow


@cache
def packaged_table() -> Table:
    """The fitted configurations that come with the product."""
    data = resources.files("crosslogic.simulator").joinpath("data/step_times.json").read_bytes()
    return msgspec.json.decode(data, type=Table)


def load_table(path: Path) -> Table:
    """A table of one's own: a JSON file as `fit.py` writes it, or measured rows as CSV, which are fitted now.

    Raises ConfigurationError when the file cannot be used.
    """
    try:
        table = msgspec.json.decode(path.read_bytes(), type=Table) if path.suffix == ".json" else fit_all(path)
    except (OSError, EOFError, KeyError, ValueError, msgspec.MsgspecError) as error:
        raise ConfigurationError(
            f"BENCHMARKS_PATH: {path} cannot be used ({error}); give a table written by crosslogic.simulator.fit, "
            "or a CSV file of measured rows"
        ) from None
    if not table.entries:
        raise ConfigurationError(f"BENCHMARKS_PATH: {path} holds no configuration with enough rows")
    return table


def find_profile(
    model: str, gpu: str = DEFAULT_GPU, tp: int = 1, precision: str | None = None, table: Table | None = None
) -> Profile:
    """The profile of a deployment. Raises ConfigurationError for an unknown GPU, or when the model does not fit."""
    device = find_gpu(gpu)
    if device is None:
        names = ", ".join(sorted(g.aliases[0] for g in load_gpus().values()))
        raise ConfigurationError(f"GPU_TYPE {gpu!r} is not known; choose one of {names}")
    if tp < 1:
        raise ConfigurationError("TENSOR_PARALLEL_SIZE must be at least 1")
    info = find_model(model) or find_model(REFERENCE_MODEL)
    assert info is not None
    entries = (table or packaged_table()).entries
    fitted = [
        e for e in entries if e.model.lower() == model.lower() and e.gpu == device.id and e.tp == tp and not e.layout
    ]
    if precision is not None:
        fitted = [e for e in fitted if e.precision == precision]
    if fitted:
        entry = min(fitted, key=lambda e: (_BACKENDS.index(e.backend) if e.backend in _BACKENDS else 9, -e.rows))
        basis = (
            f"fitted to {entry.rows} measured {entry.backend} rows of this configuration "
            f"(replay: median ITL error {entry.itl_median_error:.1%})"
        )
        return _profile(info, model, device, entry, entry.step_time, tp, entry.precision, Evidence.CALIBRATED, basis)
    precision = precision or ("fp8" if "fp8" in model.lower() else "bf16")
    reference = _nearest(entries, info, device, tp)
    known = "" if find_model(model) else f"{model} is not in the catalogue and taken for {info.id}; "
    basis = (
        f"{known}scaled from {reference.model} on {reference.tp}x {reference.gpu} ({reference.backend}) by weights, "
        "KV bytes, bandwidth and arithmetic"
    )
    scaled = _scale(reference, info, device, tp, precision)
    return _profile(info, model, device, reference, scaled, tp, precision, Evidence.ESTIMATED, basis)


def kv_tokens(info: ModelInfo, gpu: GpuType, tp: int, precision: str) -> int:
    """Tokens of KV cache that fit beside the weights (planner notes §4); negative when even those do not fit."""
    weights = info.parameters * BYTES_PER_PARAMETER.get(precision, 2.0) / tp
    runtime = RUNTIME_BYTES.get(tp, RUNTIME_BYTES_PARALLEL)
    room = MEMORY_UTILIZATION * gpu.memory_gb * 1e9 - weights - ACTIVATION_BYTES - runtime
    return int(tp * room / info.kv_bytes_per_token)


def _profile(
    info: ModelInfo,
    model: str,
    gpu: GpuType,
    entry: Entry,
    step_time: StepTime,
    tp: int,
    precision: str,
    evidence: Evidence,
    basis: str,
) -> Profile:
    capacity = kv_tokens(info, gpu, tp, precision)
    if evidence is Evidence.CALIBRATED:
        # It did run, with layouts and caches that the formula does not know; never less than a short context.
        capacity = max(capacity, 65_536)
    if capacity < 1024:
        raise ConfigurationError(
            f"{model} does not fit into {tp}x {gpu.aliases[0]}; raise TENSOR_PARALLEL_SIZE or choose a larger GPU"
        )
    return Profile(
        model=model,
        gpu=gpu.id,
        tp=tp,
        precision=precision,
        step_time=step_time,
        front_s=entry.front_s,
        front_s_per_token=entry.front_s_per_token,
        kv_tokens=capacity,
        context_window=min(info.context_window, capacity),
        evidence=evidence,
        basis=basis,
    )


def _nearest(entries: list[Entry], info: ModelInfo, gpu: GpuType, tp: int) -> Entry:
    """The fitted plain configuration that needs the least scaling."""

    def distance(entry: Entry) -> float:
        other, device = find_model(entry.model), find_gpu(entry.gpu)
        if other is None or device is None:
            return math.inf
        work = abs(math.log(info.active_parameters / other.active_parameters))
        # A mixture of experts behaves unlike a dense model of the same active size.
        sparsity = abs(math.log(info.parameters / info.active_parameters * other.active_parameters / other.parameters))
        hardware = abs(math.log(gpu.bandwidth_gb_per_s / device.bandwidth_gb_per_s))
        return work + sparsity + hardware + abs(math.log(tp / entry.tp)) + 0.2 * (entry.backend != "vllm")

    return min((e for e in entries if not e.layout), key=distance, default=entries[0])


def _scale(entry: Entry, info: ModelInfo, gpu: GpuType, tp: int, precision: str) -> StepTime:
    """Carry a fitted step time over to another model or GPU.

    a: the part above the time to read the weights is launch overhead and stays; the reading scales. b and d are
    arithmetic on the active weights; c is reading the KV cache.
    """
    other, device = find_model(entry.model), find_gpu(entry.gpu)
    if other is None or device is None:
        return entry.step_time
    overhead_s = max(0.0, entry.a_s - _weight_read_s(other, device, entry.tp, entry.precision))
    arithmetic = (info.active_parameters / (gpu.bf16_tflops * tp)) / (
        other.active_parameters / (device.bf16_tflops * entry.tp)
    )
    reading = (info.kv_bytes_per_token / (gpu.bandwidth_gb_per_s * tp)) / (
        other.kv_bytes_per_token / (device.bandwidth_gb_per_s * entry.tp)
    )
    return StepTime(
        a_s=overhead_s + _weight_read_s(info, gpu, tp, precision),
        b_s=entry.b_s * arithmetic,
        c_s=entry.c_s * reading,
        d_s=entry.d_s * arithmetic,
    )


def _weight_read_s(info: ModelInfo, gpu: GpuType, tp: int, precision: str) -> float:
    size = info.active_parameters * BYTES_PER_PARAMETER.get(precision, 2.0)
    return size / (tp * gpu.bandwidth_gb_per_s * 1e9 * BANDWIDTH_EFFICIENCY)
