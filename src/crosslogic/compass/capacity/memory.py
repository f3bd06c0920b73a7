"""Whether a model fits into its GPUs, and how many tokens of KV cache are left beside it (planner notes §4). Pure.

Invariant: what an engine takes for itself depends on its version; a version that is not known counts as the newest
that is. Nothing is divided by a flat margin.
"""

from __future__ import annotations

import msgspec

from crosslogic.catalog.cards import BITS_PER_WEIGHT, ModelCard
from crosslogic.catalog.gpus import GpuType

GIB = 2**30
MEMORY_UTILIZATION = 0.9  # vLLM's default
BLOCK_TOKENS = 16
_KV_BYTES_PER_VALUE = {"auto": 2.0, "fp8": 1.0}


class EngineMemory(msgspec.Struct, frozen=True):
    """GiB on each GPU that an engine of this version takes beside weights and cache."""

    version: str
    activation_gib: float  # at its default number of batched tokens, hidden size 4096
    runtime_gib: float  # CUDA context and NCCL outside torch, one GPU
    runtime_parallel_gib: float  # with tensor parallelism
    batched_tokens: int


# 0.19: read off 49 runs on H100 (planner notes §2, §4): 1.89 GiB of activations, 0.25 and 2.1 outside torch. Versions
# before 0.10 batched fewer tokens at once, and needed less for them in proportion.
ENGINES = (
    EngineMemory("0.19", 1.89, 0.25, 2.1, 8192),
    EngineMemory("0.10", 1.89, 0.25, 2.1, 8192),
    EngineMemory("0.6", 0.95, 0.25, 1.6, 2048),
)


class MemoryFit(msgspec.Struct, frozen=True):
    """Of one replica; GiB are on each of its GPUs."""

    weights_gib: float
    activation_gib: float
    runtime_gib: float
    kv_gib: float  # what is left; negative when the weights alone are too large
    kv_tokens: int  # in all GPUs of the replica, at the mean length of its sequences
    fits: bool
    why: str  # one sentence


def engine_memory(version: str | None) -> EngineMemory:
    """The newest entry that is no newer than this version."""
    wanted = _parts(version) if version else (10**6,)
    for engine in ENGINES:
        if _parts(engine.version) <= wanted:
            return engine
    return ENGINES[-1]


def weight_bytes(card: ModelCard, precision: str) -> float:
    """Of all weights; embeddings stay in 16 bit in quantised checkpoints."""
    embeddings = card.vocab_size * card.hidden_size * (1 if card.tied_embeddings else 2)
    bits = BITS_PER_WEIGHT.get(precision, 16.0)
    if bits >= 16.0:
        return card.parameters * bits / 8
    return embeddings * 2 + max(0.0, card.parameters - embeddings) * bits / 8


def memory_fit(
    card: ModelCard,
    gpu: GpuType,
    tp: int,
    precision: str,
    *,
    sequence_tokens: float,
    longest_tokens: float,
    engine_version: str | None = None,
    utilization: float = MEMORY_UTILIZATION,
    kv_dtype: str = "auto",
) -> MemoryFit:
    """What one replica on `tp` GPUs holds. It fits where its longest request does."""
    engine = engine_memory(engine_version)
    weights = weight_bytes(card, precision) / tp / GIB
    activation = engine.activation_gib * max(0.25, card.hidden_size / 4096 / tp**0.5)
    runtime = engine.runtime_gib if tp == 1 else engine.runtime_parallel_gib
    left = utilization * gpu.memory_bytes / GIB - weights - activation - runtime
    per_sequence = card.kv_bytes(max(1, round(sequence_tokens)), _KV_BYTES_PER_VALUE.get(kv_dtype, 2.0))
    per_token = per_sequence / max(1, round(sequence_tokens)) * _copies(card, tp)
    tokens = int(max(0.0, left) * GIB * tp / per_token) if per_token else 0
    needed = round(longest_tokens)
    fits = left > 0 and tokens >= needed and card.attention_heads % tp == 0
    if card.attention_heads % tp:
        why = f"{card.attention_heads} attention heads cannot be split over {tp} GPUs"
    elif left <= 0:
        room = utilization * gpu.memory_bytes / GIB
        taken = activation + runtime
        why = f"{weights:.1f} GiB of weights and {taken:.1f} GiB of the engine exceed {room:.1f} GiB on each {gpu.name}"
    elif tokens < needed:
        why = f"KV cache for {tokens:,} tokens is less than the longest request, {needed:,} tokens"
    else:
        why = f"{weights:.1f} GiB of weights leave KV cache for {tokens:,} tokens"
    return MemoryFit(weights, activation, runtime, left, tokens, fits, why)


def _copies(card: ModelCard, tp: int) -> float:
    """How often each value of the cache is held: KV heads are not split, and latent ones are on every GPU."""
    if card.is_mla:
        return float(tp)
    return max(1.0, tp / max(1, card.kv_heads))


def _parts(version: str) -> tuple[int, ...]:
    words = version.split("+")[0].split(".")
    return tuple(int(word) for word in words[:2] if word.isdigit()) or (10**6,)
