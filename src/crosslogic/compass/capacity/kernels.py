"""What a step takes by the times of its kernels, measured one by one: the tier between rows and roofline. Pure.

A layer is its matrix products, its attention, its experts and, over several GPUs, two all-reduces. A GPU that was not
measured takes the times of the nearest that was, each kernel in proportion to how long the two need for it at least.

Invariant: nothing here is fitted to served requests. What engines spend beyond kernels, rows say (`pooling.py`).
"""

from __future__ import annotations

import msgspec
import numpy as np
from numpy.typing import NDArray

from crosslogic.catalog.cards import BITS_PER_WEIGHT, ModelCard
from crosslogic.catalog.gpus import GpuType, find_gpu
from crosslogic.compass.capacity.kernel_tables import EXPERT_TOKENS, HEAD_DIM, TOKENS, KernelTables, packaged_tables
from crosslogic.compass.capacity.roofline import (
    ARITHMETIC_EFFICIENCY,
    BANDWIDTH_EFFICIENCY,
    FIRST_TOKEN_S,
    LAUNCH_S,
)
from crosslogic.compass.capacity.rows import Layout

Array = NDArray[np.float64]

_LIKE = {
    "Volta": "a100_sxm",
    "Turing": "a100_sxm",
    "Ampere": "a100_sxm",
    "Ada": "l40s",
    "Ada Lovelace": "l40s",
    "Hopper": "h100_sxm",
    "Blackwell": "b200_sxm",
}
_OTHERWISE = "h100_sxm"
_LATENT_QUERY = 3  # times the rank of the cache: what queries are compressed to
_SERVED_AT_ONCE = 8192  # tokens of a prompt in one iteration


class _Product(msgspec.Struct, frozen=True):
    """So many matrix products of these sizes in one pass through the model."""

    count: float
    outputs: float
    inputs: float


