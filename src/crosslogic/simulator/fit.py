"""Fits the engine's step time to measured serving results, and says how well it reproduces them.

Per configuration (model, GPU, precision, backend, layout) the closed-loop identity of the planner notes §4,
ITL = a + b·n + c·n·(isl + osl/2) + d·n·isl/osl, gives four non-negative coefficients by least squares of relative
errors; first-token times join with a small weight, since they alone tell prefill apart where prompts have one
length. What remains of the first-token time after replaying the row in the engine is spent outside the batching
loop (HTTP, tokenizer, client) and becomes the front time. Errors are those of the replay, not of the identity.

`python -m crosslogic.simulator.fit ROWS.csv.gz OUT.json` writes the packaged table anew.
"""

from __future__ import annotations

import csv
import gzip
import itertools
import re
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random

import msgspec

from crosslogic.simulator.model import EngineConfig, StepTime
from crosslogic.simulator.sweep import closed_loop

FIRST_TOKEN_WEIGHT = 0.1
MAX_FIRST_TOKEN_MS = 8000.0  # rows above are unstable, says the source's note
MIN_ROWS = 8
FOLDS = 5
MAX_REPLAY_OUTPUT = 2048  # longer answers are fitted, but not replayed: they say little about first tokens
SOURCE = (
    "Fitted by crosslogic.simulator.fit to measured_e2e_silicon.csv.gz, a subset of ai-dynamo/aiconfigurator "
    "(commit 095f58a51c4ca8e61b66ec108d86f223f8d559ce, silicon_sample.csv), aggregated mode, ttft_ms < 8000. "
    "The rows are measured; these coefficients are calibrated to them."
)
_NAMED_LAYOUT = re.compile(r"tp(?P<tp>\d+)(?:_0)?_ep(?P<ep>\d+)")
LICENCE = "Apache-2.0 (the measured rows: NVIDIA; most of them from InferenceX by SemiAnalysis)"


class Configuration(msgspec.Struct, frozen=True, order=True):
    """What a set of measured rows has in common."""

    model: str
    gpu: str
    precision: str
    backend: str
    tp: int
    layout: str  # empty for plain tensor parallelism


class Row(msgspec.Struct, frozen=True):
    """One measurement: closed loop of so many clients, mean times in seconds."""

    clients: int
    input_tokens: int
    output_tokens: int
    ttft_s: float
    itl_s: float


class Entry(msgspec.Struct, frozen=True):
    """One configuration of the packaged table, with the replay's median relative errors."""

    model: str
    gpu: str
    precision: str
    backend: str
    tp: int
    layout: str
    a_s: float
    b_s: float
    c_s: float
    d_s: float
    front_s: float
    front_s_per_token: float
    rows: int
    itl_median_error: float
    ttft_median_error: float
    held_out_itl_median_error: float  # over rows that the fit did not see, in FOLDS-fold cross-validation

    @property
    def step_time(self) -> StepTime:
        return StepTime(self.a_s, self.b_s, self.c_s, self.d_s)


class Table(msgspec.Struct, frozen=True):
    source: str
    licence: str
    entries: list[Entry]


def read_rows(path: Path) -> dict[Configuration, list[Row]]:
    """The usable rows of a CSV file (gzipped or not) with the columns of the packaged one, by configuration."""
    groups: dict[Configuration, list[Row]] = defaultdict(list)
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        for line in csv.DictReader(file):
            if line["mode"] != "agg" or not line["concurrency"] or not line["tpot_ms"] or not line["ttft_ms"]:
                continue
            if float(line["ttft_ms"]) >= MAX_FIRST_TOKEN_MS or int(line["osl"]) < 2:
                continue
            groups[_configuration(line)].append(
                Row(
                    int(float(line["concurrency"])),
                    int(line["isl"]),
                    int(line["osl"]),
                    float(line["ttft_ms"]) / 1e3,
                    float(line["tpot_ms"]) / 1e3,
                )
            )
    return groups


