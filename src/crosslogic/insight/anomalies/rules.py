"""Which figures are unusual. Pure.

What is usual is what the same model did in the same region before: the median of the windows of the last two weeks and
how far they spread, and for usage what the forecast would have said of the hour. Shares of requests must also be more
than chance makes of so few.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime

import numpy as np

from crosslogic.compass.ranking.scaling import Urgency
from crosslogic.insight.anomalies.model import AnomalyType, Finding, Window
from crosslogic.insight.forecast.model import ScalingRecommendation
from crosslogic.insight.forecast.predict import WEEK, predict
from crosslogic.insight.forecast.sql import Series
from crosslogic.insight.notices.model import Severity

LEAST_REQUESTS = 20  # of a window: what fewer did is chance
LEAST_WINDOWS = 36  # six hours with traffic, before anything is called usual
_SPREADS = 6.0  # robust deviations, on logarithms
_LEAST_SPREAD = 0.05
_LEAST_TIMES = 1.5  # slower than this is worth a word
_MUCH_TIMES = 3.0
_CHANCE = 1e-6
_FAILED_AT_ALL = 0.01  # of requests fail anywhere
_FAILED_MORE = 0.04
_ODD_MORE = 0.2
_MOSTLY = 0.5
_USAGE_REACHES = 3.0  # times the bounds that hold in nine cases of ten
_USAGE_TIMES = 2.0  # and so many times more or fewer, at least
_LEAST_USAGE = 50  # requests an hour, more or fewer


def unusual(window: Window, before: Sequence[Window], sensitivity: float) -> Iterator[Finding]:
    """Of one window, beside those before it. `sensitivity` of 2 halves what it takes."""
    if window.requests < LEAST_REQUESTS:
        return
    usual = [each for each in before if each.requests >= LEAST_REQUESTS]
    yield from _slow(window, usual, sensitivity)
    yield from _failing(window, usual, sensitivity)
    yield from _odd(window, usual, sensitivity)


def _slow(window: Window, usual: Sequence[Window], sensitivity: float) -> Iterator[Finding]:
    figures: tuple[tuple[str, Callable[[Window], float | None]], ...] = (
        ("to the first token", lambda each: each.first_token_ms),
        ("between tokens", lambda each: each.token_ms),
    )
    for name, figure in figures:
        seen = figure(window)
        logs = np.log([value for each in usual if (value := figure(each)) is not None and value > 0])
        if not seen or len(logs) < LEAST_WINDOWS:
            continue
        centre = float(np.median(logs))
        spread = max(_LEAST_SPREAD, 1.4826 * float(np.median(np.abs(logs - centre))))
        above = float(np.log(seen)) - centre
        if above <= max(_SPREADS * spread, float(np.log(_LEAST_TIMES))) / sensitivity:
            continue
        times, ms = float(np.exp(above)), float(np.exp(centre))
        yield Finding(
            AnomalyType.LATENCY_SPIKE,
            window.model,
            window.region,
            Severity.ERROR if times >= _MUCH_TIMES else Severity.WARNING,
            f"the mean time {name} is {seen:,.0f} ms, {times:.1f} times the usual {ms:,.0f} ms",
            "Look at the nodes' queues and health (`crosslogic nodes list`), and at `crosslogic forecast scaling`.",
            {"figure": name, "seen_ms": round(seen, 3), "usual_ms": round(ms, 3), "requests": window.requests},
        )


def _failing(window: Window, usual: Sequence[Window], sensitivity: float) -> Iterator[Finding]:
    share = window.failed / window.requests
    before = max(_FAILED_AT_ALL, _high_share([each.failed / each.requests for each in usual]))
    if share < before + _FAILED_MORE / sensitivity or not _surely(window.failed, window.requests, before, sensitivity):
        return
    yield Finding(
        AnomalyType.ERROR_RATE_HIGH,
        window.model,
        window.region,
        Severity.CRITICAL if share >= _MOSTLY else Severity.ERROR,
        f"{share:.0%} of {window.requests} requests failed; up to {before:.0%} are usual",
        "See which nodes fail them and how (`crosslogic nodes list`, `gateway_upstream_errors_total`).",
        {"failed": window.failed, "requests": window.requests, "usual_share": round(before, 4)},
    )


def _odd(window: Window, usual: Sequence[Window], sensitivity: float) -> Iterator[Finding]:
    """No text is read: an answer is odd when it is empty, or never came to an end by itself."""
    comparable = [each for each in usual if each.answered >= LEAST_REQUESTS]
    if window.answered < LEAST_REQUESTS or len(comparable) < LEAST_WINDOWS:
        return
    share = window.odd / window.answered
    before = max(_FAILED_AT_ALL, _high_share([each.odd / each.answered for each in comparable]))
    if share < before + _ODD_MORE / sensitivity or not _surely(window.odd, window.answered, before, sensitivity):
        return
    yield Finding(
        AnomalyType.QUALITY_DROP,
        window.model,
        window.region,
        Severity.WARNING,
        f"{share:.0%} of {window.answered} answers are empty or were cut; up to {before:.0%} are usual",
        "Ask the model something, and compare its version and chat template with what ran before.",
        {"odd": window.odd, "answered": window.answered, "usual_share": round(before, 4)},
    )


def unusual_usage(series: Series, hour: datetime, sensitivity: float) -> Iterator[Finding]:
    """Of the last hour of a series, beside what the hours before it let expect. Nothing of the first week."""
    if len(series.counts) <= WEEK:
        return
    seen, said = float(series.counts[-1]), predict(series.counts[:-1], 1)
    expected = float(said.value[0])
    down = (1 + expected) / (1 + float(said.low[0]))
    up = (1 + float(said.high[0])) / (1 + expected)
    least, reaches = _USAGE_TIMES ** (1 / sensitivity), _USAGE_REACHES / sensitivity
    low, high = (1 + expected) / max(least, down**reaches) - 1, (1 + expected) * max(least, up**reaches) - 1
    if low <= seen <= high or abs(seen - expected) < _LEAST_USAGE:
        return
    yield Finding(
        AnomalyType.UNUSUAL_USAGE,
        series.model,
        series.region,
        Severity.ERROR if seen == 0 else Severity.WARNING,
        f"{seen:,.0f} requests in the hour from {hour:%Y-%m-%d %H:%M} UTC, where {expected:,.0f} were to be expected",
        "See whose they are, or whose are missing (`crosslogic usage`).",
        {"requests": int(seen), "expected": round(expected, 1), "low": round(low, 1), "high": round(high, 1)},
    )


def short_of_capacity(advice: Iterable[ScalingRecommendation]) -> Iterator[Finding]:
    """Where more is asked for now than the nodes carry."""
    for each in advice:
        if each.urgency is Urgency.CRITICAL and each.nodes > 0:
            yield Finding(
                AnomalyType.CAPACITY_LOW,
                each.model,
                each.region,
                Severity.ERROR,
                each.reason,
                f"{each.target_nodes} nodes would be enough.",
                {"nodes": round(each.nodes, 3), "needed_nodes": each.target_nodes},
            )


def _high_share(shares: Sequence[float]) -> float:
    return float(np.quantile(shares, 0.95)) if len(shares) >= LEAST_WINDOWS else 0.0


def _surely(hits: int, tries: int, share: float, sensitivity: float) -> bool:
    """Whether chance makes so many of `tries`, each with `share`, no more often than `_CHANCE` (Chernoff's bound)."""
    seen = hits / tries
    if seen <= share:
        return False
    missed = 0.0 if hits == tries else (1 - seen) * float(np.log((1 - seen) / (1 - share)))
    return tries * (seen * float(np.log(seen / share)) + missed) >= -float(np.log(_CHANCE)) / sensitivity
