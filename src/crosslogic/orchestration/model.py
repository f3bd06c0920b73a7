"""Values of the model registry and of placement (interface document, phase 4).

A *model* is a name that callers use. A *deployment* runs one version of it on a number of nodes; callers neither see
nor choose it (architecture document §30). A *rollout* moves a model's traffic from one deployment to another.
Shares are in thousandths of the model's requests.
"""

from datetime import datetime
from enum import StrEnum
from typing import NewType

import msgspec

DeploymentId = NewType("DeploymentId", str)
RolloutId = NewType("RolloutId", str)

WHOLE = 1000  # all requests of a model


class RegisteredModel(msgspec.Struct, frozen=True):
    """The interface document's `ModelInfo`. `id` is the name that callers use and nodes serve."""

    id: str
    name: str
    version: str
    created_at: datetime
    updated_at: datetime
    parameters: int | None = None
    quantization: str | None = None
    capabilities: tuple[str, ...] = ()
    context_window: int | None = None
    required_vram_mb: int | None = None
    source: str | None = None  # where the weights of this version are: a URL or a path
    checksum: str | None = None  # "sha256:…" of what `source` names
    metadata: dict[str, str] = {}


class DeploymentStatus(StrEnum):
    """The interface document's five, and how one ends."""

    PENDING = "pending"  # wanted; no node serves it yet
    DEPLOYING = "deploying"  # some nodes serve it, fewer than wanted
    READY = "ready"
    SCALING = "scaling"  # was ready, and the number wanted has changed
    FAILED = "failed"  # not ready within its time, or rolled back
    DRAINING = "draining"  # takes nothing new; its nodes finish
    RETIRED = "retired"  # no node of it is left


class DeploymentConfig(msgspec.Struct, frozen=True):
    tensor_parallelism: int = 1
    pipeline_parallelism: int = 1
    max_batch_size: int | None = None
    quantization: str | None = None

    @property
    def gpus(self) -> int:
        """GPUs of one replica."""
        return self.tensor_parallelism * self.pipeline_parallelism


class Deployment(msgspec.Struct, frozen=True):
    id: DeploymentId
    model_id: str
    version: str
    status: DeploymentStatus
    replicas: int  # wanted
    share: int  # of the model's requests, in thousandths, while several deployments of it serve
    created_at: datetime
    updated_at: datetime
    config: DeploymentConfig = DeploymentConfig()
    reason: str | None = None  # why it failed


class RolloutKind(StrEnum):
    BLUE_GREEN = "blue_green"  # all at once, as soon as the new nodes are ready
    CANARY = "canary"  # in steps, each only if the one before was no worse than what there is
    AB = "ab"  # a fixed share for an org's requests as a whole, until somebody ends it


class RolloutStatus(StrEnum):
    RUNNING = "running"
    FINISHED = "finished"
    ROLLED_BACK = "rolled_back"
    CANCELLED = "cancelled"


class RolloutRules(msgspec.Struct, frozen=True):
    """When a rollout goes on, and when it goes back."""

    steps: tuple[int, ...] = (50, 250, 500, WHOLE)  # thousandths
    step_s: float = 300.0
    min_requests: int = 50  # of the new deployment in a step, before it may go on
    worse_error_ratio: float = 0.02  # more failures than the old deployment's, surely
    worse_latency_factor: float = 1.5  # p95 to the first token, against the old deployment's
    ready_within_s: float = 1800.0


class Rollout(msgspec.Struct, frozen=True):
    id: RolloutId
    model_id: str
    kind: RolloutKind
    status: RolloutStatus
    old: DeploymentId
    new: DeploymentId
    step: int  # place in `rules.steps` that is in force; -1: the new one is not ready yet
    step_since: datetime
    created_at: datetime
    rules: RolloutRules = RolloutRules()
    reason: str | None = None


class Observed(msgspec.Struct, frozen=True):
    """What the ledger says of one deployment since a step began."""

    requests: int = 0
    failures: int = 0  # the node's fault
    first_tokens_ms: tuple[int, ...] = ()


class GpuSlot(msgspec.Struct, frozen=True):
    """One GPU of a node. `held_by` names the deployment that has it."""

    index: int
    memory_mb: int
    used_memory_mb: int = 0
    held_by: str | None = None


class Machine(msgspec.Struct, frozen=True):
    """A node as placement sees it. `cost` is any number that orders machines; the lower is taken first."""

    node_id: str
    region: str
    gpus: tuple[GpuSlot, ...]
    healthy: bool = True
    spot: bool = False
    cost: float = 0.0
    gpu_type: str | None = None


class Workload(msgspec.Struct, frozen=True):
    """What is to be placed: `replicas` times `gpus` GPUs of one machine each, with so much memory free on each."""

    deployment_id: str
    replicas: int
    gpus: int
    gpu_memory_mb: int
    regions: tuple[str, ...] = ()  # empty: anywhere
    gpu_type: str | None = None
    spot_share: float = 1.0  # at most this share of the replicas on spot machines


class Assignment(msgspec.Struct, frozen=True):
    """One replica's place."""

    deployment_id: str
    node_id: str
    gpu_indices: tuple[int, ...]


class Shortfall(msgspec.Struct, frozen=True):
    """Not all replicas have a place: nothing is assigned, and this says what there is too little of."""

    placed: int
    wanted: int
    reason: str


class Move(msgspec.Struct, frozen=True):
    """Take a replica from one place to another: start there, then end here."""

    deployment_id: str
    source: Assignment
    target: Assignment


class ClusterHealth(msgspec.Struct, frozen=True):
    """The interface document's, over all machines that are known."""

    total_nodes: int
    healthy_nodes: int
    total_gpus: int
    available_gpus: int
    total_memory_mb: int
    used_memory_mb: int
