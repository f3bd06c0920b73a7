"""The gateway tells how fast each request went while it held its place: what lanes are computed from."""

import random

from crosslogic.capacity.lanes import Paces
from crosslogic.gateway.turns import Turns
from crosslogic.kernel.clock import ManualClock
from crosslogic.metering.model import Usage
from crosslogic.queueing.model import TrafficClass, Turn, TurnAsk
from crosslogic.queueing.null import NullQueue
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler


class Deaf:
    """An observer whom nothing of this concerns."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"nobody should be told {name}")


def test_a_request_that_has_left_its_node_says_its_line_its_class_and_its_pace() -> None:
    clock = ManualClock()
    paces = Paces(50.0)
    house = Scheduler(Pool(), new_strategy("least_loaded"), random.Random(1), clock)
    turns = Turns(
        NullQueue(),
        house.places,
        clock,
        Deaf(),  # type: ignore[arg-type]
        longest_wait_s=1.0,
        by_priority=False,
        on_pace=paces.observe,
    )
    clock.advance(10)
    serverless = Turn(TurnAsk("a", "m", "org", 99.0), started_s=6.0, charged=0.0)
    turns.done(serverless, Usage(300, 100))
    assert paces.tokens_per_s("m") == 100.0
    reserved = Turn(TurnAsk("b", "m", "org", 99.0, traffic=TrafficClass.RESERVED), started_s=8.0, charged=0.0)
    turns.done(reserved, Usage(10, 10))
    assert paces.tokens_per_s("m") == 10.0
    turns.done(reserved, Usage(0, 0))  # nothing ran: it says nothing about the pace
    assert (paces.tokens_per_s("m"), paces.tokens_per_s("other")) == (10.0, 50.0)
