"""The management API as one FastAPI application: `/admin` for operators, `/api/v1` for tenants."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from crosslogic.api import audit, environments, errors, health, keys, operators, orgs, plans, usage, users
from crosslogic.api.auth import require_member, require_operator
from crosslogic.api.nodes import nodes_router
from crosslogic.api.request_ids import RequestIds
from crosslogic.api.services import ApiServices

_ROOMS = (orgs, environments, users, keys, plans, audit, usage)
ADMIN_ROUTERS = (*(room.router for room in _ROOMS), operators.router)
OWN_ROUTERS = tuple(room.own_router for room in _ROOMS)


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
    for router in (*ADMIN_ROUTERS, nodes_router(services.nodes), *routers):
        app.include_router(router, dependencies=[Depends(require_operator)])
    for router in OWN_ROUTERS:
        app.include_router(router, dependencies=[Depends(require_member)])
    errors.install(app)
    app.add_middleware(RequestIds)
    return app
