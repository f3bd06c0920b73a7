"""One attempt: one candidate is sent a call, its answer is relayed, and what came of it is judged.

Invariant: what was dispatched to a candidate is finished exactly once, whatever becomes of the request.
"""

import asyncio
import re
import time
from functools import partial

from crosslogic.fleet.model import Node
from crosslogic.gateway import errors, evidence
from crosslogic.gateway.answer import read_answer
from crosslogic.gateway.records import once_of
from crosslogic.gateway.relay import Ending, Relay
from crosslogic.gateway.request import Call
from crosslogic.gateway.rescue.leg import delivered_of, usage_event
from crosslogic.gateway.retry import retry_after_s
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.stream import OpenAiStream, StreamReader, missing_end, stream_reader
from crosslogic.gateway.upstream import Upstreams
from crosslogic.gateway.visit import PUT_BACK, Attempt, GatewaySettings, Observer, PutBack, Visit
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import NodeId, RequestId
from crosslogic.metering.model import Checkpoint, Evidence, Intent, Outcome, Usage
from crosslogic.metering.ports import Journal
from crosslogic.net.client import ConnectFailed, Failure
from crosslogic.scheduling.model import Candidate
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.tenancy.model import Principal

_RETRYABLE_STATUSES = frozenset((401, 403, 404, 408, 409, 425, 429))  # and all from 500 on
_POLICY = re.compile(rb"content_(policy|filter)|moderation_", re.IGNORECASE)  # no other node thinks otherwise