def fit_step_time(rows: Iterable[Row]) -> StepTime:
    """The four coefficients that reproduce these rows best under the closed-loop identity."""
    features: list[tuple[float, ...]] = []
    targets: list[float] = []
    for row in rows:
        n, isl, osl = row.clients, row.input_tokens, row.output_tokens
        kv = n * (isl + osl / 2)
        features.append(tuple(f / row.itl_s for f in (1.0, n, kv, n * isl / osl)))
        targets.append(1.0)
        # A prompt waits for half of the step under way, shares its own, and meets others' prefill on the way.
        first = (1.5, 1.5 * n, 1.5 * kv, isl + 0.5 * n * isl * isl / (osl * (isl + osl)))
        features.append(tuple(FIRST_TOKEN_WEIGHT * f / row.ttft_s for f in first))
        targets.append(FIRST_TOKEN_WEIGHT)
    a_s, b_s, c_s, d_s = non_negative_least_squares(features, targets)
    return StepTime(a_s, b_s, c_s, d_s)


def fit(configuration: Configuration, rows: list[Row]) -> Entry:
    """Fit one configuration and replay its rows."""
    step_time = fit_step_time(rows)
    replayed = [(row, *replay(step_time, row)) for row in rows if row.output_tokens <= MAX_REPLAY_OUTPUT]
    shares = [(1 / r.ttft_s, r.input_tokens / r.ttft_s) for r, _, _ in replayed]
    missing = [1 - ttft_s / r.ttft_s for r, ttft_s, _ in replayed]
    front_s, front_s_per_token = non_negative_least_squares(shares, missing)
    itl_errors = [abs(itl_s / r.itl_s - 1) for r, _, itl_s in replayed]
    ttft_errors = [
        abs((ttft_s + front_s + front_s_per_token * r.input_tokens) / r.ttft_s - 1) for r, ttft_s, _ in replayed
    ]
    figures = (step_time.a_s, step_time.b_s, step_time.c_s, step_time.d_s, front_s, front_s_per_token)
    a_s, b_s, c_s, d_s, front_s, front_s_per_token = (float(f"{figure:.4g}") for figure in figures)
    return Entry(
        **msgspec.structs.asdict(configuration),
        a_s=a_s,
        b_s=b_s,
        c_s=c_s,
        d_s=d_s,
        front_s=front_s,
        front_s_per_token=front_s_per_token,
        rows=len(rows),
        itl_median_error=round(statistics.median(itl_errors), 4),
        ttft_median_error=round(statistics.median(ttft_errors), 4),
        held_out_itl_median_error=round(statistics.median(held_out_itl_errors(rows)), 4),
    )


def held_out_itl_errors(rows: list[Row]) -> list[float]:
    """Relative ITL error of every replayable row, replayed with a fit to the other folds."""
    shuffled = list(rows)
    Random(0).shuffle(shuffled)
    errors = []
    for fold in range(FOLDS):
        held_out = shuffled[fold::FOLDS]
        step_time = fit_step_time(row for i, row in enumerate(shuffled) if i % FOLDS != fold)
        for row in held_out:
            if row.output_tokens <= MAX_REPLAY_OUTPUT:
                errors.append(abs(replay(step_time, row)[1] / row.itl_s - 1))
    return errors


def replay(step_time: StepTime, row: Row) -> tuple[float, float]:
    """First-token time without the front, and time between tokens, of the engine under the row's load."""
    config = EngineConfig(max_num_seqs=4096, max_num_batched_tokens=8192, kv_blocks=10**7, max_queue=10**5)
    measured = closed_loop(
        config,
        step_time,
        Random(row.clients),
        clients=row.clients,
        input_tokens=row.input_tokens,
        output_tokens=row.output_tokens,
        rounds=2,
    )
    return measured.ttft_s, measured.itl_s


def fit_all(path: Path) -> Table:
    """Fit every configuration with at least MIN_ROWS replayable rows at two or more loads."""
    entries = []
    for configuration, rows in sorted(read_rows(path).items()):
        usable = [row for row in rows if row.output_tokens <= MAX_REPLAY_OUTPUT]
        if len(usable) >= MIN_ROWS and len({row.clients for row in usable}) > 1:
            entries.append(fit(configuration, rows))
    return Table(SOURCE, LICENCE, entries)


