"""The management API as one FastAPI application."""

from collections.abc import Sequence
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI

from crosslogic.api import environments, errors, health, keys, orgs, usage
from crosslogic.api.auth import require_admin
from crosslogic.api.nodes import nodes_router
from crosslogic.api.request_ids import RequestIds
from crosslogic.api.services import ApiServices

ADMIN_ROUTERS = (orgs.router, environments.router, keys.router, usage.router)


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
        app.include_router(router, dependencies=[Depends(require_admin)])
    errors.install(app)
    app.add_middleware(RequestIds)
    return app
