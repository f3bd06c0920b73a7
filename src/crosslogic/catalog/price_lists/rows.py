"""Rows of any price list become prices of the catalogue, with what there is against each. Pure.

The rules are general; they know no row. What they are against: prices that are none, spot prices that give no discount
or exceed what they discount, prices far below the cloud's own in other places, counts of GPUs that no machine has,
instances that are another variant of the GPU than they are called, GPUs without their host, prices without a date.

Invariant: a doubtful price is kept and marked, an unusable row is told with its reason; none is dropped in silence.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal, InvalidOperation
from statistics import quantiles

import msgspec

from crosslogic.catalog.gpus import find_gpu
from crosslogic.catalog.prices import GpuPrice, PriceMarket
from crosslogic.kernel.money import PUSD_PER_USD

STALE_AFTER = timedelta(days=30)
_COUNTS = frozenset((1, 2, 3, 4, 5, 6, 7, 8, 10, 16, 32, 36, 64, 72))
_SAME_SHARE = Decimal("0.999")
_FAR_BELOW = 0.55
_SHAPES_APART = 1.6
_MEMORY_APART = 0.1
_LEAST_USD, _MOST_USD = 0.02, 100.0  # of one GPU for an hour
_NANO_USD = 1000  # pico-USD: prices are kept to the nano-dollar


class PriceRow(msgspec.Struct, frozen=True, kw_only=True):
    """One line of a price list; prices of the whole instance in USD an hour."""

    cloud: str
    region: str
    gpu: str  # as the list calls it
    gpu_count: float
    instance_type: str = ""
    zone: str | None = None
    on_demand: str | None = None
    spot: str | None = None
    reserved: str | None = None
    gpu_memory_mib: int | None = None  # of one GPU, where the list says it
    host_missing: bool = False  # the price is of the GPUs alone
    as_of: date | None = None
    source: str = ""
    line: int = 0


class Refused(msgspec.Struct, frozen=True):
    line: int
    reason: str


class PriceList(msgspec.Struct, frozen=True):
    prices: tuple[GpuPrice, ...]
    refused: tuple[Refused, ...]


DOUBTS = {
    "spot_above_on_demand": "its spot price is above its on-demand price",
    "spot_without_discount": "its spot price is its on-demand price: a cap or a placeholder, and no discount",
    "far_below_elsewhere": "it is far below what the cloud asks elsewhere, as a committed-use price would be",
    "implausible_gpu_count": "no machine has so many of this GPU",
    "other_variant": "a GPU costs far less or more than in the cloud's other machines: perhaps another variant of it",
    "memory_differs": "the list says another memory than this GPU has",
    "host_not_included": "the price is of the GPUs alone, its host comes on top",
    "implausible_price": "one GPU for an hour costs less than 2 cents or more than 100 dollars",
    "stale": "it is older than 30 days or has no date",
}


def price_list(rows: Iterable[PriceRow], today: date) -> PriceList:
    """Prices of the rows, each with its doubts."""
    prices: list[GpuPrice] = []
    refused: list[Refused] = []
    for row in rows:
        found = _priced(row, today)
        prices.extend(found) if isinstance(found, list) else refused.append(found)
    return PriceList(tuple(_compared(_unique(prices))), tuple(refused))


def _priced(row: PriceRow, today: date) -> list[GpuPrice] | Refused:
    gpu = find_gpu(row.gpu)
    if gpu is None:
        return Refused(row.line, f"the GPU {row.gpu[:60]!r} is not in the catalogue")
    if row.gpu_count < 1 or row.gpu_count != int(row.gpu_count):
        return Refused(row.line, f"{row.gpu_count:g} GPUs are no whole machine")
    doubts = []
    if int(row.gpu_count) not in _COUNTS or row.gpu_count > max(gpu.max_per_node, 8):
        doubts.append("implausible_gpu_count")
    if row.gpu_memory_mib and gpu.memory_mib and abs(row.gpu_memory_mib / gpu.memory_mib - 1) > _MEMORY_APART:
        doubts.append("memory_differs")
    if row.host_missing:
        doubts.append("host_not_included")
    if row.as_of is None or today - row.as_of > STALE_AFTER:
        doubts.append("stale")
    asked = {
        PriceMarket.ON_DEMAND: _amount(row.on_demand),
        PriceMarket.SPOT: _amount(row.spot),
        PriceMarket.RESERVED: _amount(row.reserved),
    }
    if not any(asked.values()):
        return Refused(row.line, f"{row.instance_type or row.gpu} in {row.zone or row.region} has no price")
    on_demand, spot = asked[PriceMarket.ON_DEMAND], asked[PriceMarket.SPOT]
    against_spot = _against_spot(on_demand, spot)
    found = []
    for market, usd in asked.items():
        if usd is None:
            continue
        against = [*doubts, *(against_spot if market is PriceMarket.SPOT else ())]
        if market is PriceMarket.ON_DEMAND and "spot_above_on_demand" in against_spot:
            against.append("spot_above_on_demand")  # either of the two may be the wrong one
        if not _LEAST_USD <= float(usd) / row.gpu_count <= _MOST_USD:
            against.append("implausible_price")
        found.append(
            GpuPrice(
                cloud=row.cloud,
                region=row.region,
                zone=row.zone or None,
                instance_type=row.instance_type or f"{gpu.id}-x{int(row.gpu_count)}",
                gpu=gpu.id,
                gpu_count=int(row.gpu_count),
                market=market,
                per_hour_pusd=round(usd * PUSD_PER_USD / _NANO_USD) * _NANO_USD,
                as_of=row.as_of,
                source=row.source,
                doubts=tuple(against),
            )
        )
    return found


def _against_spot(on_demand: Decimal | None, spot: Decimal | None) -> list[str]:
    if on_demand is None or spot is None:
        return []
    if spot * _SAME_SHARE > on_demand:
        return ["spot_above_on_demand"]
    return ["spot_without_discount"] if spot >= on_demand * _SAME_SHARE else []


def _amount(text: str | None) -> Decimal | None:
    """None for what is no price: empty, zero, negative, infinite, words."""
    try:
        amount = Decimal((text or "").strip() or "0")
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and 0 < amount < 10**6 else None


def _unique(prices: Sequence[GpuPrice]) -> list[GpuPrice]:
    """The last of those for the same thing, as a list that was appended to has it."""
    found = {(p.cloud, p.region, p.zone, p.instance_type, p.gpu, p.gpu_count, p.market): p for p in prices}
    return list(found.values())


def _compared(prices: Sequence[GpuPrice]) -> list[GpuPrice]:
    """With the doubts that only the list as a whole shows."""
    by_shape: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for price in prices:
        if price.market is PriceMarket.ON_DEMAND:
            by_shape[price.cloud, price.gpu, price.gpu_count].append(price.per_gpu_hour_usd)
    upper = {shape: _upper(found) for shape, found in by_shape.items()}
    usual: dict[tuple[str, str], list[float]] = defaultdict(list)
    for (cloud, gpu, _), most in upper.items():
        usual[cloud, gpu].append(most)
    compared = []
    for price in prices:
        doubts = list(price.doubts)
        if price.market is PriceMarket.ON_DEMAND:
            most = upper[price.cloud, price.gpu, price.gpu_count]
            if price.per_gpu_hour_usd < _FAR_BELOW * most:
                doubts.append("far_below_elsewhere")
            others = usual[price.cloud, price.gpu]
            if max(others) > _SHAPES_APART * min(others) and "host_not_included" not in doubts:
                doubts.append("other_variant")
        compared.append(
            msgspec.structs.replace(price, doubts=tuple(doubts)) if len(doubts) > len(price.doubts) else price
        )
    return compared


def _upper(found: list[float]) -> float:
    """What the dearer places ask, so that one wrong high price does not cast doubt on all others."""
    return max(found) if len(found) < 4 else quantiles(found, n=10, method="inclusive")[-1]
