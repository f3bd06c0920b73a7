"""What the GPUs of a deployment cost: rented by the hour, owned and powered, or bought (planner document, Cost
Modeling).

Pure. Invariant: money is whole pico-USD; whole instances are paid for, also where a replica leaves GPUs of one idle.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from functools import cache
from importlib import resources
from math import ceil, log

import msgspec

from crosslogic.catalog.gpus import GpuType, find_gpu
from crosslogic.catalog.price_lists.packaged import packaged_prices
from crosslogic.catalog.prices import GpuPrice, PriceMarket
from crosslogic.catalog.regions import Regions, load_regions
from crosslogic.catalog.spot import taken_back
from crosslogic.compass.ranking.model import Cost
from crosslogic.compass.specification.model import DatacenterContext, Market, Wishes
from crosslogic.kernel.money import PUSD_PER_USD, pusd_of

HOURS_PER_MONTH = 730
SPOT_INTERRUPTED_PER_MONTH = 0.2  # where nothing is known of a machine; of those AWS knows, 15% on average
_HARMLESS = frozenset(("stale", "spot_without_discount"))  # the price is said to be so, and is one that can be paid


class Rented(msgspec.Struct, frozen=True):
    """The cheapest way to rent so many replicas."""

    price: GpuPrice
    instances: int
    per_hour_pusd: int


class _Row(msgspec.Struct):
    gpu: str
    cloud: str
    usd_per_gpu_hour: float


class _File(msgspec.Struct):
    source: str
    licence: str
    as_of: str | None
    prices: list[_Row]


@cache
def list_prices() -> tuple[GpuPrice, ...]:
    """Hand-set prices of single GPUs: undated, and said to be."""

    data = resources.files("crosslogic.compass.ranking").joinpath("data/list_prices.json").read_bytes()
    file = msgspec.json.decode(data, type=_File)
    found = []
    for row in file.prices:
        gpu = find_gpu(row.gpu)
        assert gpu is not None, row.gpu
        price = int(Decimal(str(row.usd_per_gpu_hour)) * PUSD_PER_USD)
        found.append(
            GpuPrice(
                cloud=row.cloud,
                region="any",
                instance_type=f"1x {gpu.name}",
                gpu=gpu.id,
                gpu_count=1,
                market=PriceMarket.ON_DEMAND,
                per_hour_pusd=price,
                source=file.source,
            )
        )
    return tuple(found)


@cache
def default_prices() -> tuple[GpuPrice, ...]:
    """The packaged price list, and for GPUs that it does not know the hand-set one."""
    return with_list_prices(packaged_prices().prices)


def with_list_prices(prices: Sequence[GpuPrice]) -> tuple[GpuPrice, ...]:
    """These, and for GPUs that they do not know the hand-set ones."""
    known = {price.gpu for price in prices}
    return (*prices, *(price for price in list_prices() if price.gpu not in known))


def allowed(prices: Iterable[GpuPrice], wishes: Wishes, market: Market) -> list[GpuPrice]:
    """Those of the wished clouds, regions and market; prices that data health distrusts are left out."""
    found = []
    for price in prices:
        if price.market.value != market.value or not _HARMLESS.issuperset(price.doubts):
            continue
        anywhere = price.region == "any"
        if wishes.clouds and price.cloud not in (*wishes.clouds, "any"):
            continue
        if price.cloud in wishes.excluded_clouds or (not anywhere and _may_be_in(price, wishes.excluded_regions)):
            continue
        if wishes.regions and not anywhere and not _in_regions(price, wishes.regions):
            continue
        found.append(price)
    return found


def cheapest(prices: Sequence[GpuPrice], gpu: str, tp: int, replicas: int) -> Rented | None:
    """None where nobody rents out this GPU in instances that hold a replica."""
    best: Rented | None = None
    for price in prices:
        if price.gpu != gpu:
            continue
        if price.gpu_count >= tp:
            instances = ceil(replicas / (price.gpu_count // tp))
        elif price.gpu_count == 1 and price.region == "any":  # a price of one GPU, not of an instance
            instances = replicas * tp
        else:
            continue
        cost = instances * price.per_hour_pusd
        if best is None or cost < best.per_hour_pusd:
            best = Rented(price, instances, cost)
    return best


def rental(
    rented: Rented, at_mean: Rented, gpus: int, tokens_per_month: float, market: Market, redo_s: float = 0.0
) -> Cost:
    """By the hour, of what is rented for the peak and what the mean would need.

    What is reserved is paid for whether it is needed or not. A spot machine that is taken back costs its successor's
    start and what its answers had got to: `redo_s` of a machine, paid for without use.
    """
    price = rented.price
    month = rented.per_hour_pusd * HOURS_PER_MONTH
    mean = rented if market is Market.RESERVED else at_mean
    interruptions = redo = None
    if market is Market.SPOT and price.market is PriceMarket.SPOT:
        interruptions = rented.instances * -log(1 - taken_back_share(price))
        redo = int(interruptions * redo_s / 3600 * price.per_hour_pusd)
        month += redo
    dated = "no date: stale" if price.as_of is None else f"of {price.as_of}"
    return Cost(
        per_hour_pusd=rented.per_hour_pusd,
        per_month_pusd=month,
        per_month_at_mean_pusd=mean.per_hour_pusd * HOURS_PER_MONTH,
        per_million_tokens_pusd=_per_million(month, tokens_per_month),
        gpus=gpus,
        instances=rented.instances,
        basis=f"{rented.instances} x {price.instance_type} of {price.cloud} in {price.region}, {price.market}, {dated}",
        cloud=price.cloud,
        region=price.region,
        instance_type=price.instance_type,
        stale=price.as_of is None,
        interruptions_per_month=interruptions,
        redo_per_month_pusd=redo,
    )


def taken_back_share(price: GpuPrice) -> float:
    """Which share of such spot machines is taken back in a month."""
    known = taken_back(price.cloud, price.region, price.instance_type)
    return SPOT_INTERRUPTED_PER_MONTH if known is None else known.share


def owned(gpu: GpuType, gpus: int, site: DatacenterContext, tokens_per_month: float) -> Cost:
    """Power alone, as far as its price is known: power x hours x price x PUE."""
    month = operating_per_month_pusd(gpu, gpus, site)
    known = site.power_per_kwh_pusd is not None
    basis = (
        f"power of {gpus} x {gpu.tdp_watts} W at PUE {site.pue:g}"
        if known
        else f"{gpus} GPUs of yours; no price of power is known, so none is counted"
    )
    return Cost(
        per_hour_pusd=month // HOURS_PER_MONTH,
        per_month_pusd=month,
        per_month_at_mean_pusd=month,
        per_million_tokens_pusd=_per_million(month, tokens_per_month) if known else None,
        gpus=gpus,
        instances=gpus,
        basis=basis,
    )


def operating_per_month_pusd(gpu: GpuType, gpus: int, site: DatacenterContext) -> int:
    """Power and rack of so many GPUs for a month."""
    power = Decimal(gpu.tdp_watts * gpus * HOURS_PER_MONTH) / 1000 * (site.power_per_kwh_pusd or 0)
    return int(power * Decimal(str(site.pue))) + (site.rack_per_month_pusd or 0)


def purchase(
    gpu: GpuType, gpus: int, each_pusd: int, site: DatacenterContext, rented: Rented | None, tokens_per_month: float
) -> Cost:
    """Total cost of ownership over the amortisation, and after how many months renting would have cost more."""
    capital = each_pusd * gpus
    operating = operating_per_month_pusd(gpu, gpus, site)
    month = capital // max(1, site.amortization_months) + operating
    even = None if rented is None else break_even_months(capital, rented.per_hour_pusd * HOURS_PER_MONTH, operating)
    return Cost(
        per_hour_pusd=month // HOURS_PER_MONTH,
        per_month_pusd=month,
        per_month_at_mean_pusd=month,
        per_million_tokens_pusd=_per_million(month, tokens_per_month),
        gpus=gpus,
        instances=gpus,
        basis=f"{gpus} GPUs bought and written off over {site.amortization_months} months, with power and rack",
        capital_pusd=capital,
        break_even_months=even,
    )


def break_even_months(capital_pusd: int, rental_per_month_pusd: int, operating_per_month_pusd: int) -> float | None:
    """Capital over what owning saves each month; None where it saves nothing.

    The planner document says 41 months for its example; it is 60,000 / (11,984 - 182) = 5.1.
    """
    saved = rental_per_month_pusd - operating_per_month_pusd
    return capital_pusd / saved if saved > 0 else None


def _per_million(month_pusd: int, tokens_per_month: float) -> int | None:
    return int(month_pusd / tokens_per_month * 1e6) if tokens_per_month > 0 else None


@cache
def _places() -> Regions:
    return Regions(load_regions())


def _in_regions(price: GpuPrice, names: Sequence[str]) -> bool:
    """Whether a price is of one of these places: a cloud's region, a city, a country or a continent."""
    return any(_places().within(price.region, name) or price.region.startswith(f"{name}-") for name in names)


def _may_be_in(price: GpuPrice, names: Sequence[str]) -> bool:
    """Likewise; a price for all of a cloud's regions does not tell which machine one gets."""
    return bool(names) and (price.region.startswith("all") or _in_regions(price, names))


# What the planner document's example pays for a GPU. Others have to be told: street prices are no facts.
PURCHASE_PUSD = {"a100_80": int(pusd_of(Decimal(15_000)))}
