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
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec

from crosslogic.cache.idempotency.service import Problem
from crosslogic.cache.replay import replay
from crosslogic.cache.service import Answers, Found, Plan
from crosslogic.gateway import errors
from crosslogic.gateway.again import answered_of, question_of
from crosslogic.gateway.dispatch import Dispatcher
from crosslogic.gateway.endpoints import Endpoint
from crosslogic.gateway.errors import Refusal
from crosslogic.gateway.fitting import Exceeded, exceeded, fit
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.picture import Picture
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.records import record_of, record_of_hit
from crosslogic.gateway.request import BadRequest, Call, model_not_found, read_call
from crosslogic.gateway.telling import show_end, tell
from crosslogic.gateway.visit import Attempt, Observer, Visit
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import new_request_id
from crosslogic.limits.headers import header_block
from crosslogic.limits.model import NO_DEMAND, Admitted, Demand, Dimension, Layer, Rejected, Scope
from crosslogic.limits.ports import Limiter
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.metering.ports import Journal
from crosslogic.net.exchange import Exchange
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.tenancy.bounds import Bounds
from crosslogic.tenancy.model import Principal, Role
from crosslogic.tenancy.ports import UserManager
from crosslogic.tenancy.scope_check import comes_from_elsewhere, refusal_of
from crosslogic.tenancy.strangers import Strangers

ScopesFor = Callable[[Principal, str], Sequence[Scope]]
"""What a request of this principal for this model is admitted against; the same tuple each time, for limiters know it
by identity."""


def _own_scopes(principal: Principal, _model: str) -> Sequence[Scope]:
    """Where nobody has reserved anything."""
    return principal.scopes


CapMet = Callable[[Layer, str], None]
"""Told of each refusal by the month's spending cap of an org or environment, with its id."""


