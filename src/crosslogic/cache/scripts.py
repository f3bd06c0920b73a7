"""Lua scripts run in Redis with a bounded wait.

Invariants: `run` never waits longer than its bound (and 2 ms, for an answer that has come but could not be read yet);
after an answer that did not come, nothing is asked for `away_s`, so that a Redis that hangs costs a few requests their
wait and not all of them. What was called may have been carried out although its answer never came.
"""

import asyncio
import hashlib
from collections.abc import Sequence

import hiredis

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import Argument, Done, RedisConnection, Reply

SECOND_LOOK_S = 0.002


class Scripts:
    """One Lua script, and the connection that it runs on. The connection is not closed with it."""

    def __init__(
        self, connection: RedisConnection, clock: Clock, source: str, *, wait_s: float, away_s: float = 1.0
    ) -> None:
        self._connection = connection
        self._now_s = clock.monotonic_s
        self._loop = asyncio.get_running_loop()
        self._source = source
        self._sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        self._wait_s = wait_s
        self._away_s = away_s
        self._away_until_s = float("-inf")
        self.unanswered = 0  # calls without an answer in time, or with an error

    @property
    def away(self) -> bool:
        """Redis did not answer just now; it is not asked again yet."""
        return not self._connection.connected or self._now_s() < self._away_until_s

    async def run(self, keys: Sequence[str], *arguments: Argument, wait_s: float | None = None) -> Reply:
        """The reply. Raises Unavailable when there is none in time, Redis refuses, or is taken for away."""
        if self.away:
            raise Unavailable("Redis is away")
        answered: asyncio.Future[Reply] = self._loop.create_future()

        def done(reply: Reply) -> None:
            if not answered.done():
                answered.set_result(reply)

        def second_look() -> None:
            if not answered.done():
                self._loop.call_later(SECOND_LOOK_S, done, Unavailable("Redis does not answer in time"))

        self.call(done, keys, *arguments)
        timer = self._loop.call_later(self._wait_s if wait_s is None else wait_s, second_look)
        try:
            reply = await answered
        finally:
            timer.cancel()
        if isinstance(reply, Exception):
            self.unanswered += 1
            if isinstance(reply, Unavailable):
                self._away_until_s = self._now_s() + self._away_s
            raise Unavailable(str(reply)) from None
        return reply

    def call(self, done: Done, keys: Sequence[str], *arguments: Argument) -> None:
        """Run the script without waiting; `done` gets the reply, or an exception as a value."""

        def first(reply: Reply) -> None:
            if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
                self._connection.call(done, "EVAL", self._source, len(keys), *keys, *arguments)
            else:
                done(reply)

        self._connection.call(first, "EVALSHA", self._sha, len(keys), *keys, *arguments)

    def tell(self, keys: Sequence[str], *arguments: Argument, done: Done | None = None) -> None:
        """Run the script and do not wait for its answer; `done` gets it if there is one."""
        if self.away:
            self.unanswered += 1
            return

        def answered(reply: Reply) -> None:
            self.unanswered += isinstance(reply, Exception)
            if done is not None:
                done(reply)

        self.call(answered, keys, *arguments)
