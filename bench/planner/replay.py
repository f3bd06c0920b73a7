"""The Azure conversation trace against what was recommended for it, and measured knees against the scheduler's."""

from __future__ import annotations

import csv
import gzip
from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from random import Random
from time import process_time

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.compass.capacity.load import replayed
from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.rows import MeasuredRow
from crosslogic.compass.capacity.step_model import step_model
from crosslogic.compass.capacity.targets import at_rate, meets
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.scenarios.change import Change, what_if
from crosslogic.compass.specification.lengths import lengths_of
from crosslogic.compass.specification.model import (
    ExperienceClass,
    Slo,
    Specification,
    TrafficProfile,
    UseCase,
    Wishes,
)
from crosslogic.compass.traffic.observed import burstiness, histogram
from crosslogic.simulator.model import EngineConfig
from crosslogic.simulator.sweep import closed_loop

TRACE = Path(__file__).parent.parent / "data" / "azure_2023_conv.csv.gz"
MODEL, GPU, TP = "meta-llama/Llama-3.1-70B-Instruct", "h100_sxm", 4
TARGETS = Slo(ttft_p95_ms=2000.0, itl_p95_ms=50.0, e2e_p95_ms=None)
PEAK_WINDOW_S = 60.0
KNEES = 10  # configurations


@dataclass(frozen=True)
class Replay:
    times: int
    mean_qps: float
    needed: int
    spare: int
    met: bool
    ttft_p95_ms: float
    itl_p95_ms: float
    fewer_met: bool  # with one replica fewer
    least: int  # the smallest number that meets the targets in the replay


@dataclass(frozen=True)
class Knee:
    """One configuration: median relative errors over its sweep, and the knee: how many requests at once double the
    time between tokens of the lightest load (0: none of the loads does).

    A sweep measures few loads, and some of them twice with different results: so the knee lies somewhere between two
    loads, `least` and `most`, and where the curve is flat, errors of the lightest load move it far (`leverage`: by how
    many per cent one per cent does).
    """

    name: str
    rows: int
    throughput_error: float
    itl_error: float
    measured: float
    least: float
    most: float
    leverage: float
    simulated: float

    @property
    def within(self) -> bool:
        """Whether the simulated knee is where the measured one may be."""
        return self.least <= self.simulated <= self.most


def trace() -> list[tuple[float, int, int]]:
    with gzip.open(TRACE, "rt") as file:
        rows = list(csv.DictReader(file))
    instants = [datetime.fromisoformat(row["TIMESTAMP"][:26]) for row in rows]
    begun = instants[0]
    return [
        ((at - begun).total_seconds(), int(row["ContextTokens"]), max(1, int(row["GeneratedTokens"])))
        for at, row in zip(instants, rows, strict=True)
        if int(row["ContextTokens"]) > 0
    ]


def replay(planner: Planner, times: int) -> Replay:
    """Recommend for the trace as many times as fast, then play it to the recommended replicas and to one fewer."""
    rows = [(at / times, prompt, output) for at, prompt, output in trace()]
    spec = specification(rows)
    option = planner.recommend(spec).best
    assert option is not None
    model = planner.model(option.candidate, spec)
    limits = ReplicaLimits(option.sizing.kv_tokens)
    load, rate = replayed(rows)

    def seen_with(count: int) -> tuple[bool, float, float]:
        seen = at_rate(model, limits, load, rate, TARGETS, count)
        return meets(seen, TARGETS), seen.ttft_p95_ms, seen.itl_p95_ms

    needed = option.sizing.needed
    met, ttft, itl = seen_with(needed)
    fewer_met = needed > 1 and seen_with(needed - 1)[0]
    least = needed
    while not seen_with(least)[0] and least < needed + 8:
        least += 1
    while least > 1 and seen_with(least - 1)[0]:
        least -= 1
    return Replay(times, rate, needed, option.sizing.spare, met, ttft, itl, fewer_met, least)


