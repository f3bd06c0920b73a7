"""Traffic as a log of requests shows it: rates, burstiness and lengths. Pure.

Burstiness is the coefficient of variation of the time between requests within windows of a minute, so that the slow
change of the day does not count as bursts; peaks are of five minutes, so that bursts do not count as peaks.

Invariant: the figures follow from the rows alone, in whatever order they stand.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from math import ceil, sqrt

import msgspec

from crosslogic.compass.specification.lengths import Bin, Lengths, lengths_of
from crosslogic.compass.specification.model import TrafficProfile
from crosslogic.compass.traffic.columns import Bad, Request, read_rows
from crosslogic.kernel.errors import InvalidRequest

_MOST_ROWS = 5_000_000
_LEAST_ROWS = 20
_MOST_BAD = 0.05
_BURST_WINDOW_S = 60.0
_PEAK_WINDOW_S = 300.0
_LEAST_IN_WINDOW = 10
_STEP = 1.2  # each bin of lengths is so much longer than the one before
_LEAST_CV = 0.1  # nobody's traffic goes on being a clockwork
_SAMPLES = 3  # bad rows that are told


class ObservedTraffic(msgspec.Struct, frozen=True):
    requests: int
    duration_s: float
    mean_qps: float
    peak_qps: float
    burstiness_cv: float
    prompt_tokens: Lengths
    output_tokens: Lengths
    bad_rows: tuple[Bad, ...] = ()  # the first of them
    bad_count: int = 0

    def profile(self, source: str) -> TrafficProfile:
        return TrafficProfile(
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            mean_qps=self.mean_qps,
            peak_qps=self.peak_qps,
            burstiness_cv=max(_LEAST_CV, self.burstiness_cv),
            basis=(f"{self.requests} requests over {self.duration_s / 3600:.1f} hours of {source}",),
        )


def observe(lines: Iterable[str]) -> ObservedTraffic:
    """What a log shows. Raises InvalidRequest for one that is too short, too long or mostly unreadable."""
    rows: list[Request] = []
    bad: list[Bad] = []
    bad_count = 0
    for row in read_rows(lines):
        if isinstance(row, Bad):
            bad_count += 1
            if len(bad) < _SAMPLES:
                bad.append(row)
        elif len(rows) < _MOST_ROWS:
            rows.append(row)
        else:
            raise InvalidRequest(f"the log has more than {_MOST_ROWS} requests; give a week or a day of it")
    if bad_count > _MOST_BAD * (bad_count + len(rows)):
        told = "; ".join(f"line {each.line} {each.reason}" for each in bad)
        raise InvalidRequest(f"{bad_count} of {bad_count + len(rows)} rows of the log cannot be read: {told}")
    if len(rows) < _LEAST_ROWS:
        raise InvalidRequest(f"the log has {len(rows)} requests; {_LEAST_ROWS} are the least to learn from")
    times = sorted(row.at_s for row in rows)
    duration_s = times[-1] - times[0]
    if duration_s <= 0:
        raise InvalidRequest("all requests of the log are of the same moment; it needs their times of arrival")
    mean_qps = (len(times) - 1) / duration_s
    return ObservedTraffic(
        requests=len(rows),
        duration_s=duration_s,
        mean_qps=mean_qps,
        peak_qps=max(mean_qps, _peak_qps(times, duration_s)),
        burstiness_cv=burstiness(times),
        prompt_tokens=lengths_of(histogram(row.prompt_tokens for row in rows)),
        output_tokens=lengths_of(histogram(row.output_tokens for row in rows)),
        bad_rows=tuple(bad),
        bad_count=bad_count,
    )


def burstiness(times: list[float]) -> float:
    """Coefficient of variation of the gaps, over windows of a minute weighted by their requests; `times` ascend."""
    total, weight = 0.0, 0
    start = 0
    for end in range(1, len(times) + 1):
        if end < len(times) and times[end] - times[start] < _BURST_WINDOW_S:
            continue
        if end - start >= _LEAST_IN_WINDOW and (found := _variation(times[start:end])) is not None:
            total += found * (end - start)
            weight += end - start
        start = end
    return total / weight if weight else (_variation(times) or 1.0)


def _variation(times: list[float]) -> float | None:
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps) if gaps else 0.0
    if mean <= 0:
        return None
    return sqrt(sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) / mean


def _peak_qps(times: list[float], duration_s: float) -> float:
    window_s = min(_PEAK_WINDOW_S, duration_s)
    counts = Counter(int((at - times[0]) / window_s) for at in times)
    whole = int(duration_s / window_s)  # the last, begun window is too short to tell
    return max((count for window, count in counts.items() if window < whole), default=0) / window_s


def histogram(lengths: Iterable[int]) -> list[Bin]:
    counts = Counter(lengths)
    edges = bin_edges(max(counts, default=0))
    bins: list[Bin] = []
    ordered = sorted(counts.items())
    at = 0
    total = sum(counts.values())
    for low, high in pairwise(edges):
        inside = 0
        while at < len(ordered) and ordered[at][0] < high:
            inside += ordered[at][1]
            at += 1
        if inside:
            bins.append(Bin(low, high, inside / total))
    return bins


def bin_edges(longest: int) -> list[int]:
    """0, 1, 2, 3, … each about a fifth more than the one before, past the longest."""
    edges = [0]
    while edges[-1] <= longest:
        edges.append(max(edges[-1] + 1, ceil(edges[-1] * _STEP)))
    return edges
