"""The usage record of each request, from what is known when it ends (architecture document §34)."""

from crosslogic.cache.service import Found, Plan
from crosslogic.gateway.request import Call
from crosslogic.gateway.visit import Attempt, Visit
from crosslogic.kernel.ids import NodeId
from crosslogic.metering.model import Evidence, Once, Outcome, UsageRecord
from crosslogic.tenancy.model import Principal

NO_NODE = NodeId("")


def record_of(visit: Visit, principal: Principal, attempt: Attempt, ended_s: float) -> UsageRecord:
    """Of one that was dispatched: what the attempt that ended it used; those before it are named, and not billed."""
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
        _callers_id(visit),
        tuple(node_id for node_id in visit.excluded if node_id != attempt.candidate.node_id),
        visit.journey.region,
        visit.journey.failover,
        principal.price_per_token_pusd,
        once_of(visit.plan),
    )


def record_of_hit(
    visit: Visit, principal: Principal, call: Call, found: Found, *, region: str, now_s: float
) -> UsageRecord:
    """No node ran: the tokens are those of the answer when it was made."""
    recording = found.recording
    tokens = recording.tokens
    return UsageRecord(
        visit.request_id,
        visit.arrived_ns // 1000,
        principal.org_id,
        principal.env_id,
        principal.key_id,
        call.endpoint.name,
        call.model,
        region,
        NO_NODE,
        tokens.prompt,
        tokens.completion,
        tokens.cached,
        tokens.reasoning,
        Evidence.CACHED,
        Outcome.COMPLETED,
        recording.finish_reason,
        recording.status,
        recording.streamed,
        0,
        int((now_s - visit.arrived_s) * 1000),
        None,
        _callers_id(visit),
    )


def once_of(plan: Plan | None) -> Once | None:
    """The idempotency key that a request runs under, as the journal notes it down."""
    return None if plan is None or plan.run is None else Once(plan.run, plan.run_ttl_s)


def _callers_id(visit: Visit) -> str | None:
    """The caller's own X-Request-Id, where it sent one."""
    return None if visit.shown_id == visit.request_id.encode() else visit.shown_id.decode()
