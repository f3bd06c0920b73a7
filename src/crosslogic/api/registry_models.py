"""What the routes of the model registry take and answer. Shares are told in percent."""

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from crosslogic.api.models import Word
from crosslogic.orchestration.model import (
    Deployment,
    DeploymentConfig,
    DeploymentStatus,
    RegisteredModel,
    Rollout,
    RolloutKind,
    RolloutRules,
    RolloutStatus,
)

Name = Annotated[str, Field(min_length=1, max_length=256)]
Amount = Annotated[int, Field(ge=1, le=10**15)]
Replicas = Annotated[int, Field(ge=1, le=10_000)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Card(_Body):
    name: Name | None = None
    parameters: Amount | None = None
    quantization: Name | None = None
    capabilities: list[Name] | None = Field(default=None, max_length=32)
    context_window: Amount | None = None
    required_vram_mb: Amount | None = None
    source: Annotated[str, Field(max_length=2048)] | None = None
    checksum: Annotated[str, Field(max_length=128)] | None = None
    metadata: dict[Name, Annotated[str, Field(max_length=2048)]] | None = Field(default=None, max_length=64)

    def card(self) -> dict[str, object]:
        said = self.model_dump(exclude_none=True, exclude={"id", "version"})
        if "capabilities" in said:
            said["capabilities"] = tuple(said["capabilities"])
        return said


class ModelRegister(_Card):
    id: Name
    version: Name = "1"


class ModelChange(_Card):
    version: Name | None = None


class ModelView(BaseModel):
    id: str
    name: str
    version: str
    parameters: int | None
    quantization: str | None
    capabilities: list[str]
    context_window: int | None
    required_vram_mb: int | None
    source: str | None
    checksum: str | None
    metadata: dict[str, str]
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, model: RegisteredModel) -> "ModelView":
        return cls.model_validate(model, from_attributes=True)


class ConfigBody(_Body):
    tensor_parallelism: Annotated[int, Field(ge=1, le=64)] = 1
    pipeline_parallelism: Annotated[int, Field(ge=1, le=64)] = 1
    max_batch_size: Amount | None = None
    quantization: Name | None = None

    def config(self) -> DeploymentConfig:
        return DeploymentConfig(**self.model_dump())


class DeploymentCreate(_Body):
    model: Name
    version: Name | None = None
    replicas: Replicas = 1
    config: ConfigBody = ConfigBody()


class DeploymentScale(_Body):
    replicas: Replicas


class DeploymentView(BaseModel):
    """`share_percent` of the model's requests, while several of its deployments serve."""

    id: str
    model_id: str
    version: str
    status: DeploymentStatus
    replicas: int
    share_percent: float
    config: ConfigBody
    reason: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, deployment: Deployment) -> "DeploymentView":
        return cls(
            id=deployment.id,
            model_id=deployment.model_id,
            version=deployment.version,
            status=deployment.status,
            replicas=deployment.replicas,
            share_percent=deployment.share / 10,
            config=ConfigBody.model_validate(deployment.config, from_attributes=True),
            reason=deployment.reason,
            created_at=deployment.created_at,
            updated_at=deployment.updated_at,
        )


class RulesBody(_Body):
    steps_percent: list[Annotated[float, Field(gt=0, le=100)]] = Field(default=[5.0, 25.0, 50.0, 100.0], max_length=100)
    step_s: Annotated[float, Field(ge=0, le=1e7, allow_inf_nan=False)] = 300.0
    min_requests: Annotated[int, Field(ge=0, le=10**9)] = 50
    worse_error_ratio: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.02
    worse_latency_factor: Annotated[float, Field(ge=1, le=100, allow_inf_nan=False)] = 1.5

    def rules(self) -> RolloutRules:
        said = self.model_dump(exclude={"steps_percent"})
        return RolloutRules(steps=tuple(round(percent * 10) for percent in self.steps_percent), **said)


class RolloutCreate(_Body):
    deployment: Word
    kind: RolloutKind = RolloutKind.BLUE_GREEN
    old: Word | None = None
    rules: RulesBody = RulesBody()


class RolloutView(BaseModel):
    """`old` is empty for the nodes of no deployment. `step` counts from 1; 0 while the new nodes are not ready."""

    id: str
    model_id: str
    kind: RolloutKind
    status: RolloutStatus
    old: str
    new: str
    step: int
    steps_percent: list[float]
    step_since: datetime
    reason: str | None
    created_at: datetime

    @classmethod
    def of(cls, rollout: Rollout) -> "RolloutView":
        return cls(
            id=rollout.id,
            model_id=rollout.model_id,
            kind=rollout.kind,
            status=rollout.status,
            old=rollout.old,
            new=rollout.new,
            step=rollout.step + 1,
            steps_percent=[share / 10 for share in rollout.rules.steps],
            step_since=rollout.step_since,
            reason=rollout.reason,
            created_at=rollout.created_at,
        )
