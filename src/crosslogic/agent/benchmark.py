"""Warms the engine up and measures it: prefill and decode tokens/s (architecture document §24.1).

Prefill: a prompt of some thousand tokens, one token answered; decode: several answers at once, their tokens over the
time of all. What the engine's own `usage` counts is what counts; an engine that says none has no measured capacity.
"""

import asyncio
import logging
import time

import httpx

from crosslogic.agent.model import Capacity

WARM_UP_TOKENS = 8
PREFILL_WORDS = 1_500
PREFILL_ROUNDS = 3
DECODE_STREAMS = 8
DECODE_TOKENS = 64
TIMEOUT_S = 180.0

_log = logging.getLogger(__name__)


async def benchmark(base_url: str, model: str, api_key: str | None = None) -> Capacity:
    """Zeros where the engine cannot be measured; it may serve all the same."""
    headers = {"authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(base_url=base_url, headers=headers, timeout=TIMEOUT_S, trust_env=False) as http,
        ):
            await _complete(http, model, "Hello", WARM_UP_TOKENS)
            prefill = max([await _prefill(http, model, number) for number in range(PREFILL_ROUNDS)])
            decode = await _decode(http, model)
    except (httpx.HTTPError, OSError, TimeoutError, ValueError, KeyError, TypeError) as error:
        _log.warning("the engine could not be measured (%s)", type(error).__name__)
        return Capacity()
    _log.info("the engine reads %.0f and writes %.0f tokens/s", prefill, decode)
    return Capacity(round(prefill, 1), round(decode, 1))


async def _prefill(http: httpx.AsyncClient, model: str, number: int) -> float:
    # Another beginning each time: a prefix cache would be measured otherwise.
    prompt = f"{number} " + " ".join(f"w{number * PREFILL_WORDS + index}" for index in range(PREFILL_WORDS))
    began_s = time.perf_counter()
    usage = await _complete(http, model, prompt, 1)
    return float(usage["prompt_tokens"]) / max(1e-6, time.perf_counter() - began_s)


async def _decode(http: httpx.AsyncClient, model: str) -> float:
    began_s = time.perf_counter()
    answers = await asyncio.gather(
        *(_complete(http, model, f"Tell story {number}", DECODE_TOKENS) for number in range(DECODE_STREAMS))
    )
    tokens = sum(float(usage["completion_tokens"]) for usage in answers)
    return tokens / max(1e-6, time.perf_counter() - began_s)


async def _complete(http: httpx.AsyncClient, model: str, prompt: str, max_tokens: int) -> dict[str, float]:
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "ignore_eos": True}
    answer = await http.post("/v1/completions", json=body)
    answer.raise_for_status()
    usage: dict[str, float] = answer.json()["usage"]
    return usage
