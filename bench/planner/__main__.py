"""`make bench-planner`: measures the planner, writes the reach of its intervals and the figures of docs/planner.md."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import numpy as np

from bench.planner import aic
from bench.planner.held_out import Error, Summary, alone, conformal, grouped, held_out, summarised, summary
from bench.planner.replay import cost_of_asking, knees, replay, specification, trace
from crosslogic.compass.capacity.rows import MeasuredRow, packaged_rows
from crosslogic.compass.ranking.planner import Planner, packaged_planner

ROOT = Path(__file__).parent.parent.parent
INTERVALS = ROOT / "src/crosslogic/compass/capacity/data/intervals.json"
PAGE = ROOT / "docs/planner.md"
BEGIN, END = "<!-- measured: make bench-planner -->", "<!-- /measured -->"


def main() -> int:
    rows = packaged_rows()
    errors = {
        "calibrated (5-fold by point)": held_out(rows, by_configuration=False),
        "estimated (5-fold by configuration)": held_out(rows, by_configuration=True),
    }
    lines = [*_accuracy(rows, errors), *_beside(errors), *_intervals(errors)]
    print("\n".join(lines), flush=True)
    planner = packaged_planner()
    for part in (_knees(planner), _replays(planner), _cost(planner)):
        print("\n".join(part), flush=True)
        lines += part
    _write(lines)
    return 0


def _accuracy(rows: Sequence[MeasuredRow], errors: dict[str, list[Error]]) -> list[str]:
    lines = [
        "### Accuracy on rows that the model has not seen",
        "",
        "Absolute percentage errors: median / mean (MAPE) / 90th percentile. Repeated rows are counted once, and all",
        "rows of one load share a fold.",
        "",
        "| tier | rows | ITL | TTFT | ITL by the simulator's coefficients | TTFT likewise |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, those in errors.items():
        figures = ("itl", "ttft", "itl_by_coefficients", "ttft_by_coefficients")
        lines.append(f"| {name} | {len(those)} | " + " | ".join(_text(those, figure) for figure in figures) + " |")
    for name, (itl, ttft) in alone(rows).items():
        lines.append(f"| {name} alone, no row shown | {itl.count} | {_of(itl)} | {_of(ttft)} | | |")
    lines += [
        "",
        "Goals: ITL 10% and TTFT 20% MAPE for measured configurations, 20% and 40% for unseen ones.",
        "",
    ]
    by: tuple[tuple[str, Callable[[Error], str]], ...] = (
        ("engine", lambda e: e.row.configuration.backend),
        ("GPU", lambda e: e.row.configuration.gpu),
        ("model", lambda e: e.row.configuration.model.split("/")[-1]),
    )
    for title, name in by:
        lines += [f"| {title} | rows | ITL calibrated | TTFT calibrated | ITL estimated | TTFT estimated |"]
        lines += ["| --- | --- | --- | --- | --- | --- |"]
        one, other = (grouped(those, name) for those in errors.values())
        for each, those in one.items():
            cells = [_text(group, figure) for group in (those, other[each]) for figure in ("itl", "ttft")]
            lines.append(f"| {each} | {len(those)} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines


def _beside(errors: dict[str, list[Error]]) -> list[str]:
    """The rows that AIConfigurator answered, by it and by each of our tiers."""
    asked, answered = len(aic.answers()), 0
    lines = ["| the same rows by | rows | ITL | TTFT |", "| --- | --- | --- | --- |"]
    for name, those in errors.items():
        both = aic.compared(those)
        answered = len(both)
        lines.append(f"| ours, {name} | {answered} | {_figures([(e.itl, e.ttft) for e, _, _ in both])} |")
    theirs = [(itl, ttft) for _, itl, ttft in aic.compared(next(iter(errors.values())))]
    lines.append(f"| AIConfigurator {aic.VERSION}, zero-shot | {len(theirs)} | {_figures(theirs)} |")
    return [
        "### Beside AIConfigurator",
        "",
        f"{asked} rows were drawn, of dense models and mixtures on H100, H200 and B200, and asked of it in an",
        f"environment of its own (`python -m bench.planner.aic`); it answered {answered}. Its tables are newer than",
        "the engines that were measured. Unseen configurations are the fair comparison: it has seen no row of them.",
        "",
        *lines,
        "",
    ]


def _figures(pairs: Sequence[tuple[float, float]]) -> str:
    return " | ".join(_of(summarised([pair[figure] for pair in pairs])) for figure in (0, 1)) if pairs else "- | -"


def _intervals(errors: dict[str, list[Error]]) -> list[str]:
    lines = ["### 90% intervals", "", "| tier | reach, deviations (ITL, TTFT) | coverage of held-out ITL | of TTFT |"]
    lines += ["| --- | --- | --- | --- |"]
    written = {}
    for tier, (name, those) in zip(("calibrated", "estimated"), errors.items(), strict=True):
        (itl, itl_covered), (ttft, ttft_covered) = (conformal(those, score) for score in ("itl_score", "ttft_score"))
        written[tier] = {"itl": round(itl, 3), "ttft": round(ttft, 3)}
        lines.append(f"| {name} | {itl:.2f}, {ttft:.2f} | {itl_covered:.1%} | {ttft_covered:.1%} |")
    INTERVALS.write_bytes(msgspec.json.encode(written) + b"\n")
    return [*lines, "", "Coverage: the reach is from one half of the configurations, the rows are of the other.", ""]


def _knees(planner: Planner) -> list[str]:
    found = knees(planner)
    lines = ["### Closed-loop sweeps in the scheduler beside measured ones", ""]
    lines += [
        "Each sweep's own rows were left out of the model. Knee: requests at once at which the time between tokens",
        "is twice that of the lightest load, the mean where a load was measured more than once. It lies between two",
        "measured loads, by whichever of repeated measurements one takes; leverage: by how many per cent one per cent",
        "of the lightest load's time moves it.",
        "",
        "| configuration | loads | throughput, median error | ITL, median error | knee measured | between | leverage "
        "| simulated | within |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for each in found:
        figures = f"{each.rows} | {each.throughput_error:.1%} | {each.itl_error:.1%}"
        between = f"{each.least:.0f} and {each.most:.0f}" if each.most < float("inf") else f"{each.least:.0f} on"
        lines.append(
            f"| {each.name} | {figures} | {_knee(each.measured)} | {between} | {each.leverage:.1f} "
            f"| {_knee(each.simulated)} | {_yes(each.within)} |"
        )
    both = [each for each in found if each.measured and each.simulated]
    apart = float(np.median([abs(each.simulated / each.measured - 1) for each in both])) if both else 0.0
    within = sum(each.within for each in both)
    return [
        *lines,
        "",
        f"The knee is off by {apart:.0%} in the median of {len(both)} sweeps that reach it, and where it may be in "
        f"{within} of them.",
        "",
    ]


def _knee(clients: float) -> str:
    return f"{clients:.0f}" if clients else "not reached"


def _replays(planner: Planner) -> list[str]:
    lines = ["### The Azure conversation trace, replayed to what was recommended", ""]
    lines += [
        "Llama-3.1-70B in FP8 on 4 H100 each; targets p95 TTFT 2 s, ITL 50 ms. The percentiles are of the replicas"
    ]
    lines += ["that are needed; spares, which stand in for lost ones, are left out of the replay.", ""]
    lines += [
        "| speed | mean requests/s | recommended | p95 TTFT | p95 ITL | meets | one fewer meets | least that does "
        "| too many |"
    ]
    lines += ["| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for times in (1, 2, 4):
        each = replay(planner, times)
        lines.append(
            f"| {times}x | {each.mean_qps:.2f} | {each.needed} (+{each.spare} spare) | {each.ttft_p95_ms:.0f} ms "
            f"| {each.itl_p95_ms:.1f} ms | {_yes(each.met)} | {_yes(each.fewer_met)} | {each.least} "
            f"| {each.needed - each.least} |"
        )
    return [*lines, ""]


def _cost(planner: Planner) -> list[str]:
    cold, warm, asked = cost_of_asking(planner, specification(trace()))
    return [
        "### What it costs to ask",
        "",
        f"CPU time on one core of a busy machine: a recommendation over the catalogue {cold:.2f} s when nothing is",
        f"cached and {warm:.2f} s after that (goal: 2 s); of seven kinds of what-if, both sides anew, the median is",
        f"{np.median(asked) * 1e3:.0f} ms and the longest {max(asked) * 1e3:.0f} ms (goal: 100 ms).",
        "",
    ]


def _text(errors: Sequence[Error], figure: str) -> str:
    return _of(summary(errors, figure))


def _of(found: Summary) -> str:
    return f"{found.median:.1%} / {found.mean:.1%} / {found.p90:.0%}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _write(lines: Sequence[str]) -> None:
    page = PAGE.read_text()
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2]
    text = "\n".join(lines).rstrip()
    PAGE.write_text(f"{before.rstrip()}\n\n{BEGIN}\n\n{text}\n\n{END}\n{after.lstrip()}")


if __name__ == "__main__":
    sys.exit(main())
