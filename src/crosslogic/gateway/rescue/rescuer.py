"""Has the rest of a broken stream made elsewhere, and passes it on as if nothing had happened.

Invariants: the caller gets no token twice and none left out without being told; the last attempt that is returned
carries the usage of the whole answer, so that there is one record; and what is not whole never ends as a success.
"""

import asyncio
import logging
import random
from collections.abc import Callable

import msgspec

from crosslogic.fleet.backends.known import backend_of
from crosslogic.fleet.model import BackendKind
from crosslogic.gateway import evidence
from crosslogic.gateway.attempts import Attempts
from crosslogic.gateway.pause import pause
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.request import Call
from crosslogic.gateway.rescue.leg import NextLeg, delivered_of, end_event
from crosslogic.gateway.rescue.model import Delivered, Way
from crosslogic.gateway.rescue.resend import continued, overlap_of
from crosslogic.gateway.rescue.terms import Terms, may_continue, may_join, may_restart, terms_of
from crosslogic.gateway.retry import COME_BACK_S, backoff_s
from crosslogic.gateway.stream import OpenAiStream
from crosslogic.gateway.visit import Attempt, Observer, PutBack, Visit
from crosslogic.kernel.ids import NodeId
from crosslogic.metering.model import Outcome
from crosslogic.scheduling.model import Candidate, NoNode
from crosslogic.tenancy.model import Principal

COUNT_TIMEOUT_S = 0.25  # for the tokens of the text: without them the events count
_REJECTED = (400, 422)  # what an engine says of a last message that is the assistant's
_log = logging.getLogger(__name__)

Pick = Callable[[Visit, Principal, Call], Candidate | NoNode]


class _Rescue(msgspec.Struct):
    """One break of one stream, and what has been tried against it."""

    call: Call  # as the caller sent it
    delivered: Delivered
    terms: Terms | None
    joins: bool = True  # False once a replay said something else
    silent: tuple[NodeId, ...] = ()  # nodes from which nothing came in time
    tries: int = 0


class _Leg(msgspec.Struct):
    """The next thing to try."""

    candidate: Candidate
    way: Way


