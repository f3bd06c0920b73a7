"""Queues on counted places, and callers that take a turn, hold it and give it back."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.lanes import NO_LANE, Lane
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds, Shed, TrafficClass, Turn, TurnAsk
from crosslogic.queueing.policies import orders
from crosslogic.queueing.ports import TurnQueue
from tests.contract.limits_rig import eventually

LINE = "m"


class Places:
    """A node with so many places; every line is served by it. Counts what is dispatched, and never allows more."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.taken = 0
        self.most = 0

    def free(self, line: str) -> int:
        return self.count - self.taken

    def total(self, line: str) -> int:
        return self.count

    def dispatch(self) -> None:
        assert self.taken < self.count, "more was dispatched than there are places"
        self.taken += 1
        self.most = max(self.most, self.taken)


class Worker:
    """One process: a queue, its own places, and the log of what it let pass."""

    def __init__(self, queue: TurnQueue, places: Places) -> None:
        self.queue = queue
        self.places = places
        self.served: list[str] = []

    def waiting_by_tenant(self) -> dict[str, int]:
        assert isinstance(self.queue, MemoryQueue)
        return self.queue.desk.queue.waiting_by_tenant()

    async def begin(self, ask: TurnAsk) -> Turn | Shed:
        """Take a turn, and with it a place."""
        answer = await self.queue.turn(ask)
        if isinstance(answer, Turn):
            self.places.dispatch()
            self.served.append(ask.tenant)
        return answer

    def end(self, turn: Turn, tokens: int | None = None) -> None:
        """Give place and turn back."""
        self.places.taken -= 1
        self.queue.done(turn, 0, turn.ask.output_tokens if tokens is None else tokens)

    async def serve(self, ask: TurnAsk, seconds: float = 0.0) -> Turn | Shed:
        """The whole life of a request."""
        answer = await self.begin(ask)
        if isinstance(answer, Turn):
            try:
                await asyncio.sleep(seconds)
            finally:
                self.end(answer)
        return answer


class Rig:
    """Workers that share what they know."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self.workers = workers

    def __getitem__(self, number: int) -> Worker:
        return self.workers[number % len(self.workers)]

    async def told(self) -> None:
        """Wait until each worker knows what waits with the others."""
        await eventually(lambda: all(self._knows(worker) for worker in self.workers))

    def _knows(self, worker: Worker) -> bool:
        elsewhere: Counter[str] = Counter()
        for other in self.workers:
            if other is not worker:
                elsewhere.update(other.waiting_by_tenant())
        queue = worker.queue
        assert isinstance(queue, MemoryQueue)
        known = queue.desk.queue
        return known.elsewhere == elsewhere.total() and known.elsewhere_by_tenant == elsewhere


_numbers = iter(range(1, 10**9))


def ask(now_s: float, tenant: str = "a", *, patience_s: float = 30.0, tokens: int = 10, **fields: object) -> TurnAsk:
    """A request of that tenant."""
    name = f"{tenant}-{next(_numbers)}"
    return TurnAsk(name, LINE, tenant, now_s + patience_s, output_tokens=tokens, **fields)  # type: ignore[arg-type]


def reserved(now_s: float, tenant: str = "reserved", **fields: object) -> TurnAsk:
    """A request within what its org has reserved."""
    return ask(now_s, tenant, traffic=TrafficClass.RESERVED, **fields)


def desk(
    places: Places,
    *,
    order: str = "weighted-fair",
    bounds: Bounds | None = None,
    lane: Lane = NO_LANE,
    shared: bool = False,
) -> Desk:
    queue = FairQueue(orders(order, shared=shared), bounds)
    return Desk(queue, places, lane_of=lambda _: lane)
