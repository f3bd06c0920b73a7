"""The node record (architecture document §21.1) and what the gateway needs to know of a node."""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import NodeId, OrgId

DEGRADED_WEIGHT = 0.25


class NodeStatus(StrEnum):
    STARTING = "starting"  # known, not yet seen healthy
    ACTIVE = "active"
    DRAINING = "draining"  # takes nothing new, finishes what runs
    DEAD = "dead"


class BackendKind(StrEnum):
    VLLM = "vllm"
    SGLANG = "sglang"
    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    OPENAI = "openai"  # any other OpenAI-compatible server


class NodeLoad(msgspec.Struct, frozen=True):
    """What a heartbeat says of the node's present work."""

    requests_running: int = 0
    requests_waiting: int = 0
    tokens_in_flight: int | None = None
    kv_cache_used_ratio: float | None = None
    tokens_per_second: float | None = None


class Verdict(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"  # gets less
    UNHEALTHY = "unhealthy"  # gets nothing, unless it would be missed


class Symptom(StrEnum):
    """What is wrong with a node (§22.2); silence is not among them, for that is death."""

    TEMPERATURE = "temperature"
    VRAM_FRAGMENTATION = "vram_fragmentation"
    OOM = "oom"
    LATENCY = "latency"
    ERRORS = "errors"
    RECOVERING = "recovering"  # was ejected, and is given a little to show itself
    AT_RISK = "at_risk"  # well, but its cloud recommends to leave the machine


class NodeHealth(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `fleet/health.py` holds of a node."""

    verdict: Verdict = Verdict.HEALTHY
    symptom: Symptom | None = None  # None: healthy
    detail: str = ""  # for people
    ejected: bool = False  # offered only to requests that would find no other node

    @property
    def weight(self) -> float:
        """How much of a healthy node's work it should get."""
        return 1.0 if self.verdict is Verdict.HEALTHY else DEGRADED_WEIGHT


class Node(msgspec.Struct, frozen=True):
    """Architecture document §21.1, with the documents' field names."""

    id: NodeId
    endpoint_url: str
    models: tuple[str, ...]  # the document's `model_list`
    status: NodeStatus
    created_at: datetime
    backend: BackendKind = BackendKind.OPENAI
    region: str = "local"
    cloud: str = "local"
    spot: bool = False
    gpu_type: str | None = None
    gpu_count: int = 1
    vram_total_mb: int | None = None
    vram_free_mb: int | None = None
    throughput_tokens_per_s: float | None = None
    spot_price_usd_per_hour: float | None = None
    tailnet_ip: str | None = None
    org_id: OrgId | None = None  # owned by one org and serves only it; None: shared
    health_score: float = 1.0  # 0..1, as probes and heartbeats say it
    health: NodeHealth = NodeHealth()
    api_key: str | None = None  # what the node itself asks for; never leaves the process
    static: bool = False  # from the configuration: probed by us instead of sending heartbeats
    load: NodeLoad = NodeLoad()
    last_heartbeat_at: datetime | None = None
    draining_since: datetime | None = None
    deployment_id: str | None = None  # what it runs, where somebody has deployed it

    def __repr__(self) -> str:
        # Not the generated one, which would put the node's key into logs and tracebacks.
        return f"Node({self.id} {self.status.value} {self.backend.value} models={list(self.models)})"

    def __rich_repr__(self) -> list[tuple[str, object]]:
        return [("id", self.id), ("status", self.status.value), ("models", self.models)]
