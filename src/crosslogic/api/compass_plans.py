"""`/api/v1/compass`: recommendations, comparisons, how sure they are, and scenarios that an organisation keeps;
`/admin/compass`: the same question by operators, and the benchmark table that answers are learnt from."""

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from crosslogic.api.auth import Home, OperatorTenancy, OperatorTrail, OwnHome, Services
from crosslogic.api.compass_models import (
    MODELS_IN_FORCE,
    Asked,
    AskedFor,
    BenchmarksBody,
    BenchmarkView,
    Compared,
    Doubted,
    Imported,
    ScenarioChange,
    ScenarioCreate,
    ScenarioView,
    benchmark,
    shown,
    taught,
)
from crosslogic.api.models import Limit, Page, Word, in_utc, page_of
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.knowledge.model import doubt
from crosslogic.compass.scenarios.change import changed
from crosslogic.compass.scenarios.sql import MOST_SCENARIOS, Scenario
from crosslogic.kernel.errors import Conflict, InvalidRequest

router = APIRouter(prefix="/admin/compass", tags=["planner"], dependencies=[MODELS_IN_FORCE])
own_router = APIRouter(prefix="/api/v1/compass", tags=["planner"], dependencies=[MODELS_IN_FORCE])


@router.post("/recommendations")
async def recommend(body: AskedFor, tenancy: OperatorTenancy, services: Services) -> dict[str, Any]:
    """Deployments that meet the specification, best first, and what was rejected and why.

    For an organisation, with what outcomes of its deployments taught.
    """
    org_id = None if body.org is None else (await tenancy.org(body.org)).id
    return shown(await services.planning.recommend(await body.spec(services, org_id), await taught(services, org_id)))


@own_router.post("/recommendations")
async def recommend_own(body: Asked, home: OwnHome, services: Services) -> dict[str, Any]:
    """Deployments that meet the specification, best first, and what was rejected and why.

    What outcomes of the organisation's own deployments taught is taken into account.
    """
    spec = await body.spec(services, home.org.id)
    return shown(await services.planning.recommend(spec, await taught(services, home.org.id)))


@own_router.post("/comparisons")
async def compare(body: Compared, home: OwnHome, services: Services) -> dict[str, Any]:
    """What if: the best deployment as it is and with the change, side by side with their differences."""
    compared = await services.planning.compare(await body.spec(services, home.org.id), body.changes())
    differences = msgspec.to_builtins(compared.differences)
    return {"before": shown(compared.before), "after": shown(compared.after), "differences": differences}


@own_router.post("/risks")
async def risk(body: Doubted, home: OwnHome, services: Services) -> dict[str, Any]:
    """How likely the best deployment meets its targets, and which input that hangs on."""
    found, chance, inputs = await services.planning.risk(await body.spec(services, home.org.id), body.draws)
    best = found.best
    assert best is not None
    return {
        "candidate": best.candidate.id,
        "risk": msgspec.to_builtins(chance),
        "sensitivities": msgspec.to_builtins(inputs),
    }


@own_router.post("/scenarios", status_code=201)
async def create_scenario(body: ScenarioCreate, home: OwnHome, services: Services) -> ScenarioView:
    """Keep a specification with a change and what it leads to, under a name."""
    planning = services.planning
    if await planning.scenarios.count(home.org.id) >= MOST_SCENARIOS:
        raise Conflict(f"an organisation keeps at most {MOST_SCENARIOS} scenarios; delete some")
    spec, change = await body.spec(services, home.org.id), body.changes()
    found = await planning.recommend(changed(spec, change))
    scenario = Scenario(
        id="",
        org_id=home.org.id,
        name=body.name,
        owner=_viewer(home),
        shared=body.shared,
        specification=spec,
        changes=change,
        outcome=shown(found, options=5),
        created_at=planning.clock.now(),
    )
    return ScenarioView.of(await planning.scenarios.add(scenario, home.tenancy.audit.trail))


@own_router.get("/scenarios")
async def list_scenarios(
    home: OwnHome,
    services: Services,
    shared: Annotated[bool | None, Query(description="only those that were shared, or only one's own others")] = None,
    name: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[ScenarioView]:
    """One's own and those that were shared."""
    found = await services.planning.scenarios.page(
        home.org.id, _viewer(home), shared=shared, name=name, after=cursor, limit=limit
    )
    return page_of([ScenarioView.of(each) for each in found], [each.id for each in found], limit)


@own_router.get("/scenarios/{scenario_id}")
async def get_scenario(scenario_id: Word, home: OwnHome, services: Services) -> ScenarioView:
    return ScenarioView.of(await services.planning.scenarios.scenario(scenario_id, home.org.id, _viewer(home)))


@own_router.patch("/scenarios/{scenario_id}")
async def change_scenario(scenario_id: Word, body: ScenarioChange, home: OwnHome, services: Services) -> ScenarioView:
    """Rename it, or share it with the organisation, whose it is then as well."""
    scenarios, trail = services.planning.scenarios, home.tenancy.audit.trail
    return ScenarioView.of(
        await scenarios.change(scenario_id, home.org.id, _viewer(home), trail, name=body.name, shared=body.shared)
    )


@own_router.delete("/scenarios/{scenario_id}", status_code=204)
async def delete_scenario(scenario_id: Word, home: OwnHome, services: Services) -> None:
    await services.planning.scenarios.remove(scenario_id, home.org.id, _viewer(home), home.tenancy.audit.trail)


@router.post("/benchmarks", status_code=201)
async def import_benchmarks(body: BenchmarksBody, trail: OperatorTrail, services: Services) -> Imported:
    """Add measured points; those that are there already are left alone, doubtful ones are left out and told."""
    points, left_out = [], []
    for row in body.benchmarks:
        gpu = find_gpu(row.gpu)
        if gpu is None:
            raise InvalidRequest(f"there is no GPU {row.gpu!r} in the catalogue", param="gpu")
        if row.measured_at is not None:
            row.measured_at = in_utc(row.measured_at)
        point = benchmark(row, gpu.id)
        reason = doubt(point)
        if reason is None:
            points.append(point)
        else:
            left_out.append(f"{point.setup.model} at {point.offered_per_second} requests/s: {reason}")
    return Imported(added=await services.planning.knowledge.add(points, trail), left_out=left_out)


@router.get("/benchmarks")
async def list_benchmarks(
    services: Services,
    model: Word | None = None,
    gpu: Word | None = None,
    source: Word | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[BenchmarkView]:
    known = None if gpu is None else find_gpu(gpu)
    hardware = known.id if known is not None else gpu
    found = await services.planning.knowledge.page(
        model=model, hardware=hardware, source=source, after=cursor, limit=limit
    )
    return page_of([BenchmarkView.of(*each) for each in found], [each[0] for each in found], limit)


def _viewer(home: Home) -> str:
    """The person where there is one, else the key."""
    return str(home.user_id or home.actor.id)