def non_negative_least_squares(features: Sequence[tuple[float, ...]], targets: list[float]) -> list[float]:
    """min |Ax − y| with x ≥ 0, exactly: with so few unknowns every set of positive ones can be tried."""
    size = len(features[0])
    gram = [[sum(f[i] * f[j] for f in features) for j in range(size)] for i in range(size)]
    moment = [sum(f[i] * y for f, y in zip(features, targets, strict=True)) for i in range(size)]
    best, best_gain = [0.0] * size, 0.0
    for count in range(1, size + 1):
        for chosen in itertools.combinations(range(size), count):
            solved = _solve([[gram[i][j] for j in chosen] for i in chosen], [moment[i] for i in chosen])
            if solved is None or min(solved) < 0:
                continue
            # At a stationary point of the subset the squared error falls by xᵀAᵀy.
            gain = sum(x * moment[i] for x, i in zip(solved, chosen, strict=True))
            if gain > best_gain:
                best_gain = gain
                best = [0.0] * size
                for x, i in zip(solved, chosen, strict=True):
                    best[i] = x
    return best


def _solve(matrix: list[list[float]], right: list[float]) -> list[float] | None:
    """Gaussian elimination after scaling to a unit diagonal; None when the unknowns cannot be told apart."""
    size = len(right)
    scale = [matrix[i][i] ** 0.5 or 1.0 for i in range(size)]
    rows = [[matrix[i][j] / (scale[i] * scale[j]) for j in range(size)] + [right[i] / scale[i]] for i in range(size)]
    for column in range(size):
        pivot = max(range(column, size), key=lambda r: abs(rows[r][column]))
        if abs(rows[pivot][column]) < 1e-9:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for other in range(size):
            if other != column:
                factor = rows[other][column] / rows[column][column]
                rows[other] = [x - factor * y for x, y in zip(rows[other], rows[column], strict=True)]
    return [rows[i][size] / rows[i][i] / scale[i] for i in range(size)]


def _configuration(line: dict[str, str]) -> Configuration:
    precision = line["precision"] or line["gemm_quant_mode"]
    tp, parallel = _layout(line)
    return Configuration(
        line["model_path"],
        line["system"],
        {"": "bf16", "float16": "bf16", "bfloat16": "bf16"}.get(precision, precision),
        line["backend"],
        tp,
        " ".join(f"{name}{size}" for name, size in parallel.items() if size > 1),
    )


def _layout(line: dict[str, str]) -> tuple[int, dict[str, int]]:
    """Tensor parallelism and the other kinds, of one engine.

    One source of the file multiplies what lies on the same GPUs: four of them with tensor and expert parallelism are
    "tp 16, ep 4" or "tp 4, dp 4, ep 16". The same measurements stand there under their own names too, and the row's
    id tells the GPUs ("tp4_ep4").
    """
    tp, pp, dp, ep = (int(line[name] or 1) for name in ("tp_size", "pp_size", "attention_dp_size", "moe_ep_size"))
    named = _NAMED_LAYOUT.search(line.get("id") or "")
    if named is not None:
        gpus, ep = int(named["tp"]), int(named["ep"])
        tp, dp = (1, gpus) if tp == 1 and dp > 1 else (gpus, 1)
    elif "epnone" not in (line.get("id") or ""):
        if tp == dp > 1 and ep == tp * dp:
            dp, ep = 1, tp
        elif ep > 1 and tp * dp == ep * ep:
            tp, dp = (1, ep) if tp == 1 else (ep, 1)
    return tp, {"pp": pp, "dp": dp, "ep": ep}


def main(arguments: list[str]) -> int:
    """Write the table that is packaged with the simulator."""
    if len(arguments) != 2:
        sys.stderr.write("usage: python -m crosslogic.simulator.fit ROWS.csv[.gz] OUT.json\n")
        return 2
    table = fit_all(Path(arguments[0]))
    head = msgspec.json.encode({"source": table.source, "licence": table.licence})[:-1]
    lines = b",\n".join(msgspec.json.encode(entry) for entry in table.entries)
    Path(arguments[1]).write_bytes(head + b',"entries":[\n' + lines + b"\n]}\n")
    fitted = statistics.median(entry.itl_median_error for entry in table.entries)
    held_out = statistics.median(entry.held_out_itl_median_error for entry in table.entries)
    sys.stdout.write(
        f"{len(table.entries)} configurations; median over them of the median ITL error: "
        f"{fitted:.1%} replayed, {held_out:.1%} held out\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
