"""The management API as one FastAPI application: `/admin` for operators, `/api/v1` for tenants."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from crosslogic.api import (
    agents,
    allocations,
    anomalies,
    audit,
    billing,
    cache,
    capacity,
    catalog,
    chargebacks,
    compass_deployments,
    compass_plans,
    conversations,
    credits,
    environments,
    errors,
    exports,
    finops,
    forecast,
    health,
    invoices,
    keys,
    licences,
    model_registry,
    notices,
    operators,
    orgs,
    payments,
    plans,
    postings,
    prices,
    queue,
    regions,
    usage,
    usage_costs,
    usage_live,
    usage_requests,
    usage_retention,
    users,
    webhooks,
)
from crosslogic.api.auth import Services, nodes_as_operator, require_member, require_operator
from crosslogic.api.nodes import nodes_router
from crosslogic.api.query_names import known_query
from crosslogic.api.request_ids import RequestIds
from crosslogic.api.services import ApiServices
from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.registry import Registry

_ROOMS = (
    orgs,
    environments,
    users,
    keys,
    plans,
    audit,
    regions,
    usage,
    usage_live,
    usage_requests,
    capacity,
    compass_plans,
    compass_deployments,
    cache,
    queue,
    notices,
    payments,
    invoices,
    exports,
)
_MONEY = (credits, billing)
ADMIN_ROUTERS = (
    *(room.router for room in (*_ROOMS, *_MONEY)),
    operators.router,
    prices.router,
    prices.rates_router,
    credits.accounts_router,
    usage_requests.ledger_router,
    usage_costs.router,
    usage_retention.router,
    agents.router,
    finops.router,
    forecast.router,
    anomalies.router,
    allocations.router,
    allocations.resources_router,
    catalog.router,
    catalog.health_router,
    chargebacks.router,
    licences.router,
    postings.router,
    *model_registry.ROUTERS,
    invoices.profiles_router,
)
OWN_ROUTERS = (
    *(room.own_router for room in (*_ROOMS, *_MONEY)),
    invoices.own_profile_router,
    conversations.own_router,
    catalog.own_router,
    catalog.own_health_router,
)


async def _registry(services: Services) -> Registry:
    return services.nodes


async def _heartbeats(services: Services) -> Heartbeats | Registry:
    return services.nodes if services.agents is None else services.agents.heartbeats


def create_app(services: ApiServices, routers: Sequence[APIRouter] = ()) -> FastAPI:
    """The application; `routers` are further ones for `/admin`, behind the admin key as all of it."""
    app = FastAPI(
        title="CrossLogic management API",
        version=version("crosslogic"),
        redoc_url=None,
        separate_input_output_schemas=False,
    )
    app.state.services = services
    app.include_router(health.router)
    app.include_router(agents.public_router)
    app.include_router(webhooks.router)
    for router in (*ADMIN_ROUTERS, nodes_router(_registry, nodes_as_operator, _heartbeats), *routers):
        app.include_router(router, dependencies=[Depends(require_operator), Depends(known_query)])
    for router in OWN_ROUTERS:
        app.include_router(router, dependencies=[Depends(require_member), Depends(known_query)])
    errors.install(app)
    app.add_middleware(RequestIds)
    return app
