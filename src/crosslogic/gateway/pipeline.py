"""The request path, from bytes to bill. `serve` reads as the product does:

    authenticate → read → (found already?) → admit → dispatch (pick → relay, again on failure) → record → settle → end

Invariants:
- What was admitted is settled or released exactly once.
- Each dispatched request leaves one usage record, and the caller sees the end of its answer only after that
  record is durable.
- Nothing here touches a database, parses what passes through, or logs synchronously.
"""

import asyncio
import time

import msgspec

from crosslogic.cache.idempotency.service import Problem
from crosslogic.cache.replay import replay
from crosslogic.cache.service import Answers, Found, Plan
from crosslogic.gateway import errors
from crosslogic.gateway.again import answered_of, question_of, record_of_hit
from crosslogic.gateway.dispatch import Dispatcher
from crosslogic.gateway.endpoints import Dialect, Endpoint
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.request import BadRequest, Call, model_not_found, read_call
from crosslogic.gateway.sse import STREAM_HEADERS
from crosslogic.gateway.stream import DONE_EVENT
from crosslogic.gateway.visit import Attempt, Observer, Visit
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import new_request_id
from crosslogic.limits.headers import header_block
from crosslogic.limits.model import Admitted, Rejected
from crosslogic.limits.ports import Limiter
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.metering.ports import Journal
from crosslogic.net.exchange import Exchange
from crosslogic.tenancy.model import Principal, Role
from crosslogic.tenancy.ports import UserManager
from crosslogic.tenancy.scope_check import refusal_of


