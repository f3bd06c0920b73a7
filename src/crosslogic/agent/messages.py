"""From the agent's values to the messages of node_agent.proto. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from crosslogic.agent.model import Capacity, Hardware, Place, SpotNotice
from crosslogic.fleet.model import BackendKind, NodeLoad, NodeStatus
from crosslogic.fleet.wire import node_agent_pb2 as wire

MAX_ENGINE_SAMPLES = 400

# PyTorch (vLLM, SGLang) on CUDA and ROCm; llama.cpp and Ollama.
_OUT_OF_MEMORY = ("cuda out of memory", "hip out of memory", "outofmemoryerror", "cudamalloc failed: out of memory")

STATUS: Mapping[NodeStatus, Any] = {
    NodeStatus.STARTING: wire.STARTING,
    NodeStatus.ACTIVE: wire.ACTIVE,
    NodeStatus.DRAINING: wire.DRAINING,
    NodeStatus.DEAD: wire.DEAD,
}


def registration(
    *,
    endpoint_url: str,
    models: Sequence[str],
    status: NodeStatus,
    backend: BackendKind,
    engine_version: str,
    agent_version: str,
    place: Place,
    hardware: Hardware,
    capacity: Capacity,
    api_key: str | None,
    deployment_id: str,
) -> Any:
    return wire.RegisterRequest(
        endpoint_url=endpoint_url,
        models=models,
        status=STATUS[status],
        backend=backend.value,
        engine_version=engine_version,
        agent_version=agent_version,
        region=place.region,
        cloud=place.cloud,
        zone=place.zone,
        instance_type=place.instance_type,
        spot=place.spot,
        hardware=wire.Hardware(
            gpu_type=hardware.gpu_type,
            gpu_count=len(hardware.gpus),
            vram_total_mb=hardware.vram_total_mb,
            cpu_count=hardware.cpu_count,
            memory_total_mb=hardware.memory_total_mb,
        ),
        capacity=_capacity(capacity),
        api_key=api_key or "",
        deployment_id=deployment_id,
    )


def heartbeat(status: NodeStatus, load: NodeLoad, vram_free_mb: int | None) -> Any:
    return wire.HeartbeatRequest(status=STATUS[status], load=_load(load), vram_free_mb=vram_free_mb)


def metrics(
    *,
    load: NodeLoad,
    hardware: Hardware,
    capacity: Capacity,
    engine_version: str,
    engine_restarts: int,
    disk_free_mb: int,
    engine: Mapping[str, float],
    oom_events: int,
    rebalance_recommended: bool = False,
) -> Any:
    return wire.MetricsRequest(
        load=_load(load),
        gpus=[
            wire.Gpu(
                index=gpu.index,
                name=gpu.name,
                temperature_c=gpu.temperature_c,
                utilisation_ratio=gpu.utilisation_ratio,
                vram_total_mb=gpu.vram_total_mb,
                vram_used_mb=gpu.vram_used_mb,
            )
            for gpu in hardware.gpus
        ],
        engine_restarts=engine_restarts,
        disk_free_mb=disk_free_mb,
        capacity=_capacity(capacity),
        engine_version=engine_version,
        engine=dict(sorted(engine.items())[:MAX_ENGINE_SAMPLES]),
        oom_events=oom_events,
        vram_fragmentation_ratio=fragmentation_of(engine),
        rebalance_recommended=rebalance_recommended,
    )


def fragmentation_of(engine: Mapping[str, float]) -> float | None:
    """The share of its GPU memory that an engine holds and cannot use, where it says so in its metrics; else None."""
    found = [value for name, value in engine.items() if name.endswith("vram_fragmentation_ratio")]
    return max(found) if found and 0.0 <= max(found) <= 1.0 else None


def says_out_of_memory(line: str) -> bool:
    """Whether an engine's line of log tells of an allocation on the GPU that failed."""
    lowered = line.lower()
    return any(words in lowered for words in _OUT_OF_MEMORY)


def spot_eviction(notice: SpotNotice) -> Any:
    return wire.SpotEvictionRequest(cloud=notice.cloud, action=notice.action, at=notice.at)


def shutdown(reason: str, *, finished: bool) -> Any:
    return wire.ShutdownRequest(reason=reason, finished=finished)


def _load(load: NodeLoad) -> Any:
    return wire.Load(
        requests_running=load.requests_running,
        requests_waiting=load.requests_waiting,
        kv_cache_used_ratio=load.kv_cache_used_ratio,
        tokens_per_second=load.tokens_per_second,
    )


def _capacity(capacity: Capacity) -> Any:
    return wire.Capacity(
        prefill_tokens_per_s=capacity.prefill_tokens_per_s, decode_tokens_per_s=capacity.decode_tokens_per_s
    )
