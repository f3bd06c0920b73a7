"""`/admin/models`, `/admin/deployments`, `/admin/rollouts`: the model registry. Tenants see none of it (§30)."""

from typing import Annotated

from fastapi import APIRouter, Depends

from crosslogic.api.auth import Services, require_operator
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.api.registry_models import (
    DeploymentCreate,
    DeploymentScale,
    DeploymentView,
    ModelChange,
    ModelRegister,
    ModelView,
    RolloutCreate,
    RolloutView,
)
from crosslogic.orchestration.model import DeploymentStatus, RolloutStatus
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.tenancy.audit import Actor

models = APIRouter(prefix="/admin/models", tags=["models"])
deployments = APIRouter(prefix="/admin/deployments", tags=["models"])
rollouts = APIRouter(prefix="/admin/rollouts", tags=["models"])
ROUTERS = (models, deployments, rollouts)


def _as_operator(actor: Annotated[Actor, Depends(require_operator)], services: Services) -> ModelRegistry:
    return services.models.acting_as(actor)


OperatorRegistry = Annotated[ModelRegistry, Depends(_as_operator)]


@models.post("", status_code=201)
async def register_model(body: ModelRegister, registry: OperatorRegistry) -> ModelView:
    return ModelView.of(await registry.register(body.id, body.version, **body.card()))


@models.get("")
async def list_models(
    registry: OperatorRegistry, capability: Word | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[ModelView]:
    found = await registry.models(capability=capability, after=cursor, limit=limit)
    return page_of([ModelView.of(model) for model in found], [model.id for model in found], limit)


@models.get("/{model_id:path}")
async def get_model(model_id: Word, registry: OperatorRegistry) -> ModelView:
    return ModelView.of(await registry.model(model_id))


@models.patch("/{model_id:path}")
async def change_model(model_id: Word, body: ModelChange, registry: OperatorRegistry) -> ModelView:
    """What runs keeps the version that it was made of; deploy anew and roll out to move on."""
    return ModelView.of(await registry.update(model_id, version=body.version, **body.card()))


@deployments.post("", status_code=201)
async def deploy(body: DeploymentCreate, registry: OperatorRegistry) -> DeploymentView:
    """Want nodes that serve a version. They register with this `deployment_id`; the first one has all requests."""
    made = await registry.deploy(body.model, replicas=body.replicas, version=body.version, config=body.config.config())
    return DeploymentView.of(made)


@deployments.get("")
async def list_deployments(
    registry: OperatorRegistry,
    model: Word | None = None,
    status: DeploymentStatus | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[DeploymentView]:
    found = await registry.deployments(model_id=model, status=status, after=cursor, limit=limit)
    return page_of([DeploymentView.of(one) for one in found], [one.id for one in found], limit)


@deployments.get("/{deployment_id}")
async def get_deployment(deployment_id: Word, registry: OperatorRegistry) -> DeploymentView:
    return DeploymentView.of(await registry.deployment(deployment_id))


@deployments.patch("/{deployment_id}")
async def scale_deployment(deployment_id: Word, body: DeploymentScale, registry: OperatorRegistry) -> DeploymentView:
    return DeploymentView.of(await registry.scale(deployment_id, body.replicas))


@deployments.delete("/{deployment_id}")
async def undeploy(deployment_id: Word, registry: OperatorRegistry) -> DeploymentView:
    """Its nodes finish what they do and get nothing new. Harmless to repeat."""
    return DeploymentView.of(await registry.undeploy(deployment_id))


@rollouts.post("", status_code=201)
async def roll_out(body: RolloutCreate, registry: OperatorRegistry) -> RolloutView:
    """Move a model's requests to a deployment: at once, in steps, or a share of the orgs."""
    return RolloutView.of(await registry.roll_out(body.deployment, body.kind, body.rules.rules(), old=body.old))


@rollouts.get("")
async def list_rollouts(
    registry: OperatorRegistry,
    model: Word | None = None,
    status: RolloutStatus | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[RolloutView]:
    found = await registry.rollouts(model_id=model, status=status, after=cursor, limit=limit)
    return page_of([RolloutView.of(one) for one in found], [one.id for one in found], limit)


@rollouts.get("/{rollout_id}")
async def get_rollout(rollout_id: Word, registry: OperatorRegistry) -> RolloutView:
    return RolloutView.of(await registry.rollout(rollout_id))


@rollouts.post("/{rollout_id}/finish")
async def finish_rollout(rollout_id: Word, registry: OperatorRegistry) -> RolloutView:
    """All requests to the new deployment now; the old one drains."""
    return RolloutView.of(await registry.end_rollout(rollout_id, RolloutStatus.FINISHED, "by an operator"))


@rollouts.post("/{rollout_id}/cancel")
async def cancel_rollout(rollout_id: Word, registry: OperatorRegistry) -> RolloutView:
    """All requests back to the old deployment; the new one drains."""
    return RolloutView.of(await registry.end_rollout(rollout_id, RolloutStatus.CANCELLED, "by an operator"))
