"""The strategies by the names that a configuration uses."""

from collections.abc import Callable, Mapping

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.scheduling.affinity import PrefixAffinity
from crosslogic.scheduling.strategies import (
    CostOptimised,
    LeastLoaded,
    RandomPick,
    RoundRobin,
    Strategy,
    WeightedHealth,
    WeightedLatency,
)

STRATEGIES: Mapping[str, Callable[[], Strategy]] = {
    "least_loaded": LeastLoaded,
    "round_robin": RoundRobin,
    "weighted_health": WeightedHealth,
    "weighted_latency": WeightedLatency,
    "cost_optimised": CostOptimised,
    "prefix_affinity": PrefixAffinity,
    "random": RandomPick,
}


def new_strategy(name: str) -> Strategy:
    """A strategy of that name, with hyphens or underscores, in either spelling. Raises ConfigurationError."""
    make = STRATEGIES.get(name.replace("-", "_").replace("optimized", "optimised"))
    if make is None:
        raise ConfigurationError(
            f"there is no scheduling strategy {name!r}; use one of {', '.join(sorted(STRATEGIES))}"
        )
    return make()
