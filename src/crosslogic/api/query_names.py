"""No misspelt filter: a query parameter that a route does not have is refused, not left out.

Otherwise `?start=` where `from` was meant answers with the sums of all time, and looks like the sums of a month.
"""

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel

from crosslogic.kernel.errors import InvalidRequest

_LONGEST_NAME = 100  # that we say again


async def known_query(request: Request) -> None:
    """Raises InvalidRequest for the first parameter of the query that the route does not know."""
    route = request.scope.get("route")
    if not request.query_params or not isinstance(route, APIRoute):
        return
    known = tuple(dict.fromkeys(_of_dependant(route.dependant)))
    for name in request.query_params:
        if name not in known:
            listed = ", ".join(known) or "none"
            raise InvalidRequest(f"this parameter is unknown here; known are: {listed}", param=name[:_LONGEST_NAME])


def _of_dependant(dependant: Dependant) -> list[str]:
    names = []
    for field in dependant.query_params:
        model = field.field_info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            names += [each.alias or name for name, each in model.model_fields.items()]
        else:
            names.append(field.alias)
    return names + [name for each in dependant.dependencies for name in _of_dependant(each)]
