"""Response cache and idempotent replay as the request path uses them: plan, find, then keep or drop.

    plan = answers.plan(...)            None for most requests: they cost two look-ups of a header
    found = await answers.find(plan)    an answer to give again, a problem to tell, or None: let a node answer
    await answers.keep(plan, answered)  the answer is whole and its usage record durable, its end not yet sent
    answers.drop(plan)                  in a `finally`: whatever else became of it; after `keep` it does nothing

Invariants: a plan that was kept or dropped holds nothing any more, and one that is neither holds its key for as long
as this process lives; the cache
gets only answers that `Answered.fits`; an idempotency key comes before the cache, so a repeat is always told what
its first request was told.
"""

import asyncio
from collections.abc import Callable

import msgspec

from crosslogic.cache import policy as policies
from crosslogic.cache.idempotency.ports import SlotKey
from crosslogic.cache.idempotency.service import Claim, Idempotency, Problem
from crosslogic.cache.idempotency.slot import Replay
from crosslogic.cache.key import cache_key, fingerprint, meaning_of, read_fields, run_digest, slot_digest
from crosslogic.cache.model import CacheKey, CachePolicy, Question, Recording
from crosslogic.cache.null import Uncounted
from crosslogic.cache.policy import Wish
from crosslogic.cache.ports import CacheObserver, ResponseCache
from crosslogic.cache.tap import Answered, Tap
from crosslogic.kernel.clock import Clock

MAX_KEY_CHARS = 255
_BYPASS_LINE = b"x-cache: bypass\r\n"


class Plan(msgspec.Struct):
    """What this room does for one request."""

    question: Question
    tap: Tap  # of a stream: to be given every packet that the caller is sent
    policy: CachePolicy
    wish: Wish = Wish.BYPASS
    key: CacheKey | None = None  # None: the cache has no part in it
    slot: SlotKey | None = None
    headers: bytes = b""  # lines for an answer that a node gives
    claim: Claim | None = None
    run: bytes | None = None  # `run_digest`, where it runs under an idempotency key
    run_ttl_s: int = 0  # how long that key is remembered


class Found(msgspec.Struct, frozen=True):
    """An answer to give again (`replay.replay`)."""

    recording: Recording
    headers: bytes
    replayed: bool  # the answer to this very idempotency key: already recorded, so nothing is to be billed


class Answers:
    """Built once for each process by `wiring`."""

    def __init__(
        self,
        cache: ResponseCache,
        idempotency: Idempotency | None,
        clock: Clock,
        *,
        most_answer_bytes: int = 4 * 1024 * 1024,
        key_ttl_s: int = 86_400,
        observer: CacheObserver | None = None,
    ) -> None:
        """Without `idempotency` its header is ignored; `key_ttl_s` is how long its slots remember an answer."""
        self.cache = cache
        self._idempotency = idempotency
        self._key_ttl_s = key_ttl_s
        self._now = clock.now
        self._most_answer_bytes = most_answer_bytes
        self._observer = observer or Uncounted()

    def plan(
        self,
        question: Callable[[], Question],
        policy: CachePolicy,
        x_cache: bytes | None,
        idempotency_key: bytes | None,
    ) -> Plan | Problem | None:
        """What to do for a request with these headers in an environment of this policy.

        `question` is asked only when there is something to do.
        """
        wish = policies.wish(policy, x_cache)
        if self._idempotency is None:
            idempotency_key = None
        if wish is Wish.BYPASS and x_cache is None and idempotency_key is None:
            return None
        if idempotency_key is not None and not _is_valid(idempotency_key):
            self._observer.key_used(Problem.INVALID)
            return Problem.INVALID
        asked = question()
        plan = Plan(asked, Tap(self._most_answer_bytes), policy, wish)
        if wish is not Wish.BYPASS:
            plan.key = _key(asked, policy)
        if plan.key is not None:
            word = b"miss" if wish is Wish.USE else b"refresh"
            plan.headers = b"x-cache: %b\r\nx-cache-key: %b\r\n" % (word, plan.key.shown.encode())
        elif x_cache is not None:
            plan.headers = _BYPASS_LINE
            self._observer.cache_asked(asked.model, "bypass")
        if idempotency_key is not None:
            plan.slot = SlotKey(asked.org_id, slot_digest(asked, idempotency_key))
        return plan

    async def find(self, plan: Plan, alive: Callable[[], bool]) -> Found | Problem | None:
        """An answer to give again, or None: run it. `alive` tells whether the caller still waits."""
        if plan.slot is not None and self._idempotency is not None:
            body = fingerprint(plan.question)
            taken = await self._idempotency.claim(plan.slot, body, plan.question.request_id, alive)
            if isinstance(taken, Problem):
                return taken
            if isinstance(taken, Replay):
                line = b"idempotent-replayed: true\r\nx-original-request-id: %b\r\n"
                return Found(taken.recording, line % taken.recording.request_id.encode(), True)
            plan.claim = taken
            plan.run, plan.run_ttl_s = run_digest(plan.slot.digest, body), self._key_ttl_s
        if plan.key is None:
            return None
        if plan.wish is not Wish.USE:
            self._observer.cache_asked(plan.question.model, "refresh")
            return None
        try:
            hit = await self.cache.get(plan.key)
        except asyncio.CancelledError:
            self.drop(plan)
            raise
        self._observer.cache_asked(plan.question.model, "miss" if hit is None else "hit")
        if hit is None:
            return None
        age_s = max(0, int(self._now().timestamp() - hit.cached_at_s))
        lines = b"x-cache: hit\r\nx-cache-key: %b\r\nage: %d\r\n" % (plan.key.shown.encode(), age_s)
        await self._finish(plan, msgspec.structs.replace(hit.recording, request_id=plan.question.request_id))
        return Found(hit.recording, lines, False)

    async def keep(self, plan: Plan, answered: Answered) -> None:
        """Keep a completed answer. To be awaited before the caller is shown the end, as its usage record is."""
        recording = plan.tap.record(plan.question, answered)
        if plan.key is not None and recording is not None and answered.fits(plan.question):
            self.cache.set(plan.key, recording, plan.policy.ttl_s)
        await self._finish(plan, recording)

    def drop(self, plan: Plan) -> None:
        """There is no answer to keep: it failed, was cut, or the caller left. May be called more than once."""
        if plan.claim is not None and self._idempotency is not None:
            self._idempotency.give_up(plan.claim)
            plan.claim = None

    async def close(self) -> None:
        """Finish what is under way, and give up what is held."""
        if self._idempotency is not None:
            await self._idempotency.close()
        await self.cache.close()

    async def _finish(self, plan: Plan, recording: Recording | None) -> None:
        if plan.claim is not None and self._idempotency is not None:
            claim, plan.claim = plan.claim, None
            await self._idempotency.finish(claim, recording)


def _key(question: Question, policy: CachePolicy) -> CacheKey | None:
    fields = read_fields(question.body)
    if fields is None:
        return None
    meaning = meaning_of(fields)
    if not policies.is_cacheable(fields, meaning, generates=question.generates, sampled=policy.sampled):
        return None
    return cache_key(question, fields, meaning)


def _is_valid(idempotency_key: bytes) -> bool:
    return 0 < len(idempotency_key) <= MAX_KEY_CHARS and idempotency_key.isascii()
