"""What is known of a GPU: memory, bandwidth and arithmetic, from which speed on it can be estimated.

Invariant: as for models, the packaged data is read once and never changes in a process.
"""

from functools import cache
from importlib import resources

import msgspec


class GpuInfo(msgspec.Struct, frozen=True):
    """One GPU. `id` is the name in the benchmark rows; `aliases` are the names that clusters and people use."""

    id: str
    aliases: tuple[str, ...]
    memory_gb: int
    bandwidth_gb_per_s: int
    bf16_tflops: int


class _File(msgspec.Struct):
    source: str
    licence: str
    gpus: list[GpuInfo]


@cache
def load_gpus() -> dict[str, GpuInfo]:
    """All GPUs of the packaged catalogue by their id."""
    data = resources.files("crosslogic.catalog").joinpath("data/gpus.json").read_bytes()
    return {gpu.id: gpu for gpu in msgspec.json.decode(data, type=_File).gpus}


@cache
def _by_folded_name() -> dict[str, GpuInfo]:
    return {name.lower(): gpu for gpu in load_gpus().values() for name in (gpu.id, *gpu.aliases)}


def find_gpu(name: str) -> GpuInfo | None:
    """The GPU of this id or alias in any letter case, or None."""
    return _by_folded_name().get(name.lower())
