"""Every answer to a caller that we know says where it stands in its limits, whatever becomes of the request."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes, Turn, answer_well
from tests.flow.test_gateway_tenants import Tenant

REQUESTS, TOKENS = 1000, 100_000
LIMITS = {"requests_per_day": REQUESTS, "tokens_per_day": TOKENS, "max_output_tokens": 500}


@pytest.fixture(scope="module")
def headers(tuned: EmbeddedCloud) -> dict[str, str]:
    key = Tenant(tuned, limits=LIMITS).key()["key"]
    found = {"authorization": f"Bearer {key}"}
    eventually(lambda: wire.ask(tuned.url, "/v1/models", None, found, method="GET").status == 200, 10)
    return found


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()
    scripted.script = answer_well


async def fails(turn: Turn) -> None:
    turn.exchange.respond(500, b"", b"")


def ask(
    body: object, path: str = CHAT, method: str = "POST", **more: str
) -> Callable[[str, dict[str, str]], wire.Reply]:
    return lambda url, headers: wire.ask(url, path, body, headers | more, method=method)


GOOD: dict[str, Any] = {"model": "scripted", "max_tokens": 10}
ANSWERS = {
    "an answer": (ask(chat(**GOOD)), 200),
    "a stream": (ask(chat(**GOOD, stream=True)), 200),
    "no json": (ask("no json"), 400),
    "no model": (ask({}), 400),
    "an unknown model": (ask(chat(model="unheard-of")), 404),
    "another tenant's address": (ask(chat(**GOOD), "/some/body/scripted/v1/chat/completions"), 404),
    "more than one request may have": (ask(chat(model="scripted", max_tokens=900)), 403),
    "a wrong idempotency key": (ask(chat(**GOOD), **{"idempotency-key": "x" * 300}), 400),
    "the list of models": (ask(None, "/v1/models", "GET"), 200),
    "a model that there is not": (ask(None, "/v1/models/unheard-of", "GET"), 404),
}


@pytest.mark.parametrize("what", ANSWERS)
def test_every_answer_tells_what_is_left(tuned: EmbeddedCloud, headers: dict[str, str], what: str) -> None:
    answer, status = ANSWERS[what]
    reply = answer(tuned.url, headers)
    assert reply.status == status, reply
    assert reply.headers["x-ratelimit-limit-requests"] == str(REQUESTS)
    assert reply.headers["x-ratelimit-limit-tokens"] == str(TOKENS)
    assert 0 < int(reply.headers["x-ratelimit-remaining-requests"]) <= REQUESTS
    assert 0 < int(reply.headers["x-ratelimit-remaining-tokens"]) <= TOKENS
    assert {"x-ratelimit-reset-requests", "x-ratelimit-reset-tokens"} <= set(reply.headers)


def test_also_where_every_node_fails(tuned: EmbeddedCloud, scripted: ScriptedNodes, headers: dict[str, str]) -> None:
    scripted.script = fails
    reply = ask(chat(**GOOD))(tuned.url, headers)
    assert reply.status == 502
    assert reply.headers["x-ratelimit-limit-requests"] == str(REQUESTS)


def test_a_repeat_and_a_conflict_are_told_too(tuned: EmbeddedCloud, headers: dict[str, str]) -> None:
    replies = [
        ask(chat(**GOOD | {"max_tokens": most}), **{"idempotency-key": "k"})(tuned.url, headers) for most in (9, 9, 8)
    ]
    assert [reply.status for reply in replies] == [200, 200, 409]
    assert replies[1].headers["idempotent-replayed"] == "true"
    assert all(reply.headers["x-ratelimit-limit-requests"] == str(REQUESTS) for reply in replies)


def test_what_fails_before_it_asks_takes_nothing(tuned: EmbeddedCloud, headers: dict[str, str]) -> None:
    left = [
        int(ask({})(tuned.url, headers).headers["x-ratelimit-remaining-requests"]),
        int(ask("no json")(tuned.url, headers).headers["x-ratelimit-remaining-requests"]),
    ]
    assert left[0] == left[1]
