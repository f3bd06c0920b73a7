"""One worker's talk with Redis: one call at a time, numbered, under a name that Redis knows the worker's leases by.

Invariants:

- A call whose fate is unknown is sent again as it was, under its number, before anything else is said; so what it
  gives back is applied exactly once.
- Every connection and every life of Redis' memory gets a new name (`Session`); all leases are written again under it
  before the old ones are given up, so that none is counted by nobody.
"""

import hashlib
import logging
import secrets
from collections.abc import Callable
from functools import partial

import hiredis
import msgspec

from crosslogic.limits import batch as batches
from crosslogic.limits.batch import MAX_ROWS, SCRIPT, Answer, Ask, Batch, Session
from crosslogic.limits.plan import PlanBook
from crosslogic.limits.remote import News, RemoteCounter
from crosslogic.net.redis import RedisConnection, Reply

logger = logging.getLogger(__name__)

SCRIPT_SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
REASSERT_S = 600.0
MAX_OLD_SESSIONS = 8


class Conversation:
    """What is said to Redis, and what becomes of it.

    `on_answer(batch, answer)` is called with every answer, before anything is concluded from it, then `on_ready(batch)`
    when the next call may be made; `on_failure(why)` when there was none, or none that can be read.
    """

    def __init__(
        self,
        connection: RedisConnection,
        now_s: Callable[[], float],
        book: PlanBook[RemoteCounter],
        *,
        prefix: str,
        dead_after_s: float,
        grace_s: float,
        on_answer: Callable[[Batch, Answer], None],
        on_ready: Callable[[Batch], None],
        on_failure: Callable[[str], None],
    ) -> None:
        self._connection = connection
        self._now_s = now_s
        self._book = book
        self._prefix = prefix
        self._dead_after_s = dead_after_s
        self._grace_s = grace_s
        self._on_answer = on_answer
        self._on_ready = on_ready
        self._on_failure = on_failure
        self._generation = connection.generation
        self._careful_until_s = 0.0
        self._reassert_at_s = now_s() + REASSERT_S
        self.session = Session(secrets.token_hex(4))
        self.news = News(MAX_ROWS)
        self.sent: Batch | None = None  # the call under way

    @property
    def connected(self) -> bool:
        return self._connection.connected

    def say(self, asks: list[Ask], asked_s: float, farewell: bool = False) -> None:
        """Call with these asks and as much news as fits. Only when nothing is under way."""
        if self._connection.generation != self._generation:
            self._generation = self._connection.generation
            self._renew_session(self.session.epoch)
        if self._now_s() >= self._reassert_at_s:  # before the leases of very long requests expire in Redis
            self._tell_all_leases()
        news = self.news.take()
        retires = not self.news
        leaving = (self.session.name,) if farewell else self.session.old if retires else ()
        batch = batches.write(
            self.session,
            self._prefix,
            news,
            asks,
            careful=self._now_s() < self._careful_until_s,
            dead_after_s=self._dead_after_s,
            farewell=leaving,
            retires=retires,
            asked_s=asked_s,
        )
        self._send(batch)

    def repeat(self) -> None:
        """Send again the call of which nothing was heard."""
        if self.sent is not None and self.sent.lost:
            self._send(self.sent)

    def be_careful(self) -> None:
        """For a while take no more than this worker's share: leases of others may not be written yet."""
        self._careful_until_s = self._now_s() + self._grace_s

    def _send(self, batch: Batch, whole_script: bool = False) -> None:
        self.sent = batch
        batch.lost = False
        batch.sent_s = self._now_s()
        script = ("EVAL", SCRIPT) if whole_script else ("EVALSHA", SCRIPT_SHA)
        self._connection.call(partial(self._on_reply, batch), *script, len(batch.keys), *batch.keys, batch.payload)

    def _on_reply(self, batch: Batch, reply: Reply) -> None:
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            self._send(batch, whole_script=True)
            return
        if isinstance(reply, Exception):
            if batches.failed_for_good(str(reply)):
                self._give_up(batch, str(reply))
            else:
                batch.lost = True
                self._on_failure(str(reply))
            return
        try:
            answer = batches.read(reply)
        except msgspec.MsgspecError as error:
            self._give_up(batch, f"unreadable answer: {error}")
            return
        self.sent = None
        self._on_answer(batch, answer)  # before learning, which may have all leases written again
        self._learn(batch, answer)
        self._on_ready(batch)

    def _give_up(self, batch: Batch, why: str) -> None:
        scopes = len(batch.counters)
        logger.error("limits: Redis refused a batch, what it gave back in %d scopes is lost: %s", scopes, why)
        for counter in batch.counters:
            counter.spend.untold()
        self._on_failure(why)
        self.sent = None

    def _learn(self, batch: Batch, answer: Answer) -> None:
        session = self.session
        if batch.retires:
            session.old = ()
        if session.epoch == 0:
            session.epoch = answer.epoch
        elif session.epoch != answer.epoch:  # Redis lost its memory, and with it who else is there
            self._renew_session(answer.epoch)
            return
        if self._now_s() >= self._careful_until_s:
            session.workers = max(1, answer.workers)
            session.rank = min(answer.rank, session.workers - 1)

    def _renew_session(self, epoch: float) -> None:
        last = self.session
        old = (*last.old, last.name)[-MAX_OLD_SESSIONS:]
        self.session = Session(secrets.token_hex(4), old, 0, epoch, last.workers, last.rank)
        self.be_careful()
        self._tell_all_leases()

    def _tell_all_leases(self) -> None:
        self._reassert_at_s = self._now_s() + REASSERT_S
        for counter in self._book.counters():
            if counter.in_flight and counter.held:
                self.news.add(counter)