def _nobody_asks(_layer: Layer, _entity_id: str) -> None:
    """Where caps only refuse."""


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
        strangers: Strangers,
        costs: CostEstimates,
        picture: Picture,
        scopes_for: ScopesFor = _own_scopes,
        cap_met: CapMet = _nobody_asks,
    ) -> None:
        self._costs = costs
        self._cap_met = cap_met
        self._scopes_for = scopes_for
        self._answers = answers
        self._strangers = strangers
        self._picture = picture
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
        if principal.bounds is not None and isinstance(call, Call):
            call = self._fit(visit, principal, principal.bounds, call)
        if isinstance(call, Refusal):
            await self._turn_down(visit, principal, "", call)
            return
        plan = self._answers.plan(
            lambda: question_of(visit, principal, call),
            principal.cache,
            exchange.header(b"x-cache"),
            exchange.header(b"idempotency-key"),
        )
        if plan is None:
            await self._admit(visit, principal, call, None)
        elif isinstance(plan, Problem):
            await self._turn_down(visit, principal, call.model, errors.BY_PROBLEM[plan])
        else:
            await self._serve_planned(visit, principal, call, plan)

    async def _serve_planned(self, visit: Visit, principal: Principal, call: Call, plan: Plan) -> None:
        """One that the cache or an idempotency key may answer."""
        try:
            found = await self._answers.find(plan, lambda: visit.exchange.alive)
            if isinstance(found, Problem):
                await self._turn_down(visit, principal, call.model, errors.BY_PROBLEM[found])
                return
            if found is None:
                visit.plan = plan
                visit.headers += plan.headers
            await self._admit(visit, principal, call, found)
        finally:
            self._answers.drop(plan)

    async def _admit(self, visit: Visit, principal: Principal, call: Call, found: Found | None) -> None:
        """`found`: an answer that is given again, which takes a request's place in the limits, but no tokens."""
        demand = NO_DEMAND
        if found is None:
            demand = call.demand(principal.reservable_tokens, principal.reservable_output_tokens)
            if visit.cost_pusd:
                demand = Demand(demand.input_tokens, demand.output_tokens, visit.cost_pusd)
        admission = await self._limiter.admit(self._scopes_for(principal, call.model), demand)
        visit.headers += header_block(admission)
        if isinstance(admission, Admitted) and admission.shadowed:
            for layer, dimension in admission.shadowed:
                self._observer.shadowed(layer, dimension)
        if isinstance(admission, Rejected):
            self._observer.rate_limited(admission.layer, admission.dimension)
            if admission.dimension is Dimension.SPEND_PER_MONTH and admission.layer in (Layer.ORG, Layer.ENV):
                owner = principal.org_id if admission.layer is Layer.ORG else principal.env_id
                self._cap_met(admission.layer, owner)
            self._refuse(visit, errors.of_rejection(admission))
        elif found is None:
            visit.covered = admission.covered
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
            self._limiter.settle(admission, NO_DEMAND)

    def authenticate(self, exchange: Exchange) -> Principal | Refusal:
        """Who calls, from memory alone (architecture document §9), unless memory is too old to go by."""
        if self._picture.outdated:
            return errors.TENANTS_UNKNOWN
        token = _token(exchange)
        principal = self.users.resolve(token)  # without a token: somebody only where keys are off
        return _judged(principal, token, exchange)

    def identify(self, exchange: Exchange) -> Principal | Refusal:
        """`authenticate` where nothing is asked of a token's issuer."""
        principal = self.authenticate(exchange)
        return self._turned_away(exchange) if principal is errors.INVALID_KEY else principal

    async def _authenticate_unknown(self, exchange: Exchange) -> Principal | Refusal:
        """A token that memory does not know, but perhaps its issuer does: who guesses does not make us ask."""
        if self._strangers.wait_s(exchange.client_ip, self._loop.time()) is not None:
            return self._turned_away(exchange)
        token = _token(exchange)
        principal = _judged(await self.users.authenticate(token), token, exchange)
        return self._turned_away(exchange) if principal is errors.INVALID_KEY else principal

    def _turned_away(self, exchange: Exchange) -> Refusal:
        """The answer to a bad key, or to a good one that must not be told apart from it."""
        now_s = self._loop.time()
        wait_s = self._strangers.wait_s(exchange.client_ip, now_s)
        if wait_s is None:
            self._strangers.failed(exchange.client_ip, now_s)
            return errors.INVALID_KEY
        self._observer.bad_key_slowed()
        return errors.too_many_bad_keys(wait_s)

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
            reason = refusal_of(principal, visit.endpoint.name, call.model)
            if reason is not None:
                return errors.BY_SCOPE[reason]
        return call

    async def _serve_admitted(self, visit: Visit, principal: Principal, call: Call, admission: Admitted) -> None:
        used: Demand | None = None
        try:
            attempt = await self._dispatcher.answer(visit, principal, call)
            if isinstance(attempt, Refusal):
                self._refuse(visit, attempt)
                return
            ended_s = self._loop.time()
            if attempt.outcome is Outcome.CLIENT_CLOSED:
                await self._count_prompt(attempt)
            record = record_of(visit, principal, attempt, ended_s)
            durable = self._journal.record(record)
            worked = attempt.worked
            # Who leaves before the first token pays nothing, but a node has read its prompt: that was a request.
            left = attempt.outcome is Outcome.CLIENT_CLOSED and attempt.relay is not None
            if attempt.outcome is Outcome.COMPLETED or left or worked.prompt_tokens + worked.completion_tokens:
                used = Demand(worked.prompt_tokens, worked.completion_tokens, self._cost_of(principal, record))
        finally:
            if used is None:
                self._limiter.release(admission)
            else:
                self._limiter.settle(admission, used)
        self._observer.finished(visit.shown_id, record)
        await self._end(visit, attempt, durable)

    def _fit(self, visit: Visit, principal: Principal, bounds: Bounds, call: Call) -> Call | Refusal:
        """The call as its principal's requests may be, with what it may cost at most in the visit."""
        watched = exceeded(call, bounds.watched)
        if watched is not None:
            self._observer.shadowed(watched.layer, watched.dimension)
        named = self._models.by_name
        fallbacks = (named.get(name) for name in self._models.fallbacks(call.model, principal.env_name))
        models = (call.model, *(other.id for other in fallbacks if other is not None))
        known = named.get(call.model)
        fitted = fit(call, bounds, known, self._costs, models, principal.price_per_token_pusd, principal.org_id)
        if isinstance(fitted, Exceeded):
            self._observer.rate_limited(fitted.layer, fitted.dimension)
            return errors.of_excess(fitted)
        visit.cost_pusd = fitted.cost_pusd
        visit.shortened = fitted.call is not call
        return fitted.call

    def _cost_of(self, principal: Principal, record: UsageRecord) -> int:
        """What the ledger will say, where money is counted."""
        if principal.bounds is None or not principal.bounds.counts_money:
            return 0
        return self._costs.of(
            record,
            record.model,
            record.region,
            principal.price_per_token_pusd,
            org_id=record.org_id,
            endpoint=record.endpoint,
            at=datetime.fromtimestamp(record.timestamp_us / 1e6, UTC),
        )

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
        try:
            await durable
        except Unavailable:
            if attempt.outcome is Outcome.COMPLETED:
                attempt.refusal = errors.NOT_RECORDED
        if visit.plan is not None and attempt.outcome is Outcome.COMPLETED and attempt.refusal is None:
            reach("answer.recorded")
            await self._answers.keep(visit.plan, answered_of(attempt))
            reach("answer.kept")
        if visit.exchange.alive:
            show_end(visit, attempt)

    async def _turn_down(self, visit: Visit, principal: Principal, model: str, refusal: Refusal) -> None:
        """Refuse a caller that we know before it has asked the limits: it is told where it stands in them all the
        same, as with every answer."""
        visit.headers += await self.room_left(principal, model)
        self._refuse(visit, refusal)

    async def room_left(self, principal: Principal, model: str = "") -> bytes:
        """The headers that tell what the limits leave, where nothing is asked of them."""
        return header_block(await self._limiter.look(self._scopes_for(principal, model)))

    def _refuse(self, visit: Visit, refusal: Refusal) -> None:
        duration_s = self._loop.time() - visit.arrived_s
        self._observer.refused(visit.shown_id, visit.endpoint, visit.principal, refusal, duration_s)
        tell(visit, refusal)


def is_home(principal: Principal, org: str, env: str) -> bool:
    """Whether an address that names a tenant, by ids or names, is the caller's own."""
    return org in (principal.org_id, principal.org_name) and env in (principal.env_id, principal.env_name)


def _token(exchange: Exchange) -> bytes:
    header = exchange.header(b"authorization")
    if header is None:
        return exchange.header(b"x-api-key") or b""
    scheme, _, token = header.partition(b" ")
    return token.strip() if scheme.lower() == b"bearer" else b""


def _judged(principal: Principal | None, token: bytes, exchange: Exchange) -> Principal | Refusal:
    if principal is None:
        return errors.INVALID_KEY if token else errors.MISSING_KEY
    if principal.networks is not None and comes_from_elsewhere(principal, exchange.client_ip):
        return errors.INVALID_KEY
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
