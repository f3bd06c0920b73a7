"""Values that manifests are made from. Milliseconds, pico-USD, requests a second.

Invariant: a plan holds no secret, only the names of Kubernetes secrets; whatever else it holds may stand in a file
that many people read.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from math import isfinite

import msgspec

from crosslogic.kernel.errors import InvalidRequest

VLLM_IMAGE = "vllm/vllm-openai:v0.19.0"  # the version that the memory constants are of
SIMULATOR_IMAGE = "crosslogic:0.1.0"
_MOST_TEXT = 200


class Autoscaler(StrEnum):
    """What changes the number of replicas."""

    KEDA = "keda"
    HPA = "hpa"
    NONE = "none"


class Platform(StrEnum):
    """What runs the engines."""

    KUBERNETES = "kubernetes"
    NODES = "nodes"  # those of our own fleet, as a deployment of the model registry


class Expected(msgspec.Struct, frozen=True):
    """A figure that was forecast, with its 90% interval."""

    value: float
    low: float
    high: float


class PlannedForecast(msgspec.Struct, frozen=True):
    """What the plan promises: 95th percentiles at the peak, tokens a second of all replicas."""

    ttft_p95_ms: Expected | None = None
    itl_p95_ms: Expected | None = None
    e2e_p95_ms: Expected | None = None
    tokens_per_s: Expected | None = None
    evidence: str = "estimated"


class Targets(msgspec.Struct, frozen=True):
    """The service level objectives: 95th percentiles; None: no target."""

    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    e2e_p95_ms: float | None = None


class DeploymentPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One model on one kind of GPU, so many times. `configuration` is the planner's id of the candidate."""

    name: str
    org_id: str
    tenant: str  # the org's name, for the namespace
    model: str
    gpu_type: str  # id of the GPU catalogue
    model_version: str = "main"  # revision of the weights
    configuration: str = ""
    precision: str = "bf16"
    quantization: str | None = None  # what the engine is told; None: the checkpoint says it
    gpus_per_replica: int = 1
    tensor_parallel: int = 1
    min_replicas: int = 1
    max_replicas: int = 1
    max_model_len: int | None = None
    gpu_memory_utilization: float = 0.9
    max_num_seqs: int = 256
    slo: Targets = Targets()
    forecast: PlannedForecast = PlannedForecast()
    rate_per_replica: float | None = None  # requests a second within all targets
    scale_out_at: float | None = None  # at which another replica has to be started
    running_at_peak: float | None = None  # requests in one replica
    kv_tokens: int | None = None  # that one replica keeps
    startup_s: float = 180.0
    cost_per_hour_pusd: int = 0
    cost_per_month_pusd: int = 0


class SecretKey(msgspec.Struct, frozen=True):
    """Where a secret is: never what it is."""

    name: str
    key: str


class Surroundings(msgspec.Struct, frozen=True, kw_only=True):
    """What the cluster is like. Nothing here is of the model. Of nodes of ours nothing else matters."""

    platform: Platform = Platform.KUBERNETES
    kserve: bool = True  # False: a plain Deployment, for clusters without KServe
    autoscaler: Autoscaler = Autoscaler.KEDA
    simulator: bool = False  # `crosslogic simulate` in place of vLLM, no GPU
    engine_image: str = VLLM_IMAGE
    simulator_image: str = SIMULATOR_IMAGE
    namespace: str | None = None  # None: made from the tenant
    prometheus_url: str = "http://prometheus-operated.monitoring.svc:9090"
    monitoring_namespace: str = "monitoring"
    ingress_namespace: str = "ingress-nginx"
    ingress_host: str | None = None  # None: reached from inside the cluster only
    ingress_class: str = "nginx"
    tls_secret: str | None = None
    weights_token: SecretKey | None = None  # for gated models
    api_key: SecretKey | None = None  # that callers of the engine must send
    pull_secret: str | None = None
    node_selector: Mapping[str, str] = {}


class Manifest(msgspec.Struct, frozen=True):
    """One file. `kind` is empty for what is no Kubernetes object."""

    path: str
    kind: str
    text: str


def checked(plan: DeploymentPlan) -> DeploymentPlan:
    """Raises InvalidRequest for a plan that no cluster can run."""
    for name in ("name", "org_id", "tenant", "model", "gpu_type", "model_version"):
        _text(getattr(plan, name), name)
    if plan.quantization is not None:
        _text(plan.quantization, "quantization")
    _whole(plan.gpus_per_replica, 1, 64, "gpus_per_replica")
    _whole(plan.tensor_parallel, 1, plan.gpus_per_replica, "tensor_parallel")
    _whole(plan.min_replicas, 1, 4096, "min_replicas")
    _whole(plan.max_replicas, plan.min_replicas, 4096, "max_replicas")
    _whole(plan.max_num_seqs, 1, 65_536, "max_num_seqs")
    if plan.max_model_len is not None:
        _whole(plan.max_model_len, 16, 100_000_000, "max_model_len")
    _number(plan.gpu_memory_utilization, 0.05, 1.0, "gpu_memory_utilization")
    _number(plan.startup_s, 0.0, 86_400.0, "startup_s")
    for name in ("rate_per_replica", "scale_out_at", "running_at_peak"):
        value = getattr(plan, name)
        if value is not None:
            _number(value, 0.0, 1e9, name)
    for name in Targets.__struct_fields__:
        value = getattr(plan.slo, name)
        if value is not None:
            _number(value, 0.001, 86_400_000.0, f"slo.{name}")
    return plan


def _text(value: str, name: str) -> None:
    if not value.strip() or len(value) > _MOST_TEXT or not value.isprintable():
        raise InvalidRequest(f"{name} has 1 to {_MOST_TEXT} printable characters", param=name)


def _whole(value: int, least: int, most: int, name: str) -> None:
    if isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequest(f"{name} is {value}; it can be {least:,} to {most:,}", param=name)


def _number(value: float, least: float, most: float, name: str) -> None:
    if not (isfinite(value) and least <= value <= most):
        raise InvalidRequest(f"{name} is {value:g}; it can be {least:g} to {most:g}", param=name)
