"""The orders by the names that a configuration uses, and what each tier gets in the queue.

The documents give the tiers their policies ("FIFO for free, priority for paid, preemptive for enterprise"): here one
queue serves all of them, and a tier's priority, weight and preemption say how it fares in it.
"""

from collections.abc import Mapping

import msgspec

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.queueing.counters import Counters, SharedCounters
from crosslogic.queueing.model import TrafficClass
from crosslogic.queueing.orders import Fifo, NewOrder, PriorityAgeing
from crosslogic.queueing.weighted_fair import WeightedFair

DEFAULT_POLICY = "weighted_fair"


class Policy(msgspec.Struct, frozen=True):
    """An order, and whether a waiting request may put a lower one back."""

    new_order: NewOrder
    preemption: bool = False


class TierQueueing(msgspec.Struct, frozen=True):
    """What requests of a tier carry into the queue (interface document, `Tier`)."""

    traffic: TrafficClass
    priority: int
    weight: float
    max_waiting: int
    preemptible: bool


TIERS: Mapping[str, TierQueueing] = {
    "free": TierQueueing(TrafficClass.FREE, 1, 1.0, 10, True),
    "pro": TierQueueing(TrafficClass.SERVERLESS, 2, 4.0, 100, False),
    "enterprise": TierQueueing(TrafficClass.SERVERLESS, 3, 16.0, 500, False),
}


def policy(name: str, *, shared: bool = False) -> Policy:
    """The policy of that name, with hyphens or underscores. `shared`: counters are told to other processes.

    Raises ConfigurationError.
    """
    counters = SharedCounters if shared else Counters

    def fair() -> WeightedFair:
        return WeightedFair(counters())

    policies = {
        "fifo": Policy(Fifo),
        "priority": Policy(PriorityAgeing),
        "weighted_fair": Policy(fair),
        "preemptive": Policy(PriorityAgeing, preemption=True),
    }
    found = policies.get(name.replace("-", "_"))
    if found is None:
        raise ConfigurationError(f"there is no queue policy {name!r}; use one of {', '.join(sorted(policies))}")
    return found
