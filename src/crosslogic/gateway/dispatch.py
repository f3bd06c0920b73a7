"""Finds a node for a call and has it answer, trying others while nothing has reached the caller.

Invariant: a second attempt is made only when the caller has not seen a byte of the first (architecture document
§26.4); what becomes of a stream that breaks after that is the rescuer's (`rescue/`).
"""

import asyncio
import math
import random
import time
from collections.abc import Sequence

import msgspec

from crosslogic.gateway import errors, evidence
from crosslogic.gateway.attempts import Attempts, failure_name
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.hedge import Hedger
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.pause import pause
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.request import Call, model_not_found
from crosslogic.gateway.rescue.rescuer import COUNT_TIMEOUT_S, Rescuer
from crosslogic.gateway.retry import COME_BACK_S, backoff_s
from crosslogic.gateway.turns import TurnTaker
from crosslogic.gateway.upstream import Upstreams
from crosslogic.gateway.visit import PUT_BACK, Attempt, GatewaySettings, Observer, PutBack, Visit
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.ids import NodeId
from crosslogic.metering.model import Outcome
from crosslogic.metering.ports import Journal
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.tenancy.model import Principal

MEASURE_ONE_IN = 64  # choices of a node: a clock for each would cost as much as the choice


class Dispatcher:
    """Acts on what the scheduler decides."""

    def __init__(
        self,
        *,
        models: ModelTable,
        scheduler: Scheduler,
        turns: TurnTaker,
        upstreams: Upstreams,
        journal: Journal,
        watchdog: Watchdog,
        observer: Observer,
        settings: GatewaySettings,
    ) -> None:
        self._models = models
        self._scheduler = scheduler
        self._turns = turns
        self._observer = observer
        self._journal = journal
        self._attempts = Attempts(
            scheduler=scheduler,
            upstreams=upstreams,
            journal=journal,
            watchdog=watchdog,
            observer=observer,
            settings=settings,
        )
        self._rescuer = Rescuer(
            self._attempts, self._pick_next, PromptCounter(upstreams, timeout_s=COUNT_TIMEOUT_S), observer
        )
        self._hedger = Hedger(self._attempts, self._pick)
        self._chance = random.random
        self._picks = 0
        self._loop = asyncio.get_running_loop()

    @property
    def settings(self) -> GatewaySettings:
        return self._attempts.settings

    @settings.setter
    def settings(self, settings: GatewaySettings) -> None:
        self._attempts.settings = settings

    async def answer(self, visit: Visit, principal: Principal, call: Call) -> Attempt | Refusal:
        """Wait for a turn, then have a node answer; or why not. Who is put back waits for another turn."""
        turn = await self._turns.take(visit, principal, call)
        while not isinstance(turn, Refusal):
            visit.turn = turn
            answer: Attempt | Refusal | PutBack | None = None
            try:
                fallbacks = self._models.fallbacks(call.model, principal.env_name)
                if fallbacks:
                    others = self._allowed(fallbacks, principal, call)
                    answer = await self._try_models(visit, principal, call, others)
                else:
                    answer = await self._try_nodes(visit, principal, call, may_wait=True)
                if isinstance(answer, Attempt) and answer.broke:
                    answer = await self._rescuer.rescue(visit, principal, answer)
            finally:
                if not isinstance(answer, PutBack):
                    self._turns.done(turn, answer.worked if isinstance(answer, Attempt) else evidence.NOTHING)
            if not isinstance(answer, PutBack):
                return answer
            self._observer.put_back()
            self._journal.withdraw(visit.request_id)
            visit.interrupted = False
            turn = await self._turns.again(visit, turn)
        return turn

    async def _try_models(
        self, visit: Visit, principal: Principal, call: Call, others: list[Call]
    ) -> Attempt | Refusal | PutBack:
        """The model that was asked for, then those that may answer instead; if none does, what became of the first."""
        first = await self._try_nodes(visit, principal, call, may_wait=not others)
        if isinstance(first, PutBack) or (isinstance(first, Attempt) and not first.retry):
            return first
        for other in others:
            if not visit.exchange.alive or not self._in_time(visit):
                break
            visit.excluded = ()
            answer = await self._try_nodes(visit, principal, other, may_wait=False)
            if isinstance(answer, PutBack):
                return answer
            # What another model refuses is not the caller's mistake: it did not ask for that model.
            if isinstance(answer, Attempt) and not answer.retry and answer.outcome is not Outcome.REFUSED:
                return answer
        return first

    def _allowed(self, fallbacks: Sequence[str], principal: Principal, call: Call) -> list[Call]:
        """The same call for each of these models that there is and that the key allows."""
        found = []
        for name in fallbacks:
            bounds = self._models.by_name.get(name)
            allowed = principal.allowed_models
            if bounds is not None and (allowed is None or bounds.id in allowed):
                found.append(call.for_model(bounds.id))
        return found

    async def _try_nodes(
        self, visit: Visit, principal: Principal, call: Call, *, may_wait: bool
    ) -> Attempt | Refusal | PutBack:
        """Until one answers, the attempts or the budget are used up, or none is left (architecture document §26.4)."""
        attempt: Attempt | None = None
        tries = 0
        gone: set[NodeId] = set()
        settings = self.settings
        while visit.exchange.alive and tries < settings.max_attempts and (tries == 0 or self._in_time(visit)):
            if visit.interrupted:
                return PUT_BACK
            if tries == 0 and not self._journal.healthy:
                return errors.NOT_RECORDED  # before a node works for what could not be announced
            candidate = self._pick(visit, principal, call)
            if isinstance(candidate, NoNode):
                if may_wait and candidate.returns_s is not None and await self._wait(visit, candidate.returns_s):
                    continue
                if gone and may_wait:
                    # All that were tried had just died: meanwhile one may be back.
                    visit.excluded = tuple(node_id for node_id in visit.excluded if node_id not in gone)
                    gone.clear()
                    await pause(visit.exchange, COME_BACK_S * tries)
                    continue
                return self._none_left(call, candidate, attempt)
            hedge_after_s = settings.hedge_after_s
            if hedge_after_s is None or not call.stream:
                ended = await self._attempts.make(visit, principal, call, candidate)
            else:
                ended = await self._hedger.make(visit, principal, call, candidate, hedge_after_s)
            if isinstance(ended, PutBack):
                return ended
            attempt = ended
            tries += 1
            if not attempt.retry:
                return attempt
            if attempt.gone:
                gone.add(candidate.node_id)
            if attempt.retry_after_s is None:
                visit.excluded = (*visit.excluded, attempt.candidate.node_id)
            self._observer.retried(candidate.node_id, failure_name(attempt))
            await pause(visit.exchange, backoff_s(settings.retry_backoff_s, tries, self._chance()))
        if attempt is not None:
            return attempt
        return errors.CLIENT_CLOSED

    def _in_time(self, visit: Visit) -> bool:
        settings = self.settings
        return self._loop.time() < visit.arrived_s + min(settings.retry_budget_s, settings.timeouts.total_s)

    async def _wait(self, visit: Visit, until_s: float) -> bool:
        """Wait for a node that asked to be left alone; whether that was worth it."""
        settings = self.settings
        wait_s = max(0.0, until_s - self._loop.time())
        deadline_s = visit.arrived_s + min(settings.retry_budget_s, settings.timeouts.total_s)
        if wait_s > settings.retry_wait_s or until_s >= deadline_s:
            return False
        return await pause(visit.exchange, wait_s)

    def _none_left(self, call: Call, none: NoNode, attempt: Attempt | None) -> Attempt | Refusal:
        """What the caller is told; `attempt` is the last one, if there was any."""
        retry_after_s = None
        if none.returns_s is not None:
            retry_after_s = max(1, math.ceil(none.returns_s - self._loop.time()))
        if attempt is None:
            refusal = self._no_node(call, none)
            return refusal if retry_after_s is None else errors.busy(retry_after_s)
        if none.reason is NoNodeReason.REGION_DOWN:
            attempt.refusal = errors.REGION_DOWN
        elif retry_after_s is not None and attempt.retry_after_s is not None:
            busy = attempt.outcome is Outcome.REFUSED
            attempt.refusal = (errors.busy if busy else errors.no_capacity)(retry_after_s)
        return attempt

    def _pick(self, visit: Visit, principal: Principal, call: Call) -> Candidate | NoNode:
        self._picks += 1
        if self._picks % MEASURE_ONE_IN != 1:
            return self._scheduler.pick(_ask(visit, principal, call))
        began_s = time.perf_counter()
        found = self._scheduler.pick(_ask(visit, principal, call))
        self._observer.picked(time.perf_counter() - began_s)
        return found

    def _pick_next(self, visit: Visit, principal: Principal, call: Call) -> Candidate | NoNode:
        """A node for the rest of an answer: a stream that has begun is not held up by a node that is full."""
        return self._scheduler.pick(msgspec.structs.replace(_ask(visit, principal, call), reserved=True))

    def _no_node(self, call: Call, no_node: NoNode) -> Refusal:
        if no_node.reason is NoNodeReason.UNKNOWN_MODEL and not self._models.is_configured(call.model):
            return errors.of_bad_request(model_not_found(call.model))
        if no_node.reason is NoNodeReason.NO_CAPACITY:
            return errors.SERVER_BUSY
        if no_node.reason is NoNodeReason.REGION_DOWN:
            return errors.REGION_DOWN
        return errors.NO_CAPACITY


def _ask(visit: Visit, principal: Principal, call: Call) -> Ask:
    return Ask(
        call.model,
        principal.org_id,
        principal.region,
        call.tokens_to_reserve,
        call.prefix_hash,
        visit.excluded,
        reserved=visit.covered,
        region_strict=principal.data_residency,
        region_fallbacks=principal.region_fallbacks,
        allowed_regions=principal.allowed_regions,
        journey=visit.journey,
    )
