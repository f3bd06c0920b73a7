"""The simulated node in wall-clock time: it takes as long as its engine says, divided by the speed-up."""

import json
import time

import httpx
import pytest

from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile

PROFILE = find_profile("meta-llama/Llama-3.1-8B-Instruct")
TOKENS = 40


async def _seconds(speedup: float) -> float:
    """How long one answer takes, at best of three: other work on the machine only ever adds."""
    body = {"model": PROFILE.model, "prompt": "one two three", "max_tokens": TOKENS, "ignore_eos": True}
    best_s = float("inf")
    async with (
        SimulatedNode(PROFILE, NodeOptions(speedup=speedup, step_noise_sigma=0.0)) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30) as client,
    ):
        await client.get("/health")
        for _ in range(3):
            begun_s = time.monotonic()
            assert (await client.post("/v1/completions", json=body)).status_code == 200
            best_s = min(best_s, time.monotonic() - begun_s)
    return best_s


@pytest.mark.parametrize("speedup", [1.0, 4.0])
async def test_an_answer_takes_what_its_steps_take(speedup: float) -> None:
    expected_s = (PROFILE.front_s + TOKENS * PROFILE.step_time.a_s) / speedup
    taken_s = await _seconds(speedup)
    assert expected_s <= taken_s <= 3 * expected_s + 0.5


async def test_tokens_come_one_by_one_and_not_in_a_burst() -> None:
    body = {
        "model": PROFILE.model,
        "prompt": "one two three",
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    arrived_s = []
    async with (
        SimulatedNode(PROFILE, NodeOptions()) as node,
        httpx.AsyncClient(base_url=node.url, timeout=30) as client,
        client.stream("POST", "/v1/completions", json=body) as response,
    ):
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                assert json.loads(line.removeprefix("data: "))["choices"][0]["text"]
                arrived_s.append(time.monotonic())
    assert len(arrived_s) == TOKENS
    assert arrived_s[-1] - arrived_s[0] >= 0.7 * (TOKENS - 1) * PROFILE.step_time.a_s
