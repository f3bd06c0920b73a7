"""Values of outcomes. Milliseconds, requests a second, pico-USD.

Invariant: an observation says what was seen in one window and of how many requests; a figure that nobody saw is None.
"""

from __future__ import annotations

from datetime import datetime
from math import isfinite

import msgspec

from crosslogic.compass.manifests.model import Expected, Targets
from crosslogic.kernel.errors import InvalidRequest

FEWEST_REQUESTS = 50  # with fewer a 95th percentile says nothing
_MOST_MS = 86_400_000.0


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one deployment: all its replicas together."""

    start: datetime
    end: datetime
    requests: int
    replicas: int
    prompt_tokens: float  # mean of a request
    output_tokens: float
    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None  # of requests' means
    e2e_p95_ms: float | None = None
    cost_per_hour_pusd: int | None = None
    failed: int = 0
    source: str = "ledger"

    @property
    def rate(self) -> float:
        return self.requests / max(1.0, (self.end - self.start).total_seconds())

    @property
    def tokens_per_s(self) -> float:
        return self.rate * (self.prompt_tokens + self.output_tokens)

    @property
    def cost_per_million_tokens_pusd(self) -> int | None:
        if self.cost_per_hour_pusd is None or not self.tokens_per_s:
            return None
        return round(self.cost_per_hour_pusd / (self.tokens_per_s * 3600) * 1e6)


class WindowForecast(msgspec.Struct, frozen=True):
    """What was to be expected at the load that the window had, with what was learnt until then."""

    ttft_p95_ms: Expected
    itl_p95_ms: Expected
    e2e_p95_ms: Expected


class Learned(msgspec.Struct, frozen=True):
    """Of one figure of one configuration: the logarithm of observed over forecast, and its variance."""

    log_factor: float = 0.0
    variance: float = 0.09
    windows: int = 0
    outside: int = 0  # windows in a row in which the figure left its 90% interval


class ConfigurationBias(msgspec.Struct, frozen=True):
    """What outcomes taught of a configuration."""

    itl: Learned = Learned()
    ttft: Learned = Learned()


class Judged(msgspec.Struct, frozen=True):
    """A window beside its forecast. Errors are relative: 0.2 is 20% above the forecast."""

    observation: Observation
    forecast: WindowForecast
    ttft_error: float | None
    itl_error: float | None
    e2e_error: float | None
    drift: tuple[str, ...] = ()
    met: dict[str, bool] = {}  # of the deployment's targets, those that a figure was seen of

    @property
    def availability(self) -> float | None:
        """Share of the requests that were answered whole."""
        seen = self.observation
        asked = seen.requests + seen.failed
        return seen.requests / asked if asked else None


def met(seen: Observation, targets: Targets) -> dict[str, bool]:
    """Which service level objectives the window kept."""
    found = {}
    for name in ("ttft", "itl", "e2e"):
        value, limit = getattr(seen, f"{name}_p95_ms"), getattr(targets, f"{name}_p95_ms")
        if value is not None and limit is not None:
            found[name] = value <= limit
    return found


def checked(seen: Observation) -> Observation:
    """Raises InvalidRequest for what nobody can have seen."""
    if seen.end <= seen.start:
        raise InvalidRequest("a window ends after it starts", param="end")
    if not 0 <= seen.requests <= 10**9 or not 1 <= seen.replicas <= 4096:
        raise InvalidRequest("a window has 0 to 1,000,000,000 requests on 1 to 4096 replicas", param="requests")
    for name in ("prompt_tokens", "output_tokens"):
        value = getattr(seen, name)
        if not (isfinite(value) and 0 < value <= 1e8):
            raise InvalidRequest(f"{name} is {value:g}; a request has some", param=name)
    for name in ("ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms"):
        value = getattr(seen, name)
        if value is not None and not (isfinite(value) and 0 < value <= _MOST_MS):
            raise InvalidRequest(f"{name} is {value:g} ms; it is above 0 and at most a day", param=name)
    return seen
