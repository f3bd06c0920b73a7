"""Answers that are given again: from a request to what the cache asks of it, and from what was found to the ledger."""

from crosslogic.cache.model import Question, Tokens, form_of
from crosslogic.cache.tap import Answered
from crosslogic.gateway.attempts import end_of
from crosslogic.gateway.request import Call
from crosslogic.gateway.visit import Attempt, Visit
from crosslogic.metering.model import Evidence
from crosslogic.tenancy.model import Principal


def question_of(visit: Visit, principal: Principal, call: Call) -> Question:
    endpoint = call.endpoint
    form = form_of(call.stream, call.asked_for_usage)
    # A length that we wrote is part of the question: the next key may have another.
    body = call.body if visit.shortened else visit.exchange.body
    return Question(
        principal.org_id,
        visit.request_id,
        endpoint.name,
        call.model,
        endpoint.generates,
        form,
        body,
        principal.env_id,
    )


def answered_of(attempt: Attempt) -> Answered:
    """What is to be kept of a completed attempt."""
    relay, usage = attempt.relay, attempt.usage
    assert relay is not None
    body = relay.body
    if relay.streaming and relay.reader is not None:
        body = end_of(attempt)
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
