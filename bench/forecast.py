"""How right the capacity forecast is on real traffic that it has not seen: `python -m bench.forecast`.

From every sixth hour between the first week and the last three days of each ServeGen trace it is asked for 72 hours,
knowing what was before alone. Prints the table of docs/forecast.md; about half a minute of one core.
"""

import csv
from pathlib import Path

import msgspec
import numpy as np

from crosslogic.insight.forecast.predict import DAY, WEEK, Array, PredictionModel, predict

TRACE = Path(__file__).parent.parent / "tests" / "traces" / "servegen_hourly.csv"
AHEAD = 72
EVERY = 6


class Held(msgspec.Struct, frozen=True):
    """Shares of hours within each bound, and relative errors."""

    below_high: float
    above_low: float
    between: float
    sums: float  # of all hours together, within their bounds
    spare: float  # the busiest upper bound over the busiest truth, median
    error: float  # median
    yesterday: float  # the same, of who says yesterday's hour


def trace() -> dict[str, Array]:
    """Requests an hour of each service, fourteen days of them."""
    found: dict[str, list[float]] = {}
    with TRACE.open() as lines:
        for row in csv.DictReader(lines):
            found.setdefault(row["model"], []).append(float(row["requests_per_s"]) * 3600)
    return {model: np.array(counts) for model, counts in found.items()}


def held(counts: Array, model: PredictionModel) -> Held:
    below, above, sums, spare, errors, naive = [], [], [], [], [], []
    for origin in range(WEEK, len(counts) - AHEAD + 1, EVERY):
        found = predict(counts[:origin], AHEAD, model)
        truth = counts[origin : origin + AHEAD]
        below.append(truth <= found.high)
        above.append(truth >= found.low)
        sums.append(found.total_low <= truth.sum() <= found.total_high)
        spare.append(found.high.max() / truth.max())
        # An hour without requests has no relative error.
        busy = truth > 0
        errors.append(np.abs(found.value[busy] / truth[busy] - 1))
        naive.append(np.abs(np.tile(counts[origin - DAY : origin], AHEAD // DAY)[busy] / truth[busy] - 1))
    low, high = np.concatenate(above), np.concatenate(below)
    return Held(
        below_high=float(np.mean(high)),
        above_low=float(np.mean(low)),
        between=float(np.mean(low & high)),
        sums=float(np.mean(sums)),
        spare=float(np.median(spare)),
        error=float(np.median(np.concatenate(errors))),
        yesterday=float(np.median(np.concatenate(naive))),
    )


def main() -> None:
    print(
        "| service | model | below the upper bound | above the lower | between | busiest upper bound over the truth",
        end="",
    )
    print(" | median error | of yesterday's hour |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for model in PredictionModel:
        for service, counts in trace().items():
            one = held(counts, model)
            print(
                f"| {service} | {model.value} | {one.below_high:.1%} | {one.above_low:.1%} | {one.between:.1%} "
                f"| {one.spare:.2f} | {one.error:.0%} | {one.yesterday:.0%} |"
            )


if __name__ == "__main__":
    main()
