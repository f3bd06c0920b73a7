"""Values of planned deployments.

Invariant: `revision` is the latest plan, `applied_revision` the one that the cluster was last asked for and took whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from crosslogic.compass.manifests.model import DeploymentPlan, Surroundings


class DeploymentState(StrEnum):
    PLANNED = "planned"
    APPLYING = "applying"  # asked for; whoever asked may be gone, so it may be asked for again
    APPLIED = "applied"
    FAILED = "failed"
    DELETING = "deleting"
    DELETED = "deleted"


class PlannedDeployment(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    org_id: str
    name: str
    state: DeploymentState
    revision: int
    applied_revision: int | None
    message: str | None
    created_at: datetime
    updated_at: datetime


class Revision(msgspec.Struct, frozen=True, kw_only=True):
    deployment_id: str
    revision: int
    plan: DeploymentPlan
    surroundings: Surroundings
    created_at: datetime
    applied_at: datetime | None


class ObjectRef(msgspec.Struct, frozen=True, order=True):
    """What names an object in a cluster."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @classmethod
    def of(cls, body: Mapping[str, Any]) -> ObjectRef:
        metadata = body["metadata"]
        return cls(body["apiVersion"], body["kind"], metadata.get("namespace", ""), metadata["name"])


class PodStatus(msgspec.Struct, frozen=True):
    name: str
    phase: str
    ready: bool
    restarts: int
    reason: str | None = None


class ClusterStatus(msgspec.Struct, frozen=True):
    """What the cluster says of a deployment now."""

    ready: bool
    ready_replicas: int
    pods: tuple[PodStatus, ...]
    endpoint: str | None
    message: str | None = None


class Answered(msgspec.Struct, frozen=True):
    """What the deployment's engine made of a test prompt. One request tells no percentile."""

    text: str
    latency_ms: float
    model: str
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    finish_reason: str | None = None
