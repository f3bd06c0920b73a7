"""The answer to a Prometheus scrape: all workers' numbers together, in the text format.

Invariant: whichever worker answers, the totals are the same.
"""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from crosslogic.telemetry.metrics import ALL, Metric
from crosslogic.telemetry.slots import Labels, Slots

CONTENT_TYPE = CONTENT_TYPE_LATEST

_COMBINE: dict[str, Callable[[Iterable[float]], float]] = {"sum": sum, "max": max, "min": min}


def render(slots: Slots) -> bytes:
    """The scrape's body. It takes milliseconds and reads files: call it in a thread."""
    return generate_latest(_Snapshot(slots))


class _Snapshot(Collector):
    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    def collect(self) -> Iterator[Family]:
        found: dict[str, dict[Labels, list[list[float]]]] = {}
        for (name, labels), values in self._slots.everywhere():
            found.setdefault(name, {}).setdefault(labels, []).append(list(values))
        for metric in ALL:
            yield _family(metric, found.get(metric.name, {}))


def _family(metric: Metric, series: dict[Labels, list[list[float]]]) -> Family:
    if metric.kind == "histogram":
        histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
        for labels, workers in sorted(series.items()):
            *counts, total = (sum(column) for column in zip(*workers, strict=True))
            histogram.add_metric(labels, _cumulative(metric.buckets, counts), total)
        return histogram
    made = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    family = made(metric.name, metric.help, labels=metric.labels)
    for labels, workers in sorted(series.items()):
        family.add_metric(labels, _COMBINE[metric.combine](column for (column,) in workers))
    return family


def _cumulative(bounds: Iterable[float], counts: list[float]) -> list[tuple[str, float]]:
    buckets, so_far = [], 0.0
    for bound, count in zip((*(str(float(bound)) for bound in bounds), "+Inf"), counts, strict=True):
        so_far += count
        buckets.append((bound, so_far))
    return buckets
