"""Answers that are given again: from a request to what the cache asks of it, and from what was found to the ledger."""

from crosslogic.cache.model import Question, Tokens, form_of
from crosslogic.cache.service import Found
from crosslogic.cache.tap import Answered
from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.request import Call
from crosslogic.gateway.stream import DONE_EVENT
from crosslogic.gateway.visit import Attempt, Visit
from crosslogic.kernel.ids import NodeId
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.tenancy.model import Principal

NO_NODE = NodeId("")


def question_of(visit: Visit, principal: Principal, call: Call) -> Question:
    endpoint = call.endpoint
    form = form_of(call.stream, call.asked_for_usage)
    body = visit.exchange.body
    return Question(principal.org_id, visit.request_id, endpoint.name, call.model, endpoint.generates, form, body)


def answered_of(visit: Visit, attempt: Attempt) -> Answered:
    """What is to be kept of a completed attempt."""
    relay, usage = attempt.relay, attempt.usage
    assert relay is not None
    body = relay.body
    if relay.streaming and relay.reader is not None:
        body = relay.reader.held_end or (DONE_EVENT if visit.endpoint.dialect is Dialect.OPENAI else b"")
    return Answered(
        attempt.call.model,
        relay.streaming,
        relay.status,
        relay.content_type or b"application/json",
        body,
        Tokens(usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens, usage.reasoning_tokens),
        attempt.evidence is Evidence.ENGINE,
        attempt.finish_reason,
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
        None if visit.shown_id == visit.request_id.encode() else visit.shown_id.decode(),
    )
