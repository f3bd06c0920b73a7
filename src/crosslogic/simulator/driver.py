"""Runs an `Engine` in wall-clock time on the event loop, `speedup` times as fast as the hardware it stands for.

One timer at most is pending. Invariant: steps follow one another without gaps while there is work, late timers do
not add up (each step is due after the one before it, not after when that happened to run), and an idle engine
costs nothing.
"""

import asyncio
from collections.abc import Callable

from crosslogic.simulator.engine import Engine
from crosslogic.simulator.model import Refusal, Sequence, StepResult

# Further behind than this we are simply too slow, and do not try to catch up in a burst.
MAX_LAG_S = 0.2


class Driver:
    """Steps the engine and reports each step's result when its time has passed."""

    def __init__(self, engine: Engine, on_step: Callable[[StepResult], None], speedup: float = 1.0) -> None:
        if speedup <= 0:
            raise ValueError("speedup must be positive")
        self.engine = engine
        self._on_step = on_step
        self._speedup = speedup
        self._loop = asyncio.get_running_loop()
        self._due_s = 0.0
        self._timer: asyncio.Handle | None = None

    def submit(self, sequence: Sequence) -> Refusal | None:
        """Queue a sequence, and wake the engine when it was idle."""
        refusal = self.engine.submit(sequence, self._loop.time())
        if refusal is None and self._timer is None:
            # Not at once: what arrives in the same turn of the event loop shares the first step.
            self._due_s = self._loop.time()
            self._timer = self._loop.call_soon(self._begin)
        return refusal

    def abort(self, sequence: Sequence) -> None:
        """Drop a sequence; its seat and blocks are free from the next step on."""
        self.engine.abort(sequence)

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _begin(self) -> None:
        if self.engine.idle:
            self._timer = None
            return
        now_s = self._loop.time()
        result = self.engine.step(now_s)
        self._due_s = max(self._due_s, now_s - MAX_LAG_S) + result.duration_s / self._speedup
        self._timer = self._loop.call_at(self._due_s, self._complete, result)

    def _complete(self, result: StepResult) -> None:
        self._on_step(result)
        self._begin()
