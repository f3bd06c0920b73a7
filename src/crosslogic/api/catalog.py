"""`/admin/catalog` and `/api/v1/catalog`: what planning builds on, and what to doubt of it.

Everybody may look; only operators import.
"""

from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query

from crosslogic.api.auth import OperatorTrail, Services
from crosslogic.api.catalog_models import (
    CardView,
    DataHealthView,
    GpuView,
    ImportedView,
    ModelImport,
    PriceImport,
    PriceView,
    imported,
)
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.catalog.config_json import read_config
from crosslogic.catalog.gpus import find_gpu, load_gpus
from crosslogic.catalog.price_lists.clouds import read_aws, read_azure, read_gcp
from crosslogic.catalog.price_lists.rows import PriceRow, price_list
from crosslogic.catalog.price_lists.skypilot import read_skypilot
from crosslogic.catalog.prices import PriceMarket
from crosslogic.catalog.store import CATALOG_CHANGED, CatalogStore
from crosslogic.compass.data_health import planner_health
from crosslogic.kernel.errors import InvalidRequest, Unavailable
from crosslogic.store.changes import append_change

router = APIRouter(prefix="/admin/catalog", tags=["catalog"])
own_router = APIRouter(prefix="/api/v1/catalog", tags=["catalog"])
health_router = APIRouter(prefix="/admin/data", tags=["catalog"])
own_health_router = APIRouter(prefix="/api/v1/data", tags=["catalog"])

_READERS = {"aws": read_aws, "gcp": read_gcp, "azure": read_azure}


def _catalog(services: Services) -> CatalogStore:
    if services.catalog is None:
        raise Unavailable("this process has no catalogue of its own")
    return services.catalog


Catalog = Annotated[CatalogStore, Depends(_catalog)]


@router.get("/gpus")
@own_router.get("/gpus")
async def list_gpus(
    manufacturer: Annotated[Word | None, Query(description="such as NVIDIA, in any letter case")] = None,
    least_memory_gb: Annotated[int | None, Query(ge=0)] = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[GpuView]:
    found = [
        gpu
        for gpu_id, gpu in sorted(load_gpus().items())
        if (cursor is None or gpu_id > cursor)
        and (manufacturer is None or gpu.manufacturer.lower() == manufacturer.lower())
        and gpu.memory_gb >= (least_memory_gb or 0)
    ][:limit]
    return page_of([GpuView.of(gpu) for gpu in found], [gpu.id for gpu in found], limit)


@router.get("/models")
@own_router.get("/models")
async def list_catalog_models(
    catalog: Catalog, family: Word | None = None, cursor: Word | None = None, limit: Limit = 100
) -> Page[CardView]:
    """Models whose sizes are known, packaged and imported."""
    found = [
        card
        for card_id, card in sorted((await catalog.cards()).by_id.items())
        if (cursor is None or card_id > cursor) and family in (None, card.family)
    ][:limit]
    return page_of([CardView.of(card) for card in found], [card.id for card in found], limit)


@router.post("/models", status_code=201)
async def import_model(body: ModelImport, catalog: Catalog, trail: OperatorTrail) -> CardView:
    """A model from its config.json, in the place of one of the same id."""
    told = {"active_parameters": body.active_parameters} if body.active_parameters else {}
    card = read_config(
        msgspec.json.encode(body.config),
        body.id,
        parameters=body.parameters,
        licence=body.licence,
        quality=body.quality,
        source="imported config.json",
    )
    card = msgspec.structs.replace(card, **told)
    async with catalog.engine.begin() as conn:
        await catalog.import_card_in(conn, card)
        await trail.append(
            conn, "catalog.import_model", card.id, org_id=None, before=None, after={"parameters": card.parameters}
        )
        await append_change(conn, CATALOG_CHANGED, card.id)
    return CardView.of(card)


@router.delete("/models/{model_id:path}", status_code=204)
async def remove_model(model_id: str, catalog: Catalog, trail: OperatorTrail) -> None:
    """Take back an imported model; a packaged one of its id counts again."""
    async with catalog.engine.begin() as conn:
        await catalog.remove_card_in(conn, model_id)
        await trail.append(conn, "catalog.remove_model", model_id, org_id=None, before={}, after=None)
        await append_change(conn, CATALOG_CHANGED, model_id)


@router.get("/prices")
@own_router.get("/prices")
async def list_prices(
    catalog: Catalog,
    cloud: Word | None = None,
    region: Word | None = None,
    gpu: Annotated[Word | None, Query(description="id or alias")] = None,
    market: PriceMarket | None = None,
    cursor: Annotated[int | None, Query(ge=0, description="how many were seen")] = None,
    limit: Limit = 100,
) -> Page[PriceView]:
    """By cloud, region and market, each with its date and what speaks against it."""
    known = None if gpu is None else find_gpu(gpu)
    if gpu is not None and known is None:
        raise InvalidRequest("there is no such GPU; /api/v1/catalog/gpus lists those that are known", param="gpu")
    found = [
        price
        for price in (await catalog.prices()).prices
        if cloud in (None, price.cloud)
        and region in (None, price.region)
        and (known is None or price.gpu == known.id)
        and market in (None, price.market)
    ]
    start = cursor or 0
    shown = found[start : start + limit]
    places = [start + offset + 1 for offset in range(len(shown))]
    return page_of([PriceView.of(price) for price in shown], places, limit)


@router.post("/prices", status_code=201)
async def import_prices(body: PriceImport, catalog: Catalog, services: Services, trail: OperatorTrail) -> ImportedView:
    """A price list of a cloud, as its interface gives it. Doubtful prices are kept and marked."""
    found = price_list(_rows(body), services.capacity.now().date())
    if not found.prices:
        told = f" (line {found.refused[0].line}: {found.refused[0].reason})" if found.refused else ""
        raise InvalidRequest(f"the list has no price of a GPU that is known{told}", param="content")
    async with catalog.engine.begin() as conn:
        await catalog.import_prices_in(conn, found.prices)
        after = {"format": body.format, "prices": len(found.prices), "refused": len(found.refused)}
        await trail.append(conn, "catalog.import_prices", body.format, org_id=None, before=None, after=after)
        await append_change(conn, CATALOG_CHANGED, body.format)
    return imported(found)


@router.delete("/prices/{cloud}", status_code=204)
async def remove_prices(cloud: Word, catalog: Catalog, trail: OperatorTrail) -> None:
    """Take back what was imported of a cloud; its packaged prices count again. Harmless to repeat."""
    async with catalog.engine.begin() as conn:
        removed = await catalog.remove_prices_in(conn, cloud)
        await trail.append(conn, "catalog.remove_prices", cloud, org_id=None, before={"prices": removed}, after=None)
        await append_change(conn, CATALOG_CHANGED, cloud)


def _rows(body: PriceImport) -> list[PriceRow]:
    source = body.source or f"imported {body.format} list"
    if body.format == "skypilot":
        return read_skypilot(body.content.splitlines(), cloud=body.cloud, as_of=body.as_of, source=source)
    return _READERS[body.format](body.content.encode("utf-8", "replace"), source=source)


@health_router.get("/health")
@own_health_router.get("/health")
async def get_data_health(catalog: Catalog, services: Services) -> DataHealthView:
    """What is missing, old or dubious in the data that planning builds on."""
    today = services.capacity.now().date()
    return DataHealthView.of(planner_health((await catalog.cards()).by_id, await catalog.prices(), today))