def specification(rows: list[tuple[float, int, int]]) -> Specification:
    """What the planner is told of a trace: lengths as histograms, burstiness, mean and the peak minute."""
    at = [row[0] for row in rows]
    span = at[-1] - at[0]
    windows = np.bincount((np.array(at) // PEAK_WINDOW_S).astype(int))
    traffic = TrafficProfile(
        prompt_tokens=lengths_of(histogram(row[1] for row in rows)),
        output_tokens=lengths_of(histogram(row[2] for row in rows)),
        mean_qps=len(rows) / span,
        peak_qps=float(windows[: max(1, int(span // PEAK_WINDOW_S))].max() / PEAK_WINDOW_S),
        burstiness_cv=burstiness(at),
    )
    wishes = Wishes(preferred_models=(MODEL,), preferred_gpus=(GPU,), tensor_parallel=TP, quantizations=("fp8",))
    return Specification(
        use_case=UseCase.CHATBOT_CONVERSATIONAL,
        experience=ExperienceClass.CONVERSATIONAL,
        traffic=traffic,
        slo=TARGETS,
        wishes=wishes,
    )


def knees(planner: Planner) -> list[Knee]:
    """Closed-loop sweeps in the scheduler beside measured ones, of the configurations with most loads."""
    sweeps: dict[object, list[MeasuredRow]] = defaultdict(list)
    for row in planner.pool.rows:
        if not row.configuration.layout and row.load.output_tokens <= 1024:
            sweeps[(row.configuration, row.load.prompt_tokens, row.load.output_tokens)].append(row)
    ordered = sorted(sweeps.values(), key=lambda rows: (-len({r.load.running for r in rows}), str(rows[0])))
    found, seen = [], set()
    for rows in ordered:
        if rows[0].configuration in seen or len(found) == KNEES:
            continue
        seen.add(rows[0].configuration)
        found.append(_knee(planner, rows))
    return found


def _knee(planner: Planner, rows: list[MeasuredRow]) -> Knee:
    first = rows[0]
    prompt, output = first.load.prompt_tokens, first.load.output_tokens
    mine = set(rows)
    others = Pool([row for row in planner.pool.rows if row not in mine])
    model = step_model(others, first.configuration, prompt, output)
    config = EngineConfig(max_num_seqs=4096, max_num_batched_tokens=8192, kv_blocks=10**7, max_queue=10**5)
    throughput, pairs = [], []
    repeated: dict[float, list[MeasuredRow]] = defaultdict(list)
    for row in rows:
        repeated[row.load.running].append(row)
    for running, same in sorted(repeated.items()):
        clients = round(running)
        seen = closed_loop(
            config,
            model.step_time,
            Random(clients),
            clients=clients,
            input_tokens=round(prompt),
            output_tokens=round(output),
            rounds=1,
        )
        front = float(model.front_s(clients))
        simulated = clients / (seen.ttft_s + front + seen.itl_s * (output - 1))
        itl_s, ttft_s = (float(np.mean([getattr(row, name) for row in same])) for name in ("itl_s", "ttft_s"))
        measured = clients / (ttft_s + itl_s * (output - 1))
        throughput.append(abs(simulated / measured - 1))
        pairs.append((clients, itl_s, seen.itl_s))
    c = first.configuration
    name = f"{c.model.split('/')[-1]} {c.tp}x{c.gpu} {c.precision} {c.backend}, {prompt:.0f}/{output:.0f}"
    loads, measured_s, simulated_s = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    knee = _doubling(loads, measured_s)
    least, most = _bracket([[row.itl_s for row in same] for _, same in sorted(repeated.items())], loads)
    return Knee(
        name,
        len(throughput),
        float(np.median(throughput)),
        float(np.median(np.abs(simulated_s / measured_s - 1))),
        knee,
        least,
        most,
        _leverage(loads, measured_s, knee),
        _doubling(loads, simulated_s),
    )


def _bracket(itls_s: list[list[float]], loads: NDArray[np.float64]) -> tuple[float, float]:
    """The loads between which the doubling lies, by whichever of repeated measurements are taken."""
    lowest, highest = (np.maximum.accumulate([pick(each) for each in itls_s]) for pick in (min, max))
    before = loads[highest < 2 * min(itls_s[0])]
    behind = loads[lowest >= 2 * max(itls_s[0])]
    return float(before[-1]) if len(before) else float(loads[0]), float(behind[0]) if len(behind) else float("inf")


def _leverage(loads: NDArray[np.float64], itl_s: NDArray[np.float64], knee: float) -> float:
    """One over the slope of the curve at the knee, in logarithms."""
    if not knee:
        return 0.0
    at = int(np.clip(np.searchsorted(loads, knee), 1, len(loads) - 1))
    rise = float(np.log(itl_s[at] / itl_s[at - 1]) / np.log(loads[at] / loads[at - 1]))
    return 1 / max(rise, 0.05)


def _doubling(clients: NDArray[np.float64], itl_s: NDArray[np.float64]) -> float:
    """At how many clients the time between tokens is twice that of the fewest, between loads in logarithms."""
    rising = np.maximum.accumulate(itl_s) / itl_s[0]
    return 0.0 if rising[-1] < 2 else float(np.exp(np.interp(np.log(2), np.log(rising), np.log(clients))))


def cost_of_asking(planner: Planner, spec: Specification) -> tuple[float, float, list[float]]:
    """CPU seconds of a recommendation over the catalogue when nothing is cached, again, and of seven what-ifs."""
    wide = msgspec.structs.replace(spec, wishes=Wishes(), slo=Slo(500.0, 40.0, None))
    fresh = Planner(planner.pool, planner.prices)
    begun = process_time()
    fresh.recommend(wide)
    cold = process_time() - begun
    begun = process_time()
    option = fresh.recommend(wide).best
    warm = process_time() - begun
    changes = [
        Change(traffic_times=2.0),
        Change(gpu="h200"),
        Change(quantization="fp8"),
        Change(ttft_p95_ms=800.0),
        Change(prompt_tokens=900.0),
        Change(model="Qwen/Qwen3-8B"),
        Change(burstiness_cv=3.0),
    ]
    spent = []
    for change in changes:
        begun = process_time()
        what_if(fresh, wide, change, option=option)
        spent.append(process_time() - begun)
    return cold, warm, spent
