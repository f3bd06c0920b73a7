"""Hourly counts of the past to those of the next days, with bounds. Pure.

On logarithms: a level (the mean of the last day, days or week), the course of the day or of the week around it, as much
of it as has proved true, and a damped trend of days. What of these is taken is what did best when it was asked at
earlier hours of the same history, and the bounds are the errors that it made then, by the day ahead and each end by
itself: nothing is assumed of how they are spread. Errors of one moment go together, so it is moments that are few.

Invariant: bounds hold the expected value between them, and are no narrower farther ahead.
"""

from __future__ import annotations

from enum import StrEnum
from math import ceil

import msgspec
import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

DAY, WEEK = 24, 168
CONFIDENCE = 0.9
LEAST_HOURS = 48  # with fewer nothing of the day's course is known
_LEVELS = (DAY, 3 * DAY, WEEK)  # hours
_COURSES = (0.0, 0.5, 1.0)  # share of the course around the level that is believed
_TRENDS = (0.0, 0.5)
_DAMPED = 0.7  # of the trend, a day
_DAY_WEIGHTS = (0.4, 0.3, 0.2, 0.1)  # of yesterday and before
_WEEK_WEIGHTS = (0.65, 0.35)
_ORIGIN_EVERY = 12  # hours between the moments of the past that are asked
_MOST_ORIGINS = 28
_GONE = np.log(8.0)  # below the usual: not a lack of demand, but a gap
_LEAST_ORIGINS = 4
_CHOSEN = 1.2  # the way was chosen by the very errors that its bounds are made of
_WIDE = np.log(3.0)  # where there is no past to learn bounds from


class PredictionModel(StrEnum):
    """The interface document's three."""

    LINEAR = "linear"
    ARIMA = "arima"
    ML = "ml"


class Way(msgspec.Struct, frozen=True):
    """One way to go on: around a level."""

    level: int
    course: float
    period: int  # the course is that of a day or of a week
    trend: float


class Autoregression(msgspec.Struct, frozen=True):
    """Another: what differs from a period before goes on as such differences did, ARIMA (2,0,0)(1,1,0)."""

    period: int


class Predicted(msgspec.Struct, frozen=True):
    """Counts of each hour to come, and of all together. `error` and `coverage` are of the past."""

    value: Array
    low: Array
    high: Array
    total: float
    total_low: float
    total_high: float
    error: float | None
    coverage: float | None


def predict(counts: Array, ahead: int, model: PredictionModel = PredictionModel.LINEAR) -> Predicted:
    """`counts` are of whole hours without a gap, the last one just over."""
    if len(counts) < LEAST_HOURS:
        return _unlearnt(counts, ahead)
    z = np.log1p(np.maximum(counts, 0.0))
    whole = _without_gaps(z)
    origins = _origins(len(z))
    if not origins:
        return _with_bounds(_ahead(whole, ahead, Way(DAY, 1.0, DAY, 0.0)), [])
    tried = {way: [_errors(z, whole, origin, ahead, way) for origin in origins] for way in _ways(len(z), model)}
    way = min(tried, key=lambda each: float(np.mean(np.abs(np.concatenate(tried[each])))))
    return _with_bounds(_ahead(whole, ahead, way), tried[way])


def _ways(hours: int, model: PredictionModel) -> list[Way | Autoregression]:
    periods = (DAY,) if hours < 2 * WEEK else (DAY, WEEK)
    levels: list[Way | Autoregression] = [
        Way(level, course, period, trend)
        for level in _LEVELS
        if level <= hours
        for course in _COURSES
        for period in periods
        if course > 0.0 or period == DAY
        for trend in _TRENDS
    ]
    autoregressions: list[Way | Autoregression] = [Autoregression(period) for period in periods]
    if model is PredictionModel.LINEAR:
        return levels
    return autoregressions if model is PredictionModel.ARIMA else levels + autoregressions


def _origins(hours: int) -> list[int]:
    """Moments of the past that are asked, the latest first: each has two days before it and one behind."""
    return list(range(hours - DAY, LEAST_HOURS - 1, -_ORIGIN_EVERY))[:_MOST_ORIGINS]


