"""The figures of one target, and the pure arithmetic on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median


@dataclass
class Figures:
    """What was measured of one target; None where it was not measured, with the reason in `notes`."""

    name: str
    what: str
    version: str = ""
    workers: int = 1
    cores: int = 1
    ours: bool = False
    requests_per_s_rounds: list[float] = field(default_factory=list)
    busy_rounds: list[float] = field(default_factory=list)
    cpu_us_per_request_rounds: list[float] = field(default_factory=list)
    cpu_us_per_chunk_rounds: list[float] = field(default_factory=list)
    rate: float | None = None
    direct_p50_ms_rounds: list[float] = field(default_factory=list)
    direct_p99_ms_rounds: list[float] = field(default_factory=list)
    p50_ms_rounds: list[float] = field(default_factory=list)
    p99_ms_rounds: list[float] = field(default_factory=list)
    cpu_us_per_request_at_rate: float | None = None
    rss_mb_start: float | None = None
    rss_mb_loaded: float | None = None
    streams: int | None = None
    streams_right: int | None = None
    streams_at_once: int | None = None
    kb_per_stream: float | None = None
    soak_requests: int | None = None
    soak_growth_mb: float | None = None
    soak_kb_per_1000_requests: float | None = None
    answered: int = 0
    failed: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def requests_per_s(self) -> float | None:
        """Right answers a second at saturation."""
        return middle(self.requests_per_s_rounds)

    @property
    def busy(self) -> float | None:
        """Share of its cores that the server used at saturation; far below 1, the load was the limit."""
        return middle(self.busy_rounds)

    @property
    def cpu_us_per_request(self) -> float | None:
        """CPU time of the server's processes for one request at saturation, microseconds."""
        return middle(self.cpu_us_per_request_rounds)

    @property
    def cpu_us_per_chunk(self) -> float | None:
        """CPU time for one chunk of a stream, its share of the request included, microseconds."""
        return middle(self.cpu_us_per_chunk_rounds)

    @property
    def p50_added_ms(self) -> float | None:
        """Median latency less that of the upstream alone, milliseconds."""
        return _added(self.p50_ms_rounds, self.direct_p50_ms_rounds)

    @property
    def p99_added_ms(self) -> float | None:
        """99th percentile of latency less that of the upstream alone, milliseconds."""
        return _added(self.p99_ms_rounds, self.direct_p99_ms_rounds)


def _added(through: Sequence[float], direct: Sequence[float]) -> float | None:
    """The median of the differences, round by round."""
    return middle([one - other for one, other in zip(through, direct, strict=True)])


def middle(values: Sequence[float]) -> float | None:
    """The median of the rounds; None when there are none."""
    return median(values) if values else None


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """The slope of the least-squares line through the points; 0 when all x are one."""
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    spread = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / spread if spread else 0.0


def scaling(one: Figures, two: Figures) -> tuple[float | None, float | None]:
    """How much two workers do of what one does: by CPU a request, and by requests/s.

    By CPU: 2 × (CPU a request with one worker) / (CPU a request with two), which is what two cores would give if
    nothing but CPU held them. By requests/s: the quotient, which means something only where each worker had a core.
    """
    by_cpu = by_rate = None
    if one.cpu_us_per_request and two.cpu_us_per_request:
        by_cpu = 2 * one.cpu_us_per_request / two.cpu_us_per_request
    if one.requests_per_s and two.requests_per_s:
        by_rate = two.requests_per_s / one.requests_per_s
    return by_cpu, by_rate
