"""Measures an OpenAI-compatible server: a sweep of offered rates, streamed, with latency as its clients see it.

Requests are sent when they are due, whatever the server does (open loop), so that a slow server cannot slow the load.
Invariant: every request has a deadline, and no more than `most_running` are under way; percentiles are of successful
requests after the warm-up; the sweep ends at the first over-saturated rate.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from math import ceil
from typing import Any
from urllib.parse import urlsplit

import httpx
import msgspec
import numpy as np

from crosslogic.compass.capacity.load import Requests, requests
from crosslogic.compass.knowledge.model import Benchmark, Setup, doubt
from crosslogic.compass.specification.lengths import fixed
from crosslogic.kernel.errors import InvalidRequest, Unavailable

WARM_UP = 0.1
_WORDS = ("river", "stone", "cloud", "amber", "field", "north", "quiet", "metal", "paper", "light", "green", "seven")


class Sweep(msgspec.Struct, frozen=True):
    """What is sent. `rates` in requests a second, rising."""

    rates: tuple[float, ...]
    prompt_tokens: int = 512
    output_tokens: int = 256
    seconds: float = 30.0  # of each rate
    cv: float = 1.0
    timeout_s: float = 120.0
    most_running: int = 1024


class _Sample(msgspec.Struct):
    sent_s: float
    first_s: float = 0.0
    ended_s: float = 0.0
    prompt_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None


def check(sweep: Sweep) -> Sweep:
    """Raises InvalidRequest for a sweep that makes no sense."""
    if (
        not sweep.rates
        or any(not 0 < rate <= 10_000 for rate in sweep.rates)
        or list(sweep.rates) != sorted(sweep.rates)
    ):
        raise InvalidRequest("rates are from above 0 to 10,000 requests/s, rising", param="rates")
    if not (1 <= sweep.prompt_tokens <= 200_000 and 2 <= sweep.output_tokens <= 100_000):
        raise InvalidRequest("prompts have 1 to 200,000 tokens, answers 2 to 100,000", param="prompt_tokens")
    if not (0.1 <= sweep.seconds <= 3600 and 1 <= sweep.timeout_s <= 3600 and 0 <= sweep.cv <= 20):
        raise InvalidRequest("each rate is run for 0.1 s to an hour, with a timeout of 1 s to an hour", param="seconds")
    return sweep


async def measure(
    url: str,
    setup: Setup,
    sweep: Sweep,
    *,
    api_key: str | None = None,
    told: Callable[[Benchmark, str | None], None] = lambda _point, _doubt: None,
) -> list[Benchmark]:
    """One benchmark for each rate that the server kept up with. Raises InvalidRequest, and Unavailable where none."""
    check(sweep)
    base = _base(url)
    headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
    limits = httpx.Limits(max_connections=sweep.most_running, max_keepalive_connections=sweep.most_running)
    found: list[Benchmark] = []
    async with httpx.AsyncClient(
        base_url=base, headers=headers, timeout=sweep.timeout_s, limits=limits, trust_env=False
    ) as client:
        await _probe(client, setup.model)
        for number, rate in enumerate(sweep.rates):
            load = requests(
                max(3, ceil(rate * sweep.seconds)),
                fixed(sweep.prompt_tokens),
                fixed(sweep.output_tokens),
                cv=sweep.cv,
                seed=number,
            )
            samples = await _run(client, setup.model, load, rate, sweep)
            point = summarise(samples, setup, sweep, rate, base)
            reason = doubt(point)
            told(point, reason)
            if reason is not None:
                if not found:
                    error = next((each.error for each in samples if each.error), "")
                    raise Unavailable(f"{base} keeps up with no rate of the sweep: {reason} {error}".rstrip())
                break
            found.append(point)
    return found


def summarise(samples: Sequence[_Sample], setup: Setup, sweep: Sweep, rate: float, source: str) -> Benchmark:
    """What the successful requests after the warm-up saw."""
    skip = int(len(samples) * WARM_UP)
    good = [each for each in samples[skip:] if each.error is None]
    failed = sum(each.error is not None for each in samples)
    named: dict[str, Any] = {"setup": setup, "prompt_tokens": sweep.prompt_tokens, "output_tokens": sweep.output_tokens}
    run: dict[str, Any] = {
        "offered_per_second": rate,
        "failed": failed,
        "source": f"live: {source}",
        "measured_at": datetime.now(UTC),
    }
    if not good:
        return Benchmark(**named, **run, requests=0)
    ttft = np.array([each.first_s - each.sent_s for each in good]) * 1e3
    e2e = np.array([each.ended_s - each.sent_s for each in good]) * 1e3
    steps = np.array([max(1, each.output_tokens - 1) for each in good])
    itl = (e2e - ttft) / steps
    sent = np.array([each.sent_s for each in good])
    ended = np.array([each.ended_s for each in good])
    # Over the sending alone the rate is what was offered; until the last answer it shows a queue that only grew.
    span = max(1e-3, float(ended.max() - sent.min()) - float(np.median(e2e)) / 1e3)
    achieved = max(1, len(good) - 1) / span
    return Benchmark(
        **named,
        **run,
        ttft_p95_ms=float(np.quantile(ttft, 0.95)),
        itl_p95_ms=float(np.quantile(itl, 0.95)),
        e2e_p95_ms=float(np.quantile(e2e, 0.95)),
        ttft_mean_ms=float(ttft.mean()),
        itl_mean_ms=float(itl.mean()),
        e2e_mean_ms=float(e2e.mean()),
        requests_per_second=achieved,
        concurrency=float(e2e.sum() / 1e3 / span),
        mean_input_tokens=float(np.mean([each.prompt_tokens for each in good])),
        mean_output_tokens=float(np.mean([each.output_tokens for each in good])),
        requests=len(good),
    )


async def _run(client: httpx.AsyncClient, model: str, load: Requests, rate: float, sweep: Sweep) -> list[_Sample]:
    begun = time.monotonic()
    room = asyncio.Semaphore(sweep.most_running)
    samples: list[_Sample] = []

    async def one(number: int, sample: _Sample) -> None:
        async with room:
            try:
                async with asyncio.timeout(sweep.timeout_s):
                    await _ask(client, model, number, sample, sweep)
            except TimeoutError:
                sample.error = f"no end of the answer within {sweep.timeout_s:g} s"
            except (httpx.HTTPError, msgspec.MsgspecError, OSError) as error:
                sample.error = f"{type(error).__name__}: {error}"

    async with asyncio.TaskGroup() as group:
        for number, at in enumerate(load.at.tolist()):
            due = begun + at / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            sample = _Sample(time.monotonic())
            samples.append(sample)
            group.create_task(one(number, sample))
    return samples


async def _ask(client: httpx.AsyncClient, model: str, number: int, sample: _Sample, sweep: Sweep) -> None:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": _prompt(number, sweep.prompt_tokens)}],
        "max_tokens": sweep.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
        if answer.status_code != 200:
            await answer.aread()
            sample.error = f"HTTP {answer.status_code}"
            return
        async for line in _lines(answer):
            if not line.startswith(b"data:") or line.endswith(b"[DONE]"):
                continue
            event = msgspec.json.decode(line[5:])
            usage = event.get("usage")
            if isinstance(usage, dict):
                sample.prompt_tokens = int(usage.get("prompt_tokens") or 0)
                sample.output_tokens = int(usage.get("completion_tokens") or 0)
            if _has_token(event):
                sample.ended_s = time.monotonic()
                sample.first_s = sample.first_s or sample.ended_s
                if not isinstance(usage, dict):
                    sample.output_tokens += 1
    if not sample.first_s:
        sample.error = "an answer without a token"


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """Lines as the protocol ends them. `aiter_lines` would also end them at U+2028 and its like in an answer's text."""
    rest = b""
    async for part in answer.aiter_bytes():
        *whole, rest = (rest + part).split(b"\n")
        for line in whole:
            yield line.rstrip(b"\r")


