"""Closed-loop load on the engine in virtual time: what a benchmark client with N fixed clients would measure.

Pure. Each client sends its next request when the one before is complete. Lengths vary a little about their mean
and the clients begin at different places of their first answer, for otherwise all of them would stay in step for
ever, which no real benchmark does.
"""

from __future__ import annotations

import heapq
from typing import Protocol

import msgspec

from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Noise, Sequence, StepTime

LENGTH_SPREAD = 0.1


class Source(Noise, Protocol):
    """What a sweep needs of `random.Random`."""

    def uniform(self, a: float, b: float) -> float: ...


class Measured(msgspec.Struct, frozen=True):
    """Means over the requests that were complete after the warm-up."""

    requests: int
    ttft_s: float
    itl_s: float
    requests_per_s: float
    preemptions: int


def closed_loop(
    config: EngineConfig,
    step_time: StepTime,
    rng: Source,
    *,
    clients: int,
    input_tokens: int,
    output_tokens: int,
    rounds: int = 3,
) -> Measured:
    """Run `rounds` requests per client after one of warm-up, and report what the clients saw."""
    engine = Engine(config, step_time, rng)
    warm_up = clients
    wanted = warm_up + rounds * clients
    now_s = 0.0

    def send(share: float) -> None:
        spread = rng.uniform(1 - LENGTH_SPREAD, 1 + LENGTH_SPREAD)
        outputs = max(2, round(output_tokens * spread * share))
        refusal = engine.submit(Sequence(max(1, round(input_tokens * spread)), outputs), now_s)
        if refusal is not None:
            raise ValueError(f"the engine refuses this load: {refusal}")

    for index in range(clients):
        send((index + 1) / clients)
    done: list[Sequence] = []
    begun_s = 0.0
    while len(done) < wanted:
        result = engine.step(now_s)
        now_s += result.duration_s
        for sequence in result.finished:
            done.append(sequence)
            if len(done) == warm_up:
                begun_s = now_s
            send(1.0)
    measured = done[warm_up:]
    first = [_first(s) - s.submitted_s for s in measured]
    between = [(_end(s) - _first(s)) / (s.output_tokens - 1) for s in measured]
    return Measured(
        requests=len(measured),
        ttft_s=sum(first) / len(first),
        itl_s=sum(between) / len(between),
        requests_per_s=len(measured) / (now_s - begun_s),
        preemptions=engine.preemptions,
    )


def open_loop(
    config: EngineConfig,
    step_time: StepTime,
    rng: Source,
    arrivals: list[tuple[float, int, int]],
) -> list[Sequence]:
    """Run requests `(arrival_s, input_tokens, output_tokens)` to the end; refused ones stay in state `new`."""
    engine = Engine(config, step_time, rng)
    pending = list(arrivals)
    heapq.heapify(pending)
    sequences: list[Sequence] = []
    now_s = 0.0
    while pending or not engine.idle:
        if engine.idle:
            now_s = max(now_s, pending[0][0])
        while pending and pending[0][0] <= now_s:
            arrival_s, inputs, outputs = heapq.heappop(pending)
            sequence = Sequence(inputs, outputs)
            engine.submit(sequence, arrival_s)
            sequences.append(sequence)
        now_s += engine.step(now_s).duration_s
    return sequences


def _first(sequence: Sequence) -> float:
    assert sequence.first_token_s is not None
    return sequence.first_token_s


def _end(sequence: Sequence) -> float:
    assert sequence.finished_s is not None
    return sequence.finished_s
