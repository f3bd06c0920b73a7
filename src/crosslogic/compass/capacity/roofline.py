"""What a step must take at least: reading weights and KV cache, and the arithmetic (planner notes §4). Pure.

It is the lowest tier: kernel tables stand on it (`kernels.py`), and candidates are put in a first order by it.
"""

from __future__ import annotations

from math import sqrt

import msgspec

from crosslogic.catalog.cards import BITS_PER_WEIGHT
from crosslogic.catalog.gpus import GpuType
from crosslogic.compass.capacity.rows import Architecture, Load

BANDWIDTH_EFFICIENCY = 0.8
ARITHMETIC_EFFICIENCY = 0.5
LAUNCH_S = 3e-3
FIRST_TOKEN_S = 20e-3


class Roofline(msgspec.Struct, frozen=True):
    """Seconds of one engine of `gpus` GPUs."""

    weights_s_per_share: float  # reading all weights
    kv_s_per_token: float
    arithmetic_s_per_token: float
    sparsity: float  # share of the weights that one token passes through; 1: dense

    def step_s(self, load: Load) -> float:
        """One iteration in a closed loop: every request decodes, and prefill takes its share."""
        kv_tokens = load.running * (load.prompt_tokens + load.output_tokens / 2)
        prefill = load.running * load.prompt_tokens / load.output_tokens
        work = self.arithmetic_s_per_token * (load.running + prefill)
        return LAUNCH_S + self._weights_s(load) + kv_tokens * self.kv_s_per_token + work

    def first_token_s(self, load: Load) -> float:
        """From request to first token in a closed loop."""
        kv_tokens = load.running * (load.prompt_tokens + load.output_tokens / 2)
        prefill = self.arithmetic_s_per_token * load.prompt_tokens * (1 + 0.5 * sqrt(load.running))
        weights = self._weights_s(load)
        return FIRST_TOKEN_S + weights + prefill + 2 * (weights + kv_tokens * self.kv_s_per_token)

    def _weights_s(self, load: Load) -> float:
        touched = 1.0 if self.sparsity > 2 / 3 else 1 - (1 - self.sparsity) ** load.running
        return self.weights_s_per_share * touched


def roofline(model: Architecture, gpu: GpuType, precision: str, gpus: int) -> Roofline:
    """Of a model in this precision on so many of these GPUs."""
    bits = BITS_PER_WEIGHT.get(precision, 16.0)
    bytes_per_s = gpu.bandwidth_gb_per_s * 1e9 * BANDWIDTH_EFFICIENCY * gpus
    return Roofline(
        weights_s_per_share=model.parameters * bits / 8 / bytes_per_s,
        kv_s_per_token=model.kv_bytes_per_token / bytes_per_s,
        arithmetic_s_per_token=2 * model.active_parameters / (_flops(gpu, precision) * ARITHMETIC_EFFICIENCY * gpus),
        sparsity=model.active_parameters / model.parameters,
    )


def _flops(gpu: GpuType, precision: str) -> float:
    """Weight-only quantisation computes in 16 bit; what the GPU cannot compute in, neither."""
    native = 0 if precision == "int4" else gpu.tflops(precision)
    return (native or gpu.bf16_tflops) * 1e12
