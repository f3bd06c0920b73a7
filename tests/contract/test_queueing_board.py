"""The board of what waits, in memory and over Redis: the same questions, the same answers."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
import pytest_asyncio

from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import RedisConnection
from crosslogic.queueing.board.memory import MemoryBoard
from crosslogic.queueing.board.model import MAX_LISTED, MAX_LISTED_OF_TENANT, Board, TenantLine, look, together
from crosslogic.queueing.board.null import NullBoard
from crosslogic.queueing.board.ports import QueueBoard
from crosslogic.queueing.board.redis import BoardReporter, RedisBoard
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.memory import MemoryQueue
from crosslogic.queueing.model import Bounds, Shed, ShedReason, Turn, TurnAsk
from crosslogic.queueing.policies import orders
from tests.contract.queueing_rig import LINE, Places, Worker, ask, desk

now_s = time.monotonic


class Watched:
    """Workers with one place each, and the board over all of them."""

    def __init__(self, workers: list[Worker], board: QueueBoard, beat: Callable[[], Awaitable[None]]) -> None:
        self.workers, self.board, self.beat = workers, board, beat
        self.tasks: list[asyncio.Task[Turn | Shed]] = []

    async def waits(self, worker: int, request: TurnAsk) -> "asyncio.Task[Turn | Shed]":
        task = asyncio.create_task(self.workers[worker % len(self.workers)].begin(request))
        self.tasks.append(task)
        await asyncio.sleep(0)
        return task

    async def seen(self) -> Board:
        await self.beat()
        return await self.board.board()


@pytest_asyncio.fixture(params=["memory", "redis"])
async def watched(request: pytest.FixtureRequest) -> AsyncIterator[Watched]:
    async with AsyncExitStack() as stack:
        workers = []
        for _ in range(1 if request.param == "memory" else 2):
            own = Places(1)
            queue = MemoryQueue(desk(own, order="fifo"), SystemClock())
            stack.push_async_callback(queue.close)
            workers.append(Worker(queue, own))
        if request.param == "memory":
            board = MemoryBoard()
            board.show(workers[0].queue)

            async def nothing() -> None:
                pass

            rig = Watched(workers, board, nothing)
        else:
            connection = await RedisConnection.connect(request.getfixturevalue("redis_url"))
            stack.push_async_callback(connection.close)
            prefix = f"{{{request.getfixturevalue('redis_prefix')}}}:"
            reporters = [BoardReporter(worker.queue, connection, prefix=prefix) for worker in workers]

            async def beat() -> None:
                for reporter in reporters:
                    await reporter.listen()
                    await reporter.report()

            rig = Watched(workers, RedisBoard(connection, prefix=prefix), beat)
        yield rig
        for task in rig.tasks:
            task.cancel()
        await asyncio.gather(*rig.tasks, return_exceptions=True)


async def test_nothing_waits_and_nothing_runs(watched: Watched) -> None:
    assert await watched.seen() == Board()
    assert not await watched.board.remove("unknown")


async def test_it_tells_what_waits_and_runs_of_each_tenant_and_how_each_request_stands(watched: Watched) -> None:
    for number in range(len(watched.workers)):
        await watched.waits(number, ask(now_s(), "a"))
    await asyncio.sleep(0.02)
    mine = ask(now_s(), "b", shown_id=b"mine", priority=3)
    await watched.waits(0, ask(now_s(), "a"))
    await watched.waits(0, mine)
    board = await watched.seen()
    tenants = {row.tenant: row for row in board.tenants}
    assert (tenants["a"].waiting, tenants["a"].running) == (1, len(watched.workers))
    assert (tenants["b"].waiting, tenants["b"].running, tenants["b"].line) == (1, 0, LINE)
    (found,) = [row for row in board.requests if row.tenant == "b"]
    assert (found.request_id, found.client_request_id, found.position, found.priority) == (mine.id, "mine", 2, 3)
    assert 0.0 <= found.waited_s < 5.0


async def test_what_has_ended_is_gone(watched: Watched) -> None:
    task = await watched.waits(0, ask(now_s(), "a"))
    assert (await watched.seen()).tenants
    answer = await task
    assert isinstance(answer, Turn)
    watched.workers[0].end(answer)
    assert await watched.seen() == Board()


async def test_one_is_taken_out_and_its_caller_is_told(watched: Watched) -> None:
    for number in range(len(watched.workers)):
        await watched.waits(number, ask(now_s(), "a"))
    last = len(watched.workers) - 1
    request = ask(now_s(), "b")
    task = await watched.waits(last, request)
    stays = await watched.waits(last, ask(now_s(), "b"))
    await watched.seen()
    assert await watched.board.remove(request.id)
    assert [row.waiting for row in (await watched.seen()).tenants if row.tenant == "b"] == [1]
    assert await task == Shed(ShedReason.REMOVED, 1.0)
    assert not await watched.board.remove(request.id)
    assert not stays.done()


def test_a_board_is_bounded_and_shows_some_of_each_tenant() -> None:
    queue = FairQueue(orders("weighted-fair"), Bounds(100_000, 100_000))
    for number in range(3000):
        queue.offer(TurnAsk(f"g{number}", LINE, "greedy", 1e9), 1.0)
    queue.offer(TurnAsk("small", LINE, "small", 1e9), 2.0)
    for number in range(1000):
        queue.offer(TurnAsk(f"t{number}", LINE, f"t{number}", 1e9), 3.0)
    board = look(queue, 4.0)
    listed = [row.request_id for row in board.requests]
    assert len(listed) == MAX_LISTED
    assert listed[:MAX_LISTED_OF_TENANT] == [f"g{number}" for number in range(MAX_LISTED_OF_TENANT)]
    assert "small" in listed
    assert sum(row.waiting for row in board.tenants) == 4001
    assert {row.oldest_wait_s for row in board.tenants if row.tenant in ("greedy", "small")} == {3.0, 2.0}


def test_several_boards_are_summed_and_the_longest_wait_is_told() -> None:
    one = Board([TenantLine("m", "a", 2, 1, 5.0, None), TenantLine("m", "b", 1, 0, 1.0, 2.0)])
    other = Board([TenantLine("m", "a", 3, 4, 7.0, 9.0), TenantLine("n", "a", 1, 0, 1.0, None)])
    assert together([one, other]).tenants == [
        TenantLine("m", "a", 5, 5, 7.0, 9.0),
        TenantLine("m", "b", 1, 0, 1.0, 2.0),
        TenantLine("n", "a", 1, 0, 1.0, None),
    ]


async def test_where_nobody_reports_it_says_so_and_where_nothing_ever_waits_it_is_empty() -> None:
    with pytest.raises(Unavailable, match="Redis"):
        await NullBoard("only through Redis").board()
    assert await NullBoard().board() == Board()


async def test_a_worker_that_died_is_seen_no_more(redis_url: str, redis_prefix: str) -> None:
    connection = await RedisConnection.connect(redis_url)
    prefix = f"{{{redis_prefix}}}:"
    queue = MemoryQueue(desk(Places(1)), SystemClock())
    turn = await queue.turn(ask(now_s()))
    reporter = asyncio.create_task(
        BoardReporter(queue, connection, prefix=prefix, report_every_s=0.1, listen_every_s=0.05).run()
    )
    board = RedisBoard(connection, prefix=prefix)
    for _ in range(100):
        if (await board.board()).tenants:
            break
        await asyncio.sleep(0.02)
    assert (await board.board()).tenants
    reporter.cancel()
    await connection.execute("DEL", *await connection.execute("KEYS", f"{prefix}board:of:*"))  # as time would
    assert await board.board() == Board()
    assert await connection.execute("SCARD", f"{prefix}board:workers") == 0
    assert isinstance(turn, Turn)
    await queue.close()
    await connection.close()
