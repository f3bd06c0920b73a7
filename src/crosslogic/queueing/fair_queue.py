"""The bounded queue: who may wait, in which order they go, and who gives way when it is full. Pure.

Invariants:
- Never more wait than the bounds allow, over all lines and of each tenant. (Where other processes report what waits
  with them, the bounds hold over all of them, as far as the reports go; of a tenant, each process lets its part of
  the bound wait all the same. What was put back waits beyond the bounds:
  it has been admitted before.)
- What was queued leaves exactly once: by `start`, `remove`, `expire`, or displaced by a higher class.
- `next` gives nothing whose deadline has passed.
- Reserved requests give way to nobody. They are refused only at their own bounds (of their tenant, their deadline),
  or where nothing but reserved ones wait.

A line (a set of nodes) has two lanes, reserved and shared, each with an order of its own; reserved goes first.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush

from crosslogic.queueing.model import Bounds, Queued, Shed, ShedReason, Standing, TrafficClass, Turn, TurnAsk
from crosslogic.queueing.orders import NewOrder, Order
from crosslogic.queueing.shedding import Shedding

_DURATION_WEIGHT = 0.05
_RETRY_MIN_S = 1.0
_RETRY_MAX_S = 60.0
_RESERVED = TrafficClass.RESERVED


class Lane:
    """One lane of a line: those waiting in their order, and how fast those running come to their end."""

    __slots__ = ("duration_s", "order", "running")

    def __init__(self, order: Order) -> None:
        self.order = order
        self.running = 0
        self.duration_s: float | None = None

    def ended(self, duration_s: float) -> None:
        """Fold in how long one request held its place."""
        known = self.duration_s
        self.duration_s = duration_s if known is None else known + _DURATION_WEIGHT * (duration_s - known)

    @property
    def per_s(self) -> float | None:
        """Places given free in a second, by Little's law: running over mean duration. None: not known."""
        return self.running / self.duration_s if self.running and self.duration_s else None


class Line:
    """The two lanes of a set of nodes. `running` counts the turns of each tenant that has any."""

    __slots__ = ("reserved", "running", "shared")

    def __init__(self, new_order: NewOrder) -> None:
        self.running: dict[str, int] = {}
        self.reserved = Lane(new_order())
        self.shared = Lane(new_order())

    def lane(self, traffic: TrafficClass) -> Lane:
        return self.reserved if traffic is _RESERVED else self.shared

    @property
    def waiting(self) -> int:
        return len(self.reserved.order) + len(self.shared.order)

    def position(self, ask: TurnAsk) -> int:
        rank = self.lane(ask.traffic).order.position(ask)
        return rank if ask.traffic is _RESERVED else rank + len(self.reserved.order)

    def wait_s(self, ask: TurnAsk) -> float | None:
        """Places become free at the measured rate; a reserved request may have any, others those of their lane."""
        order = self.lane(ask.traffic).order
        shared, reserved = self.shared.per_s, self.reserved.per_s
        if ask.traffic is not _RESERVED and shared is not None:
            return order.wait_s(ask, shared)
        per_s = (shared or 0.0) + (reserved or 0.0)
        return order.wait_s(ask, per_s) if per_s else None


