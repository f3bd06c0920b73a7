"""Chooses the queue's adapter: fairness shared over Redis, of this process alone without it, no queue when off."""

import math
from contextlib import AsyncExitStack

from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.lanes import Paces, ReservedLanes
from crosslogic.gateway.turns import NoTurns, Turns, TurnTaker
from crosslogic.gateway.visit import Observer
from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.queueing.board.null import NullBoard
from crosslogic.queueing.board.ports import QueueBoard
from crosslogic.queueing.board.redis import RedisBoard
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds
from crosslogic.queueing.null import NullQueue
from crosslogic.queueing.policies import PREEMPTIVE, orders
from crosslogic.queueing.ports import TurnQueue
from crosslogic.queueing.redis import RedisQueue
from crosslogic.scheduling.places import Places
from crosslogic.settings.model import Settings
from crosslogic.settings.sections import SchedulingSettings
from crosslogic.telemetry.metrics import Metrics
from crosslogic.wiring import translate
from crosslogic.wiring.redis import redis_connection

MOST_PER_NODE = 256  # vLLM's default for max_num_seqs


def most_per_node(settings: Settings, workers: int) -> int | None:
    """Requests that a node runs at once for one of `workers` processes; None: the node's own queue is trusted."""
    most = settings.scheduling.max_requests_per_node
    if most is None and settings.enable_queuing:
        most = MOST_PER_NODE
    return None if most is None else math.ceil(most / workers)


def new_lanes(settings: Settings, guarantees: Guarantees, places: Places, workers: int) -> ReservedLanes:
    capacity = settings.capacity
    return ReservedLanes(
        guarantees,
        places,
        Paces(capacity.place_tokens_per_s),
        SystemClock().monotonic_s,
        translate.terms(capacity),
        workers=lambda: workers,
        ready_share=capacity.ready_share,
    )


def new_queue(
    settings: Settings, redis: RedisConnection | None, places: Places, metrics: Metrics, lanes: ReservedLanes
) -> TurnQueue:
    if not settings.enable_queuing:
        return NullQueue()
    bounds = Bounds(settings.queue.max_size, settings.queue.max_size_per_tenant)
    desk = Desk(FairQueue(orders(shared=redis is not None), bounds), places, lane_of=lanes.lane_of)
    told = metrics.queue_waiting
    if redis is None:
        return MemoryQueue(desk, SystemClock(), on_length=told)
    queue = RedisQueue(desk, redis, SystemClock(), on_degraded=metrics.queue_degraded, on_length=told)
    of_this_machine = lanes.workers()
    lanes.workers = lambda: max(of_this_machine, queue.workers)
    return queue


async def new_board(settings: Settings, stack: AsyncExitStack) -> QueueBoard:
    """How a management process of its own sees what waits in the gateways."""
    if not settings.enable_queuing:
        return NullBoard()
    connection = await redis_connection(settings, stack, {})
    if connection is None:
        return NullBoard("what waits in the gateways is told through Redis: set redis.url")
    return RedisBoard(connection)


def new_turns(
    settings: Settings, queue: TurnQueue, places: Places, observer: Observer, lanes: ReservedLanes
) -> TurnTaker:
    if not settings.enable_queuing:
        return NoTurns()
    return Turns(
        queue,
        places,
        SystemClock(),
        observer,
        longest_wait_s=settings.queue.timeout_s,
        by_priority=settings.enable_priority,
        policy=policy(settings.scheduling),
        on_pace=lanes.paces.observe,
    )


def policy(scheduling: SchedulingSettings) -> str:
    """The order of those whose plan names none.

    `preemption_enabled` makes `priority` preemptive; in the other orders the freed place need not go to who asked for
    it, so it changes nothing there.
    """
    return PREEMPTIVE if scheduling.policy == "priority" and scheduling.preemption_enabled else scheduling.policy
