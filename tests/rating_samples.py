"""Usage, prices and terms for tests of rating."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.rate import rate
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import RatedUsage
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.billing.credits.model import CreditClass, Grant
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId
from crosslogic.pricing.terms import Counted, PricedModel, PriceTerms, Step, Volume
from crosslogic.pricing.versions import ExchangeRate, PriceHistory, PriceVersion, VersionSource, VersionStatus

JANUARY_2026 = datetime(2026, 1, 1, tzinfo=UTC)
ORG = OrgId("org_1")


def used(seq: int, prompt: int = 10, cached: int = 0, output: int = 20, **changes: Any) -> RatedUsage:
    row = RatedUsage(
        org_id=ORG,
        seq=seq,
        request_id=RequestId(f"req_{seq:06}"),
        n=0,
        at=JANUARY_2026 + timedelta(seconds=seq),
        env_id=EnvId("env_1"),
        key_id=KeyId("key_1"),
        endpoint="chat/completions",
        model="model-a",
        region="us",
        prompt_tokens=prompt,
        cached_tokens=cached,
        completion_tokens=output,
    )
    return msgspec.structs.replace(row, **changes)


def corrected(row: RatedUsage, seq: int, n: int, prompt: int, cached: int, output: int) -> RatedUsage:
    return msgspec.structs.replace(
        row, seq=seq, n=n, prompt_tokens=prompt, cached_tokens=cached, completion_tokens=output
    )


def numbered(rows: Iterable[RatedUsage]) -> list[RatedUsage]:
    """The same rows in this order, each with its place in the ledger."""
    return [msgspec.structs.replace(row, seq=seq) for seq, row in enumerate(rows, start=1)]


def steps(*pairs: tuple[object, object], counts: Counted = Counted.TOKENS) -> Volume:
    return Volume(counts, tuple(Step(Decimal(str(above)), Decimal(str(percent))) for above, percent in pairs))


def terms(*prices: PricedModel, **changes: Any) -> PriceTerms:
    """Without `prices`: model-a at 0.05/0.10/0.01 and model-b at 0.60 for a million tokens."""
    shown = prices or (
        PricedModel("model-a", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),
        PricedModel("model-b", Decimal("0.60"), Decimal("0.60")),
    )
    return PriceTerms(shown, **changes)


def version(price_terms: PriceTerms, **changes: Any) -> PriceVersion:
    made = PriceVersion(
        id="price_1",
        org_id=None,
        status=VersionStatus.PUBLISHED,
        source=VersionSource.OPERATOR,
        currency="USD",
        terms=price_terms,
        note="",
        created_at=JANUARY_2026,
        published_at=JANUARY_2026,
        effective_from=JANUARY_2026,
    )
    return msgspec.structs.replace(made, **changes)


def history(*versions: PriceVersion, rates: Iterable[tuple[str, str]] = ()) -> PriceHistory:
    """Versions, and rates that hold from the beginning."""
    known = [ExchangeRate(currency, JANUARY_2026, Decimal(rate), "", JANUARY_2026) for currency, rate in rates]
    return PriceHistory(versions, known)


def flat(price: str = "1", **changes: Any) -> PriceHistory:
    """One price for every token of every model: `price` for a million."""
    entry = PricedModel("*", Decimal(price), Decimal(price))
    return history(version(terms(entry, **changes)))


def granted(number: int, **changes: Any) -> Grant:
    made = Grant(
        id=f"grant_{number:06}",
        org_id=ORG,
        credit_class=CreditClass.PROMOTIONAL,
        priority=100,
        currency="USD",
        amount=10**12,
        starts_at=JANUARY_2026,
        created_at=JANUARY_2026,
    )
    return msgspec.structs.replace(made, **changes)


def charged(seq: int, **changes: Any) -> Charge:
    """By `flat` prices."""
    return msgspec.structs.replace(rate(used(seq), flat(), OrgTerms(), RatingState()), **changes)
