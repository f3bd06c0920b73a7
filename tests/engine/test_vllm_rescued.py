"""A real engine is killed under streams that another real engine goes on with: their callers get whole answers."""

from collections.abc import Iterator

import pytest

from tests.engine.servers import CHAT_MODEL, Engines
from tests.flow.clouds import EmbeddedCloud, Row, chat
from tests.flow.wire import Reply

pytestmark = pytest.mark.engine

LONG = 600  # tokens
EACH = 4  # streams of a kind; about half of them are on the node that dies
SHAPE = {"stream": True, "max_tokens": LONG, "min_tokens": LONG, "stream_options": {"include_usage": True}}
KINDS = {
    "greedy chat": ("/v1/chat/completions", chat("Go on.", CHAT_MODEL, temperature=0, **SHAPE)),
    "sampled chat": ("/v1/chat/completions", chat("Tell me more.", CHAT_MODEL, **SHAPE)),
    "completion": (
        "/v1/completions",
        {"model": CHAT_MODEL, "prompt": "The class statement", "temperature": 0, "ignore_eos": True, **SHAPE},
    ),
}


@pytest.fixture(scope="module")
def outcomes(cloud: EmbeddedCloud, engines: Engines) -> Iterator[dict[str, list[tuple[Reply, Row]]]]:
    victim = engines.chat[1]
    if victim.process.poll() is not None:
        victim.start_again()
        victim.wait_until_ready()
    for _ in range(40):
        cloud.ask(chat("Hello", CHAT_MODEL, max_tokens=1))  # the node is known to be back
    began = [(kind, cloud.begin(body, path)) for kind, (path, body) in KINDS.items() for _ in range(EACH)]
    for _, conversation in began:
        conversation.until(lambda data: data.count(b"\n\n") > 12, 60)
    victim.kill_engine()
    found: dict[str, list[tuple[Reply, Row]]] = {kind: [] for kind in KINDS}
    for kind, conversation in began:
        reply = conversation.rest(60)
        conversation.close()
        found[kind].append((reply, cloud.row(reply.headers["x-request-id"])))
    yield found
    victim.stop()


@pytest.mark.parametrize("kind", KINDS)
def test_every_stream_is_whole_and_one(outcomes: dict[str, list[tuple[Reply, Row]]], kind: str) -> None:
    for reply, row in outcomes[kind]:
        assert reply.done, reply
        assert len({(chunk["id"], chunk["created"]) for chunk in reply.chunks}) == 1
        choices = [choice for chunk in reply.chunks for choice in chunk["choices"]]
        assert [c["finish_reason"] for c in choices if c["finish_reason"]] == ["length"]
        assert sum("role" in choice.get("delta", {}) for choice in choices) <= 1
        assert (row["outcome"], row["evidence"], row["completion_tokens"]) == ("completed", "engine", LONG)
        assert (reply.usage["prompt_tokens"], reply.usage["completion_tokens"]) == (row["prompt_tokens"], LONG)


def test_some_streams_were_on_the_node_that_died(outcomes: dict[str, list[tuple[Reply, Row]]]) -> None:
    """Which of them, the scheduler decides; without any, the others would show nothing."""
    assert max(row["attempts"] for of_kind in outcomes.values() for _, row in of_kind) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_prompt_is_counted_once(outcomes: dict[str, list[tuple[Reply, Row]]], kind: str) -> None:
    """Text that is taken apart again may have a token more or less than it was made of."""
    undisturbed = [row["prompt_tokens"] for _, row in outcomes[kind] if row["attempts"] == 1]
    rescued = [row["prompt_tokens"] for _, row in outcomes[kind] if row["attempts"] > 1]
    if undisturbed:
        assert all(abs(tokens - undisturbed[0]) <= 0.1 * LONG for tokens in rescued)
