"""What a node costs an hour: what it says itself, else what the configuration says of its GPUs. Pure."""

from collections.abc import Mapping

from crosslogic.catalog.gpus import find_gpu
from crosslogic.fleet.model import Node


def usd_per_hour(node: Node, usd_per_gpu_hour: Mapping[str, float]) -> float | None:
    """None where nobody has said it. Prices are by name of a GPU, in any of the names that the catalogue knows."""
    if node.spot and node.spot_price_usd_per_hour is not None:
        return node.spot_price_usd_per_hour
    if node.gpu_type is None:
        return None
    wanted = _folded(node.gpu_type)
    for name, usd in usd_per_gpu_hour.items():
        if _folded(name) == wanted:
            return usd * node.gpu_count
    return None


def _folded(name: str) -> str:
    gpu = find_gpu(name)
    return (name if gpu is None else gpu.id).lower()