class Pipeline:
    """Everything a request needs, built once for each process by `wiring`."""

    def __init__(
        self,
        *,
        users: UserManager,
        models: ModelTable,
        limiter: Limiter,
        dispatcher: Dispatcher,
        prompt_counter: PromptCounter,
        journal: Journal,
        observer: Observer,
        answers: Answers,
    ) -> None:
        self._answers = answers
        self.users = users
        self._models = models
        self._limiter = limiter
        self._dispatcher = dispatcher
        self._prompt_counter = prompt_counter
        self._journal = journal
        self._observer = observer
        self._loop = asyncio.get_running_loop()

    async def serve(self, exchange: Exchange, endpoint: Endpoint, address: tuple[str, str, str] | None = None) -> None:
        """Answer one request. `address` is (org, environment, model) when the path names them."""
        request_id = new_request_id()
        visit = Visit(
            exchange,
            endpoint,
            request_id,
            _shown_id(exchange) or request_id.encode(),
            time.time_ns(),
            self._loop.time(),
        )
        visit.headers = b"x-request-id: %b\r\n" % visit.shown_id
        principal = self.authenticate(exchange)
        if principal is errors.INVALID_KEY:
            principal = await self._authenticate_unknown(exchange)
        if isinstance(principal, Refusal):
            self._refuse(visit, principal)
            return
        visit.principal = principal
        call = self._read(visit, principal, address)
        if isinstance(call, Refusal):
            self._refuse(visit, call)
            return
        plan = self._answers.plan(
            lambda: question_of(visit, principal, call),
            principal.env_id,
            exchange.header(b"x-cache"),
            exchange.header(b"idempotency-key"),
        )
        if plan is None:
            await self._admit(visit, principal, call, None)
        elif isinstance(plan, Problem):
            self._refuse(visit, errors.BY_PROBLEM[plan])
        else:
            await self._serve_planned(visit, principal, call, plan)

    async def _serve_planned(self, visit: Visit, principal: Principal, call: Call, plan: Plan) -> None:
        """One that the cache or an idempotency key may answer."""
        try:
            found = await self._answers.find(plan, lambda: visit.exchange.alive)
            if isinstance(found, Problem):
                self._refuse(visit, errors.BY_PROBLEM[found])
                return
            if found is None:
                visit.plan = plan
                visit.headers += plan.headers
            await self._admit(visit, principal, call, found)
        finally:
            self._answers.drop(plan)

    async def _admit(self, visit: Visit, principal: Principal, call: Call, found: Found | None) -> None:
        """`found`: an answer that is given again, which takes a request's place in the limits, but no tokens."""
        tokens = call.reservation(principal.reservable_tokens) if found is None else 0
        admission = await self._limiter.admit(principal.scopes, tokens)
        visit.headers += header_block(admission)
        if isinstance(admission, Rejected):
            self._observer.rate_limited(admission)
            self._refuse(visit, errors.of_rejection(admission))
        elif found is None:
            await self._serve_admitted(visit, principal, call, admission)
        else:
            await self._give_again(visit, principal, call, found, admission)

    async def _give_again(
        self, visit: Visit, principal: Principal, call: Call, found: Found, admission: Admitted
    ) -> None:
        """Answer without a node: a hit leaves a record of its own, a replay has its first request's already."""
        try:
            if not found.replayed:
                region = principal.region or self._dispatcher.settings.region
                record = record_of_hit(visit, principal, call, found, region=region, now_s=self._loop.time())
                try:
                    await self._journal.record(record)
                except Unavailable:
                    self._refuse(visit, errors.NOT_RECORDED)
                    return
                self._observer.finished(visit.shown_id, record)
            await replay(found.recording, visit.exchange, visit.headers + found.headers)
        finally:
            self._limiter.settle(admission, 0)

    def authenticate(self, exchange: Exchange) -> Principal | Refusal:
        """Who calls, from memory alone (architecture document §9)."""
        token = _token(exchange)
        principal = self.users.resolve(token)  # without a token: somebody only where keys are off
        return _judged(principal, token)

    async def _authenticate_unknown(self, exchange: Exchange) -> Principal | Refusal:
        """A token that memory does not know, but perhaps its issuer does."""
        token = _token(exchange)
        return _judged(await self.users.authenticate(token), token)

    def _read(self, visit: Visit, principal: Principal, address: tuple[str, str, str] | None) -> Call | Refusal:
        if principal.role is Role.READ_ONLY:
            return errors.READ_ONLY_KEY
        model = None
        if address is not None:
            org, env, model = address
            if not is_home(principal, org, env):
                return errors.NOT_FOUND
        try:
            call = read_call(
                visit.endpoint,
                visit.exchange.body,
                self._models.by_name,
                default_output_tokens=self._dispatcher.settings.default_output_tokens,
                model_in_path=model,
            )
        except BadRequest as error:
            return errors.of_bad_request(error)
        if principal.allowed_models is not None and call.model not in principal.allowed_models:
            return errors.of_bad_request(model_not_found(call.model))
        if principal.restricted:
            exchange = visit.exchange
            reason = refusal_of(principal, visit.endpoint.name, call.model, exchange.client_ip, principal.region)
            if reason is not None:
                return errors.BY_SCOPE[reason]
        return call

    async def _serve_admitted(self, visit: Visit, principal: Principal, call: Call, admission: Admitted) -> None:
        tokens_used: int | None = None
        try:
            attempt = await self._dispatcher.answer(visit, principal, call)
            if isinstance(attempt, Refusal):
                self._refuse(visit, attempt)
                return
            ended_s = self._loop.time()
            if attempt.outcome is Outcome.CLIENT_CLOSED:
                await self._count_prompt(attempt)
            record = self._record_of(visit, principal, attempt, ended_s)
            durable = self._journal.record(record)
            if attempt.outcome is Outcome.COMPLETED or record.total_tokens:
                tokens_used = record.total_tokens
        finally:
            if tokens_used is None:
                self._limiter.release(admission)
            else:
                self._limiter.settle(admission, tokens_used)
        self._observer.finished(visit.shown_id, record)
        await self._end(visit, attempt, durable)

    async def _count_prompt(self, attempt: Attempt) -> None:
        """Put the node's number of prompt tokens in the place of our estimate."""
        usage, reader = attempt.usage, attempt.relay.reader if attempt.relay is not None else None
        if usage.completion_tokens == 0 or attempt.evidence is Evidence.ENGINE:
            return
        if reader is not None and reader.prompt_tokens is not None:
            return
        prompt_tokens = await self._prompt_counter.count(attempt.candidate.node, attempt.call)
        if prompt_tokens is not None:
            attempt.usage = msgspec.structs.replace(usage, prompt_tokens=prompt_tokens)

    async def _end(self, visit: Visit, attempt: Attempt, durable: "asyncio.Future[None]") -> None:
        """Show the caller the end, once the record is durable."""
        exchange = visit.exchange
        try:
            await durable
        except Unavailable:
            if attempt.outcome is Outcome.COMPLETED:
                attempt.refusal = errors.NOT_RECORDED
        if visit.plan is not None and attempt.outcome is Outcome.COMPLETED and attempt.refusal is None:
            await self._answers.keep(visit.plan, answered_of(visit, attempt))
        if not exchange.alive:
            return
        relay = attempt.relay
        if attempt.refusal is not None or relay is None:
            self._tell(visit, attempt.refusal or errors.UPSTREAM_ERROR)
        elif relay.streaming and relay.reader is not None:
            end = relay.reader.held_end or (DONE_EVENT if visit.endpoint.dialect is Dialect.OPENAI else b"")
            if exchange.started:
                exchange.end(end)
            else:
                exchange.respond(200, visit.headers + STREAM_HEADERS, end)
        elif exchange.started:
            # Only comments about the queue have gone out: what the engine says instead of a stream follows as an event.
            exchange.write(b"data: %b\n\n" % b" ".join(relay.body.splitlines()))
            exchange.abort()
        else:
            content_type = relay.content_type or b"application/json"
            exchange.respond(relay.status, visit.headers + b"content-type: %b\r\n" % content_type, relay.body)

    def _refuse(self, visit: Visit, refusal: Refusal) -> None:
        duration_s = self._loop.time() - visit.arrived_s
        self._observer.refused(visit.shown_id, visit.endpoint, visit.principal, refusal, duration_s)
        self._tell(visit, refusal)

    def _tell(self, visit: Visit, refusal: Refusal) -> None:
        exchange = visit.exchange
        if not exchange.started:
            exchange.respond(refusal.status, visit.headers + refusal.header_lines(), refusal.body())
            return
        # The stream has begun: an error event, and then no proper end, so that nobody takes it for a success.
        exchange.write(refusal.chat_event() if visit.endpoint.dialect is Dialect.OPENAI else refusal.event())
        exchange.abort()

    def _record_of(self, visit: Visit, principal: Principal, attempt: Attempt, ended_s: float) -> UsageRecord:
        call, relay = attempt.call, attempt.relay
        first_token_ms = None
        if relay is not None and relay.first_byte_s is not None and relay.streaming:
            first_token_ms = int((relay.first_byte_s - visit.arrived_s) * 1000)
        status = attempt.refusal.status if attempt.refusal is not None else (relay.status if relay else 0)
        usage = attempt.usage
        return UsageRecord(
            visit.request_id,
            visit.arrived_ns // 1000,
            principal.org_id,
            principal.env_id,
            principal.key_id,
            call.endpoint.name,
            call.model,
            attempt.candidate.node.region,
            attempt.candidate.node_id,
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens,
            attempt.evidence,
            attempt.outcome,
            attempt.finish_reason,
            499 if attempt.outcome is Outcome.CLIENT_CLOSED else status,
            call.stream,
            visit.attempts,
            int((ended_s - visit.arrived_s) * 1000),
            first_token_ms,
            None if visit.shown_id == visit.request_id.encode() else visit.shown_id.decode(),
        )


def is_home(principal: Principal, org: str, env: str) -> bool:
    """Whether an address that names a tenant, by ids or names, is the caller's own."""
    return org in (principal.org_id, principal.org_name) and env in (principal.env_id, principal.env_name)


def _token(exchange: Exchange) -> bytes:
    header = exchange.header(b"authorization")
    if header is None:
        return exchange.header(b"x-api-key") or b""
    scheme, _, token = header.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _judged(principal: Principal | None, token: bytes) -> Principal | Refusal:
    if principal is None:
        return errors.INVALID_KEY if token else errors.MISSING_KEY
    if principal.refusal is not None:
        return errors.BY_PRINCIPAL_REFUSAL[principal.refusal]
    if principal.expires_at_s is not None and principal.expires_at_s <= time.time():
        return errors.EXPIRED_KEY
    return principal


def _shown_id(exchange: Exchange) -> bytes | None:
    """The caller's X-Request-Id, when it is short and harmless enough to be echoed and logged."""
    given = exchange.header(b"x-request-id")
    if given is None or len(given) > 128 or not given.isascii():
        return None
    return given if given.replace(b"-", b"").replace(b"_", b"").replace(b".", b"").isalnum() else None
