"""What an agent is told to do, and what it finds out, as values.

Words: the *engine* is the process that generates; *control* is whom we report to; a *notice* is the cloud's warning
that it takes the machine away.
"""

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from pathlib import Path

import msgspec

from crosslogic.fleet.model import BackendKind


class EngineName(StrEnum):
    """Engines that the agent knows how to start."""

    VLLM = "vllm"
    SGLANG = "sglang"
    OLLAMA = "ollama"
    LLAMACPP = "llamacpp"
    SIMULATE = "simulate"  # `crosslogic simulate`: speaks as vLLM does

    @property
    def kind(self) -> BackendKind:
        return BackendKind.VLLM if self is EngineName.SIMULATE else BackendKind(self.value)


class EngineOptions(msgspec.Struct, frozen=True):
    """Which engine to run; with `url` one that runs already is watched instead."""

    name: EngineName = EngineName.VLLM
    model: str = ""
    host: str = "127.0.0.1"
    port: int = 8000
    arguments: tuple[str, ...] = ()  # passed on
    command: tuple[str, ...] = ()  # instead of the engine's own; may hold {model}, {host} and {port}
    url: str | None = None
    api_key: str | None = None
    weights: Path | None = None  # on this disk; the model is served under its name all the same

    def __repr__(self) -> str:
        return f"EngineOptions({self.name.value}, {self.model})"

    @property
    def base_url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(self.host, self.host)  # noqa: S104 - compared, not bound
        return self.url or f"http://{host}:{self.port}"


class MetadataAddresses(msgspec.Struct, frozen=True):
    """Where the clouds' metadata services are; tests put their own here."""

    aws: str = "http://169.254.169.254"
    gcp: str = "http://metadata.google.internal"
    azure: str = "http://169.254.169.254"


class WeightsOptions(msgspec.Struct, frozen=True):
    """Where the model's weights come from, and how much disk all models together may have."""

    source: str
    directory: Path
    checksums: Mapping[str, str] = {}
    budget_bytes: int | None = None


class AgentOptions(msgspec.Struct, frozen=True):
    control_url: str
    data_dir: Path
    engine: EngineOptions
    token: str | None = None
    node_id: str = ""
    endpoint_url: str | None = None  # how gateways reach the engine; None: this machine's address and its port
    gateways: tuple[tuple[str, int], ...] = ()  # whose tunnel ports to dial; none: gateways connect to the engine
    region: str = ""
    deployment_id: str = ""
    cloud: str | None = None  # None: find out
    spot: bool | None = None
    metadata: MetadataAddresses = MetadataAddresses()
    metadata_timeout_s: float = 1.0
    spot_poll_s: float = 2.0
    metrics_interval_s: float = 15.0
    drain_s: float = 120.0
    benchmark: bool = True
    environment: Mapping[str, str] = {}  # of the engine
    weights: WeightsOptions | None = None

    def __repr__(self) -> str:
        return f"AgentOptions({self.control_url}, {self.engine!r})"


class Place(msgspec.Struct, frozen=True):
    """Where this machine is, as its cloud says."""

    cloud: str = "local"
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    spot: bool = False


class SpotNotice(msgspec.Struct, frozen=True):
    """The cloud takes the machine away; `at` is RFC 3339 or empty."""

    cloud: str
    action: str
    at: str = ""


class GpuState(msgspec.Struct, frozen=True):
    index: int
    name: str
    temperature_c: float | None = None
    utilisation_ratio: float | None = None
    vram_total_mb: int | None = None
    vram_used_mb: int | None = None


class Hardware(msgspec.Struct, frozen=True):
    """Without GPUs the processor serves."""

    cpu_count: int
    memory_total_mb: int
    gpus: tuple[GpuState, ...] = ()

    @property
    def gpu_type(self) -> str:
        return self.gpus[0].name if self.gpus else ""

    @property
    def vram_total_mb(self) -> int:
        return sum(gpu.vram_total_mb or 0 for gpu in self.gpus)

    @property
    def vram_free_mb(self) -> int | None:
        known = [
            gpu.vram_total_mb - gpu.vram_used_mb
            for gpu in self.gpus
            if gpu.vram_total_mb and gpu.vram_used_mb is not None
        ]
        return sum(known) if known else None


class Capacity(msgspec.Struct, frozen=True):
    """What the engine does on this machine, as measured (architecture document §24.1)."""

    prefill_tokens_per_s: float = 0.0
    decode_tokens_per_s: float = 0.0


class Certificate(msgspec.Struct, frozen=True):
    """What the agent has to know of its certificate."""

    issued_at: datetime
    expires_at: datetime

    def is_due(self, now: datetime) -> bool:
        """Whether it is time for a new one: two thirds of its life are over."""
        return now >= self.issued_at + (self.expires_at - self.issued_at) * 2 / 3