def _without_gaps(z: Array) -> Array:
    """What is far below the usual of its day is raised to that: an outage is no forecast of demand."""
    padded = np.pad(z, DAY // 2, mode="edge")
    usual = np.median(np.lib.stride_tricks.sliding_window_view(padded, DAY + 1), axis=1)
    found: Array = np.maximum(z, usual[: len(z)] - _GONE)
    return found


def _ahead(z: Array, steps: int, way: Way | Autoregression) -> Array:
    """Logarithms of the hours behind `z`."""
    if isinstance(way, Autoregression):
        return _regressed(z, steps, way.period)
    lead = np.arange(1, steps + 1)
    days = -(-lead // DAY)
    level = float(np.mean(z[-way.level :]))
    found = np.full(steps, level)
    if way.course > 0.0:
        weights = _DAY_WEIGHTS if way.period == DAY else _WEEK_WEIGHTS
        found = found + way.course * (_same_hour(z, lead, way.period, weights) - _usual(z, way.period, weights))
    if way.trend > 0.0:
        found = found + way.trend * _slope(z) * (1 - _DAMPED**days) / (1 - _DAMPED)
    bounded: Array = np.maximum(found, 0.0)
    return bounded


def _regressed(z: Array, steps: int, period: int) -> Array:
    """Least squares, drawn to nothing by a ridge, so that hardly any past says: as a period before."""
    period = period if len(z) >= 2 * period else DAY
    differences = list(z[period:] - z[:-period])
    lags = np.array([1, 2, period])
    done = np.array(differences)
    weights = np.zeros(len(lags))
    if len(done) > 2 * period:
        rows = np.arange(period, len(done))
        before = done[rows[:, None] - lags]
        weights = np.linalg.solve(before.T @ before + np.eye(len(lags)), before.T @ done[rows])
    found = list(z)
    for _ in range(steps):
        past = np.array([differences[-lag] if lag <= len(differences) else 0.0 for lag in lags])
        differences.append(float(np.clip(weights @ past, -_GONE, _GONE)))
        found.append(found[-period] + differences[-1])
    bounded: Array = np.maximum(np.array(found[len(z) :]), 0.0)
    return bounded


def _same_hour(z: Array, lead: NDArray[np.int64], period: int, weights: tuple[float, ...]) -> Array:
    """Weighted mean of the latest values that are whole periods before."""
    last = len(z) + lead - 1 - period * (-(-lead // period))
    total, weight = np.zeros(len(lead)), np.zeros(len(lead))
    for back, share in enumerate(weights):
        at = last - period * back
        there = at >= 0
        total[there] += share * z[at[there]]
        weight[there] += share
    found: Array = np.where(weight > 0, total / np.maximum(weight, 1e-9), float(np.mean(z[-DAY:])))
    return found


def _usual(z: Array, period: int, weights: tuple[float, ...]) -> float:
    """The mean of the course over a whole period."""
    return float(np.mean(_same_hour(z, np.arange(1, period + 1), period, weights)))


def _slope(z: Array) -> float:
    """Of the means of the last seven days, a day: the median of the slopes between all of them (Theil and Sen)."""
    days = min(7, len(z) // DAY)
    means = z[-days * DAY :].reshape(days, DAY).mean(axis=1)
    slopes = [(means[j] - means[i]) / (j - i) for i in range(days) for j in range(i + 1, days)]
    return float(np.median(slopes)) if slopes else 0.0


def _errors(z: Array, whole: Array, origin: int, ahead: int, way: Way | Autoregression) -> Array:
    """What was minus what would have been said at `origin`."""
    steps = min(ahead, len(z) - origin)
    return z[origin : origin + steps] - _ahead(whole[:origin], steps, way)


def _with_bounds(z: Array, errors: list[Array]) -> Predicted:
    ahead = len(z)
    low, high = np.full(ahead, -_WIDE), np.full(ahead, _WIDE)
    error = coverage = None
    reach_low = reach_high = 0.0
    for day in range(ceil(ahead / DAY)) if errors else ():
        end = min((day + 1) * DAY, ahead)
        here = [each[day * DAY : end] for each in errors if len(each) >= end]
        if len(here) >= _LEAST_ORIGINS:
            every = np.concatenate(here)
            reach_low = min(reach_low, _quantile(every, len(here), upper=False))
            reach_high = max(reach_high, _quantile(every, len(here), upper=True))
        elif day:  # farther ahead than the past can tell: as a walk goes on
            farther = ((day + 1) / day) ** 0.5
            reach_low, reach_high = reach_low * farther, reach_high * farther
        else:
            reach_low, reach_high = -float(_WIDE), float(_WIDE)
        low[day * DAY : (day + 1) * DAY] = reach_low * _CHOSEN
        high[day * DAY : (day + 1) * DAY] = reach_high * _CHOSEN
    if errors:
        every = np.concatenate(errors)
        within = [(each >= low[: len(each)]) & (each <= high[: len(each)]) for each in errors]
        error = float(np.median(np.abs(np.expm1(np.clip(every, -5.0, 5.0)))))
        coverage = float(np.mean(np.concatenate(within)))
    value = np.expm1(z)
    lows, highs = np.expm1(np.maximum(z + low, 0.0)), np.expm1(z + high)
    total = float(value.sum())
    return Predicted(value, lows, highs, total, float(lows.sum()), float(highs.sum()), error, coverage)


def _quantile(errors: Array, moments: int, *, upper: bool) -> float:
    """Each end by itself (split conformal, Vovk 2005), with the correction for so few moments: one more is within."""
    share = min(1.0, (1 + CONFIDENCE) / 2 * (moments + 1) / moments)
    return float(np.quantile(errors, share if upper else 1 - share))


def _unlearnt(counts: Array, ahead: int) -> Predicted:
    """Of hardly any past: its mean, with wide bounds."""
    mean = float(np.mean(counts)) if len(counts) else 0.0
    value = np.full(ahead, mean)
    factor = float(np.exp(_WIDE))
    total = float(value.sum())
    return Predicted(value, value / factor, value * factor, total, total / factor, total * factor, None, None)
