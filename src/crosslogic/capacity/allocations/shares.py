"""Who may still have how much. Pure.

Invariant: for each kind of resource, the sum over all orgs of the greater of what is reserved for it and what it has
taken never exceeds the total. So a reserve can always be taken in full, whatever the others do.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from crosslogic.capacity.allocations.model import NOTHING, Allocation, Reserve, Resources, Standing, Totals
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import OrgId

MOST = 10**12
LONGEST_S = 366 * 86_400.0
_TOLERANCE = 1e-9  # of cores, which are fractions
_COUNTED = (NodeStatus.ACTIVE, NodeStatus.STARTING)
_WORDS = {"gpu_memory_mb": "MB of GPU memory", "cpu_cores": "CPU cores", "concurrency": "requests at once"}


def totals_of(nodes: Iterable[Node], configured: Totals, most_per_node: int) -> Totals:
    """What the configuration says there is, else what registered nodes have."""
    living = [node for node in nodes if node.status in _COUNTED]
    memory_mb, requests = configured.gpu_memory_mb, configured.concurrency
    return Totals(
        sum(node.vram_total_mb or 0 for node in living) if memory_mb is None else memory_mb,
        configured.cpu_cores,
        most_per_node * len(living) if requests is None else requests,
    )


def checked(resources: Resources) -> Resources:
    for name, word in _WORDS.items():
        if not 0 <= getattr(resources, name) <= MOST:
            raise InvalidRequest(f"{word} are 0 to {MOST}", param=name)
    return resources


def check_duration(lasts_s: float) -> None:
    if not 0 < lasts_s <= LONGEST_S:
        raise InvalidRequest("an allocation lasts more than nothing and at most a year", param="lasts_s")


class Shares:
    """All that is reserved and taken at one moment; what has expired is left out."""

    def __init__(
        self, totals: Totals, reserves: Iterable[Reserve], allocations: Iterable[Allocation], now: datetime
    ) -> None:
        self.totals = totals
        self._reserved = {
            reserve.org_id: reserve.resources
            for reserve in reserves
            if reserve.expires_at is None or reserve.expires_at > now
        }
        self._taken: dict[OrgId, Resources] = {}
        for allocation in allocations:
            if allocation.expires_at > now:
                known = self._taken.get(allocation.org_id, NOTHING)
                self._taken[allocation.org_id] = known + allocation.resources

    def standing(self, org_id: OrgId) -> Standing:
        taken = self._taken.get(org_id, NOTHING)
        memory_mb, cores, requests = (self._left(name, org_id) for name in _WORDS)
        available = Totals(
            None if memory_mb is None else int(memory_mb), cores, None if requests is None else int(requests)
        )
        return Standing(self._reserved.get(org_id, NOTHING), taken, available)

    def check_allocation(self, org_id: OrgId, wanted: Resources) -> None:
        """Raises Conflict when `wanted` would be more than is available to the org."""
        if wanted == NOTHING:
            raise InvalidRequest("an allocation is of something", param="gpu_memory_mb")
        for name, word in _WORDS.items():
            left = self._left(name, org_id)
            if left is not None and getattr(wanted, name) > left + _TOLERANCE:
                raise Conflict(f"only {left:g} {word} are available to this org; take fewer, or release some")

    def check_reserve(self, org_id: OrgId, wanted: Resources) -> None:
        """Raises Conflict when the others leave less than `wanted`."""
        for name, word in _WORDS.items():
            total: float | None = getattr(self.totals, name)
            if total is None:
                continue
            free = max(0, total - self._of_others(name, org_id))
            if getattr(wanted, name) > free + _TOLERANCE:
                raise Conflict(f"only {free:g} {word} are free to be reserved; reserve fewer, or add nodes")

    def _of_others(self, name: str, org_id: OrgId) -> float:
        orgs = (self._reserved.keys() | self._taken.keys()) - {org_id}
        return sum(max(_amount(self._reserved, each, name), _amount(self._taken, each, name)) for each in orgs)

    def _left(self, name: str, org_id: OrgId) -> float | None:
        total: float | None = getattr(self.totals, name)
        if total is None:
            return None
        return max(0, total - self._of_others(name, org_id) - _amount(self._taken, org_id, name))


def page(allocations: Iterable[Allocation], *, after: str | None, limit: int) -> Sequence[Allocation]:
    """In order of id, which is order of time; `after` is the last id of the page before."""
    found = sorted((each for each in allocations if after is None or each.id > after), key=lambda each: each.id)
    return found[:limit]


def _amount(of: Mapping[OrgId, Resources], org_id: OrgId, name: str) -> float:
    amount: float = getattr(of.get(org_id, NOTHING), name)
    return amount
