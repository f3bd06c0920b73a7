"""Answers of the clouds' own price interfaces, saved as files: AWS offer files and spot histories, Google's billing
catalogue, Azure's retail prices.

Invariant: only Linux machines with GPUs that we know, shared tenancy, in USD; everything else of these large files is
passed over. Each reader refuses what is not its format.
"""

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from typing import Any

import msgspec

from crosslogic.catalog.price_lists.instances import aws_gpus, azure_gpus
from crosslogic.catalog.price_lists.rows import PriceRow
from crosslogic.kernel.errors import InvalidRequest

_MOST_BYTES = 1_500_000_000
_HOURS_A_YEAR = 8760
_GOOGLE_GPUS = (
    ("H100 80GB Mega", "H100-MEGA"), ("H100 80GB", "H100"), ("H100", "H100"), ("H200", "H200"), ("B200", "B200"),
    ("A100 80GB", "A100-80GB"), ("A100", "A100-40GB"), ("L4", "L4"), ("T4", "T4"), ("V100", "V100-16GB"),
)  # fmt: skip
_GOOGLE_MARKETS = {"OnDemand": "on_demand", "Preemptible": "spot", "Commit1Yr": "reserved"}


def read_aws(content: bytes, *, source: str = "AWS price list") -> list[PriceRow]:
    """An EC2 offer file (`pricing.…/AmazonEC2/current/…/index.json`), or `describe-spot-price-history`'s answer."""
    whole = _object(content)
    history = whole.get("SpotPriceHistory")
    if isinstance(history, list):
        return list(_aws_spot(history, source))
    products, terms = whole.get("products"), whole.get("terms")
    if not isinstance(products, Mapping) or not isinstance(terms, Mapping):
        raise InvalidRequest("this is no EC2 offer file and no spot price history of AWS")
    return list(_aws_offers(products, terms, _day(whole.get("publicationDate")), source))


def _aws_offers(
    products: Mapping[str, Any], terms: Mapping[str, Any], as_of: date | None, source: str
) -> Iterator[PriceRow]:
    for sku, product in products.items():
        about = _fields(product).get("attributes")
        attributes = _fields(about)
        has = aws_gpus(str(attributes.get("instanceType", "")))
        usual = (
            attributes.get("operatingSystem") == "Linux"
            and attributes.get("tenancy") == "Shared"
            and attributes.get("preInstalledSw", "NA") == "NA"
            and attributes.get("capacitystatus", "Used") == "Used"
        )
        if has is None or not usual:
            continue
        yield PriceRow(
            cloud="aws",
            region=str(attributes.get("regionCode", "")),
            instance_type=str(attributes["instanceType"]),
            gpu=has[0],
            gpu_count=has[1],
            on_demand=_aws_term(_fields(terms.get("OnDemand")).get(sku), {}),
            reserved=_aws_term(
                _fields(terms.get("Reserved")).get(sku),
                {"LeaseContractLength": "1yr", "PurchaseOption": "No Upfront", "OfferingClass": "standard"},
            ),
            as_of=as_of,
            source=source,
        )


def _aws_term(offers: Any, wanted: Mapping[str, str]) -> str | None:
    for offer in _fields(offers).values():
        attributes = _fields(_fields(offer).get("termAttributes"))
        if any(attributes.get(name) != value for name, value in wanted.items()):
            continue
        for dimension in _fields(_fields(offer).get("priceDimensions")).values():
            if _fields(dimension).get("unit") == "Hrs":
                usd = _fields(_fields(dimension).get("pricePerUnit")).get("USD")
                return None if usd is None else str(usd)
    return None


def _aws_spot(history: list[Any], source: str) -> Iterator[PriceRow]:
    latest: dict[tuple[str, str], Mapping[str, Any]] = {}
    for each in map(_fields, history):
        key = str(each.get("InstanceType")), str(each.get("AvailabilityZone"))
        if "Linux" in str(each.get("ProductDescription", "Linux")) and str(each.get("Timestamp", "")) >= str(
            latest.get(key, {}).get("Timestamp", "")
        ):
            latest[key] = each
    for (instance_type, zone), each in latest.items():
        has = aws_gpus(instance_type)
        if has is not None:
            yield PriceRow(
                cloud="aws",
                region=zone.rstrip("abcdefgh"),
                zone=zone,
                instance_type=instance_type,
                gpu=has[0],
                gpu_count=has[1],
                spot=str(each.get("SpotPrice")),
                as_of=_day(each.get("Timestamp")),
                source=source,
            )


