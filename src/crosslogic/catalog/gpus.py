"""What is known of a GPU: memory, bandwidth, arithmetic and power, from which speed and cost on it can be estimated.

Invariant: as for models, the packaged data is read once and never changes in a process.
"""

from functools import cache
from importlib import resources

import msgspec


class GpuType(msgspec.Struct, frozen=True):
    """One type of GPU. `id` is the name in the benchmark rows; `aliases` are the names that clusters and people use.

    Throughput is dense, and 0 where the GPU has no such arithmetic. V100 and T4 have no BF16: theirs is of FP16.
    """

    id: str
    aliases: tuple[str, ...]
    memory_gb: int  # as sold
    bandwidth_gb_per_s: int
    bf16_tflops: int
    memory_mib: int = 0  # as the driver reports it
    fp8_tflops: int = 0
    int8_tops: int = 0
    fp4_tflops: int = 0
    tdp_watts: int = 0
    link_gb_per_s: int = 32  # to the other GPUs of its node, one way
    max_per_node: int = 8
    architecture: str = ""
    compute_capability: str = ""
    manufacturer: str = "NVIDIA"

    @property
    def name(self) -> str:
        """As people call it."""
        return self.aliases[0] if self.aliases else self.id

    @property
    def memory_bytes(self) -> int:
        return self.memory_mib * 2**20 if self.memory_mib else self.memory_gb * 10**9

    def tflops(self, dtype: str) -> int:
        """Dense throughput in this arithmetic; 0: it has none."""
        return {
            "fp16": self.bf16_tflops,
            "bf16": 0 if self.architecture in ("Volta", "Turing") else self.bf16_tflops,
            "fp8": self.fp8_tflops,
            "int8": self.int8_tops,
            "fp4": self.fp4_tflops,
        }.get(dtype, 0)


class _File(msgspec.Struct):
    source: str
    licence: str
    gpus: list[GpuType]


@cache
def load_gpus() -> dict[str, GpuType]:
    """All GPUs of the packaged catalogue by their id."""
    data = resources.files("crosslogic.catalog").joinpath("data/gpus.json").read_bytes()
    return {gpu.id: gpu for gpu in msgspec.json.decode(data, type=_File).gpus}


@cache
def _by_folded_name() -> dict[str, GpuType]:
    return {name.lower(): gpu for gpu in load_gpus().values() for name in (gpu.id, *gpu.aliases)}


def find_gpu(name: str) -> GpuType | None:
    """The GPU of this id or alias in any letter case, or None."""
    return _by_folded_name().get(name.lower())
