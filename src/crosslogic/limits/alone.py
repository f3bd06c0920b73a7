"""How one of N workers decides by itself while Redis is away, and what it owes Redis afterwards: pure.

Invariant: what all workers let pass alone is at most one limit (an equal share each, slots to the last one), and
whatever of it has not been refilled when Redis is back is charged there, so that going away gains nobody anything.
A month's budget is shared out as what was left of it when Redis was last heard.
"""

from crosslogic.limits import bucket
from crosslogic.limits.budget import Month
from crosslogic.limits.model import Admitted, Demand, Rejected, Room
from crosslogic.limits.plan import Plan
from crosslogic.limits.remote import RemoteCounter

_US = 1e6


class Alone:
    """The counters that this worker has charged alone since Redis last answered."""

    def __init__(self) -> None:
        self._charged: set[RemoteCounter] = set()
        self.decided = 0

    def reserve(
        self, plan: Plan[RemoteCounter], workers: int, rank: int, now_s: float, demand: Demand, month: Month
    ) -> Admitted | Rejected:
        """Decide within the share of worker number `rank` of `workers`."""
        self.decided += 1
        answer = bucket.reserve(_share(plan, workers, rank), now_s, demand, month)
        if isinstance(answer, Admitted):
            self._charged.update(plan.counters)  # those not charged have nothing to tell, which is harmless
        return answer

    def look(self, plan: Plan[RemoteCounter], workers: int, rank: int, now_s: float) -> Room:
        """What is left of that share."""
        return bucket.look(_share(plan, workers, rank), now_s)

    def owed(self, workers: int, now_s: float) -> list[RemoteCounter]:
        """End of being alone: move what is still taken into `alone_us`, to be sent, and empty the own buckets."""
        counters = list(self._charged)
        self._charged.clear()
        for counter in counters:
            taken_us = {
                place + 1: (at_s - now_s) * _US / workers
                for place, at_s in enumerate(counter.full_at_s)
                if at_s > now_s
            }
            counter.alone_us = taken_us or None
            counter.full_at_s[:] = [0.0] * len(counter.full_at_s)
        return counters


def _share(plan: Plan[RemoteCounter], workers: int, rank: int) -> Plan[RemoteCounter]:
    share = plan.alone
    if share is None or (share.workers, share.rank) != (workers, rank):
        share = plan.alone = Plan(plan.scopes, tuple(plan.counters), workers, rank)
    return share