def _has_token(event: Any) -> bool:
    choices = event.get("choices") or [] if isinstance(event, dict) else []
    delta = choices[0].get("delta") if choices else None
    return isinstance(delta, dict) and bool(delta.get("content") or delta.get("reasoning_content"))


def _prompt(number: int, tokens: int) -> str:
    """About so many tokens, unlike any other request's from its first word on, so that no prefix cache helps."""
    start = [str(number), str(time.monotonic_ns() % 10**9)]
    return " ".join((start + [_WORDS[(number + i) % len(_WORDS)] for i in range(tokens)])[: max(1, tokens - 8)])


async def _probe(client: httpx.AsyncClient, model: str) -> None:
    try:
        answer = await client.get("/v1/models", timeout=10.0)
    except httpx.HTTPError as error:
        raise Unavailable(f"nothing answers at {client.base_url}: {type(error).__name__}; check --target") from None
    if answer.status_code in (401, 403):
        raise InvalidRequest(f"{client.base_url} wants a key; give one in CROSSLOGIC_API_KEY")
    if answer.is_success and f'"{model}"' not in answer.text:
        raise InvalidRequest(f"{client.base_url} serves no model {model!r}", param="model")


def _base(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise InvalidRequest(f"{url!r} is no URL of a server; write http://host:port", param="url")
    return url.rstrip("/").removesuffix("/v1")