class Kernels:
    """Of one model in one precision on one layout of one kind of GPU."""

    def __init__(self, card: ModelCard, gpu: GpuType, precision: str, layout: Layout) -> None:
        self._card, self._gpu, self._layout = card, gpu, layout
        name, self._tables = _tables(gpu)
        measured = find_gpu(name.replace("a100_sxm", "a100_80"))
        assert measured is not None
        self._measured = measured
        self._bits = BITS_PER_WEIGHT.get(precision, 16.0)
        self._dtype = _arithmetic(gpu, precision)
        self._pass = self._of_tokens(np.array(TOKENS, dtype=float))

    def seconds(self, running: Array, prompt: Array, output: Array) -> tuple[Array, Array]:
        """Time between tokens and to the first one, in a closed loop under each of these loads."""
        return self.step_s(running, prompt, output), self.first_token_s(running, prompt, output)

    def step_s(self, running: Array, prompt: Array, output: Array) -> Array:
        """One iteration in a closed loop: every request decodes, and prefill takes its share."""
        return LAUNCH_S + self._decode_s(running, prompt + output / 2) + running / output * self._prefill_s(prompt)

    def first_token_s(self, running: Array, prompt: Array, output: Array) -> Array:
        """From request to first token in a closed loop."""
        prefill = self._prefill_s(prompt) * (1 + 0.5 * np.sqrt(running))
        return FIRST_TOKEN_S + prefill + 2 * self._decode_s(running, prompt + output / 2)

    def _decode_s(self, running: Array, cached: Array) -> Array:
        each = np.maximum(1.0, running / self._layout.replicas)
        return self._pass_s(each) + self._decode_attention_s(each, cached)

    def _prefill_s(self, prompt: Array) -> Array:
        chunks = np.maximum(1.0, prompt / _SERVED_AT_ONCE)
        return chunks * self._pass_s(prompt / chunks) + self._prefill_attention_s(prompt)

    def _pass_s(self, tokens: Array) -> Array:
        """Everything but attention, for so many tokens in each replica."""
        at, grid = np.log(tokens), np.log(TOKENS)
        low = np.clip(np.searchsorted(grid, at, side="right") - 1, 0, len(grid) - 2)
        share = (at - grid[low]) / (grid[low + 1] - grid[low])
        found: Array = np.exp(self._pass[low] * (1 - share) + self._pass[low + 1] * share)
        return found

    def _of_tokens(self, tokens: Array) -> Array:
        card = self._card
        total = sum((each.count * self._product_s(tokens, each) for each in self._products()), np.zeros(len(tokens)))
        if card.is_moe:
            total = total + (card.layers - card.dense_layers) * self._experts_s(tokens * self._layout.replicas)
        peers = min(8, self._layout.tp)
        if peers > 1:
            total = total + 2 * card.layers * self._reduce_s(tokens * card.hidden_size, peers)
        return np.log(total)

    def _products(self) -> list[_Product]:
        card, tp = self._card, self._layout.tp
        hidden = card.hidden_size
        query = card.attention_heads * card.head_dim / tp
        mixtures = card.layers - card.dense_layers if card.is_moe else 0
        products = [_Product(1, card.vocab_size / tp, hidden)]
        if card.is_mla:
            rank = card.kv_lora_rank
            heads = card.attention_heads / tp
            value = card.head_dim - card.rope_head_dim
            products += [
                _Product(card.layers, (_LATENT_QUERY + 1) * rank + card.rope_head_dim, hidden),
                _Product(card.layers, query, _LATENT_QUERY * rank),
                _Product(card.layers, 2 * heads * value, rank),
                _Product(card.layers, hidden, heads * value),
            ]
        else:
            both = 2 * max(1.0, card.kv_heads / tp) * card.head_dim
            products += [_Product(card.layers, query + both, hidden), _Product(card.layers, hidden, query)]
        for layers, inner in (
            (card.layers - mixtures, card.ffn_size / tp),
            (mixtures if card.shared_experts else 0, card.shared_experts * card.expert_ffn_size / tp),
        ):
            if layers and inner:
                products += [_Product(layers, 2 * inner, hidden), _Product(layers, hidden, inner)]
        return products

    def _product_s(self, tokens: Array, product: _Product) -> Array:
        dtype = self._dtype if self._dtype in self._tables.gemm else "bf16"
        outputs, inputs = product.outputs, product.inputs
        work = 2 * tokens * outputs * inputs
        moved = (tokens * outputs + tokens * inputs) * 2
        seconds = self._tables.gemm[dtype].seconds(tokens, outputs, inputs)
        return seconds * self._times(
            work, moved + outputs * inputs * self._bits / 8, moved + outputs * inputs * _bytes(dtype), dtype
        )

    def _experts_s(self, tokens: Array) -> Array:
        card, layout = self._card, self._layout
        here = max(1.0, card.experts / layout.ep)
        inner = card.expert_ffn_size * layout.ep / layout.gpus
        wanted = np.array([card.hidden_size, inner, card.experts_per_token, here, card.experts])
        dtype = "int4" if self._bits < 8 and self._dtype == "bf16" else self._dtype
        found = self._tables.experts(dtype, wanted)
        if found is None:
            dtype = "bf16"
            found = self._tables.experts(dtype, wanted)
        assert found is not None  # every file has mixtures in 16 bit
        shape, grid = found
        grown = np.clip(tokens, EXPERT_TOKENS[0], None)
        needed, taken = (
            _expert_work(grown, each, bits)
            for each, bits in ((wanted, self._bits), (shape, 16.0 if dtype == "bf16" else {"fp8": 8.0}.get(dtype, 4.5)))
        )
        there = self._least_s(self._measured, *taken, dtype)
        return grid.seconds(grown) * self._least_s(self._gpu, *needed, self._dtype) / there

    def _decode_attention_s(self, running: Array, cached: Array) -> Array:
        card, tp = self._card, self._layout.tp
        kept = card.kv_bytes(1000) / 1000 / 2  # values in the cache for each token, windows aside
        if card.is_mla:
            work = 4 * running * cached * card.attention_heads / tp * (card.kv_lora_rank + card.rope_head_dim)
            moved = running * cached * kept * 2
            return self._least_s(self._gpu, work * card.layers, moved, "bf16") / BANDWIDTH_EFFICIENCY
        heads = max(1.0, card.kv_heads / tp)
        group = card.attention_heads / card.kv_heads
        windowed = card.sliding_layers if card.sliding_window is not None else 0
        full = card.layers - card.linear_layers - windowed
        seconds = full * self._tables.decode.seconds(heads, group, running, cached)
        if windowed:
            inside = np.minimum(cached, float(card.sliding_window or 1))
            seconds = seconds + windowed * self._tables.decode.seconds(heads, group, running, inside)
        moved = running * cached * heads * card.head_dim * 4
        return seconds * (card.head_dim / HEAD_DIM) * self._times(moved * 0, moved, moved, "bf16")

    def _prefill_attention_s(self, prompt: Array) -> Array:
        """Grows with the square of the prompt."""
        card, tp = self._card, self._layout.tp
        heads = max(1.0, card.attention_heads / tp)
        work = 2 * prompt * prompt * heads * card.head_dim
        if card.is_mla:
            return card.layers * self._least_s(self._gpu, work, prompt * 0, "bf16") / ARITHMETIC_EFFICIENCY
        windowed = card.sliding_layers if card.sliding_window is not None else 0
        full = card.layers - card.linear_layers - windowed
        seconds = full * self._tables.prefill.seconds(heads, prompt)
        if windowed:
            inside = np.minimum(prompt, 2.0 * (card.sliding_window or 1))
            seconds = seconds + windowed * self._tables.prefill.seconds(heads, inside) * prompt / inside
        return seconds * (card.head_dim / HEAD_DIM) * self._times(work, work * 0, work * 0, "bf16")

    def _reduce_s(self, elements: Array, peers: int) -> Array:
        slower = self._measured.link_gb_per_s / self._gpu.link_gb_per_s
        seconds = self._tables.reduce.seconds(float(peers), elements)
        floor = self._tables.reduce.seconds(float(peers), np.full(elements.shape, 512.0))
        return floor + np.maximum(0.0, seconds - floor) * slower

    def _times(self, work: Array, moved: Array, moved_there: Array, dtype: str) -> Array:
        """How many times as long as on the GPU that was measured, each at its bounds."""
        here = self._least_s(self._gpu, work, moved, self._dtype if dtype == self._dtype else dtype)
        return here / self._least_s(self._measured, work, moved_there, dtype)

    def _least_s(self, gpu: GpuType, work: Array, moved: Array, dtype: str) -> Array:
        flops = (gpu.tflops(dtype) or gpu.bf16_tflops) * 1e12
        return np.maximum(work / flops, moved / (gpu.bandwidth_gb_per_s * 1e9))


def _tables(gpu: GpuType) -> tuple[str, KernelTables]:
    tables = packaged_tables()
    own = {"a100_80": "a100_sxm"}.get(gpu.id, gpu.id)
    name = own if own in tables else _LIKE.get(gpu.architecture, _OTHERWISE)
    return name, tables[name]


def _arithmetic(gpu: GpuType, precision: str) -> str:
    """What the GPU computes in: weight-only quantisation computes in 16 bit; what it cannot compute in, neither."""
    return precision if precision in ("fp8", "fp4") and gpu.tflops(precision) else "bf16"


def _bytes(dtype: str) -> float:
    return BITS_PER_WEIGHT[dtype] / 8


def _expert_work(tokens: Array, shape: Array, bits: float) -> tuple[Array, Array]:
    """Operations, and bytes moved, of one layer's experts on one GPU: three products, of the experts that are hit."""
    hidden, inner, chosen, here, experts = shape
    passed = tokens * chosen * here / experts
    hit = here * (1 - (1 - chosen / experts) ** tokens)
    each = 3 * hidden * inner
    return 2 * passed * each, hit * each * bits / 8 + passed * (hidden + inner) * 2
