"""Measured times of single kernels on a few GPUs, as the packaged file has them.

Matrix products by (tokens, outputs, inputs), attention of decoding and of prefill, mixtures of experts, all-reduces.
Each table is of logarithms of seconds on a grid of logarithms; what was not measured between is linear there, and
beyond the grid it goes on in a straight line.

`python -m bench.planner.kernels FOLDER` writes the file anew from aiconfigurator's tables.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources
from io import BytesIO

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

TOKENS = (1, 4, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384)
SIDES = (128, 256, 512, 1024, 2048, 4096, 8192, 16384)
KV_HEADS = (1, 2, 4, 8)
GROUPS = (4, 8)  # query heads for each KV head
SEQUENCES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
LENGTHS = (127, 511, 1023, 2047, 4095, 8191, 16383, 32767, 65535)
HEADS = (1, 2, 4, 8, 16, 32, 64)
PROMPTS = (16, 64, 256, 1024, 2048, 4096, 8192, 16384)
EXPERT_TOKENS = (1, 4, 16, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
MESSAGES = (512, 4096, 32768, 262144, 2097152, 16777216, 134217728)  # elements
PEERS = (2, 4, 8)
HEAD_DIM = 128  # of the attention that was measured; others in proportion
GPUS = ("a100_sxm", "h100_sxm", "h200_sxm", "b200_sxm", "l40s")


class Grid:
    """Values on a rectangular grid, linear in logarithms inside and beyond it."""

    def __init__(self, axes: Sequence[Sequence[float]], values: Array) -> None:
        self._axes = [np.log(np.array(axis, dtype=float)) for axis in axes]
        self._values = values

    def seconds(self, *at: float | Array) -> Array:
        """At these coordinates, which are broadcast against one another."""
        points = np.broadcast_arrays(*(np.log(np.asarray(each, dtype=float)) for each in at))
        found = np.zeros(points[0].shape)
        low, share = zip(*(_place(axis, point) for axis, point in zip(self._axes, points, strict=True)), strict=True)
        for corner in range(1 << len(points)):
            upper = [(corner >> axis) & 1 for axis in range(len(points))]
            weight = np.ones(points[0].shape)
            for axis, up in enumerate(upper):
                weight = weight * (share[axis] if up else 1 - share[axis])
            found = found + weight * self._values[tuple(low[axis] + up for axis, up in enumerate(upper))]
        seconds: Array = np.exp(found)
        return seconds


def _place(axis: Array, point: Array) -> tuple[NDArray[np.intp], Array]:
    low = np.clip(np.searchsorted(axis, point, side="right") - 1, 0, len(axis) - 2)
    return low, (point - axis[low]) / (axis[low + 1] - axis[low])


class KernelTables:
    """Of one GPU."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.gemm = {
            name.split("/")[1]: Grid((TOKENS, SIDES, SIDES), values)
            for name, values in arrays.items()
            if name.startswith("gemm/")
        }
        self.decode = Grid((KV_HEADS, GROUPS, SEQUENCES, LENGTHS), arrays["decode"])
        self.prefill = Grid((HEADS, PROMPTS), arrays["prefill"])
        self.reduce = Grid((PEERS, MESSAGES), arrays["reduce"])
        self._shapes = {n.split("/")[1]: v for n, v in arrays.items() if n.startswith("expert_shapes/")}
        self._experts = {n.split("/")[1]: v for n, v in arrays.items() if n.startswith("experts/")}

    def experts(self, dtype: str, wanted: Array) -> tuple[Array, Grid] | None:
        """The measured shape (hidden, inner, chosen, experts here, all of them) nearest to this one, and its times."""
        shapes = self._shapes.get(dtype)
        if shapes is None:
            return None
        distance = (np.abs(np.log(shapes) - np.log(wanted)) * (1.0, 1.0, 1.0, 1.0, 0.5)).sum(axis=1)
        nearest = int(distance.argmin())
        return shapes[nearest], Grid((EXPERT_TOKENS,), self._experts[dtype][nearest])


@cache
def packaged_tables() -> dict[str, KernelTables]:
    """By GPU; source and licence are beside the file."""
    data = resources.files("crosslogic.compass.capacity").joinpath("data/kernels.npz").read_bytes()
    arrays: dict[str, dict[str, Array]] = {}
    with np.load(BytesIO(data)) as file:
        for name in file.files:
            gpu, _, rest = name.partition("/")
            arrays.setdefault(gpu, {})[rest] = file[name].astype(float)
    return {gpu: KernelTables(those) for gpu, those in arrays.items()}
