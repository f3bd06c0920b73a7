"""What one iteration of the engine does, case by case."""

from random import Random

import pytest

from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Refusal, Sequence, State, StepTime

SECOND_PER_STEP = StepTime(a_s=1.0, b_s=0.0, c_s=0.0, d_s=0.0)


def config(**changes: int) -> EngineConfig:
    limits = {"max_num_seqs": 4, "max_num_batched_tokens": 8, "kv_blocks": 100, "block_tokens": 4, "max_queue": 10}
    return EngineConfig(**(limits | changes))


def test_a_step_takes_a_plus_b_decodes_plus_c_kv_plus_d_prefill() -> None:
    engine = Engine(config(), StepTime(a_s=1.0, b_s=10.0, c_s=100.0, d_s=1000.0))
    engine.submit(Sequence(3, 5), 0.0)
    assert engine.step(0.0).duration_s == 1.0 + 3 * 1000.0
    engine.submit(Sequence(2, 5), 0.0)
    # The first sequence stores its token (four in the cache then) and reads them all.
    assert engine.step(0.0).duration_s == 1.0 + 10.0 + 4 * 100.0 + 2 * 1000.0


def test_a_prompt_longer_than_the_budget_is_prefilled_in_chunks() -> None:
    engine = Engine(config(max_num_batched_tokens=8), SECOND_PER_STEP)
    long = Sequence(20, 2)
    engine.submit(long, 0.0)
    assert [engine.step(t).prefill_tokens for t in (0.0, 1.0, 2.0)] == [8, 8, 4]
    assert long.first_token_s == 3.0
    assert engine.step(3.0).finished == [long]


def test_decodes_come_before_prefill_in_the_budget() -> None:
    engine = Engine(config(max_num_batched_tokens=6, max_num_seqs=4), SECOND_PER_STEP)
    for _ in range(2):
        engine.submit(Sequence(1, 9), 0.0)
    engine.step(0.0)
    engine.submit(Sequence(10, 2), 0.0)
    result = engine.step(1.0)
    assert (result.decodes, result.prefill_tokens) == (2, 4)


def test_a_cached_prefix_saves_prefill_but_one_token_is_always_computed() -> None:
    engine = Engine(config(), SECOND_PER_STEP)
    engine.submit(Sequence(6, 2, cached_tokens=4), 0.0)
    assert engine.step(0.0).prefill_tokens == 2
    engine.submit(Sequence(6, 2, cached_tokens=6), 0.0)
    assert engine.step(0.0).prefill_tokens == 1


def test_a_full_cache_preempts_the_newest_which_later_goes_on_where_it_was() -> None:
    engine = Engine(config(kv_blocks=4, max_num_batched_tokens=16), SECOND_PER_STEP)
    old, new = Sequence(7, 8), Sequence(7, 8)
    for sequence in (old, new):
        engine.submit(sequence, 0.0)
    emitted = {old: 0, new: 0}
    preempted, now_s = [], 0.0
    while not engine.idle:
        result = engine.step(now_s)
        now_s += result.duration_s
        preempted += result.preempted
        for sequence in result.emitted:
            emitted[sequence] += 1
    assert preempted == [new]
    assert emitted == {old: 8, new: 8}
    assert (new.preemptions, engine.preemptions) == (1, 1)
    assert old.finished_s is not None
    assert new.finished_s is not None
    assert old.finished_s < new.finished_s


def test_a_sequence_that_fits_alone_to_the_last_block_is_served() -> None:
    engine = Engine(config(kv_blocks=2), SECOND_PER_STEP)
    exact = Sequence(5, 4)  # 8 stored tokens: the last one is emitted only
    assert engine.submit(exact, 0.0) is None
    while not engine.idle:
        engine.step(0.0)
    assert exact.state is State.FINISHED
    assert engine.submit(Sequence(5, 5), 0.0) is Refusal.TOO_LONG


def test_the_queue_is_bounded() -> None:
    engine = Engine(config(max_queue=2), SECOND_PER_STEP)
    answers = [engine.submit(Sequence(1, 1), 0.0) for _ in range(3)]
    assert answers == [None, None, Refusal.QUEUE_FULL]


def test_abort_frees_the_seat_at_once_and_is_harmless_twice() -> None:
    engine = Engine(config(max_num_seqs=1), SECOND_PER_STEP)
    first, second = Sequence(4, 100), Sequence(4, 1)
    engine.submit(first, 0.0)
    engine.submit(second, 0.0)
    engine.step(0.0)
    assert (engine.running, engine.waiting) == (1, 1)
    engine.abort(first)
    engine.abort(first)
    assert (engine.running, engine.free_blocks) == (0, 100)
    assert engine.step(1.0).finished == [second]


def test_idle_steps_take_no_time() -> None:
    result = Engine(config(), SECOND_PER_STEP).step(5.0)
    assert (result.duration_s, result.emitted) == (0.0, [])


def test_noise_keeps_the_mean() -> None:
    engine = Engine(EngineConfig(max_num_seqs=4, max_num_batched_tokens=8, noise_sigma=0.3), SECOND_PER_STEP, Random(7))
    engine.submit(Sequence(1, 4000), 0.0)
    durations = []
    while not engine.idle:
        durations.append(engine.step(0.0).duration_s)
    assert sum(durations) / len(durations) == pytest.approx(1.0, rel=0.02)
    assert min(durations) < 0.8 < 1.2 < max(durations)


@pytest.mark.parametrize("wrong", [{"max_num_batched_tokens": 4}, {"kv_blocks": 0}, {"max_queue": -1}])
def test_limits_that_cannot_work_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        config(**wrong)


def test_a_sequence_is_submitted_once() -> None:
    engine = Engine(config(), SECOND_PER_STEP)
    sequence = Sequence(1, 1)
    engine.submit(sequence, 0.0)
    with pytest.raises(ValueError, match="once"):
        engine.submit(sequence, 0.0)
