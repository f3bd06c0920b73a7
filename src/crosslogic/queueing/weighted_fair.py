"""Fair shares of the tokens served: the waiting tenant goes first that has had the least for its weight.

Virtual token counters (Sheng et al., OSDI 2024): a tenant is charged when its request starts, by an estimate, and
settled to what was used when it ends. Who comes back after an absence is lifted to the least of those waiting, or,
when nobody waits, to the present; so idleness saves nothing up, and whoever used an idle fleet alone owes nothing.
Between two tenants that both wait all the time, service differs by at most what is in flight and one request.

The estimate is the caller's own (`max_tokens`) times what this tenant's requests used of theirs, so that a tenant
that asks for the maximum by habit is neither held back nor told a false wait.

Who goes first is exact at every moment. A position is a forecast: it follows from what those waiting would cost,
and what runs may turn out otherwise.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from heapq import heapify, heappop, heappush, heapreplace

from crosslogic.queueing.counters import Counters
from crosslogic.queueing.model import Turn, TurnAsk

_RATIO_WEIGHT = 0.1
_LEAST_RATIO = 0.01
_MOST_RATIOS = 20_000
_HALF_LIFE_S = 5.0
_KNOWN_AFTER_S = 1.0


class _Tenant:
    """Requests of one tenant that wait, in the order of their coming. `key`: where its valid item in the heap is."""

    __slots__ = ("asks", "cost", "key")

    def __init__(self, key: float) -> None:
        self.asks: OrderedDict[int, TurnAsk] = OrderedDict()
        self.cost = 0.0
        self.key = key


class _Speed:
    """How fast the present of a lane moves, in counter units a second, while somebody waits; old times fade away."""

    __slots__ = ("_at_s", "_moved", "_took_s", "_was")

    def __init__(self) -> None:
        self._at_s: float | None = None
        self._was = 0.0
        self._moved = 0.0
        self._took_s = 0.0

    def observe(self, virtual: float, now_s: float) -> None:
        """The present is here now, and somebody waits."""
        if self._at_s is not None and now_s > self._at_s:
            took_s = now_s - self._at_s
            kept = 0.5 ** (took_s / _HALF_LIFE_S)
            self._moved = self._moved * kept + virtual - self._was
            self._took_s = self._took_s * kept + took_s
        elif self._at_s is not None:
            self._moved += virtual - self._was
        self._at_s, self._was = now_s, virtual

    def interrupt(self) -> None:
        """Nobody waits: what the present does now says nothing about waiting."""
        self._at_s = None

    @property
    def per_s(self) -> float | None:
        return self._moved / self._took_s if self._took_s >= _KNOWN_AFTER_S and self._moved > 0.0 else None


class WeightedFair:
    """An `Order` by virtual token counters."""

    def __init__(self, counters: Counters | None = None) -> None:
        self.counters = counters if counters is not None else Counters()
        self._tenants: dict[str, _Tenant] = {}
        # Items whose value is not their tenant's key are leftovers, and skipped.
        self._heap: list[tuple[float, str]] = []
        self._forecast: list[tuple[float, int]] = []
        self._ratios: dict[str, float] = {}
        self._ratio = 1.0  # of all tenants, for those who are new
        self._speed = _Speed()

    def __len__(self) -> int:
        return len(self._forecast)

    @property
    def tenants(self) -> list[str]:
        """Those who wait."""
        return list(self._tenants)

    def add(self, ask: TurnAsk) -> None:
        tenant = self._tenants.get(ask.tenant)
        if tenant is None:
            tenant = _Tenant(self.counters.lift(ask.tenant, self._floor()))
            self._tenants[ask.tenant] = tenant
            self._push(tenant, ask.tenant)
        put_back = bool(tenant.asks) and ask.sequence < next(reversed(tenant.asks))
        ahead = 0.0 if put_back else tenant.cost
        ask.rank = self.counters.value(ask.tenant) + ahead / ask.weight
        tenant.asks[ask.sequence] = ask
        if put_back:
            tenant.asks.move_to_end(ask.sequence, last=False)
        ask.expected_cost = self._cost(ask)
        tenant.cost += ask.expected_cost
        insort(self._forecast, (ask.rank, ask.sequence))

    def first(self) -> TurnAsk | None:
        heap = self._heap
        while heap:
            key, name = heap[0]
            tenant = self._tenants.get(name)
            if tenant is None or tenant.key != key:
                heappop(heap)
                continue
            value = self.counters.value(name)
            if value > key:
                tenant.key = value
                heapreplace(heap, (value, name))
                continue
            return next(iter(tenant.asks.values()))
        return None

    def remove(self, ask: TurnAsk) -> None:
        tenant = self._tenants[ask.tenant]
        del tenant.asks[ask.sequence]
        tenant.cost = max(0.0, tenant.cost - ask.expected_cost)
        if not tenant.asks:
            del self._tenants[ask.tenant]
        del self._forecast[bisect_left(self._forecast, (ask.rank, ask.sequence))]

    def position(self, ask: TurnAsk) -> int:
        return bisect_left(self._forecast, (ask.rank, ask.sequence)) + 1

    def wait_s(self, ask: TurnAsk, per_s: float) -> float:
        """Those ahead now, or, where that is longer, until the present has moved to where this request will start.

        The second counts in those who come later and yet go before, as they did in the last seconds.
        """
        wait_s = self.position(ask) / per_s
        speed = self._speed.per_s
        if speed is not None:
            wait_s = max(wait_s, (ask.rank - self.counters.virtual) / speed)
        return wait_s

    def charge(self, ask: TurnAsk, now_s: float) -> float:
        counters = self.counters
        if ask.waiting:
            value = counters.value(ask.tenant)
        else:
            value = counters.lift(ask.tenant, self._floor() if self._tenants else counters.virtual)
        if value > counters.virtual:
            counters.virtual = value
        if self._tenants:
            self._speed.observe(counters.virtual, now_s)
        else:
            self._speed.interrupt()
        charged = self._cost(ask)
        counters.add(ask.tenant, charged / ask.weight)
        return charged

    def settle(self, turn: Turn, cost: float) -> None:
        ask = turn.ask
        self.counters.add(ask.tenant, (cost - turn.charged) / ask.weight)
        self.moved(ask.tenant)
        estimate = ask.cost
        if cost > 0.0 and estimate > 0.0:
            share = cost / estimate
            known = self._ratios.get(ask.tenant, self._ratio)
            if len(self._ratios) >= _MOST_RATIOS:
                self._ratios.clear()
            self._ratios[ask.tenant] = max(_LEAST_RATIO, known + _RATIO_WEIGHT * (share - known))
            self._ratio = max(_LEAST_RATIO, self._ratio + _RATIO_WEIGHT * (share - self._ratio))

    def moved(self, name: str) -> None:
        """The counter of this tenant may have fallen: then it goes earlier than it would have."""
        tenant = self._tenants.get(name)
        if tenant is None:
            return
        value = self.counters.value(name)
        if value < tenant.key:
            tenant.key = value
            self._push(tenant, name)

    def _cost(self, ask: TurnAsk) -> float:
        return ask.cost * self._ratios.get(ask.tenant, self._ratio)

    def _floor(self) -> float:
        """The least of those who wait; when nobody does, where the one served last stood."""
        first = self.first()
        return self.counters.virtual if first is None else self.counters.value(first.tenant)

    def _push(self, tenant: _Tenant, name: str) -> None:
        heappush(self._heap, (tenant.key, name))
        if len(self._heap) > 2 * len(self._tenants) + 64:
            self._heap = [(tenant.key, name) for name, tenant in self._tenants.items()]
            heapify(self._heap)