class FairQueue:
    """All that waits in this process. `elsewhere` counts what waits in others."""

    def __init__(self, new_order: NewOrder, bounds: Bounds | None = None) -> None:
        self.bounds = bounds or Bounds()
        self.lines: dict[str, Line] = {}
        self.share = 1  # 1/share of the bounds is this process's, while it does not hear of the others
        # Who share the bounds: each keeps its part of a tenant's, however much of it waits elsewhere. Else a worker
        # that gets fewer connections would have nobody waiting, and give its places by arrival instead of by weight.
        self.workers = 1
        self.elsewhere = 0
        self.elsewhere_by_tenant: dict[str, int] = {}
        self._new_order = new_order
        self._asks: dict[str, TurnAsk] = {}
        self._tenants: dict[str, OrderedDict[str, TurnAsk]] = {}
        self._shedding = Shedding()
        self._deadlines: list[tuple[float, int, TurnAsk]] = []
        self._expired: list[TurnAsk] = []
        self._sequence = 0
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._asks)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._asks

    def line(self, name: str) -> Line:
        """The line of that name, made when it is first asked for."""
        line = self.lines.get(name)
        if line is None:
            line = self.lines[name] = Line(self._new_order)
        return line

    def by_tenant(self) -> Iterator[Iterable[TurnAsk]]:
        """Those waiting of each tenant, in the order of their coming."""
        return (asks.values() for asks in self._tenants.values())

    def waiting_by_tenant(self) -> dict[str, int]:
        """How many requests of each tenant wait here."""
        return {tenant: len(asks) for tenant, asks in self._tenants.items()}

    def offer(self, ask: TurnAsk, now_s: float) -> Queued | Shed:
        """Let `ask` wait, or say why not; the caller tells the displaced one. O(log n)."""
        if ask.deadline_s <= now_s:
            return Shed(ShedReason.DEADLINE, _RETRY_MIN_S)
        line = self.line(ask.line)
        own = self._tenants.get(ask.tenant)
        most = self.bounds.waiting_per_tenant if ask.max_waiting is None else ask.max_waiting
        most, most_in_all = -(-most // self.share), -(-self.bounds.waiting // self.share)
        waits, part = len(own) if own else 0, -(-most // self.workers)
        if waits >= part and waits + self.elsewhere_by_tenant.get(ask.tenant, 0) >= most:
            return Shed(ShedReason.TENANT_FULL, self._retry_when_one_left(own, line))
        displaced = None
        if len(self._asks) + self.elsewhere >= most_in_all:
            displaced = self._shedding.below(ask)
            if displaced is None and (ask.traffic is not _RESERVED or len(self._asks) >= most_in_all):
                return Shed(ShedReason.QUEUE_FULL, self._retry_after(line.shared.per_s, 1.0))
        self._add(ask, line, now_s)
        position, wait_s = line.position(ask), line.wait_s(ask)
        if wait_s is not None and wait_s > ask.deadline_s - now_s and ask.traffic is not _RESERVED:
            self._drop(ask)
            return Shed(ShedReason.DEADLINE, _polite(wait_s - (ask.deadline_s - now_s)))
        if displaced is not None:
            self._drop(displaced)
            position, wait_s = line.position(ask), line.wait_s(ask)
        return Queued(position, wait_s, displaced)

    def take_back(self, ask: TurnAsk, now_s: float) -> Queued | Shed:
        """Let `ask` wait again, which was interrupted: at its old place, and whatever the bounds are."""
        if ask.deadline_s <= now_s:
            return Shed(ShedReason.DEADLINE, _RETRY_MIN_S)
        line = self.line(ask.line)
        self._add(ask, line, now_s)
        return Queued(line.position(ask), line.wait_s(ask))

    def came(self, ask: TurnAsk, now_s: float) -> None:
        """Remember the place of one that starts at once and may be put back: it came now."""
        if not ask.sequence:
            self._sequence += 1
            ask.sequence = self._sequence
            ask.enqueued_s = now_s

    def next(self, name: str, now_s: float, *, reserved_only: bool = False) -> TurnAsk | None:
        """Whose turn it is on that line, reserved ones first; it waits until `start` or `remove`."""
        line = self.lines.get(name)
        if line is None:
            return None
        for lane in (line.reserved,) if reserved_only else (line.reserved, line.shared):
            while (ask := lane.order.first()) is not None:
                if ask.deadline_s > now_s:
                    return ask
                self._drop(ask)
                self._expired.append(ask)
        return None

    def start(self, ask: TurnAsk, now_s: float) -> Turn:
        """`ask` has its turn, whether it waited or not: it is charged and runs until `end`."""
        line = self.line(ask.line)
        lane = line.lane(ask.traffic)
        charged = lane.order.charge(ask, now_s)
        if ask.waiting:
            self._drop(ask)
        lane.running += 1
        line.running[ask.tenant] = line.running.get(ask.tenant, 0) + 1
        return Turn(ask, now_s, charged)

    def end(self, turn: Turn, cost: float, now_s: float) -> None:
        """The turn is over and took `cost` virtual tokens; 0 when nothing ran."""
        line, tenant = self.line(turn.ask.line), turn.ask.tenant
        lane = line.lane(turn.ask.traffic)
        lane.running -= 1
        left = line.running[tenant] - 1
        if left:
            line.running[tenant] = left
        else:
            del line.running[tenant]
        lane.order.settle(turn, cost)
        if cost > 0.0:
            lane.ended(now_s - turn.started_s)

    def remove(self, request_id: str) -> TurnAsk | None:
        """Its caller is gone; None when it does not wait."""
        ask = self._asks.get(request_id)
        if ask is not None:
            self._drop(ask)
        return ask

    def expire(self, now_s: float) -> list[TurnAsk]:
        """Take out all whose deadline has passed."""
        expired, self._expired = self._expired, []
        heap = self._deadlines
        while heap and (heap[0][0] <= now_s or not self._is_live(heap[0])):
            item = heappop(heap)
            if self._is_live(item):
                self._drop(item[2])
                expired.append(item[2])
        return expired

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` will next have something to do."""
        if self._expired:
            return self._expired[0].deadline_s
        heap = self._deadlines
        while heap and not self._is_live(heap[0]):
            heappop(heap)
        return heap[0][0] if heap else None

    def position(self, request_id: str) -> int | None:
        """How many turns of its line until its own; None when it does not wait."""
        ask = self._asks.get(request_id)
        return None if ask is None else self.line(ask.line).position(ask)

    def standing(self, request_id: str, now_s: float) -> Standing | None:
        """Position and estimated wait of one that waits."""
        ask = self._asks.get(request_id)
        if ask is None:
            return None
        line = self.line(ask.line)
        return Standing(line.position(ask), line.wait_s(ask), now_s - (ask.enqueued_s or now_s))

    # --- inside -------------------------------------------------------------------------------------------------

    def _add(self, ask: TurnAsk, line: Line, now_s: float) -> None:
        put_back = ask.sequence > 0
        if not put_back:
            self._sequence += 1
            ask.sequence = self._sequence
        if ask.enqueued_s is None:
            ask.enqueued_s = now_s
        ask.waiting = True
        self._asks[ask.id] = ask
        self._tenants.setdefault(ask.tenant, OrderedDict())[ask.id] = ask
        self._shedding.add(ask, kept=put_back)
        line.lane(ask.traffic).order.add(ask)
        self._pushed += 1  # no two items are equal, also when a request that was put back comes again
        heappush(self._deadlines, (ask.deadline_s, self._pushed, ask))
        if len(self._deadlines) > 2 * len(self._asks) + 64:
            self._deadlines = [(ask.deadline_s, place, ask) for place, ask in enumerate(self._asks.values())]
            heapify(self._deadlines)

    def _drop(self, ask: TurnAsk) -> None:
        self.line(ask.line).lane(ask.traffic).order.remove(ask)
        ask.waiting = False
        del self._asks[ask.id]
        own = self._tenants[ask.tenant]
        del own[ask.id]
        if not own:
            del self._tenants[ask.tenant]
        self._shedding.remove(ask)

    def _is_live(self, item: tuple[float, int, TurnAsk]) -> bool:
        return item[2].waiting and item[2].deadline_s == item[0]

    def _retry_when_one_left(self, own: OrderedDict[str, TurnAsk] | None, line: Line) -> float:
        """When the first of the tenant's own requests has its turn."""
        if not own:
            return _RETRY_MIN_S
        first = next(iter(own.values()))
        wait_s = self.line(first.line).wait_s(first)
        return _RETRY_MIN_S if wait_s is None else _polite(wait_s)

    def _retry_after(self, per_s: float | None, places: float) -> float:
        return _RETRY_MIN_S if per_s is None else _polite(places / per_s)


def _polite(seconds: float) -> float:
    return min(max(seconds, _RETRY_MIN_S), _RETRY_MAX_S)
