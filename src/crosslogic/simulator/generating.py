"""From a request that generates to a job in the engine's queue; pooled requests take the same way.

Invariant: what is refused (window, queue) is refused before a byte of an answer is sent, and a client that leaves
while its request is still on the way to the queue never gets there.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.simulator import tokens
from crosslogic.simulator.faults import Fault
from crosslogic.simulator.going_on import answer_to
from crosslogic.simulator.job import Job, Refuse
from crosslogic.simulator.model import Refusal, Sequence
from crosslogic.simulator.pooling import Prepared, WholeWriter
from crosslogic.simulator.replies import Usage
from crosslogic.simulator.requests import Generation, Prompt

if TYPE_CHECKING:
    from crosslogic.net.exchange import Exchange
    from crosslogic.simulator.node import SimulatedNode


def generating_job(
    node: SimulatedNode, exchange: Exchange, request: Generation, writer_type: type[Any], fault: Fault, refuse: Refuse
) -> Job:
    """Decide the answers to a request and make the job that will send them. Raises InvalidRequest."""
    answers, sequences = [], []
    prompt_tokens = cached_tokens = created_tokens = 0
    for prompt in request.prompts:
        limit = token_limit(node.max_model_len, prompt, request.max_tokens)
        # Prompts of token ids have no text to look up. At least the last token is always computed.
        whole = prompt.text + prompt.given
        cached, created = node.claim_prefix(tokens.split(whole)) if prompt.question else (0, 0)
        cached = min(cached, prompt.tokens - 1)
        prompt_tokens += prompt.tokens
        cached_tokens += cached
        created_tokens += min(created, prompt.tokens - cached)
        for choice in range(request.choices):
            answer = answer_to(request, prompt, limit, partial(_rng, node.options.seed, request, choice))
            answers.append(answer)
            sequences.append(Sequence(prompt.tokens, len(answer.pieces), cached_tokens=cached))
    identity = exchange.header(b"x-request-id")
    request_id = identity.decode("latin-1") if identity else secrets.token_hex(16)
    return Job(
        exchange,
        writer_type(request, answers, request_id, int(time.time()), prompt_tokens),
        sequences,
        Usage(prompt_tokens, sum(len(a.pieces) for a in answers), cached_tokens, created_tokens),
        finish_reason="length" if any(a.finish_reason == "length" for a in answers) else "stop",
        stream=request.stream,
        fault=fault,
        started_s=asyncio.get_running_loop().time(),
        on_end=node.ended,
        on_crash=node.crash,
        refuse=refuse,
    )


def _rng(node_seed: int, request: Generation, choice: int, text: str) -> Random:
    """A text seeds Random the same way in every process."""
    return Random(f"{'' if request.repeatable else node_seed}|{request.seed}|{choice}|{text}")


def pooled_job(node: SimulatedNode, exchange: Exchange, prepared: Prepared, fault: Fault, refuse: Refuse) -> Job:
    """The job of an embedding, score or rerank request. Raises InvalidRequest."""
    prompts, build = prepared
    for prompt in prompts:
        token_limit(node.max_model_len, prompt, None)
    return Job(
        exchange,
        WholeWriter(build),
        [Sequence(p.tokens, 1) for p in prompts],
        Usage(sum(p.tokens for p in prompts), 0),
        finish_reason="stop",
        stream=False,
        fault=fault,
        started_s=asyncio.get_running_loop().time(),
        on_end=node.ended,
        on_crash=node.crash,
        refuse=refuse,
    )


def token_limit(window: int, prompt: Prompt, max_tokens: int | None) -> int:
    """How many tokens the answer may have. Raises InvalidRequest when the window does not hold prompt and answer."""
    room = window - prompt.tokens
    if room < 1:
        raise InvalidRequest(
            f"This model's maximum context length is {window} tokens, but the prompt alone has {prompt.tokens}. "
            "Please shorten it."
        )
    if max_tokens is not None and max_tokens > room:
        raise InvalidRequest(
            f"max_tokens is too large: {max_tokens}. This model's maximum context length is {window} tokens and "
            f"the prompt has {prompt.tokens} of them.",
            param="max_tokens",
        )
    return max_tokens or room


def dispatch(node: SimulatedNode, job: Job) -> None:
    """Queue a job after the time that the front takes, unless its client leaves before."""
    loop = asyncio.get_running_loop()
    exchange = job.exchange
    slow_s = job.fault.slow_first_token_s

    def arrive() -> None:
        if slow_s and not job.over:
            job.begin()  # status and headers come at once; only the tokens are late
            wait(slow_s, submit)
        else:
            submit()

    def submit() -> None:
        if job.over:
            return
        refusal = node.submit(job)
        if refusal is None:
            exchange.on_closed = job.end
            job.begin()
            return
        if exchange.started:
            job.fail()
        elif refusal is Refusal.QUEUE_FULL:
            job.refuse(429, "The server's queue is full, try again later.")
        else:
            job.refuse(400, "The request does not fit into this server's KV cache.")

    def wait(delay_s: float, then: Callable[[], None]) -> None:
        timer = loop.call_later(delay_s, then)

        def left() -> None:
            timer.cancel()
            job.end()

        exchange.on_closed = left

    node.expect(job)
    wait(node.front_s(job.usage.prompt_tokens), arrive)
