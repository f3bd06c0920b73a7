"""What waiting costs this process: `python -m bench.micro.queueing`. One core, no Redis; microseconds of CPU.

`turn + done` is what each request pays while there are places; `offer + next` what it pays when it has to wait, with
so many others waiting already, including its position and estimated wait.
"""

import asyncio
import time
from collections.abc import Callable

import uvloop

from crosslogic.kernel.clock import SystemClock
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.lanes import Lane
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds, Queued, Turn, TurnAsk
from crosslogic.queueing.null import NullQueue
from crosslogic.queueing.policies import orders
from crosslogic.queueing.ports import TurnQueue

WAITING = (10, 1000, 10_000)
TENANTS = 500
ROUNDS = 7


class Plenty:
    """More places than anybody takes."""

    def free(self, line: str) -> int:
        return 100

    def total(self, line: str) -> int:
        return 100


def asks(count: int) -> list[TurnAsk]:
    return [TurnAsk(f"req_{n}", "m", f"org_{n % TENANTS}", 1e12, 300, 200) for n in range(count)]


def median_us(work: Callable[[int], float]) -> float:
    """Median over rounds of CPU a call; `work` does so many calls and returns the seconds they took."""
    calls = 5000
    return sorted(work(calls) / calls * 1e6 for _ in range(ROUNDS))[ROUNDS // 2]


def offer_and_next(name: str, waiting: int) -> float:
    """Keep so many waiting; for each request that comes one goes, and one ends."""
    queue = FairQueue(orders(name), Bounds(2 * waiting + 10, 2 * waiting + 10))
    for ask in asks(waiting):
        queue.offer(ask, 0.0)
    now_s = 1.0
    number = 0

    def work(calls: int) -> float:
        nonlocal now_s, number
        fresh = [TurnAsk(f"new_{number + n}", "m", f"org_{n * 7 % TENANTS}", 1e12, 300, 200) for n in range(calls)]
        number += calls
        turns: list[Turn] = []
        began_s = time.process_time()
        for ask in fresh:
            now_s += 0.001
            assert isinstance(queue.offer(ask, now_s), Queued)
            first = queue.next("m", now_s)
            assert first is not None
            turns.append(queue.start(first, now_s))
        took_s = time.process_time() - began_s
        for turn in turns:
            queue.end(turn, 500.0, now_s + 1.0)
        return took_s

    return median_us(work)


async def turn_and_done(queue: TurnQueue) -> tuple[float, float]:
    """A request that finds a place: what `turn` costs, and what `done` does."""
    turn_us: list[float] = []
    done_us: list[float] = []
    for _ in range(ROUNDS):
        fresh = asks(5000)
        began_s = time.process_time()
        turns = [await queue.turn(ask) for ask in fresh]
        turn_us.append((time.process_time() - began_s) / len(fresh) * 1e6)
        began_s = time.process_time()
        for turn in turns:
            assert isinstance(turn, Turn)
            queue.done(turn, 300, 100)
        done_us.append((time.process_time() - began_s) / len(fresh) * 1e6)
    return sorted(turn_us)[ROUNDS // 2], sorted(done_us)[ROUNDS // 2]


async def handed_over(name: str, waiting: int) -> float:
    """A request that waits in the event loop until another is done, all in all."""
    place = OnePlace()
    queue = MemoryQueue(desk(name, place), SystemClock())
    held = await queue.turn(TurnAsk("first", "m", "org", 1e12))

    async def caller(ask: TurnAsk) -> None:
        turn = await queue.turn(ask)
        assert isinstance(turn, Turn)
        queue.done(turn, 300, 100)

    place.taken = True
    began_s = time.process_time()
    tasks = [asyncio.ensure_future(caller(ask)) for ask in asks(waiting)]
    await asyncio.sleep(0)
    place.taken = False
    assert isinstance(held, Turn)
    queue.done(held, 1, 1)
    await asyncio.gather(*tasks)
    return (time.process_time() - began_s) / waiting * 1e6


class OnePlace:
    """One place."""

    taken = False

    def free(self, line: str) -> int:
        return 0 if self.taken else 1

    def total(self, line: str) -> int:
        return 1


def desk(name: str, capacity: Plenty | OnePlace, lane: Lane | None = None, *, shared: bool = False) -> Desk:
    queue = FairQueue(orders(name, shared=shared), Bounds(20_000, 20_000))
    return Desk(queue, capacity) if lane is None else Desk(queue, capacity, lane_of=lambda _: lane)


async def main() -> None:
    print("a request that finds a place, µs     turn    done")
    for title, queue in (
        ("no queue", NullQueue()),
        ("fifo", MemoryQueue(desk("fifo", Plenty()), SystemClock())),
        ("weighted-fair", MemoryQueue(desk("weighted-fair", Plenty()), SystemClock())),
        ("weighted-fair, shared counters", MemoryQueue(desk("weighted-fair", Plenty(), shared=True), SystemClock())),
        ("weighted-fair, reserved lane", MemoryQueue(desk("weighted-fair", Plenty(), Lane(8, 4)), SystemClock())),
    ):
        turn_us, done_us = await turn_and_done(queue)
        print(f"  {title:32} {turn_us:6.2f}  {done_us:6.2f}")
    print("offer + next, µs" + "".join(f"{count:>10}" for count in WAITING) + "   waiting")
    for name in ("fifo", "priority", "weighted-fair"):
        print(f"  {name:14}" + "".join(f"{offer_and_next(name, count):10.2f}" for count in WAITING))
    print(f"waiting and being woken, weighted-fair, 5000 waiting: {await handed_over('weighted-fair', 5000):.1f} µs")


if __name__ == "__main__":
    uvloop.run(main())