class Rescuer:
    """`pick` chooses a node for the rest, without those that the visit excludes."""

    def __init__(self, attempts: Attempts, pick: Pick, counter: PromptCounter, observer: Observer) -> None:
        self._attempts = attempts
        self._pick = pick
        self._counter = counter
        self._observer = observer
        self._cannot_continue: set[tuple[BackendKind, str]] = set()  # found out by asking
        self._loop = asyncio.get_running_loop()

    async def rescue(self, visit: Visit, principal: Principal, broken: Attempt) -> Attempt:
        """The attempt with which the caller's answer ends: whole, or as far as it came."""
        call, first = broken.call, broken.relay
        for _ in range(self._attempts.settings.continuations):
            following = await self._go_on(visit, principal, call, broken)
            if following is None:
                break
            if following.relay is not None and first is not None:
                following.relay.first_byte_s = first.first_byte_s
            broken = following
            if not broken.broke:
                return broken
        if not visit.exchange.alive:
            return msgspec.structs.replace(broken, outcome=Outcome.CLIENT_CLOSED, refusal=None)
        self._observer.rescued(Way.FAILED)
        return broken

    async def _go_on(self, visit: Visit, principal: Principal, call: Call, broken: Attempt) -> Attempt | None:
        """The attempt that brought more of the answer; None when none did."""
        reader = broken.relay.reader if broken.relay is not None else None
        if not isinstance(reader, OpenAiStream):
            return None
        rescue = _Rescue(call, delivered_of(reader), terms_of(call))
        if self._has_all_tokens(rescue):
            return self._ended(visit, rescue, broken)
        visit.excluded = (broken.candidate.node_id,)
        if broken.outcome is Outcome.TIMEOUT:
            rescue.silent = visit.excluded
        visit.interrupted = False
        settings = self._attempts.settings
        while rescue.tries < settings.max_attempts and visit.exchange.alive and self._in_time(visit):
            rescue.tries += 1
            leg = self._next_leg(visit, principal, rescue)
            if leg is None:
                return None
            if isinstance(leg, NoNode):
                # All are away; one that died has perhaps been started again. Who was silent is not asked twice.
                visit.excluded = rescue.silent
                await pause(visit.exchange, COME_BACK_S * rescue.tries)
                continue
            attempt = await self._try(visit, principal, rescue, leg)
            if attempt is not None:
                return attempt
            await pause(visit.exchange, backoff_s(settings.retry_backoff_s, rescue.tries - 1, random.random()))
        return None

    def _next_leg(self, visit: Visit, principal: Principal, rescue: _Rescue) -> _Leg | NoNode | None:
        """A node, and a way that suits both it and the request; None where no way does."""
        skipped: tuple[NodeId, ...] = ()
        tried = visit.excluded
        try:
            while True:
                visit.excluded = tried + skipped
                candidate = self._pick(visit, principal, rescue.call)
                if isinstance(candidate, NoNode):
                    return None if skipped else candidate
                way = self._way(rescue, candidate)
                if way is not None:
                    return _Leg(candidate, way)
                skipped = (*skipped, candidate.node_id)
        finally:
            visit.excluded = tried

    def _way(self, rescue: _Rescue, candidate: Candidate) -> Way | None:
        call, terms, delivered = rescue.call, rescue.terms, rescue.delivered
        if may_restart(call, delivered):
            return Way.RESTARTED
        if terms is None:
            return None
        kind = candidate.node.backend
        able = backend_of(kind).can_continue and (kind, call.model) not in self._cannot_continue
        if able and may_continue(call, terms, delivered):
            return Way.CONTINUED
        return Way.JOINED if rescue.joins and may_join(call, terms, delivered) else None

    async def _try(self, visit: Visit, principal: Principal, rescue: _Rescue, leg: _Leg) -> Attempt | None:
        """Ask one node for the rest; None when not a byte of it came."""
        candidate, way = leg.candidate, leg.way
        call, overlap, resent_tokens = rescue.call, 0, 0
        if way is Way.CONTINUED:
            resent = await self._resend(rescue, candidate)
            if resent is None:
                self._cannot_continue_this(rescue)
                return None
            call, overlap, resent_tokens = resent
        delivered = rescue.delivered
        if way is Way.RESTARTED:
            overlap = len(delivered.text)  # nothing but white space
        reader = NextLeg(
            delivered,
            way,
            asked_for_usage=call.asked_for_usage,
            choices=call.choices,
            overlap=overlap,
            resent_tokens=resent_tokens,
        )
        attempt = await self._attempts.make(visit, principal, call, candidate, reader)
        if isinstance(attempt, PutBack):
            return None  # nobody is put back whose caller has seen something
        attempt.call = rescue.call
        relay = attempt.relay
        if relay is not None and relay.streaming and (relay.passed or attempt.outcome is Outcome.CLIENT_CLOSED):
            self._observer.rescued(way)
            return attempt
        if reader.diverged:
            rescue.joins = False
        if attempt.outcome is Outcome.TIMEOUT:
            rescue.silent = (*rescue.silent, candidate.node_id)
        if way is Way.CONTINUED and relay is not None and relay.status in _REJECTED:
            self._remember(candidate)
        else:
            visit.excluded = (*visit.excluded, candidate.node_id)
        return None

    async def _resend(self, rescue: _Rescue, candidate: Candidate) -> tuple[Call, int, int] | None:
        """The call for the rest, the white space that it leaves out, and how many tokens its text has."""
        call, terms, delivered = rescue.call, rescue.terms, rescue.delivered
        assert terms is not None
        overlap = overlap_of(call, delivered.text)
        text = delivered.text[: len(delivered.text) - overlap]
        counted = await self._counter.tokens_of(candidate.node, call.model, text)
        tokens, ids = counted if counted is not None else (delivered.tokens - (overlap > 0), ())
        default = backend_of(candidate.node.backend).completion_tokens
        resent = continued(call, terms, text, resent_tokens=tokens, text_ids=ids or None, default_tokens=default)
        return None if resent is None else (resent, overlap, tokens)

    def _cannot_continue_this(self, rescue: _Rescue) -> None:
        """This request cannot be put so that it goes on; whether it can be joined is another matter."""
        rescue.delivered = msgspec.structs.replace(rescue.delivered, resendable=False)

    def _remember(self, candidate: Candidate) -> None:
        kind, model = candidate.node.backend, candidate.model
        self._cannot_continue.add((kind, model))
        _log.warning("%s does not continue an answer of model %s; it will not be asked again", kind.value, model)

    def _has_all_tokens(self, rescue: _Rescue) -> bool:
        """Whether as many tokens came as the caller wanted: only the reason of the end did not."""
        asked = None if rescue.terms is None else rescue.terms.asked_tokens
        delivered = rescue.delivered
        return bool(asked and rescue.call.choices == 1 and delivered.plain and delivered.tokens >= asked)

    def _ended(self, visit: Visit, rescue: _Rescue, broken: Attempt) -> Attempt:
        relay = broken.relay
        assert relay is not None
        assert relay.reader is not None
        relay.say(end_event(rescue.delivered, "length"))
        self._observer.rescued(Way.ENDED)
        usage, proof = evidence.of_stream(rescue.call, relay.reader)
        return Attempt(rescue.call, broken.candidate, relay, Outcome.COMPLETED, usage, proof, "length")

    def _in_time(self, visit: Visit) -> bool:
        return self._loop.time() < visit.arrived_s + self._attempts.settings.timeouts.total_s
