"""Step times that are no straight line in the number of decodes."""

import pytest

from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import EngineConfig, Sequence, StepTime

BENT = StepTime(1.0, 0.1, 0.0, 0.0, bends=((1.0, 0.0), (4.0, 0.6), (8.0, 0.4)))


def test_a_step_is_linear_between_bends_and_constant_beyond_the_line_outside() -> None:
    assert [BENT.fixed_s(n) for n in (0, 1, 2.5, 4, 6, 8, 100)] == pytest.approx([1, 1.1, 1.55, 2, 2.1, 2.2, 11.4])
    assert BENT.duration_s(4, 1000, 10) == pytest.approx(2.0)


def test_leaps_take_the_same_time_as_steps() -> None:
    def ends(*, leaping: bool) -> list[float | None]:
        engine = Engine(EngineConfig(max_num_seqs=8, max_num_batched_tokens=64), BENT)
        sequences = [Sequence(3, 5 * (number + 1)) for number in range(6)]
        for sequence in sequences:
            engine.submit(sequence, 0.0)
        now_s = 0.0
        while not engine.idle:
            if leaping:
                now_s = engine.leap(now_s, float("inf"))
            now_s += engine.step(now_s).duration_s
        return [sequence.finished_s for sequence in sequences]

    assert ends(leaping=True) == pytest.approx(ends(leaping=False))
