"""What a pick costs: `python bench/micro/pick.py` prints microseconds for each strategy and fleet size."""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import NodeId, OrgId
from crosslogic.scheduling.model import Ask, Candidate
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import STRATEGIES, new_strategy
from crosslogic.scheduling.scheduler import Scheduler

SIZES = (2, 8, 100, 1000)
ORG = OrgId("org_bench")


def fleet(size: int) -> list[Node]:
    """Nodes of different prices, speeds and health."""
    rng = random.Random(size)
    return [
        Node(
            id=NodeId(f"node_{index:06d}"),
            endpoint_url=f"http://10.0.{index // 250}.{index % 250}:8000",
            models=("m",),
            status=NodeStatus.ACTIVE,
            created_at=datetime(2026, 1, 1, tzinfo=UTC),
            health_score=rng.uniform(0.5, 1.0),
            spot_price_usd_per_hour=rng.choice((1.1, 2.2, 3.3)),
            throughput_tokens_per_s=rng.choice((1000.0, 2500.0, 4000.0)),
        )
        for index in range(size)
    ]


def median_us(work: Callable[[], object], rounds: int = 9, calls: int = 2000) -> float:
    """Median over `rounds` of the mean of `calls`."""
    work()
    times: list[float] = []
    for _ in range(rounds):
        began = time.perf_counter()
        for _ in range(calls):
            work()
        times.append((time.perf_counter() - began) / calls * 1e6)
    return sorted(times)[rounds // 2]


def request(scheduler: Scheduler) -> Callable[[], object]:
    """The three calls that each request makes."""
    keys = iter(range(10**12))

    def work() -> None:
        ask = Ask(model="m", org_id=ORG, tokens=600, prefix_hash=next(keys) * 2654435761)
        picked = scheduler.pick(ask)
        assert isinstance(picked, Candidate)
        scheduler.dispatched(picked, 600)
        scheduler.finished(picked, 600, ok=True, first_token_ms=20.0)

    return work


def main() -> None:
    print("pick + dispatched + finished, µs (with making the Ask)")
    print(f"{'strategy':<18}" + "".join(f"{size:>10}" for size in SIZES) + "   nodes")
    for name in STRATEGIES:
        cells: list[str] = []
        for size in SIZES:
            pool = Pool()
            pool.update(fleet(size))
            scheduler = Scheduler(pool, new_strategy(name), random.Random(1), SystemClock())
            cells.append(f"{median_us(request(scheduler)):>10.2f}")
        print(f"{name:<18}" + "".join(cells))
    nodes = fleet(1000)
    retry = Ask(model="m", org_id=ORG, tokens=600, excluded=(nodes[0].id,))
    pool = Pool()
    pool.update(nodes)
    scheduler = Scheduler(pool, new_strategy("least_loaded"), random.Random(1), SystemClock())
    print(f"retry (one node excluded), 1000 nodes: {median_us(lambda: scheduler.pick(retry), calls=200):.1f} µs")
    fresh = Pool()
    began = time.perf_counter()
    fresh.update(nodes)
    print(f"first update with 1000 nodes: {(time.perf_counter() - began) * 1e3:.1f} ms")


if __name__ == "__main__":
    main()
