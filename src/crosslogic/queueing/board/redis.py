"""The board over Redis: each worker lays its own down once a second, management reads all of them.

Keys (one hash tag, so that a cluster keeps them together):
    board:workers            set of sessions that may have a board
    board:of:SESSION         the board of one worker, MessagePack, gone `KEPT_S` after its last report
    board:removals:SESSION   list of request ids that this worker is to take out

Invariant: a worker that is dead is no longer seen after `KEPT_S`. Nothing here is on the path of a request, and a
Redis that is away costs a worker nothing but the report.
"""

import asyncio
import secrets

import hiredis
import msgspec

from crosslogic.kernel.errors import Unavailable
from crosslogic.net.redis import RedisConnection, Reply
from crosslogic.queueing.board.model import Board, together
from crosslogic.queueing.ports import TurnQueue

PREFIX = "{crosslogic:queue}:"
REPORT_EVERY_S = 1.0
LISTEN_EVERY_S = 0.25  # for removals, while somebody waits here
KEPT_S = 3.0
MOST_REMOVALS = 100

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Board).decode


class BoardReporter:
    """Lays down what one worker's queue holds, and takes out what management asks for."""

    def __init__(
        self,
        queue: TurnQueue,
        connection: RedisConnection,
        *,
        prefix: str = PREFIX,
        report_every_s: float = REPORT_EVERY_S,
        listen_every_s: float = LISTEN_EVERY_S,
    ) -> None:
        self._queue = queue
        self._connection = connection
        session = secrets.token_hex(6)
        self._session = session
        self._workers = f"{prefix}board:workers"
        self._board = f"{prefix}board:of:{session}"
        self._removals = f"{prefix}board:removals:{session}"
        self._turns = max(1, round(report_every_s / listen_every_s))
        self._listen_every_s = listen_every_s
        self._empty = True  # as last told

    async def run(self) -> None:
        """For as long as the worker lives."""
        turn = 0
        while True:
            await asyncio.sleep(self._listen_every_s)
            turn += 1
            try:
                if turn % self._turns == 0:
                    await self.report()
                if self._queue.waiting():
                    await self.listen()
            except (Unavailable, hiredis.HiredisError):
                continue

    async def report(self) -> None:
        """Lay the board down; one that is empty and was before is not worth it."""
        board = self._queue.board()
        empty = not board.tenants
        if empty and self._empty:
            return
        self._empty = empty
        put = self._connection.execute("SET", self._board, _encode(board), "PX", round(KEPT_S * 1000))
        await asyncio.gather(put, self._connection.execute("SADD", self._workers, self._session))

    async def listen(self) -> None:
        """Take out what is asked for."""
        last = MOST_REMOVALS - 1
        ids = self._connection.execute("LRANGE", self._removals, 0, last)
        await asyncio.gather(ids, self._connection.execute("LTRIM", self._removals, last + 1, -1))
        for request_id in ids.result():
            self._queue.remove(request_id.decode("utf-8", "replace"))


class RedisBoard:
    """A `QueueBoard` of all workers that report to this Redis. Does not close the connection."""

    def __init__(self, connection: RedisConnection, *, prefix: str = PREFIX) -> None:
        self._connection = connection
        self._prefix = prefix

    async def board(self) -> Board:
        return together((await self._boards()).values())

    async def remove(self, request_id: str) -> bool:
        for session, board in (await self._boards()).items():
            if any(waiting.request_id == request_id for waiting in board.requests):
                key = f"{self._prefix}board:removals:{session}"
                told = self._execute("RPUSH", key, request_id)
                await asyncio.gather(told, self._execute("PEXPIRE", key, 10_000))
                return True
        return False

    async def _boards(self) -> dict[str, Board]:
        members: list[bytes] = await self._execute("SMEMBERS", f"{self._prefix}board:workers")
        if not members:
            return {}
        sessions = sorted(member.decode() for member in members)
        found = await self._execute("MGET", *(f"{self._prefix}board:of:{session}" for session in sessions))
        gone = [session for session, payload in zip(sessions, found, strict=True) if payload is None]
        if gone:
            await self._execute("SREM", f"{self._prefix}board:workers", *gone)
        return {session: _decode(payload) for session, payload in zip(sessions, found, strict=True) if payload}

    async def _execute(self, *arguments: str | int) -> Reply:
        """Raises Unavailable, whatever Redis has against it."""
        try:
            return await self._connection.execute(*arguments)
        except hiredis.HiredisError as error:
            raise Unavailable(f"Redis does not tell what waits: {error}") from None
