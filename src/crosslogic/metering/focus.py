"""Usage as FOCUS 1.0, the open format of cost data (focus.finops.org): one row for each sum of usage. Pure.

Invariant: the costs of all rows add up to those of the sums; amounts are exact decimals.
`SkuId` is the model, `ResourceId` the key, `SubAccountId` the environment, the account is the org.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from crosslogic.kernel.money import PUSD_PER_USD
from crosslogic.metering.model import UsageSum

VERSION = "1.0"
GROUP_BY = ("day", "env", "key", "model", "region", "endpoint")
COLUMNS = (
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd",
    "BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargeFrequency", "ChargePeriodEnd",
    "ChargePeriodStart", "ConsumedQuantity", "ConsumedUnit", "ContractedCost", "EffectiveCost", "InvoiceIssuerName",
    "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "RegionId", "RegionName",
    "ResourceId", "ResourceType", "ServiceCategory", "ServiceName", "SkuId", "SubAccountId", "Tags",
)  # fmt: skip


def focus_rows(org_id: str, org_name: str, issuer: str, sums: Iterable[UsageSum]) -> list[tuple[object, ...]]:
    """`sums` grouped by `GROUP_BY`."""
    return [tuple(_row(org_id, org_name, issuer, one)[name] for name in COLUMNS) for one in sums]


def _row(org_id: str, org_name: str, issuer: str, one: UsageSum) -> dict[str, object]:
    day = datetime.strptime(one.group["day"], "%Y-%m-%d").replace(tzinfo=UTC)
    first = day.replace(day=1)
    cost = _usd(one.cost_pusd)
    return {
        "BilledCost": cost,
        "BillingAccountId": org_id,
        "BillingAccountName": org_name,
        "BillingCurrency": "USD",
        "BillingPeriodEnd": _time((first + timedelta(days=32)).replace(day=1)),
        "BillingPeriodStart": _time(first),
        "ChargeCategory": "Usage",
        "ChargeClass": None,
        "ChargeDescription": f"{one.group['endpoint']} with {one.group['model']}: {one.requests} requests",
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodEnd": _time(day + timedelta(days=1)),
        "ChargePeriodStart": _time(day),
        "ConsumedQuantity": one.total_tokens,
        "ConsumedUnit": "Tokens",
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": issuer,
        "ListCost": cost,
        "PricingQuantity": one.total_tokens,
        "PricingUnit": "Tokens",
        "ProviderName": issuer,
        "PublisherName": issuer,
        "RegionId": one.group["region"],
        "RegionName": one.group["region"],
        "ResourceId": one.group["key"],
        "ResourceType": "API key",
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": "Inference",
        "SkuId": one.group["model"],
        "SubAccountId": one.group["env"],
        "Tags": None,
    }


def _usd(amount: int) -> str:
    dollars, rest = divmod(abs(amount), PUSD_PER_USD)
    return f"{'-' if amount < 0 else ''}{dollars}.{rest:012d}"


def _time(at: datetime) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
