"""Errors on rows that the model has not seen: five folds by point (measured configurations) and by configuration."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import log
from random import Random

import numpy as np

from crosslogic.compass.capacity.kernels import Kernels
from crosslogic.compass.capacity.pooling import Pool
from crosslogic.compass.capacity.roofline import roofline
from crosslogic.compass.capacity.rows import MeasuredRow, architecture, layout_of, usable
from crosslogic.compass.capacity.step_model import StepModel, step_model

FOLDS = 5


@dataclass(frozen=True)
class Error:
    """One held-out row: relative errors of what the pool says, and of the coefficients that the simulator gets."""

    row: MeasuredRow
    itl: float
    ttft: float
    itl_by_coefficients: float
    ttft_by_coefficients: float
    itl_score: float  # |log error| over the deviation that was predicted
    ttft_score: float


@dataclass(frozen=True)
class Summary:
    count: int
    median: float
    mean: float
    p90: float


def held_out(rows: Sequence[MeasuredRow], *, by_configuration: bool) -> list[Error]:
    """Every row, predicted by a pool of the other folds. All rows of one load of a configuration share a fold."""

    def key(row: MeasuredRow) -> object:
        return row.configuration if by_configuration else (row.configuration, row.load)

    keys = sorted({key(row) for row in rows}, key=str)
    Random(0).shuffle(keys)
    fold_of = {each: number % FOLDS for number, each in enumerate(keys)}
    errors: list[Error] = []
    for fold in range(FOLDS):
        pool = Pool([row for row in rows if fold_of[key(row)] != fold])
        asked: dict[object, list[MeasuredRow]] = defaultdict(list)
        for row in rows:
            if fold_of[key(row)] == fold:
                asked[row.configuration].append(row)
        for those in asked.values():
            errors += _errors(pool, those)
    return errors


def summary(errors: Sequence[Error], figure: str) -> Summary:
    return summarised([getattr(each, figure) for each in errors])


def summarised(relative: Sequence[float]) -> Summary:
    values = np.abs(relative)
    return Summary(len(values), float(np.median(values)), float(values.mean()), float(np.quantile(values, 0.9)))


def alone(rows: Sequence[MeasuredRow]) -> dict[str, tuple[Summary, Summary]]:
    """Errors of ITL and TTFT of the lower tiers by themselves: no row was shown to them at all."""
    kernels: list[tuple[float, float]] = []
    roofs: list[tuple[float, float]] = []
    for row in rows:
        configuration, load = row.configuration, row.load
        known = usable(configuration)
        assert known is not None
        card, gpu = known
        layout = layout_of(configuration)
        at = (np.array([each]) for each in (load.running, load.prompt_tokens, load.output_tokens))
        itl, ttft = Kernels(card, gpu, configuration.precision, layout).seconds(*at)
        kernels.append((float(itl[0]) / row.itl_s - 1, float(ttft[0]) / row.ttft_s - 1))
        roof = roofline(architecture(card), gpu, configuration.precision, layout.gpus)
        roofs.append((roof.step_s(load) / row.itl_s - 1, roof.first_token_s(load) / row.ttft_s - 1))
    return {
        name: (summarised([each[0] for each in those]), summarised([each[1] for each in those]))
        for name, those in (("kernel tables", kernels), ("roofline", roofs))
    }


def grouped(errors: Sequence[Error], name: Callable[[Error], str]) -> dict[str, list[Error]]:
    found: dict[str, list[Error]] = defaultdict(list)
    for each in errors:
        found[name(each)].append(each)
    return dict(sorted(found.items()))


def conformal(errors: Sequence[Error], score: str) -> tuple[float, float]:
    """The 90% quantile of all scores, and the coverage on one half of the configurations with the other's quantile."""
    names = sorted({str(each.row.configuration) for each in errors})
    Random(1).shuffle(names)
    first = set(names[::2])
    halves = [[e for e in errors if (str(e.row.configuration) in first) is side] for side in (True, False)]
    covered = []
    for one, other in (halves, halves[::-1]):
        reach = float(np.quantile([getattr(each, score) for each in one], 0.9))
        covered += [getattr(each, score) <= reach for each in other]
    return float(np.quantile([getattr(each, score) for each in errors], 0.9)), float(np.mean(covered))


def _errors(pool: Pool, rows: Sequence[MeasuredRow]) -> list[Error]:
    configuration = rows[0].configuration
    models: dict[tuple[float, float], StepModel] = {}
    errors = []
    for row, predicted in zip(rows, pool.predict(configuration, [row.load for row in rows]), strict=True):
        load = row.load
        lengths = (load.prompt_tokens, load.output_tokens)
        if lengths not in models:
            models[lengths] = step_model(pool, configuration, *lengths)
        model = models[lengths]
        errors.append(
            Error(
                row=row,
                itl=predicted.itl_s / row.itl_s - 1,
                ttft=predicted.ttft_s / row.ttft_s - 1,
                itl_by_coefficients=model.itl_s(load.running, *lengths) / row.itl_s - 1,
                ttft_by_coefficients=model.ttft_s(load.running, *lengths) / row.ttft_s - 1,
                itl_score=abs(log(predicted.itl_s / row.itl_s)) / predicted.itl_deviation,
                ttft_score=abs(log(predicted.ttft_s / row.ttft_s)) / predicted.ttft_deviation,
            )
        )
    return errors
