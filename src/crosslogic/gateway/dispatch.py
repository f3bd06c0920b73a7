"""Finds a node for a call and has it answer, trying others while nothing has reached the caller.

Invariant: what was dispatched to a candidate is finished exactly once, whatever becomes of the request; and a
second attempt is made only when the caller has not seen a byte of the first (architecture document §26.4).
"""

import asyncio

from crosslogic.gateway import errors, evidence
from crosslogic.gateway.answer import read_answer
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.relay import Ending, Relay
from crosslogic.gateway.request import Call, model_not_found
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.stream import StreamReader, stream_reader
from crosslogic.gateway.turns import TurnTaker
from crosslogic.gateway.upstream import Upstreams
from crosslogic.gateway.visit import Attempt, GatewaySettings, Observer, Visit
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.ids import NodeId
from crosslogic.metering.model import Evidence, Intent, Outcome, Usage
from crosslogic.metering.ports import Journal
from crosslogic.net.client import ConnectFailed, Failure
from crosslogic.scheduling.model import Ask, Candidate, NoNode, NoNodeReason
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.tenancy.model import Principal

_RETRYABLE_STATUSES = frozenset((401, 403, 404, 408, 409, 425, 429))  # and all from 500 on


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
        self._upstreams = upstreams
        self._journal = journal
        self._watchdog = watchdog
        self._observer = observer
        self.settings = settings
        self._pace_s: dict[tuple[NodeId, str], float] = {}  # measured seconds for each token of whole answers
        self._loop = asyncio.get_running_loop()

    async def answer(self, visit: Visit, principal: Principal, call: Call) -> Attempt | Refusal:
        """Wait for a turn, then have a node answer; or why not."""
        turn = await self._turns.take(visit, principal, call)
        if isinstance(turn, Refusal):
            return turn
        answer: Attempt | Refusal | None = None
        try:
            answer = await self._try_nodes(visit, principal, call)
            return answer
        finally:
            self._turns.done(turn, answer.usage if isinstance(answer, Attempt) else evidence.NOTHING)

    async def _try_nodes(self, visit: Visit, principal: Principal, call: Call) -> Attempt | Refusal:
        """Until one answers, the attempts are used up, or none is left (architecture document §26.4)."""
        attempt: Attempt | None = None
        while visit.exchange.alive and visit.attempts < self.settings.max_attempts:
            picked = self._pick(visit, principal, call)
            if isinstance(picked, Refusal):
                return picked if attempt is None else attempt
            candidate, call = picked
            attempt = await self._attempt(visit, principal, call, candidate)
            if not attempt.retry:
                return attempt
            visit.excluded = (*visit.excluded, candidate.node_id)
            self._observer.retried(candidate.node_id, _failure_name(attempt))
        if attempt is not None:
            return attempt
        return errors.CLIENT_CLOSED

    def _pick(self, visit: Visit, principal: Principal, call: Call) -> tuple[Candidate, Call] | Refusal:
        """A node for the call, or for the first of its model's fallbacks that has one."""
        picked = self._scheduler.pick(_ask(visit, principal, call))
        if isinstance(picked, Candidate):
            return picked, call
        for name in self._models.fallbacks(call.model) if not visit.excluded else ():
            bounds = self._models.by_name.get(name)
            if bounds is None:
                continue
            other = call.for_model(bounds.id)
            candidate = self._scheduler.pick(_ask(visit, principal, other))
            if isinstance(candidate, Candidate):
                return candidate, other
        return self._no_node(call, picked)

    def _no_node(self, call: Call, no_node: NoNode) -> Refusal:
        if no_node.reason is NoNodeReason.UNKNOWN_MODEL and not self._models.is_configured(call.model):
            return errors.of_bad_request(model_not_found(call.model))
        if no_node.reason is NoNodeReason.NO_CAPACITY:
            return errors.SERVER_BUSY
        return errors.NO_CAPACITY

    async def _attempt(self, visit: Visit, principal: Principal, call: Call, candidate: Candidate) -> Attempt:
        tokens = call.tokens_to_reserve
        visit.attempts += 1
        self._scheduler.dispatched(candidate, tokens)
        self._observer.dispatched(call)
        attempt: Attempt | None = None
        started_s = self._loop.time()
        try:
            attempt = await self._relay(visit, principal, call, candidate)
            return attempt
        finally:
            self._observer.undispatched(call)
            self._finish_attempt(candidate, tokens, attempt, started_s)

    async def _relay(self, visit: Visit, principal: Principal, call: Call, candidate: Candidate) -> Attempt:
        node = candidate.node
        total_deadline_s = visit.arrived_s + self.settings.timeouts.total_s
        exchange = visit.exchange
        fresh = False
        while True:
            try:
                connection = await self._upstreams.origin(node).connect(fresh=fresh)
            except ConnectFailed:
                return Attempt(call, candidate, None, Outcome.UPSTREAM_ERROR, refusal=errors.UPSTREAM_ERROR, retry=True)
            if not exchange.alive:
                connection.close()
                return Attempt(call, candidate, None, Outcome.CLIENT_CLOSED)
            self._journal.intend(self._intent(visit, principal, call, node.id))
            reader = _reader(call) if call.stream else None
            head = visit.headers + STREAM_HEADERS
            tap = None if visit.plan is None else visit.plan.tap.take
            relay = Relay(exchange, head, reader, self._watchdog, self.settings.timeouts, total_deadline_s, tap)
            request = self._upstreams.request(node, call, exchange, visit.request_id, principal.org_id)
            ending = await relay.start(connection, request)
            if relay.failure is Failure.STALE and not fresh and exchange.alive:
                fresh = True  # the node had closed an idle connection: it has not seen this request
                continue
            return self._judge(visit, call, candidate, relay, ending)

    def _judge(self, visit: Visit, call: Call, candidate: Candidate, relay: Relay, ending: Ending) -> Attempt:
        """What an ended relay means for the caller, the ledger and the next attempt."""
        begun = relay.passed
        if ending is Ending.CLIENT_CLOSED:
            usage, proof = self._evidence_of_partial(call, candidate, relay)
            return Attempt(call, candidate, relay, Outcome.CLIENT_CLOSED, usage, proof)
        if ending is Ending.WHOLE:
            return self._judge_whole(call, candidate, relay)
        if ending is Ending.STREAMED and relay.reader is not None and relay.reader.complete:
            usage, proof = evidence.of_stream(call, relay.reader)
            return Attempt(call, candidate, relay, Outcome.COMPLETED, usage, proof, relay.reader.finish_reason)
        if ending is Ending.TIMEOUT:
            usage, proof = self._evidence_of_partial(call, candidate, relay)
            refusal = errors.STREAM_TIMEOUT if begun else errors.UPSTREAM_TIMEOUT
            in_time = self._loop.time() < visit.arrived_s + self.settings.timeouts.total_s
            return Attempt(
                call, candidate, relay, Outcome.TIMEOUT, usage, proof, refusal=refusal, retry=in_time and not begun
            )
        if begun and relay.reader is not None:
            usage, proof = evidence.of_stream(call, relay.reader)
            return Attempt(call, candidate, relay, Outcome.TRUNCATED, usage, proof, refusal=errors.TRUNCATED)
        return Attempt(call, candidate, relay, Outcome.UPSTREAM_ERROR, refusal=errors.UPSTREAM_ERROR, retry=True)

    def _judge_whole(self, call: Call, candidate: Candidate, relay: Relay) -> Attempt:
        status = relay.status
        if 200 <= status < 300:
            body = relay.body
            answer = read_answer(call.endpoint.dialect, body)
            if answer is None:
                return Attempt(
                    call, candidate, relay, Outcome.UPSTREAM_ERROR, refusal=errors.UPSTREAM_ERROR, retry=True
                )
            usage, proof = evidence.of_whole(call, answer.usage, len(body))
            return Attempt(call, candidate, relay, Outcome.COMPLETED, usage, proof, answer.finish_reason)
        if status in _RETRYABLE_STATUSES or status >= 500 or status < 400:
            refusal = errors.SERVER_BUSY if status == 429 else errors.UPSTREAM_ERROR
            outcome = Outcome.REFUSED if status == 429 else Outcome.UPSTREAM_ERROR
            return Attempt(call, candidate, relay, outcome, refusal=refusal, retry=True)
        return Attempt(call, candidate, relay, Outcome.REFUSED)  # the caller's own mistake: the engine's words stand

    def _evidence_of_partial(self, call: Call, candidate: Candidate, relay: Relay) -> tuple[Usage, Evidence]:
        if relay.reader is not None:
            return evidence.of_stream(call, relay.reader)
        elapsed_s = self._loop.time() - relay.started_s
        return evidence.of_abandoned(call, elapsed_s, self._pace_s.get((candidate.node_id, call.model)))

    def _finish_attempt(self, candidate: Candidate, tokens: int, attempt: Attempt | None, started_s: float) -> None:
        ok: bool | None = None
        first_token_ms = None
        if attempt is not None:
            if attempt.outcome is not Outcome.CLIENT_CLOSED:
                ok = attempt.outcome in (Outcome.COMPLETED, Outcome.REFUSED)
                if not ok:
                    self._observer.failed(_failure_name(attempt))
            relay = attempt.relay
            if relay is not None and relay.first_byte_s is not None and ok:
                first_token_ms = (relay.first_byte_s - started_s) * 1000.0 if relay.streaming else None
            if attempt.outcome is Outcome.COMPLETED and attempt.usage.completion_tokens and not attempt.call.stream:
                pace_s = (self._loop.time() - started_s) / attempt.usage.completion_tokens
                key = (candidate.node_id, attempt.call.model)
                known_s = self._pace_s.get(key, pace_s)
                self._pace_s[key] = known_s + 0.2 * (pace_s - known_s)
        self._scheduler.finished(candidate, tokens, ok=ok, first_token_ms=first_token_ms)

    def _intent(self, visit: Visit, principal: Principal, call: Call, node_id: NodeId) -> Intent:
        return Intent(
            visit.request_id,
            visit.arrived_ns // 1000,
            principal.org_id,
            principal.env_id,
            principal.key_id,
            call.endpoint.name,
            call.model,
            principal.region or self.settings.region,
            node_id,
            call.prompt_tokens_estimate,
        )


def _reader(call: Call) -> StreamReader:
    return stream_reader(call.endpoint.dialect, asked_for_usage=call.asked_for_usage, choices=call.choices)


def _failure_name(attempt: Attempt) -> str:
    """One of the words that the metrics know."""
    relay = attempt.relay
    if relay is None:
        return "connect"
    if attempt.outcome is Outcome.TIMEOUT:
        return "timeout"
    if relay.failure in (Failure.RESET, Failure.CUT, Failure.STALE):
        return "reset"
    return "status" if relay.status >= 400 else "malformed"


def _ask(visit: Visit, principal: Principal, call: Call) -> Ask:
    return Ask(call.model, principal.org_id, principal.region, call.tokens_to_reserve, call.prefix_hash, visit.excluded)
