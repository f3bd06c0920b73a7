"""What every queue keeps: the memory adapter, and the Redis adapter with one and three workers."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from crosslogic.kernel.clock import SystemClock
from crosslogic.net.redis import RedisConnection
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.lanes import Lane
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds, Shed, ShedReason, Standing, TrafficClass, Turn, TurnAsk
from crosslogic.queueing.null import NullQueue
from crosslogic.queueing.policies import orders
from crosslogic.queueing.redis import RedisQueue
from tests.contract.limits_rig import eventually
from tests.contract.queueing_rig import Places, Rig, Worker, ask, desk, reserved

now_s = time.monotonic
SYNC_S = 0.01

MakeRig = Callable[..., Awaitable[Rig]]


@pytest_asyncio.fixture(params=["memory", "redis-1", "redis-3"])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[MakeRig]:
    async with AsyncExitStack() as stack:

        async def rig(places: int = 1, **options: object) -> Rig:
            workers: list[Worker] = []
            if request.param == "memory":
                own = Places(places)
                queue: MemoryQueue = MemoryQueue(desk(own, **options), SystemClock(), report_every_s=0.05)  # type: ignore[arg-type]
                stack.push_async_callback(queue.close)
                return Rig([Worker(queue, own)])
            url, prefix = request.getfixturevalue("redis_url"), request.getfixturevalue("redis_prefix")
            for _ in range(int(request.param[-1])):
                own = Places(places)
                connection = await RedisConnection.connect(url)
                stack.push_async_callback(connection.close)
                queue = RedisQueue(
                    desk(own, shared=True, **options),  # type: ignore[arg-type]
                    connection,
                    SystemClock(),
                    prefix=f"{{{prefix}}}",
                    sync_s=SYNC_S,
                    calm_s=SYNC_S,
                    lengths_every_s=SYNC_S,
                    wait_s=5.0,
                    report_every_s=0.05,
                )
                stack.push_async_callback(queue.close)
                workers.append(Worker(queue, own))
            await asyncio.sleep(5 * SYNC_S)
            return Rig(workers)

        yield rig


async def waiting(worker: Worker, request: TurnAsk) -> "asyncio.Task[Turn | Shed]":
    """A request that has been queued; it takes its place when it has its turn."""
    task = asyncio.create_task(worker.begin(request))
    await asyncio.sleep(0)
    assert not task.done()
    assert worker.queue.standing(request.id) is not None
    return task


async def turn(worker: Worker, request: TurnAsk) -> Turn:
    answer = await worker.begin(request)
    assert isinstance(answer, Turn), answer
    return answer


async def refusal(worker: Worker, request: TurnAsk) -> Shed:
    answer = await worker.begin(request)
    assert isinstance(answer, Shed), answer
    return answer


async def test_while_there_are_places_nobody_waits(make: MakeRig) -> None:
    worker = (await make(places=3))[0]
    for _ in range(3):
        call = worker.queue.turn(ask(now_s()))
        with pytest.raises(StopIteration) as done:  # it is answered without a single turn of the event loop
            call.send(None)
        assert isinstance(done.value.value, Turn)
        worker.places.dispatch()
    assert worker.queue.waiting() == 0


async def test_all_are_served_and_never_more_at_once_than_there_are_places(make: MakeRig) -> None:
    rig = await make(places=4, bounds=Bounds(500, 500))
    calls = [rig[number].serve(ask(now_s(), f"t{number % 7}"), 0.001) for number in range(150)]
    answers = await asyncio.gather(*calls)
    assert all(isinstance(answer, Turn) for answer in answers)
    for worker in rig.workers:
        assert worker.places.most == 4
        assert worker.places.taken == 0
        assert worker.queue.waiting() == 0


async def test_who_waits_is_refused_at_its_deadline(make: MakeRig) -> None:
    worker = (await make())[0]
    held = await turn(worker, ask(now_s()))
    patient = await waiting(worker, ask(now_s(), patience_s=30.0))
    began_s = now_s()
    shed = await refusal(worker, ask(began_s, patience_s=0.15))
    assert shed.reason is ShedReason.DEADLINE
    assert 0.14 <= now_s() - began_s < 20.0  # and not the 30 s of the other
    assert shed.retry_after_s >= 1.0
    worker.end(held)
    assert isinstance(await patient, Turn)


async def test_a_wait_that_is_longer_than_the_deadline_is_refused_at_once(make: MakeRig) -> None:
    worker = (await make(order="fifo"))[0]
    held = await turn(worker, ask(now_s()))
    await asyncio.sleep(2.0)
    worker.end(held)  # a request takes 2 s, as far as is known
    held = await turn(worker, ask(now_s()))
    began_s = now_s()
    shed = await refusal(worker, ask(began_s, patience_s=1.0))
    assert shed.reason is ShedReason.DEADLINE
    assert now_s() - began_s < 0.9  # and not at its deadline
    worker.end(held)


async def test_a_cancelled_request_leaves_the_queue(make: MakeRig) -> None:
    worker = (await make())[0]
    held = await turn(worker, ask(now_s()))
    leaves, stays = await waiting(worker, ask(now_s(), "a")), await waiting(worker, ask(now_s(), "b"))
    leaves.cancel()
    await asyncio.gather(leaves, return_exceptions=True)
    assert worker.queue.waiting() == 1
    worker.end(held)
    worker.end(_turn(await stays))
    assert worker.places.taken == 0


async def test_a_turn_whose_caller_leaves_as_it_comes_goes_to_the_next(make: MakeRig) -> None:
    worker = (await make(order="fifo"))[0]
    for before in (True, False):
        held = await turn(worker, ask(now_s()))
        leaves, stays = await waiting(worker, ask(now_s(), "a")), await waiting(worker, ask(now_s(), "b"))
        if before:
            leaves.cancel()
            worker.end(held)
        else:
            worker.end(held)
            leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        worker.end(_turn(await asyncio.wait_for(stays, 1.0)))
        assert worker.places.taken == worker.queue.waiting() == 0
        assert isinstance(await worker.serve(ask(now_s())), Turn)


async def test_a_caller_that_is_gone_is_taken_out_by_name(make: MakeRig) -> None:
    worker = (await make())[0]
    held = await turn(worker, ask(now_s()))
    request = ask(now_s())
    leaves = await waiting(worker, request)
    worker.queue.leave(request.id)
    worker.queue.leave(request.id)
    worker.queue.leave("nobody")
    answer = await leaves
    assert isinstance(answer, Shed)
    assert answer.reason is ShedReason.LEFT
    assert worker.queue.waiting() == 0
    worker.end(held)
    assert worker.queue.standing(request.id) is None


async def test_a_tenant_may_have_only_so_many_waiting_on_all_workers(make: MakeRig) -> None:
    rig = await make(bounds=Bounds(100, 3))
    for worker in rig.workers:
        await turn(worker, ask(now_s()))
    for number in range(3):
        await waiting(rig[number], ask(now_s(), "a"))
        await rig.told()
    for worker in rig.workers:
        assert (await refusal(worker, ask(now_s(), "a"))).reason is ShedReason.TENANT_FULL
    await waiting(rig[0], ask(now_s(), "b"))
    assert (await refusal(rig[1], ask(now_s(), "c", max_waiting=0))).reason is ShedReason.TENANT_FULL


async def test_a_full_queue_sheds_the_free_first_then_by_priority_and_the_reserved_never(make: MakeRig) -> None:
    worker = (await make(bounds=Bounds(3, 10)))[0]
    await turn(worker, ask(now_s()))
    free = await waiting(worker, ask(now_s(), "f", traffic=TrafficClass.FREE, priority=9))
    low = await waiting(worker, ask(now_s(), "l", priority=1))
    later_low = await waiting(worker, ask(now_s(), "m", priority=1))
    assert (await refusal(worker, ask(now_s(), "x", traffic=TrafficClass.FREE))).reason is ShedReason.QUEUE_FULL
    assert (await refusal(worker, ask(now_s(), "x", traffic=TrafficClass.FREE, priority=9))).reason is (
        ShedReason.QUEUE_FULL
    )
    for displaced in (free, later_low, low):  # the lowest class, and in it the last to come
        await waiting(worker, reserved(now_s()))
        answer = await displaced
        assert isinstance(answer, Shed)
        assert answer.reason is ShedReason.DISPLACED
    # Nothing but reserved requests wait now: the bound is a bound.
    assert (await refusal(worker, ask(now_s(), "x", priority=99))).reason is ShedReason.QUEUE_FULL
    assert (await refusal(worker, reserved(now_s()))).reason is ShedReason.QUEUE_FULL


async def test_the_bound_of_all_holds_over_all_workers(make: MakeRig) -> None:
    rig = await make(bounds=Bounds(4, 10))
    for worker in rig.workers:
        await turn(worker, ask(now_s()))
    for number in range(4):
        await waiting(rig[number], ask(now_s(), f"t{number}"))
        await rig.told()
    for number, worker in enumerate(rig.workers):
        assert (await refusal(worker, ask(now_s(), f"x{number}"))).reason is ShedReason.QUEUE_FULL
    await waiting(rig[-1], reserved(now_s()))


async def test_service_follows_the_weights(make: MakeRig) -> None:
    rig = await make(bounds=Bounds(2000, 1000))
    for number, worker in enumerate(rig.workers):
        light, heavy = f"light{number}", f"heavy{number}"
        first = await turn(worker, ask(now_s(), "z"))
        calls = [
            asyncio.create_task(worker.serve(ask(now_s(), tenant, weight=weight, tokens=100)))
            for tenant, weight in ((light, 1.0), (heavy, 3.0))
            for _ in range(60)
        ]
        await asyncio.sleep(0)
        worker.end(first)
        await asyncio.gather(*calls)
        served = Counter(worker.served[1:61])
        assert served[heavy] == pytest.approx(3 * served[light], rel=0.2)  # 5 % in virtual time


async def test_a_tenant_that_waits_at_all_workers_gets_no_more_than_one_that_waits_at_one(make: MakeRig) -> None:
    rig = await make(bounds=Bounds(2000, 1000))
    held = [await turn(worker, ask(now_s(), "z")) for worker in rig.workers]
    crowd = [asyncio.create_task(rig[n].serve(ask(now_s(), "a", tokens=100), 0.005)) for n in range(240)]
    alone = [asyncio.create_task(rig[0].serve(ask(now_s(), "b", tokens=100), 0.005)) for _ in range(60)]
    await rig.told()
    for worker, first in zip(rig.workers, held, strict=True):
        worker.end(first, 0)
    await eventually(lambda: len(rig[0].served) >= 41)
    total = Counter(tenant for worker in rig.workers for tenant in worker.served)
    # The others' places can only go to `a`: so the first worker's all go to `b`, until it has had as much.
    workers = len(rig.workers)
    assert Counter(rig[0].served[1:41])["b"] >= (18 if workers == 1 else 36)
    assert total["a"] <= total["b"] * max(1, workers - 1) * 1.4 + 3
    for call in (*crowd, *alone):
        call.cancel()
    await asyncio.gather(*crowd, *alone, return_exceptions=True)


async def test_reserved_requests_go_first_and_the_lane_keeps_places_ready(make: MakeRig) -> None:
    worker = (await make(places=4, lane=Lane(kept=2, ready=1)))[0]
    shared = [await turn(worker, ask(now_s())) for _ in range(3)]
    waits = await waiting(worker, ask(now_s()))
    own = await turn(worker, reserved(now_s()))  # the place that was kept ready
    second = await waiting(worker, reserved(now_s()))
    worker.end(shared.pop())
    assert isinstance(await second, Turn)  # what was lent is taken back, before those who wait longer
    worker.end(shared.pop())
    worker.end(_turn(await asyncio.wait_for(waits, 1.0)))
    worker.end(own)
    worker.end(shared.pop())


async def test_preemption_puts_a_lower_request_back_to_its_old_place(make: MakeRig) -> None:
    worker = (await make(order="preemptive"))[0]
    put_back: list[str] = []
    low = ask(now_s(), "low", priority=1, preemptible=True, on_preempt=lambda: put_back.append("low"))
    running = await turn(worker, low)
    other = await waiting(worker, ask(now_s(), "other", priority=1, preempts=True))
    assert put_back == []  # an equal is not worth it
    high = await waiting(worker, ask(now_s(), "high", priority=5, preempts=True))
    await eventually(lambda: put_back == ["low"])
    worker.places.taken -= 1
    again = asyncio.create_task(worker.queue.again(running))
    in_high = _turn(await high)
    await waiting(worker, ask(now_s(), "higher", priority=9, preempts=True))
    await asyncio.sleep(0.01)
    assert put_back == ["low"]  # never twice, and never who has not agreed
    assert worker.queue.standing(low.id) is not None
    worker.end(in_high)
    await eventually(lambda: worker.served[-1] == "higher")
    assert not other.done()
    assert not again.done()
    again.cancel()


async def test_what_has_sent_a_byte_is_not_put_back(make: MakeRig) -> None:
    worker = (await make(order="preemptive"))[0]
    put_back: list[str] = []
    running = await turn(worker, ask(now_s(), preemptible=True, on_preempt=lambda: put_back.append("a")))
    running.sent = True
    await waiting(worker, ask(now_s(), "high", priority=5, preempts=True))
    await asyncio.sleep(0.01)
    assert put_back == []


async def test_who_waits_is_told_how_it_stands(make: MakeRig) -> None:
    worker = (await make(order="fifo"))[0]
    held = await turn(worker, ask(now_s()))
    await asyncio.sleep(0.1)
    worker.end(held)
    held = await turn(worker, ask(now_s()))
    told: list[Standing] = []
    await waiting(worker, ask(now_s(), "b"))
    request = ask(now_s(), "c", on_wait=told.append)
    task = await waiting(worker, request)
    await eventually(lambda: len(told) >= 2)
    assert told[0].position == 2
    assert told[0].waited_s >= 0.05
    assert told[0].estimated_wait_s == pytest.approx(0.2, rel=0.5)
    worker.end(held)
    await eventually(lambda: len(worker.served) == 3)
    standing = worker.queue.standing(request.id)
    assert standing is not None
    assert standing.position == 1
    task.cancel()


async def test_new_places_are_given_to_those_who_wait(make: MakeRig) -> None:
    worker = (await make())[0]
    await turn(worker, ask(now_s()))
    tasks = [await waiting(worker, ask(now_s())) for _ in range(3)]
    worker.places.count = 3
    worker.queue.places_changed()
    await eventually(lambda: sum(task.done() for task in tasks) == 2)
    assert worker.queue.waiting() == 1


async def test_lines_that_share_nodes_take_turns(make: MakeRig) -> None:
    worker = (await make(order="fifo"))[0]
    held = await turn(worker, ask(now_s()))
    requests = [ask(now_s(), line) for line in "xxxxyyyy"]
    for request in requests:
        request.line = request.tenant
    calls = [asyncio.create_task(worker.serve(request)) for request in requests]
    await asyncio.sleep(0)
    worker.end(held)
    await asyncio.gather(*calls)
    assert sorted(worker.served[1:3]) == sorted(worker.served[3:5]) == ["x", "y"]


class TwoNodes:
    """A node for each of two lines."""

    def __init__(self) -> None:
        self.places = {"x": Places(1), "y": Places(1)}

    def free(self, line: str) -> int:
        return self.places[line].free(line)

    def total(self, line: str) -> int:
        return 1


async def test_lines_that_share_nothing_do_not_wait_for_each_other() -> None:
    nodes = TwoNodes()
    queue = MemoryQueue(Desk(FairQueue(orders("fifo")), nodes), SystemClock())

    async def begin(line: str) -> None:
        request = ask(now_s())
        request.line = line
        assert isinstance(await queue.turn(request), Turn)
        nodes.places[line].dispatch()

    for line in "xy":
        await begin(line)
    tasks = [asyncio.create_task(begin(line)) for line in "xy"]
    await asyncio.sleep(0)
    for line in "xy":
        nodes.places[line].count = 2
    queue.places_changed()
    await asyncio.wait_for(asyncio.gather(*tasks), 1.0)
    await queue.close()


async def test_where_no_node_could_serve_the_scheduler_is_left_to_say_so(make: MakeRig) -> None:
    worker = (await make(places=0))[0]
    assert isinstance(await worker.queue.turn(ask(now_s())), Turn)


async def test_done_twice_is_done_once(make: MakeRig) -> None:
    worker = (await make())[0]
    held = await turn(worker, ask(now_s()))
    worker.end(held)
    worker.queue.done(held, 10, 10)
    held = await turn(worker, ask(now_s()))
    task = await waiting(worker, ask(now_s()))
    worker.end(held)
    worker.end(_turn(await task))


async def test_a_queue_that_closes_refuses_all_that_wait(make: MakeRig) -> None:
    worker = (await make())[0]
    await turn(worker, ask(now_s()))
    tasks = [await waiting(worker, ask(now_s())) for _ in range(5)]
    await worker.queue.close()
    answers = await asyncio.wait_for(asyncio.gather(*tasks), 1.0)
    assert all(isinstance(answer, Shed) for answer in answers)


async def test_without_a_queue_everybody_has_a_turn_at_once() -> None:
    queue = NullQueue()
    turns = [await queue.turn(ask(now_s())) for _ in range(100)]
    for held in turns:
        queue.done(held, 1, 1)
    queue.leave(turns[0].ask.id)
    queue.places_changed()
    assert queue.waiting() == 0
    assert queue.standing(turns[0].ask.id) is None
    await queue.close()


def _turn(answer: Turn | Shed) -> Turn:
    assert isinstance(answer, Turn), answer
    return answer
