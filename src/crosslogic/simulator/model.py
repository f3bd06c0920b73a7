"""The values of the simulated engine: its limits, its step time, a sequence, and what one step did.

Pure. `Sequence` is the only mutable one; it is owned by one `Engine`, which alone writes its private fields.
"""

from enum import StrEnum
from typing import Protocol

import msgspec


class Noise(Protocol):
    """What a step needs of `random.Random`."""

    def lognormvariate(self, mu: float, sigma: float) -> float: ...


class StepTime(msgspec.Struct, frozen=True):
    """Seconds that one iteration takes (planner notes §4): fixed, per decode, per KV token, per prefill token.

    `bends` are seconds beyond a + b·decodes at rising numbers of decodes, linear between them and constant outside:
    what a straight line leaves out, such as experts that more requests touch.
    """

    a_s: float
    b_s: float
    c_s: float
    d_s: float
    bends: tuple[tuple[float, float], ...] = ()

    def duration_s(self, decodes: int, kv_tokens: int, prefill_tokens: int) -> float:
        """The iteration's length in seconds, without noise."""
        return self.fixed_s(decodes) + self.c_s * kv_tokens + self.d_s * prefill_tokens

    def fixed_s(self, decodes: float) -> float:
        """What of it depends on the number of decodes alone."""
        line = self.a_s + self.b_s * decodes
        return line + self._beyond_s(decodes) if self.bends else line

    def _beyond_s(self, decodes: float) -> float:
        low, low_s = self.bends[0]
        if decodes <= low:
            return low_s
        for high, high_s in self.bends:
            if decodes <= high:
                return low_s + (high_s - low_s) * (decodes - low) / (high - low) if high > low else high_s
            low, low_s = high, high_s
        return low_s


class EngineConfig(msgspec.Struct, frozen=True):
    """vLLM's scheduler limits under vLLM's names. `max_queue` bounds the waiting sequences."""

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    kv_blocks: int = 16384
    block_tokens: int = 16
    max_queue: int = 1024
    noise_sigma: float = 0.0  # of the lognormal factor on each step; its mean is one

    def __post_init__(self) -> None:
        if min(self.max_num_seqs, self.kv_blocks, self.block_tokens) < 1 or self.max_queue < 0:
            raise ValueError("the engine's limits must be positive")
        # Decodes are never split over steps, so a full running set must always leave room for one prefill token.
        if self.max_num_batched_tokens <= self.max_num_seqs:
            raise ValueError("max_num_batched_tokens must be larger than max_num_seqs")


class Refusal(StrEnum):
    """Why `submit` did not take a sequence."""

    QUEUE_FULL = "queue_full"
    TOO_LONG = "too_long"  # would not fit into the KV cache even when alone


class State(StrEnum):
    NEW = "new"
    WAITING = "waiting"
    PREFILLING = "prefilling"
    DECODING = "decoding"
    FINISHED = "finished"
    ABORTED = "aborted"


class Sequence:
    """One prompt and the tokens to generate for it. Owned by one engine from `submit` until it ends.

    `cached_tokens` is the part of the prompt that a prefix cache saves from prefill; its blocks are still counted.
    """

    __slots__ = (
        "_computed",
        "_joined",
        "_kv_at_join",
        "_made",
        "admitted_s",
        "cached_tokens",
        "finished_s",
        "first_token_s",
        "output_tokens",
        "payload",
        "preemptions",
        "prompt_tokens",
        "state",
        "submitted_s",
    )

    def __init__(
        self, prompt_tokens: int, output_tokens: int, *, cached_tokens: int = 0, payload: object = None
    ) -> None:
        if prompt_tokens < 1 or output_tokens < 1 or not 0 <= cached_tokens <= prompt_tokens:
            raise ValueError("a sequence has at least one prompt token and one output token")
        self.prompt_tokens = prompt_tokens
        self.output_tokens = output_tokens
        self.cached_tokens = cached_tokens
        self.payload = payload  # whatever the caller wants to find again in a StepResult
        self.state = State.NEW
        self.preemptions = 0
        self.submitted_s = 0.0
        self.admitted_s: float | None = None  # first time it left the queue
        self.first_token_s: float | None = None
        self.finished_s: float | None = None
        self._made = 0  # tokens emitted before it last joined the decoding set (or in all, when not decoding)
        self._computed = 0  # prefill progress
        self._joined = 0  # the decode counter when it joined
        self._kv_at_join = 0


class StepResult(msgspec.Struct):
    """What one iteration did. Every sequence in `emitted` gained exactly one token at now + duration_s."""

    duration_s: float
    emitted: list[Sequence]
    first: list[Sequence]  # those of `emitted` whose prefill ended in this step
    finished: list[Sequence]
    preempted: list[Sequence]
    decodes: int
    kv_tokens: int
    prefill_tokens: int
