"""The queue of one of many gateway workers: what waits stays here, fairness and bounds are counted in Redis.

Each worker keeps its own waiting requests, and gives its own places to them, in the order of counters that all
workers share. Every `sync_s` it tells Redis in one call what it charged and what waits with it, and learns the same
of the others; nothing on the path of a request waits for that. One call is under way at a time.

How stale that is: a worker decides by what the others had charged at most `sync_s` and a round trip ago (`calm_s`
while nobody waits anywhere); where more than 64 tenants wait here, each is asked about in turn, so with n tenants at
most n/64 times as long ago. Of a lane that is idle here, the present is known as of the last heartbeat. What waits
elsewhere is known as a whole after `sync_s`, of each tenant after `lengths_every_s`; in that time each worker may
overshoot the bounds by what arrives at it.

Without Redis (an error, or no answer within `wait_s`) each worker goes on alone: fair among the tenants that wait
here, with an equal share of the bounds (1/N of the workers it last knew). What it charged meanwhile is told when
Redis is back. A report whose fate is unknown because the connection broke is told again: what it charged may then
count twice, once.
"""

import asyncio
import contextlib
import hashlib
import logging
import secrets
from collections.abc import Callable
from functools import partial

import hiredis
import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.net.redis import RedisConnection, Reply
from crosslogic.queueing import share
from crosslogic.queueing.desk import Desk
from crosslogic.queueing.memory import REPORT_EVERY_S, MemoryQueue
from crosslogic.queueing.share import SCRIPT, Report

logger = logging.getLogger(__name__)

SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
FORGET_MS = 3_600_000
CLOSE_S = 1.0
QUIET_LOG_S = 30.0


class RedisQueue(MemoryQueue):
    """A `TurnQueue` for one of many workers; `orders(shared=True)` makes its lanes. Does not close the connection.

    `on_degraded(True)` is called when this worker begins to decide alone, `on_degraded(False)` when it ends.
    """

    def __init__(
        self,
        desk: Desk,
        connection: RedisConnection,
        clock: Clock,
        *,
        prefix: str = "{crosslogic:queue}:",
        sync_s: float = 0.02,
        calm_s: float = 0.1,
        lengths_every_s: float = 0.1,
        heartbeat_s: float = 1.0,
        dead_after_s: float = 5.0,
        wait_s: float = 0.25,
        report_every_s: float = REPORT_EVERY_S,
        on_degraded: Callable[[bool], None] | None = None,
        on_length: Callable[[int], None] | None = None,
    ) -> None:
        """`prefix` must contain one hash tag (`{…}`), so that a Redis cluster keeps all keys together."""
        super().__init__(desk, clock, report_every_s=report_every_s, on_length=on_length)
        self._connection = connection
        self._prefix = prefix
        self._sync_s = sync_s
        self._calm_s = calm_s
        self._lengths_every_s = lengths_every_s
        self._heartbeat_s = heartbeat_s
        self._dead_after_s = dead_after_s
        self._wait_s = wait_s
        self._on_degraded = on_degraded
        self._session = secrets.token_hex(6)
        self._epoch = 0.0
        self._sent: Report | None = None
        self._told_s = float("-inf")
        self._told_waiting = 0
        self._lengths_at_s = float("-inf")
        self._idle_at_s = float("-inf")
        self._number = 0
        self._logged_s = float("-inf")
        self._closing = False
        self.workers = 1  # alive, this one included, as last heard
        self.degraded = False
        self._tick: asyncio.Handle = self._loop.call_soon(self._sync)

    async def close(self) -> None:
        """Refuse all that wait, and take leave of the others; waits at most a second."""
        self._tick.cancel()
        self._closing = True
        await super().close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_S):
                while self._sent is not None:
                    await asyncio.sleep(self._sync_s)
                if not self.degraded:
                    self._send(self._write())
                    self._send(share.write_farewell(self._prefix, self._session))
                while self._sent is not None:
                    await asyncio.sleep(self._sync_s)

    def _sync(self) -> None:
        queue = self.desk.queue
        calm = not len(queue) and not queue.elsewhere
        self._tick = self._loop.call_later(self._calm_s if calm else self._sync_s, self._sync)
        now_s = self._now_s()
        if self._sent is not None:
            if now_s - self._sent.sent_s > self._wait_s:
                self._go_alone(f"no answer within {self._wait_s * 1000:.0f} ms")
            return
        due = now_s - self._told_s >= self._heartbeat_s
        news = len(queue) or self._told_waiting or share.has_news(queue)
        if not due and (self.degraded or not news):
            return
        self._send(self._write())

    def _write(self) -> Report:
        now_s = self._now_s()
        lengths = now_s - self._lengths_at_s >= self._lengths_every_s
        if lengths:
            self._lengths_at_s = now_s
        idle = now_s - self._idle_at_s >= self._heartbeat_s
        if idle:
            self._idle_at_s = now_s
        self._number += 1
        return share.write(
            self.desk.queue,
            self._prefix,
            self._session,
            self._number,
            self._dead_after_s,
            now_s,
            lengths=lengths,
            idle=idle,
        )

    def _send(self, report: Report, whole_script: bool = False) -> None:
        self._sent = report
        self._told_s = self._now_s()
        self._told_waiting = len(self.desk.queue)
        script = ("EVAL", SCRIPT) if whole_script else ("EVALSHA", SCRIPT_SHA)
        done = partial(self._on_reply, report)
        self._connection.call(done, *script, len(report.keys), *report.keys, report.payload, FORGET_MS)

    def _on_reply(self, report: Report, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            self._send(report, whole_script=True)
            return
        if self._sent is report:
            self._sent = None
        if isinstance(reply, Exception):
            share.put_back(report)
            self._go_alone(str(reply))
            return
        try:
            answer = share.read(reply)
        except msgspec.MsgspecError as error:
            self._go_alone(f"unreadable answer: {error}")
            return
        if self._closing:
            return
        share.learn(self.desk.queue, report, answer, forgotten=self._epoch not in (0.0, answer.epoch))
        self.workers = self.desk.queue.workers = max(1, answer.workers)
        self._epoch = answer.epoch
        if self.degraded and self._now_s() - report.sent_s <= self._wait_s:
            self._rejoin()

    def _go_alone(self, why: str) -> None:
        queue = self.desk.queue
        queue.share, queue.workers = self.workers, 1
        queue.elsewhere, queue.elsewhere_by_tenant = 0, {}
        if self.degraded:
            return
        self.degraded = True
        if self._on_degraded is not None:
            self._on_degraded(True)
        now_s = self._now_s()
        if now_s - self._logged_s >= QUIET_LOG_S:
            self._logged_s = now_s
            logger.warning("queue: fair only among what waits in this worker until Redis is back: %s", why)

    def _rejoin(self) -> None:
        self.degraded = False
        self.desk.queue.share = 1
        if self._on_degraded is not None:
            self._on_degraded(False)
