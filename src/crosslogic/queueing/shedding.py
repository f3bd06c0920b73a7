"""Who gives way when the queue is full: the lowest class first, in it the tenant that waits with the most. Pure.

The order is the stated one (architecture document §28): free, then serverless by priority, never reserved. Within a
class the longest tenant loses its last request first, counted by weight ("longest queue drop", Suter et al., INFOCOM
1998): so a queue that one tenant has filled still takes the requests of others, and a newcomer is refused only where
its own tenant would then be the longest.

Invariant: whoever gives way waits here, is not reserved, and is of no higher class than the newcomer.
"""

from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace

from crosslogic.queueing.model import TrafficClass, TurnAsk

_RESERVED = TrafficClass.RESERVED
_Key = tuple[float, int, str]
_Class = tuple[TrafficClass, int]


class _Tenant:
    """One tenant's requests of one class, in the order in which they would be kept; the last gives way first."""

    __slots__ = ("asks", "name", "weight")

    def __init__(self, name: str) -> None:
        self.name = name
        self.asks: OrderedDict[str, TurnAsk] = OrderedDict()
        self.weight = 1.0

    @property
    def key(self) -> _Key:
        """The longest first; of equals the one that came last. Never smaller after a removal."""
        return -len(self.asks) / self.weight, -self.last.sequence, self.name

    @property
    def last(self) -> TurnAsk:
        return next(reversed(self.asks.values()))


class _Peers:
    """Those of one class. `heap` holds for each tenant an item that is not behind its present key."""

    __slots__ = ("heap", "tenants")

    def __init__(self) -> None:
        self.tenants: dict[str, _Tenant] = {}
        self.heap: list[_Key] = []

    def longest(self) -> _Tenant:
        heap = self.heap
        while True:
            top = heap[0]
            tenant = self.tenants.get(top[2])
            if tenant is None:
                heappop(heap)
                continue
            key = tenant.key
            if key == top:
                return tenant
            heapreplace(heap, key)

    def push(self, tenant: _Tenant) -> None:
        heappush(self.heap, tenant.key)
        if len(self.heap) > 2 * len(self.tenants) + 64:
            self.heap = [each.key for each in self.tenants.values()]
            heapify(self.heap)


class Shedding:
    """All that wait and may have to give way. Adding and asking cost O(log tenants) on average."""

    def __init__(self) -> None:
        self._classes: dict[_Class, _Peers] = {}

    def add(self, ask: TurnAsk, *, kept: bool = False) -> None:
        """`ask` waits. With `kept` it is the last of its tenant to give way: it has been interrupted before."""
        if ask.traffic is _RESERVED:
            return
        peers = self._classes.get((ask.traffic, ask.priority))
        if peers is None:
            peers = self._classes[(ask.traffic, ask.priority)] = _Peers()
        tenant = peers.tenants.get(ask.tenant)
        if tenant is None:
            tenant = peers.tenants[ask.tenant] = _Tenant(ask.tenant)
        tenant.weight = ask.weight
        tenant.asks[ask.id] = ask
        if kept:
            tenant.asks.move_to_end(ask.id, last=False)
        peers.push(tenant)

    def remove(self, ask: TurnAsk) -> None:
        """`ask` waits no more."""
        if ask.traffic is _RESERVED:
            return
        peers = self._classes[(ask.traffic, ask.priority)]
        tenant = peers.tenants[ask.tenant]
        del tenant.asks[ask.id]
        if not tenant.asks:
            del peers.tenants[ask.tenant]
            if not peers.tenants:
                del self._classes[(ask.traffic, ask.priority)]

    def below(self, ask: TurnAsk) -> TurnAsk | None:
        """Who gives way to the newcomer `ask`; None when it is itself the one to be refused."""
        if not self._classes:
            return None
        lowest = min(self._classes)
        if lowest > (ask.traffic, ask.priority):
            return None
        peers = self._classes[lowest]
        longest = peers.longest()
        if lowest == (ask.traffic, ask.priority):
            own = peers.tenants.get(ask.tenant)
            ahead = len(own.asks) if own is not None else 0
            if len(longest.asks) / longest.weight <= (ahead + 1) / ask.weight:
                return None
        return longest.last