def read_gcp(content: bytes, *, source: str = "Google Cloud billing catalogue") -> list[PriceRow]:
    """The SKUs of Compute Engine (`cloudbilling.googleapis.com/v1/services/…/skus`): prices of single GPUs."""
    skus = _object(content).get("skus")
    if not isinstance(skus, list):
        raise InvalidRequest("this is no list of SKUs of Google's billing catalogue")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for sku in map(_fields, skus):
        category = _fields(sku.get("category"))
        description = str(sku.get("description", ""))
        market = _GOOGLE_MARKETS.get(str(category.get("usageType")))
        gpu = next((ours for theirs, ours in _GOOGLE_GPUS if f"{theirs} ".lower() in f"{description} ".lower()), None)
        # Calendar reservations and workload schedulers have prices of their own.
        if category.get("resourceGroup") != "GPU" or market is None or gpu is None or "DWS" in description:
            continue
        usd, as_of = _google_price(sku.get("pricingInfo"))
        for region in sku.get("serviceRegions") or ():
            row = found.setdefault((gpu, str(region)), {})
            row[market], row["as_of"] = usd, as_of
    return [
        PriceRow(cloud="gcp", region=region, gpu=gpu, gpu_count=1, host_missing=True, source=source, **row)
        for (gpu, region), row in found.items()
    ]


def _google_price(info: Any) -> tuple[str | None, date | None]:
    last = _fields(info[-1]) if isinstance(info, list) and info else {}
    rates = _fields(last.get("pricingExpression")).get("tieredRates")
    price = _fields(_fields(rates[-1]).get("unitPrice")) if isinstance(rates, list) and rates else {}
    try:
        usd = int(price.get("units") or 0) + int(price.get("nanos") or 0) / 1e9
    except (TypeError, ValueError):
        return None, None
    return str(round(usd, 9)), _day(last.get("effectiveTime"))


def read_azure(content: bytes, *, source: str = "Azure retail prices") -> list[PriceRow]:
    """`prices.azure.com/api/retail/prices`: one page, or a list of pages' items."""
    items = _object(content).get("Items")
    if not isinstance(items, list):
        raise InvalidRequest("this is no answer of Azure's retail prices")
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for item in map(_fields, items):
        sku, region = str(item.get("armSkuName", "")), str(item.get("armRegionName", ""))
        unwanted = "Windows" in str(item.get("productName", "")) or "Low Priority" in str(item.get("skuName", ""))
        if azure_gpus(sku) is None or item.get("currencyCode") != "USD" or unwanted:
            continue
        row = found.setdefault((sku, region), {})
        price = str(item.get("retailPrice"))
        if item.get("type") == "Reservation" and item.get("reservationTerm") == "1 Year":
            row["reserved"] = _hourly(price)
        elif item.get("type") == "Consumption" and item.get("unitOfMeasure") == "1 Hour":
            row["spot" if "Spot" in str(item.get("skuName", "")) else "on_demand"] = price
        row["as_of"] = _day(item.get("effectiveStartDate"))
    rows = []
    for (sku, region), row in found.items():
        gpu, count = azure_gpus(sku) or ("", 0)
        rows.append(
            PriceRow(cloud="azure", region=region, instance_type=sku, gpu=gpu, gpu_count=count, source=source, **row)
        )
    return rows


def _hourly(of_year: str) -> str:
    try:
        return str(float(of_year) / _HOURS_A_YEAR)
    except ValueError:
        return ""


def _object(content: bytes) -> Mapping[str, Any]:
    if len(content) > _MOST_BYTES:
        raise InvalidRequest("the price list is larger than 1.5 GB; take that of one region")
    try:
        whole = msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the price list is not JSON ({error})") from None
    if not isinstance(whole, Mapping):
        raise InvalidRequest("the price list is not a JSON object")
    return whole


def _fields(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _day(text: Any) -> date | None:
    try:
        return datetime.fromisoformat(str(text)).date()
    except ValueError:
        return None
