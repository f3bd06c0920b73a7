"""Between the messages of node_agent.proto and the values of the fleet.

Agents are not trusted: text is bounded and free of control characters, numbers are finite and not negative.
Everything here raises InvalidRequest for what it cannot take.
"""

import math
from typing import Any

from crosslogic.fleet.lifecycle import Heartbeat
from crosslogic.fleet.model import BackendKind, NodeLoad, NodeStatus
from crosslogic.fleet.registry import Registration
from crosslogic.fleet.wire import node_agent_pb2 as wire
from crosslogic.kernel.errors import InvalidRequest

MAX_WORD_CHARS = 256
MAX_ENGINE_SAMPLES = 500
MAX_GPUS = 64
_MOST = 1e15

_STATUS = {
    wire.STARTING: NodeStatus.STARTING,
    wire.ACTIVE: NodeStatus.ACTIVE,
    wire.DRAINING: NodeStatus.DRAINING,
    wire.DEAD: NodeStatus.DEAD,
}
_STATUS_OUT = {status: number for number, status in _STATUS.items()}


def word(text: str) -> str:
    if len(text) > MAX_WORD_CHARS or not text.isprintable():
        raise InvalidRequest(f"texts have up to {MAX_WORD_CHARS} characters, and no control characters")
    return text


def status_out(status: NodeStatus) -> int:
    return _STATUS_OUT[status]


def registration(request: Any) -> Registration:
    """Without node id and owner, which the certificate says."""
    try:
        backend = BackendKind(request.backend or "openai")
    except ValueError:
        raise InvalidRequest("there is no such engine", param="backend") from None
    hardware, capacity = request.hardware, request.capacity
    return Registration(
        endpoint_url=request.endpoint_url,
        models=tuple(word(model) for model in request.models),
        status=_STATUS.get(request.status, NodeStatus.STARTING),
        backend=backend,
        region=word(request.region) or "local",
        cloud=word(request.cloud) or "local",
        spot=request.spot,
        gpu_type=word(hardware.gpu_type) or None,
        gpu_count=min(hardware.gpu_count, 1024),
        vram_total_mb=_whole(hardware.vram_total_mb) or None,
        throughput_tokens_per_s=_amount(capacity.decode_tokens_per_s) or None,
        api_key=word(request.api_key) or None,
        deployment_id=word(request.deployment_id) or None,
    )


def facts(request: Any) -> dict[str, Any]:
    """What people look at, and no decision is made by."""
    return {
        "agent_version": word(request.agent_version),
        "engine_version": word(request.engine_version),
        "zone": word(request.zone),
        "instance_type": word(request.instance_type),
        "cpu_count": request.hardware.cpu_count,
        "memory_total_mb": _whole(request.hardware.memory_total_mb),
        "prefill_tokens_per_s": _amount(request.capacity.prefill_tokens_per_s),
        "decode_tokens_per_s": _amount(request.capacity.decode_tokens_per_s),
    }


def load(message: Any) -> NodeLoad:
    ratio = _optional(message, "kv_cache_used_ratio")
    return NodeLoad(
        requests_running=_whole(message.requests_running),
        requests_waiting=_whole(message.requests_waiting),
        kv_cache_used_ratio=None if ratio is None else min(1.0, ratio),
        tokens_per_second=_optional(message, "tokens_per_second"),
    )


def heartbeat(request: Any) -> Heartbeat:
    free = _optional(request, "vram_free_mb")
    return Heartbeat(
        load=load(request.load),
        status=_STATUS.get(request.status),
        vram_free_mb=None if free is None else int(free),
    )


def metrics(request: Any) -> dict[str, Any]:
    if len(request.gpus) > MAX_GPUS or len(request.engine) > MAX_ENGINE_SAMPLES:
        raise InvalidRequest("too many samples")
    now = load(request.load)
    return {
        "requests_running": now.requests_running,
        "requests_waiting": now.requests_waiting,
        "kv_cache_used_ratio": now.kv_cache_used_ratio,
        "engine_restarts": request.engine_restarts,
        "engine_version": word(request.engine_version),
        "disk_free_mb": _whole(request.disk_free_mb),
        "prefill_tokens_per_s": _amount(request.capacity.prefill_tokens_per_s),
        "decode_tokens_per_s": _amount(request.capacity.decode_tokens_per_s),
        "gpus": [_gpu(gpu) for gpu in request.gpus],
        "oom_events": _whole(request.oom_events),
        "vram_fragmentation_ratio": _optional(request, "vram_fragmentation_ratio"),
        "rebalance_recommended": request.rebalance_recommended,
        "engine": {word(name): value for name, value in request.engine.items() if math.isfinite(value)},
    }


def _gpu(gpu: Any) -> dict[str, Any]:
    fields = ("temperature_c", "utilisation_ratio", "vram_total_mb", "vram_used_mb")
    return {"index": gpu.index, "name": word(gpu.name), **{name: _optional(gpu, name) for name in fields}}


def _optional(message: Any, field: str) -> float | None:
    return _amount(getattr(message, field)) if message.HasField(field) else None


def _amount(value: float) -> float:
    if not math.isfinite(value) or not 0 <= value <= _MOST:
        raise InvalidRequest("numbers are finite and not negative")
    return value


def _whole(value: int) -> int:
    return int(_amount(value))
