"""Bodies of planned deployments. Plans, surroundings and outcomes are the planner's own values, as they are."""

from datetime import datetime
from typing import Annotated, Any

import msgspec
from pydantic import Field, StringConstraints

from crosslogic.api.compass_models import Document, converted
from crosslogic.api.models import Body, Instant, View, Word
from crosslogic.compass.deployments.model import DeploymentState, PlannedDeployment, Revision
from crosslogic.compass.deployments.service import MOST_TEST_TOKENS
from crosslogic.compass.manifests.model import Surroundings
from crosslogic.compass.outcomes.service import Source
from crosslogic.kernel.money import PUSD_PER_USD

_AROUND = "what the cluster is like: platform (kubernetes or nodes), kserve, autoscaler, simulator, …"


class PlanAgain(Body):
    """One of the two specifications; a stored one as it is now."""

    specification: Document | None = None
    specification_id: Word | None = None
    candidate: Word | None = Field(default=None, description="id of one of the options; null: the best")
    surroundings: Document | None = Field(default=None, description=_AROUND)

    def around(self, usual: Surroundings) -> Surroundings:
        return usual if self.surroundings is None else converted(self.surroundings, Surroundings, "surroundings")


class DeploymentPlanned(PlanAgain):
    name: Word


class DeploymentPlannedFor(DeploymentPlanned):
    org: Word


class Applied(Body):
    force: bool = Field(default=False, description="take over fields that others manage")
    dry_run: bool = Field(default=False, description="only ask whether it would be taken; nothing changes")


class RolledBack(Body):
    force: bool = Field(default=False, description="take over fields that others manage")


class Tested(Body):
    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4000)]
    max_tokens: Annotated[int, Field(ge=1, le=MOST_TEST_TOKENS)] = 64


class AnsweredView(View):
    """One answer of the engine itself. It is no statistic."""

    text: str
    latency_ms: float
    model: str
    prompt_tokens: int | None
    output_tokens: int | None
    finish_reason: str | None


class Observed(Body):
    start: Instant
    end: Instant
    source: Source = Source.LEDGER
    replicas: Annotated[int, Field(ge=1, le=4096)] | None = None
    nodes: list[Word] = Field(default=[], max_length=500, description="of the ledger: only what these served")


class PlannedView(View):
    id: str
    org_id: str
    name: str
    state: DeploymentState
    revision: int
    applied_revision: int | None
    message: str | None
    created_at: datetime
    updated_at: datetime

    @classmethod
    def of(cls, known: PlannedDeployment) -> "PlannedView":
        return cls.model_validate(known)


class RevisionView(View):
    """A plan that the deployment had, and what it was to cost and show."""

    revision: int
    model: str
    gpu_type: str
    tensor_parallel: int
    precision: str
    replicas: int
    cost_per_month_usd: float
    forecast: dict[str, Any]
    created_at: datetime
    applied_at: datetime | None

    @classmethod
    def of(cls, known: Revision) -> "RevisionView":
        plan = known.plan
        return cls(
            revision=known.revision,
            model=plan.model,
            gpu_type=plan.gpu_type,
            tensor_parallel=plan.tensor_parallel,
            precision=plan.precision,
            replicas=plan.max_replicas,
            cost_per_month_usd=round(plan.cost_per_month_pusd / PUSD_PER_USD, 2),
            forecast=msgspec.to_builtins(plan.forecast),
            created_at=known.created_at,
            applied_at=known.applied_at,
        )


class ManifestView(View):
    path: str
    kind: str
    text: str
