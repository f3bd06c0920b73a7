"""Writes the planner's kernel tables anew from aiconfigurator's: `python -m bench.planner.kernels FOLDER`.

The folder has one of parquet files for each GPU, `gemm_perf.parquet` and the like, as the wheel aiconfigurator-core has
them. What the grid of the packaged file does not need is left out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
from numpy.typing import NDArray

from crosslogic.compass.capacity.kernel_tables import (
    EXPERT_TOKENS,
    GPUS,
    GROUPS,
    HEAD_DIM,
    HEADS,
    KV_HEADS,
    LENGTHS,
    MESSAGES,
    PEERS,
    PROMPTS,
    SEQUENCES,
    SIDES,
    TOKENS,
)

Array = NDArray[np.float64]

OUT = Path(__file__).parent.parent.parent / "src/crosslogic/compass/capacity/data/kernels.npz"
GEMM_DTYPES = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}
# Two of the same name: the one with more shapes.
EXPERT_DTYPES = {"bfloat16": "bf16", "fp8_block": "fp8", "nvfp4": "fp4", "w4a16_mxfp4": "int4", "int4_wo": "int4"}
_DISTRIBUTION = "power_law_1.2"  # of tokens over experts


def tables_of(folder: Path) -> dict[str, Array]:
    """The arrays of one GPU from the parquet files in its folder."""

    def read(name: str) -> Any:
        return parquet.read_table(folder / f"{name}_perf.parquet").to_pandas()

    arrays: dict[str, Array] = {}
    products = read("gemm")
    for dtype, ours in GEMM_DTYPES.items():
        those = products[products.gemm_dtype == dtype]
        if len(those):
            best = those.groupby(["n", "k", "m"]).latency.min()
            arrays[f"gemm/{ours}"] = np.array([[_along(best, TOKENS, n, k) for k in SIDES] for n in SIDES]).transpose(
                2, 0, 1
            )
    arrays["decode"] = _decode(_attention(read("generation_attention")))
    arrays["prefill"] = _prefill(_attention(read("context_attention")))
    reduces = read("custom_allreduce")
    best = reduces[reduces.backend == "vllm_graph"].groupby(["num_gpus", "message_size"]).latency.min()
    arrays["reduce"] = np.array([_along(best, MESSAGES, count) for count in PEERS])
    arrays.update(_experts(read("moe")))
    return arrays


def _attention(rows: Any) -> Any:
    rows = rows[(rows.head_dim == HEAD_DIM) & (rows.kv_cache_dtype == "bfloat16")]
    return rows[rows.window_size == 0] if "window_size" in rows else rows


def _along(best: Any, axis: Sequence[float], *key: int) -> Array:
    """Logarithms of seconds at the axis, from what was measured for this key."""
    series = best.loc[key if len(key) > 1 else key[0]]
    measured = np.log(series.index.to_numpy(dtype=float))
    found: Array = np.interp(np.log(axis), measured, np.log(series.to_numpy() / 1e3))
    return found


def _decode(rows: Any) -> Array:
    found = np.full((len(KV_HEADS), len(GROUPS), len(SEQUENCES), len(LENGTHS)), np.nan)
    best = rows.groupby(["num_key_value_heads", "num_heads", "batch_size", "step"]).latency.min()
    for place in np.ndindex(found.shape):
        kv, group = KV_HEADS[place[0]], GROUPS[place[1]]
        key = (kv, kv * group, SEQUENCES[place[2]], LENGTHS[place[3]])
        if key in best.index:
            found[place] = np.log(best.loc[key] / 1e3)
    # What did not fit into memory takes as long for each token as the longest that did.
    tokens = np.log(np.outer(SEQUENCES, LENGTHS))
    for plane in found.reshape(-1, *tokens.shape):
        known = ~np.isnan(plane)
        for row, column in zip(*np.nonzero(~known), strict=True):
            apart = np.abs(tokens - tokens[row, column]) + np.where(known, 0, np.inf)
            apart += np.where(tokens > tokens[row, column], np.inf, 0)
            near = np.unravel_index(apart.argmin(), apart.shape)
            plane[row, column] = plane[near] + tokens[row, column] - tokens[near]
    return found


def _prefill(rows: Any) -> Array:
    rows = rows[(rows.batch_size == 1) & (rows.num_key_value_heads <= 8)]
    best = rows.groupby(["num_heads", "isl"]).latency.min()
    return np.array([_along(best, PROMPTS, heads) for heads in HEADS])


def _experts(rows: Any) -> dict[str, Array]:
    rows = rows[rows.distribution == _DISTRIBUTION]
    arrays: dict[str, Array] = {}
    for dtype, ours in EXPERT_DTYPES.items():
        those = rows[rows.moe_dtype == dtype]
        shapes, times = [], []
        columns = ["hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]
        for (hidden, inner, chosen, experts, tp, ep), group in those.groupby(columns):
            best = group.groupby("num_tokens").latency.min()
            if len(best) < 8 or experts < ep:
                continue
            shapes.append((hidden, inner / tp, chosen, experts / ep, experts))
            times.append(np.interp(np.log(EXPERT_TOKENS), np.log(best.index.to_numpy(float)), np.log(best / 1e3)))
        if len(shapes) > len(arrays.get(f"expert_shapes/{ours}", ())):
            arrays[f"expert_shapes/{ours}"] = np.array(shapes, dtype=float)
            arrays[f"experts/{ours}"] = np.array(times)
    return arrays


def main(arguments: list[str]) -> int:
    """Write the packaged file."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m bench.planner.kernels FOLDER\n")
        return 2
    arrays: dict[str, Any] = {}
    for gpu in GPUS:
        for name, values in tables_of(Path(arguments[0]) / gpu).items():
            arrays[f"{gpu}/{name}"] = values.astype(np.float32 if "shapes" in name else np.float16)
    buffer = BytesIO()
    np.savez_compressed(buffer, **arrays)
    OUT.write_bytes(buffer.getvalue())
    sys.stdout.write(f"{len(arrays)} tables of {len(GPUS)} GPUs, {len(buffer.getvalue()):,} bytes\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
