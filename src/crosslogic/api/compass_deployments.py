"""`/api/v1/compass/deployments`: an organisation plans deployments and sees them;
`/admin/compass/deployments`: operators plan, apply, try, roll back, delete and observe them.

What is applied costs the platform's GPUs, so organisations plan and look, and operators act.
"""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from crosslogic.api.auth import OperatorTenancy, OperatorTrail, OwnHome, Services
from crosslogic.api.compass_models import MODELS_IN_FORCE, specification_of
from crosslogic.api.deployment_models import (
    AnsweredView,
    Applied,
    DeploymentPlanned,
    DeploymentPlannedFor,
    ManifestView,
    Observed,
    PlanAgain,
    PlannedView,
    RevisionView,
    RolledBack,
    Tested,
)
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.api.services import ApiServices, Deployed
from crosslogic.compass.deployments.model import DeploymentState
from crosslogic.compass.manifests.model import DeploymentPlan, Platform, Surroundings
from crosslogic.compass.manifests.names import dns_label
from crosslogic.compass.manifests.planned import plan_of
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.errors import Conflict, Forbidden, Unavailable
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.model import Org

router = APIRouter(prefix="/admin/compass/deployments", tags=["planner"], dependencies=[MODELS_IN_FORCE])
own_router = APIRouter(prefix="/api/v1/compass/deployments", tags=["planner"], dependencies=[MODELS_IN_FORCE])

Number = Annotated[int | None, Query(ge=1, le=10**6)]


@own_router.post("", status_code=201)
async def plan_deployment(body: DeploymentPlanned, home: OwnHome, services: Services) -> PlannedView:
    """Plan a deployment of what is recommended for the specification. Nothing runs until an operator applies it."""
    _of_ones_own(body)
    return await _planned(services, body, home.org, home.tenancy.audit.trail)


@own_router.get("")
async def list_own(
    home: OwnHome,
    services: Services,
    state: DeploymentState | None = None,
    name: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PlannedView]:
    return await _page(_deployed(services), home.org.id, state, name, cursor, limit)


@own_router.get("/{planned_id}")
async def get_own(planned_id: Word, home: OwnHome, services: Services) -> dict[str, Any]:
    """The deployment, its plan, and the forecast with what was learnt since."""
    return await _detail(_deployed(services), planned_id, home.org.id)


@own_router.post("/{planned_id}/revisions", status_code=201)
async def revise_own(planned_id: Word, body: PlanAgain, home: OwnHome, services: Services) -> PlannedView:
    """Plan it anew, as a further revision: another specification or option. What runs stays until it is applied."""
    _of_ones_own(body)
    return await _revised(services, planned_id, body, home.org, home.tenancy.audit.trail)


@own_router.get("/{planned_id}/revisions")
async def own_revisions(
    planned_id: Word,
    home: OwnHome,
    services: Services,
    applied: bool | None = None,
    cursor: Number = None,
    limit: Limit = 100,
) -> Page[RevisionView]:
    """All plans that it had, the latest first."""
    return await _revisions(_deployed(services), planned_id, home.org.id, applied, cursor, limit)


@own_router.get("/{planned_id}/manifests")
async def own_manifests(
    planned_id: Word, home: OwnHome, services: Services, revision: Number = None
) -> list[ManifestView]:
    found = await _deployed(services).service.manifests(planned_id, home.org.id, revision)
    return [ManifestView.model_validate(each) for each in found]


@own_router.get("/{planned_id}/status")
async def own_status(planned_id: Word, home: OwnHome, services: Services) -> dict[str, Any]:
    """Pods or nodes, readiness, endpoint and links, as they are now."""
    return await _status(_deployed(services), planned_id, home.org.id)


@own_router.post("/{planned_id}/test")
async def test_own(planned_id: Word, body: Tested, home: OwnHome, services: Services) -> AnsweredView:
    """Send a prompt to the engine itself: does it answer, what, and how long does it take?"""
    found = await _deployed(services).service.ask(planned_id, home.org.id, body.prompt, body.max_tokens)
    return AnsweredView.model_validate(found)