class Attempts:
    """Makes attempts; which to make is the dispatcher's business."""

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        upstreams: Upstreams,
        journal: Journal,
        watchdog: Watchdog,
        observer: Observer,
        settings: GatewaySettings,
    ) -> None:
        self._scheduler = scheduler
        self._upstreams = upstreams
        self._journal = journal
        self._watchdog = watchdog
        self._observer = observer
        self.settings = settings
        self._pace_s: dict[tuple[NodeId, str], float] = {}  # measured seconds for each token of whole answers
        self._loop = asyncio.get_running_loop()

    async def make(
        self,
        visit: Visit,
        principal: Principal,
        call: Call,
        candidate: Candidate,
        reader: StreamReader | None = None,
    ) -> Attempt | PutBack:
        """Have this candidate answer the call, unless `visit.interrupt` comes before the caller has seen anything.

        `reader` is that of a stream which another node began.
        """
        tokens = call.tokens_to_reserve
        visit.attempts += 1
        self._scheduler.dispatched(candidate, tokens)
        self._observer.dispatched(call)
        attempt: Attempt | None = None
        started_s = self._loop.time()
        try:
            ended = await self._relay(visit, principal, call, candidate, reader)
            if isinstance(ended, PutBack):
                visit.attempts -= 1
            else:
                attempt = ended
            return ended
        finally:
            self._observer.undispatched(call)
            self._finish_attempt(candidate, tokens, attempt, started_s)

    async def _relay(
        self, visit: Visit, principal: Principal, call: Call, candidate: Candidate, reader: StreamReader | None
    ) -> Attempt | PutBack:
        node = candidate.node
        total_deadline_s = visit.arrived_s + self.settings.timeouts.total_s
        exchange = visit.exchange
        fresh = False
        try:
            await self._journal.intend(self._intent(visit, principal, call, node))
        except Unavailable:
            return Attempt(call, candidate, None, Outcome.REFUSED, refusal=errors.NOT_RECORDED)
        while True:
            try:
                connection = await self._upstreams.origin(node).connect(fresh=fresh)
            except ConnectFailed as error:
                slow = isinstance(error.__cause__, TimeoutError)
                refusal = errors.UPSTREAM_ERROR
                failed = Outcome.UPSTREAM_ERROR
                return Attempt(call, candidate, None, failed, refusal=refusal, retry=True, gone=not slow)
            if not exchange.alive:
                connection.close()
                return Attempt(call, candidate, None, Outcome.CLIENT_CLOSED)
            if visit.interrupted or (visit.race is not None and visit.race.won):
                connection.close()
                return PUT_BACK
            if reader is None and call.stream:
                reader = _reader(call)
            head = visit.headers + STREAM_HEADERS
            tap = None if visit.plan is None else visit.plan.tap.take
            settings = self.settings
            relay = Relay(
                exchange,
                head,
                reader,
                self._watchdog,
                settings.timeouts,
                total_deadline_s,
                tap,
                visit.turn,
                kept_chars=settings.kept_chars,
            )
            request = self._upstreams.request(node, call, exchange, visit.request_id, principal.org_id)
            if reader is not None:
                relay.mark = partial(self._mark, visit.request_id)
            visit.relay = relay
            if visit.race is not None:
                visit.race.enter(relay)
            ending = await relay.start(connection, request)
            visit.relay = None
            if ending is Ending.PUT_BACK:
                return PUT_BACK
            if relay.failure is Failure.STALE and not fresh and exchange.alive:
                fresh = True  # the node had closed an idle connection: it has not seen this request
                continue
            return self._judge(visit, call, candidate, relay, ending)

    def _judge(self, visit: Visit, call: Call, candidate: Candidate, relay: Relay, ending: Ending) -> Attempt:
        """What an ended relay means for the caller, the ledger and the next attempt."""
        begun = relay.passed
        reader = relay.reader
        if reader is not None and reader.malformed:
            self._observer.left_out(candidate.node_id, reader.malformed)
        if ending is Ending.CLIENT_CLOSED:
            usage, proof = _evidence_of_partial(call, relay)
            presumed = self._presumed(call, candidate, relay)
            return Attempt(call, candidate, relay, Outcome.CLIENT_CLOSED, usage, proof, presumed=presumed)
        if ending is Ending.WHOLE:
            return self._judge_whole(call, candidate, relay)
        if ending is Ending.STREAMED and reader is not None and reader.complete:
            usage, proof = evidence.of_stream(call, reader)
            return Attempt(call, candidate, relay, Outcome.COMPLETED, usage, proof, reader.finish_reason)
        if ending is Ending.TIMEOUT:
            usage, proof = _evidence_of_partial(call, relay)
            refusal = errors.STREAM_TIMEOUT if begun else errors.UPSTREAM_TIMEOUT
            in_time = self._loop.time() < visit.arrived_s + self.settings.timeouts.total_s
            return Attempt(
                call, candidate, relay, Outcome.TIMEOUT, usage, proof, refusal=refusal, retry=in_time and not begun
            )
        if begun and reader is not None:
            usage, proof = evidence.of_stream(call, reader)
            return Attempt(call, candidate, relay, Outcome.TRUNCATED, usage, proof, refusal=errors.TRUNCATED)
        if reader is not None and reader.error:
            mistake = errors.of_error_event(reader.error)
            if mistake is not None:
                return Attempt(call, candidate, relay, Outcome.REFUSED, refusal=mistake)
        gone = relay.failure in (Failure.RESET, Failure.STALE)
        failed = Outcome.UPSTREAM_ERROR
        return Attempt(call, candidate, relay, failed, refusal=errors.UPSTREAM_ERROR, retry=True, gone=gone)

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
        if (status in _RETRYABLE_STATUSES and not _POLICY.search(relay.body)) or status >= 500 or status < 400:
            refusal = errors.SERVER_BUSY if status == 429 else errors.UPSTREAM_ERROR
            outcome = Outcome.REFUSED if status == 429 else Outcome.UPSTREAM_ERROR
            after_s = retry_after_s(relay.retry_after, time.time()) if status in (429, 503) else None
            return Attempt(call, candidate, relay, outcome, refusal=refusal, retry=True, retry_after_s=after_s)
        return Attempt(call, candidate, relay, Outcome.REFUSED)  # the caller's own mistake: the engine's words stand

    def _presumed(self, call: Call, candidate: Candidate, relay: Relay) -> Usage:
        if relay.reader is not None:
            return evidence.NOTHING
        elapsed_s = self._loop.time() - relay.started_s
        return evidence.presumed(call, elapsed_s, self._pace_s.get((candidate.node_id, call.model)))

    def _finish_attempt(self, candidate: Candidate, tokens: int, attempt: Attempt | None, started_s: float) -> None:
        ok: bool | None = None
        grave = False
        first_token_ms = None
        if attempt is not None:
            if attempt.outcome is not Outcome.CLIENT_CLOSED:
                ok = attempt.outcome in (Outcome.COMPLETED, Outcome.REFUSED)
                if not ok:
                    self._observer.failed(failure_name(attempt))
                    relay = attempt.relay
                    # Nobody listens there, or not a byte came: that costs each request a whole deadline.
                    grave = relay is None or (attempt.outcome is Outcome.TIMEOUT and relay.first_byte_s is None)
            relay = attempt.relay
            if relay is not None and relay.first_byte_s is not None and ok:
                first_token_ms = (relay.first_byte_s - started_s) * 1000.0 if relay.streaming else None
            if attempt.outcome is Outcome.COMPLETED and attempt.usage.completion_tokens and not attempt.call.stream:
                pace_s = (self._loop.time() - started_s) / attempt.usage.completion_tokens
                key = (candidate.node_id, attempt.call.model)
                known_s = self._pace_s.get(key, pace_s)
                self._pace_s[key] = known_s + 0.2 * (pace_s - known_s)
            if attempt.retry_after_s is not None:
                self._scheduler.leave_alone(candidate, attempt.retry_after_s)
        self._scheduler.finished(candidate, tokens, ok=ok, first_token_ms=first_token_ms, grave=grave)

    def _intent(self, visit: Visit, principal: Principal, call: Call, node: Node) -> Intent:
        return Intent(
            visit.request_id,
            visit.arrived_ns // 1000,
            principal.org_id,
            principal.env_id,
            principal.key_id,
            call.endpoint.name,
            call.model,
            node.region,
            node.id,
            call.prompt_tokens_estimate,
            principal.price_per_token_pusd,
            call.stream,
            once_of(visit.plan),
        )

    def _mark(self, request_id: RequestId, reader: StreamReader) -> None:
        """What this stream has brought by now, for the case that this process dies: never more than it did."""
        told = reader.usage
        if told is not None:
            self._journal.mark(
                Checkpoint(request_id, told.prompt_tokens, told.completion_tokens, told.cached_tokens, True)
            )
        else:
            self._journal.mark(Checkpoint(request_id, reader.prompt_tokens or 0, reader.tokens_delivered))


