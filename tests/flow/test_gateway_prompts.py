"""A completion of several prompts is several answers: none is lost, none goes uncounted, whatever its node does."""

import asyncio
from typing import Any

import pytest

from tests.flow.clouds import EmbeddedCloud
from tests.flow.processes import in_time
from tests.flow.scripted import USAGE, ScriptedNodes, Turn

COMPLETIONS = "/v1/completions"


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()


def part(index: int, text: str, finish: str | None = None) -> dict[str, Any]:
    return {
        "id": "cmpl-1",
        "object": "text_completion",
        "model": "scripted",
        "choices": [{"index": index, "text": text, "finish_reason": finish}],
    }


def asked(*prompts: object, **more: object) -> dict[str, Any]:
    return {"model": "scripted", "prompt": list(prompts), "max_tokens": 5, "stream": True} | more


def texts(chunks: list[Any]) -> dict[int, str]:
    found: dict[int, str] = {}
    for choice in (choice for chunk in chunks for choice in chunk.get("choices", [])):
        found[choice["index"]] = found.get(choice["index"], "") + choice["text"]
    return found


def test_the_second_answer_may_come_long_after_the_first_has_ended(
    tuned: EmbeddedCloud, scripted: ScriptedNodes
) -> None:
    async def one_after_the_other(turn: Turn) -> None:
        turn.events(part(0, "first"), part(0, "", "stop"))
        await asyncio.sleep(0.35)  # within the idle time of 0.6 s, and beyond it together
        turn.events(part(1, "sec"))
        await asyncio.sleep(0.35)
        turn.events(part(1, "ond", "length"), {"choices": [], "usage": USAGE})
        turn.exchange.end(b"data: [DONE]\n\n")

    scripted.script = one_after_the_other
    reply = tuned.ask(asked("a", "b"), path=COMPLETIONS)
    assert reply.done
    assert texts(reply.chunks) == {0: "first", 1: "second"}
    assert tuned.row(reply.headers["x-request-id"])["outcome"] == "completed"


def test_a_node_that_dies_after_the_first_answer_leaves_no_success(
    tuned: EmbeddedCloud, scripted: ScriptedNodes
) -> None:
    async def dies(turn: Turn) -> None:
        turn.events(part(0, "first"), part(0, "", "stop"), part(1, "sec"))
        await asyncio.sleep(0.05)
        turn.exchange.abort(reset=True)

    scripted.script = dies
    reply = tuned.ask(asked([1, 2], [3]), path=COMPLETIONS)
    assert not reply.done
    assert reply.chunks[-1]["error"]["code"] == "upstream_error"
    assert tuned.row(reply.headers["x-request-id"])["outcome"] == "truncated"


def test_one_prompt_of_many_token_numbers_is_one_answer(tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
    async def forgets_its_end(turn: Turn) -> None:
        turn.events(part(0, "whole", "stop"))
        await asyncio.sleep(5)

    scripted.script = forgets_its_end
    reply = in_time(lambda: tuned.ask(asked(1, 2, 3), path=COMPLETIONS), 1.5)
    assert reply.done
