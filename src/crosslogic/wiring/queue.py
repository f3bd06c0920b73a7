"""Chooses the queue's adapter: fairness shared over Redis, of this process alone without it, no queue when off."""

import math

from crosslogic.gateway.turns import NoTurns, Turns, TurnTaker
from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds
from crosslogic.queueing.null import NullQueue
from crosslogic.queueing.policies import policy
from crosslogic.queueing.ports import TurnQueue
from crosslogic.queueing.redis import RedisQueue
from crosslogic.scheduling.places import Places
from crosslogic.settings.model import Settings

MOST_PER_NODE = 256  # vLLM's default for max_num_seqs


def most_per_node(settings: Settings, workers: int) -> int | None:
    """Requests that a node runs at once for one of `workers` processes; None: the node's own queue is trusted."""
    most = settings.scheduling.max_requests_per_node
    if most is None and settings.enable_queuing:
        most = MOST_PER_NODE
    return None if most is None else math.ceil(most / workers)


def new_queue(settings: Settings, redis: RedisConnection | None, places: Places) -> TurnQueue:
    if not settings.enable_queuing:
        return NullQueue()
    order = policy(settings.scheduling.policy, shared=redis is not None)
    bounds = Bounds(settings.queue.max_size, settings.queue.max_size_per_tenant)
    desk = Desk(FairQueue(order.new_order, bounds), places)
    return MemoryQueue(desk, SystemClock()) if redis is None else RedisQueue(desk, redis, SystemClock())


def new_turns(settings: Settings, queue: TurnQueue, places: Places) -> TurnTaker:
    if not settings.enable_queuing:
        return NoTurns()
    return Turns(
        queue,
        places,
        SystemClock(),
        longest_wait_s=settings.queue.timeout_s,
        by_priority=settings.enable_priority,
    )