def _evidence_of_partial(call: Call, relay: Relay) -> tuple[Usage, Evidence]:
    return (evidence.NOTHING, Evidence.NONE) if relay.reader is None else evidence.of_stream(call, relay.reader)


def end_of(attempt: Attempt) -> bytes:
    """What the caller is still owed of a stream that is whole: its usage, if the engine forgot it, and its end."""
    relay, call = attempt.relay, attempt.call
    if relay is None or relay.reader is None:
        return b""
    reader = relay.reader
    end = reader.held_end or missing_end(call.endpoint.dialect)
    if call.asked_for_usage and reader.usage is None and isinstance(reader, OpenAiStream):
        end = usage_event(delivered_of(reader), attempt.usage) + end
    return end


def _reader(call: Call) -> StreamReader:
    return stream_reader(call.endpoint.dialect, asked_for_usage=call.asked_for_usage, choices=call.choices)


def failure_name(attempt: Attempt) -> str:
    """One of the words that the metrics know."""
    relay = attempt.relay
    if relay is None:
        return "connect"
    if attempt.outcome is Outcome.TIMEOUT:
        return "timeout"
    if relay.failure in (Failure.RESET, Failure.CUT, Failure.STALE):
        return "reset"
    return "status" if relay.status >= 400 else "malformed"