@own_router.get("/{planned_id}/outcomes")
async def own_outcomes(
    planned_id: Word,
    home: OwnHome,
    services: Services,
    drift: Annotated[bool | None, Query(description="only windows with drift, or only those without")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[dict[str, Any]]:
    """Windows beside their forecasts, the latest first."""
    deployed = _deployed(services)
    known = await deployed.service.store.one(planned_id, home.org.id)
    revision = await deployed.service.store.revision(known.id, known.revision)
    if revision.surroundings.platform is Platform.NODES:
        raise Forbidden("its nodes serve other organisations as well; ask whoever runs them")
    return await _outcomes(deployed, planned_id, home.org.id, drift, cursor, limit)


@router.post("", status_code=201)
async def plan_for(
    body: DeploymentPlannedFor, tenancy: OperatorTenancy, trail: OperatorTrail, services: Services
) -> PlannedView:
    """Plan a deployment for an organisation. Nothing runs until it is applied."""
    return await _planned(services, body, await tenancy.org(body.org), trail)


@router.get("")
async def list_deployments(
    tenancy: OperatorTenancy,
    services: Services,
    org: Word,
    state: DeploymentState | None = None,
    name: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[PlannedView]:
    return await _page(_deployed(services), (await tenancy.org(org)).id, state, name, cursor, limit)


@router.get("/{planned_id}")
async def get_deployment(planned_id: Word, services: Services) -> dict[str, Any]:
    deployed = _deployed(services)
    return await _detail(deployed, planned_id, await deployed.service.store.org_of(planned_id))


@router.post("/{planned_id}/revisions", status_code=201)
async def revise(
    planned_id: Word, body: PlanAgain, tenancy: OperatorTenancy, trail: OperatorTrail, services: Services
) -> PlannedView:
    """Plan it anew, as a further revision."""
    org = await tenancy.org(await _deployed(services).service.store.org_of(planned_id))
    return await _revised(services, planned_id, body, org, trail)


@router.get("/{planned_id}/revisions")
async def revisions(
    planned_id: Word, services: Services, applied: bool | None = None, cursor: Number = None, limit: Limit = 100
) -> Page[RevisionView]:
    deployed = _deployed(services)
    org_id = await deployed.service.store.org_of(planned_id)
    return await _revisions(deployed, planned_id, org_id, applied, cursor, limit)


@router.get("/{planned_id}/manifests")
async def manifests(planned_id: Word, services: Services, revision: Number = None) -> list[ManifestView]:
    service = _deployed(services).service
    found = await service.manifests(planned_id, await service.store.org_of(planned_id), revision)
    return [ManifestView.model_validate(each) for each in found]


@router.get("/{planned_id}/status")
async def status(planned_id: Word, services: Services) -> dict[str, Any]:
    deployed = _deployed(services)
    return await _status(deployed, planned_id, await deployed.service.store.org_of(planned_id))


@router.post("/{planned_id}/test")
async def test_prompt(planned_id: Word, body: Tested, services: Services) -> AnsweredView:
    service = _deployed(services).service
    found = await service.ask(planned_id, await service.store.org_of(planned_id), body.prompt, body.max_tokens)
    return AnsweredView.model_validate(found)


@router.get("/{planned_id}/outcomes")
async def outcomes(
    planned_id: Word, services: Services, drift: bool | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[dict[str, Any]]:
    deployed = _deployed(services)
    org_id = await deployed.service.store.org_of(planned_id)
    return await _outcomes(deployed, planned_id, org_id, drift, cursor, limit)


@router.post("/{planned_id}/deploy")
async def deploy(planned_id: Word, body: Applied, trail: OperatorTrail, services: Services) -> PlannedView:
    """Dry run, then apply, or the dry run alone; harmless to repeat."""
    service = _deployed(services).service.acting_as(trail)
    org_id = await service.store.org_of(planned_id)
    return PlannedView.of(await service.deploy(planned_id, org_id, force=body.force, dry_run=body.dry_run))


@router.post("/{planned_id}/rollback")
async def roll_back(planned_id: Word, body: RolledBack, trail: OperatorTrail, services: Services) -> PlannedView:
    """To the plan that was applied before, as a revision of its own."""
    service = _deployed(services).service.acting_as(trail)
    org_id = await service.store.org_of(planned_id)
    return PlannedView.of(await service.roll_back(planned_id, org_id, force=body.force))


@router.delete("/{planned_id}")
async def delete(planned_id: Word, trail: OperatorTrail, services: Services) -> PlannedView:
    """Remove its objects from the cluster, or let its nodes finish; the tenant's namespace stays."""
    service = _deployed(services).service.acting_as(trail)
    return PlannedView.of(await service.delete(planned_id, await service.store.org_of(planned_id)))


@router.post("/{planned_id}/observe")
async def observe(planned_id: Word, body: Observed, services: Services) -> dict[str, Any]:
    """Judge a window by the ledger or Prometheus, and learn of it. A window is judged once."""
    deployed = _deployed(services)
    judged = await deployed.outcomes.observe(
        planned_id,
        await deployed.service.store.org_of(planned_id),
        start=in_utc(body.start),
        end=in_utc(body.end),
        source=body.source,
        replicas=body.replicas,
        nodes=body.nodes,
    )
    return _document(judged)


def _of_ones_own(body: PlanAgain) -> None:
    """Where in the cluster, and whether on the platform's nodes, is for operators to say."""
    around = body.around(Surroundings())
    if around.namespace is not None or around.platform is not Platform.KUBERNETES:
        raise Forbidden("the namespace and the platform are chosen by operators; leave them out")


async def _planned(services: ApiServices, body: DeploymentPlanned, org: Org, trail: AuditTrail) -> PlannedView:
    deployed = _deployed(services)
    around = body.around(Surroundings())
    plan = await _plan(services, body, org, body.name)
    return PlannedView.of(await deployed.service.acting_as(trail).plan(plan, around))


async def _revised(services: ApiServices, planned_id: str, body: PlanAgain, org: Org, trail: AuditTrail) -> PlannedView:
    service = _deployed(services).service
    known = await service.store.one(planned_id, org.id)
    around = body.around((await service.store.revision(known.id, known.revision)).surroundings)
    plan = await _plan(services, body, org, known.name)
    return PlannedView.of(await service.acting_as(trail).revise(known.id, org.id, plan, around))


async def _plan(services: ApiServices, body: PlanAgain, org: Org, name: str) -> DeploymentPlan:
    """The chosen option of what is recommended now, with what the org's outcomes taught."""
    spec = await _specification(services, body, org)
    found = await services.planning.recommend(spec, await _deployed(services).outcomes.store.factors(org.id))
    options = [each for each in found.options if body.candidate in (None, each.candidate.id)]
    if not options:
        raise Conflict(f"nothing that was recommended is it: {(*found.advice, 'choose one of the options')[0]}")
    return plan_of(options[0], spec, name=name, org_id=org.id, tenant=org.name)


async def _specification(services: ApiServices, body: PlanAgain, org: Org) -> Specification:
    return await specification_of(services, org.id, body.specification, body.specification_id)


async def _page(
    deployed: Deployed, org_id: str, state: DeploymentState | None, name: str | None, cursor: str | None, limit: int
) -> Page[PlannedView]:
    found = await deployed.service.store.page(org_id, state=state, name=name, after=cursor, limit=limit)
    return page_of([PlannedView.of(each) for each in found], [each.id for each in found], limit)


async def _detail(deployed: Deployed, planned_id: str, org_id: str) -> dict[str, Any]:
    known = await deployed.service.store.one(planned_id, org_id)
    revision = await deployed.service.store.revision(known.id, known.revision)
    forecast = await deployed.outcomes.forecast(revision.plan)
    own = {"plan": _document(revision.plan), "surroundings": _document(revision.surroundings)}
    return {**_document(known), **own, "forecast": _document(forecast)}


async def _revisions(
    deployed: Deployed, planned_id: str, org_id: str, applied: bool | None, cursor: int | None, limit: int
) -> Page[RevisionView]:
    known = await deployed.service.store.one(planned_id, org_id)
    found = await deployed.service.store.revisions(known.id, applied=applied, after=cursor, limit=limit)
    return page_of([RevisionView.of(each) for each in found], [each.revision for each in found], limit)


async def _status(deployed: Deployed, planned_id: str, org_id: str) -> dict[str, Any]:
    """What a page of a deployment shows: state, pods, endpoint, and where its curves are drawn."""
    known = await deployed.service.store.one(planned_id, org_id)
    found = _document(await deployed.service.status(planned_id, org_id))
    links = {}
    if deployed.grafana_url is not None:
        name = f"crosslogic-{dns_label(known.name)}"[:40]
        links["dashboard"] = f"{deployed.grafana_url.rstrip('/')}/d/{name}"
    return {**found, "state": known.state.value, "revision": known.applied_revision, "links": links}


async def _outcomes(
    deployed: Deployed, planned_id: str, org_id: str, drift: bool | None, cursor: str | None, limit: int
) -> Page[dict[str, Any]]:
    known = await deployed.service.store.one(planned_id, org_id)
    found = await deployed.outcomes.store.page(known.id, drift=drift, after=cursor, limit=limit)
    rows = [{"id": ref, **_document(judged), "availability": judged.availability} for ref, judged in found]
    return page_of(rows, [ref for ref, _ in found], limit)


def _deployed(services: ApiServices) -> Deployed:
    if services.deployed is None:
        raise Unavailable("this process knows nothing of deployments")
    return services.deployed


def _document(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return found
