"""`/admin/regions` and `/api/v1/regions`: where requests can be served, what that costs, and where they go next.

The same for everybody: it tells of places, never of nodes.
"""

from decimal import Decimal
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from crosslogic.api.auth import Services
from crosslogic.api.models import Limit, Page, View, Word, page_of
from crosslogic.catalog.regions import Region
from crosslogic.kernel.errors import NotFound

router = APIRouter(prefix="/admin/regions", tags=["regions"])
own_router = APIRouter(prefix="/api/v1/regions", tags=["regions"])


class CityView(View):
    name: str
    country: str
    latitude: float | None
    longitude: float | None
    clouds: dict[str, tuple[str, ...]] = Field(description="regions of each cloud that stand here")


class RegionView(View):
    id: str
    name: str
    countries: tuple[str, ...]
    cities: tuple[CityView, ...]
    clouds: dict[str, tuple[str, ...]]
    cost_multiplier: Decimal = Field(description="price here, over the base price")
    fallbacks: tuple[str, ...] = Field(description="where requests go when the region is down, best first")
    aliases: tuple[str, ...]


@router.get("")
@own_router.get("")
async def list_regions(
    services: Services,
    prefix: Word | None = None,
    country: Annotated[Word | None, Query(description="two letters, such as IN")] = None,
    cloud: Annotated[Word | None, Query(description="such as aws")] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[RegionView]:
    """`prefix` is the beginning of the id."""
    found = [
        region
        for name, region in sorted(services.regions.by_id.items())
        if name.startswith(prefix or "")
        and (country is None or country.upper() in region.countries)
        and (cloud is None or cloud in region.clouds)
        and (cursor is None or name > cursor)
    ][:limit]
    return page_of([_view(region) for region in found], [region.id for region in found], limit)


@router.get("/{region}")
@own_router.get("/{region}")
async def get_region(region: Word, services: Services) -> RegionView:
    """The region of this id or alias, or the one that this city or region of a cloud stands in."""
    found = services.regions.region_of(region)
    if found is None:
        raise NotFound("there is no such region")
    return _view(found)


def _view(region: Region) -> RegionView:
    return RegionView.model_validate(region)
