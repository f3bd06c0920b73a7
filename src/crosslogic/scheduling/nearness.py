"""The region that a request goes to when nobody named one: the gateway's own, or the nearest that serves. Pure.

Nearness is measured where it can be (`observed`: how long a connection to the region takes), and reckoned from the map
where it cannot: light in fibre covers 200 km in a millisecond, there and back at least.
"""

from collections.abc import Iterable

from crosslogic.catalog.regions import Regions

_KM_PER_MS = 100.0
_WEIGHT = 0.3


class Nearness:
    """`home` is where this gateway stands; without `by_latency` it is what every request without region asks for."""

    def __init__(self, regions: Regions, home: str | None = None, *, by_latency: bool = False) -> None:
        self._regions = regions
        self.home = home
        self.by_latency = by_latency
        self._measured_ms: dict[str, float] = {}

    def observed(self, region: str, latency_ms: float) -> None:
        """Fold one measurement into the moving average of its region."""
        known = self._measured_ms.get(region)
        self._measured_ms[region] = latency_ms if known is None else known + _WEIGHT * (latency_ms - known)

    def latency_ms(self, region: str) -> float:
        """Measured, else reckoned; infinite where nothing is known."""
        measured = self._measured_ms.get(region)
        if measured is not None:
            return measured
        if self.home is None:
            return float("inf")
        if self._regions.within(region, self.home):
            return 0.0
        distance_km = self._regions.distance_km(self.home, region)
        return float("inf") if distance_km is None else distance_km / _KM_PER_MS

    def nearest(self, regions: Iterable[str]) -> str | None:
        """The one with the lowest latency; equals in order of their names."""
        return min(regions, key=lambda region: (self.latency_ms(region), region), default=None)
