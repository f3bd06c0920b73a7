"""The engine under arbitrary arrivals and aborts: nothing leaks, nothing starves, nothing is counted twice."""

from random import Random
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Refusal, Sequence, State, StepTime

STEP_TIME = StepTime(a_s=0.01, b_s=1e-4, c_s=1e-7, d_s=1e-5)
BLOCK = 4


class EngineMachine(RuleBasedStateMachine):
    """A small engine, so that queue, seats and cache all run out often."""

    def __init__(self) -> None:
        super().__init__()
        self.config = EngineConfig(
            max_num_seqs=4, max_num_batched_tokens=12, kv_blocks=16, block_tokens=BLOCK, max_queue=6
        )
        self.engine = Engine(self.config, STEP_TIME)
        self.now_s = 0.0
        self.accepted: list[Sequence] = []
        self.emitted: dict[Sequence, int] = {}

    @rule(prompt=st.integers(1, 50), output=st.integers(1, 30), cached=st.integers(0, 50))
    def submit(self, prompt: int, output: int, cached: int) -> None:
        sequence = Sequence(prompt, output, cached_tokens=min(cached, prompt))
        waiting = self.engine.waiting
        refusal = self.engine.submit(sequence, self.now_s)
        too_long = prompt + output - 1 > self.config.kv_blocks * BLOCK
        if too_long:
            assert refusal is Refusal.TOO_LONG
        elif waiting >= self.config.max_queue:
            assert refusal is Refusal.QUEUE_FULL
        else:
            assert refusal is None
            self.accepted.append(sequence)
            self.emitted[sequence] = 0

    @precondition(lambda self: self.accepted)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        sequence = data.draw(st.sampled_from(self.accepted))
        was = sequence.state
        self.engine.abort(sequence)
        assert sequence.state is (State.FINISHED if was is State.FINISHED else State.ABORTED)
        assert self.engine.held_blocks(sequence) == 0

    @rule(times=st.integers(1, 5))
    def step(self, times: int) -> None:
        for _ in range(times):
            self._step()

    def _step(self) -> None:
        idle = self.engine.idle
        result = self.engine.step(self.now_s)
        assert (result.duration_s > 0) is not idle
        assert len(set(result.emitted)) == len(result.emitted)
        assert result.decodes + result.prefill_tokens <= self.config.max_num_batched_tokens
        self.now_s += result.duration_s
        for sequence in result.emitted:
            self.emitted[sequence] += 1
            assert sequence.first_token_s is not None
        for sequence in result.finished:
            assert sequence.state is State.FINISHED
            assert sequence.finished_s == self.now_s
            assert self.emitted[sequence] == sequence.output_tokens
        for sequence in result.preempted:
            assert sequence not in result.emitted
            assert sequence.state is State.WAITING

    @invariant()
    def blocks_are_conserved(self) -> None:
        held = sum(self.engine.held_blocks(s) for s in self.accepted)
        assert held + self.engine.free_blocks == self.config.kv_blocks
        assert self.engine.free_blocks >= 0

    @invariant()
    def seats_and_counts_are_true(self) -> None:
        states = [s.state for s in self.accepted]
        running = states.count(State.PREFILLING) + states.count(State.DECODING)
        assert self.engine.running == running <= self.config.max_num_seqs
        assert self.engine.waiting == states.count(State.WAITING)
        assert all(self.engine.generated(s) == self.emitted[s] for s in self.accepted)

    @invariant()
    def first_come_is_first_served(self) -> None:
        """Nobody runs who came after somebody that waits, and first tokens come in the order of arrival."""
        waiting = [i for i, s in enumerate(self.accepted) if s.state is State.WAITING]
        if waiting:
            assert all(s.state not in (State.PREFILLING, State.DECODING) for s in self.accepted[waiting[0] :]), (
                "a later sequence overtook one that waits"
            )
        starts = [s.first_token_s for s in self.accepted if s.first_token_s is not None]
        assert starts == sorted(starts)

    def teardown(self) -> None:
        """Whatever happened, all that was accepted ends, in a bounded number of steps."""
        for _ in range(20_000):
            if self.engine.idle:
                break
            self._step()
        assert all(s.state in (State.FINISHED, State.ABORTED) for s in self.accepted)
        assert self.engine.free_blocks == self.config.kv_blocks


EngineMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestEngineMachine = EngineMachine.TestCase


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    requests=st.lists(st.tuples(st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=20),
)
def test_the_same_seed_gives_the_same_run(seed: int, requests: list[tuple[int, int]]) -> None:
    def run() -> list[tuple[float | None, float | None, int]]:
        config = EngineConfig(
            max_num_seqs=8, max_num_batched_tokens=32, kv_blocks=32, block_tokens=BLOCK, noise_sigma=0.2
        )
        engine = Engine(config, STEP_TIME, Random(seed))
        sequences = [Sequence(*request) for request in requests]
        for sequence in sequences:
            engine.submit(sequence, 0.0)
        now_s = 0.0
        while not engine.idle:
            now_s += engine.step(now_s).duration_s
        return [(s.first_token_s, s.finished_s, s.preemptions) for s in sequences]

    assert run() == run()


@settings(max_examples=30, deadline=None)
@given(requests=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=12))
def test_virtual_time_is_the_sum_of_what_the_steps_did(requests: list[tuple[int, int]]) -> None:
    """Total time follows from the work alone: a per step, b per decode, d per prefill token, c per KV token read."""
    engine = Engine(EngineConfig(max_num_seqs=8, max_num_batched_tokens=64, kv_blocks=10_000), STEP_TIME)
    for request in requests:
        engine.submit(Sequence(*request), 0.0)
    now_s, steps = 0.0, 0
    while not engine.idle:
        now_s += engine.step(now_s).duration_s
        steps += 1
    prefill = sum(prompt for prompt, _ in requests)
    decodes = sum(output - 1 for _, output in requests)
    # The k-th decode of a sequence reads the prompt and the k tokens before it.
    kv = sum(sum(prompt + k for k in range(1, output)) for prompt, output in requests)
    expected_s = steps * STEP_TIME.a_s + decodes * STEP_TIME.b_s + kv * STEP_TIME.c_s + prefill * STEP_TIME.d_s
    assert abs(now_s - expected_s) < 1e-9 * steps + 1e-9


class Load(NamedTuple):
    sequences: list[tuple[float, int, int]]
    kv_blocks: int
    max_num_seqs: int


def loads() -> st.SearchStrategy[Load]:
    gap = st.integers(0, 80).map(lambda tenths: tenths * 0.10003)  # never at the very end of an iteration
    sequence = st.tuples(gap, st.integers(1, 40), st.integers(1, 60))
    return st.builds(Load, st.lists(sequence, min_size=1, max_size=12), st.integers(30, 90), st.integers(1, 6))


@given(loads())
def test_leaping_over_iterations_without_events_ends_all_as_stepping_through_them_does(load: Load) -> None:
    def run(*, leaping: bool) -> list[tuple[float, float, int]]:
        config = EngineConfig(
            max_num_seqs=load.max_num_seqs, max_num_batched_tokens=16, kv_blocks=load.kv_blocks, block_tokens=4
        )
        engine = Engine(config, StepTime(0.5, 0.11, 0.013, 0.07))
        now_s, arrival_s, sequences = 0.0, 0.0, []

        def advance(until_s: float) -> None:
            nonlocal now_s
            while now_s < until_s and not engine.idle:
                if leaping:
                    now_s = engine.leap(now_s, until_s)
                if now_s < until_s:
                    now_s += engine.step(now_s).duration_s

        for gap_s, prompt, output in load.sequences:
            arrival_s += gap_s
            advance(arrival_s)
            now_s = max(now_s, arrival_s)
            sequences.append(Sequence(prompt, output))
            assert engine.submit(sequences[-1], arrival_s) is None
        advance(float("inf"))
        assert engine.free_blocks == load.kv_blocks
        return [(s.first_token_s or 0.0, s.finished_s or 0.0, s.preemptions) for s in sequences]

    for stepped, leapt in zip(run(leaping=False), run(leaping=True), strict=True):
        assert leapt == pytest.approx(stepped, rel=1e-9)
