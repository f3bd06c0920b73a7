"""Bodies of prices, credits, quotes, receipts and estimates. Amounts are exact decimals of the currency, as text."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from pydantic import Field

from crosslogic.api.models import Body, Instant, View, Word
from crosslogic.billing.charges.inquiries import MonthEstimate, Quote, Receipt
from crosslogic.billing.charges.model import Charge, ChargeLine
from crosslogic.billing.charges.own_terms import Account
from crosslogic.billing.charges.shadow import Compared, Comparison
from crosslogic.billing.charges.terms import Commitment
from crosslogic.billing.credits.model import CreditClass, Standing
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import usd_text
from crosslogic.pricing.terms import Counted, PriceTerms
from crosslogic.pricing.versions import ExchangeRate, PriceVersion, VersionStatus

exact = usd_text  # of any currency: twelve decimals at most, the cents at least

Amount = Annotated[Decimal, Field(gt=0, le=10**9, max_digits=21, decimal_places=12)]
Price = Annotated[Decimal, Field(ge=0, le=10**9, max_digits=21)]
Percent = Annotated[Decimal, Field(ge=0, le=100, decimal_places=2)]
Tokens = Annotated[int, Field(ge=0, le=10**9, strict=True)]


class PricedModelBody(Body):
    model: Word = Field(description="may hold * and ?; the first entry that matches counts")
    input: Price = Field(default=Decimal(0), description="a million prompt tokens")
    output: Price = Field(default=Decimal(0), description="a million generated tokens")
    cached: Price | None = Field(default=None, description="a million cached prompt tokens; null: as input")
    request: Price = Field(default=Decimal(0), description="a thousand requests, beside their tokens")
    endpoints: list[Word] = Field(default=[], description="such as embeddings, rerank; empty: all")
    plans: list[Word] = Field(default=[], description="billing plans that it is for; empty: all")
    regions: dict[Word, Price] = Field(default={}, description="multipliers, asked before those of the version")


class StepBody(Body):
    above: Annotated[Decimal, Field(ge=0, le=10**18)]
    percent: Percent


class VolumeBody(Body):
    counts: Counted = Field(description="tokens of one model and item in a month, or spend of the month")
    steps: list[StepBody]


class PriceTermsBody(Body):
    prices: list[PricedModelBody]
    regions: dict[Word, Price] = Field(default={}, description="multipliers; the first that matches counts")
    plan_percent: dict[Word, Percent] = Field(default={}, description="discounts by billing plan")
    batch_percent: Percent = Field(default=Decimal(0), description="discount of endpoints under batch/")
    commitment_percent: Percent = Field(default=Decimal(0), description="discount of orgs with a commitment")
    volume: VolumeBody | None = Field(default=None, description="graduated discount")

    def value(self) -> PriceTerms:
        return msgspec.convert(self.model_dump(mode="python"), PriceTerms)


class PriceDraft(Body):
    terms: PriceTermsBody
    currency: Word = "USD"
    org: Word | None = Field(default=None, description="id or name; null: for all")
    note: Annotated[str, Field(max_length=500)] = ""


class PriceDraftChange(Body):
    terms: PriceTermsBody
    note: Annotated[str, Field(max_length=500)] | None = None


class Publication(Body):
    effective_from: Instant | None = Field(default=None, description="null: now")


class Retirement(Body):
    retired_from: Instant | None = Field(default=None, description="null: now")


class PriceVersionView(View):
    id: str
    org_id: str | None
    status: VersionStatus
    currency: str
    note: str
    created_at: datetime
    published_at: datetime | None
    effective_from: datetime | None
    retired_from: datetime | None
    terms: dict[str, Any] = Field(description="as they were given; numbers as text")

    @classmethod
    def of(cls, version: PriceVersion) -> "PriceVersionView":
        fields = msgspec.structs.asdict(version)
        return cls(**{**fields, "terms": msgspec.to_builtins(version.terms)})


class Period(Body):
    start: Instant = Field(alias="from", description="first instant that counts")
    end: Instant = Field(alias="to", description="first instant that counts no more")
    org: Word | None = Field(default=None, description="id or name; null: all")


class ComparedView(View):
    requests: int
    before: str
    after: str

    @classmethod
    def of(cls, one: Compared) -> "ComparedView":
        return cls(requests=one.requests, before=exact(one.before), after=exact(one.after))


class RequestChangeView(View):
    request_id: str
    org_id: str
    model: str
    currency: str
    before: str
    after: str


class ComparisonView(View):
    """What past usage would have cost; sums are by currency, before credits."""

    whole: bool = Field(description="false: there were too many requests, the rest is not in it")
    changed: int = Field(description="requests that would cost something else")
    totals: dict[str, ComparedView]
    by_org: dict[str, ComparedView]
    by_model: dict[str, ComparedView]
    largest: list[RequestChangeView] = Field(description="the requests that change most")

    @classmethod
    def of(cls, found: Comparison) -> "ComparisonView":
        def views(sums: dict[str, Compared]) -> dict[str, ComparedView]:
            return {name: ComparedView.of(one) for name, one in sums.items()}

        largest = [
            RequestChangeView(
                request_id=each.request_id,
                org_id=each.org_id,
                model=each.model,
                currency=each.currency,
                before=exact(each.before),
                after=exact(each.after),
            )
            for each in found.largest
        ]
        return cls(
            whole=found.whole,
            changed=found.changed,
            totals=views(found.totals),
            by_org=views(found.by_org),
            by_model=views(found.by_model),
            largest=largest,
        )


class RateBody(Body):
    currency: Word
    rate: Annotated[Decimal, Field(gt=0, le=10**6)] = Field(description="units of the currency for one US dollar")
    effective_from: Instant | None = Field(default=None, description="null: now")
    source: Annotated[str, Field(max_length=200)] = ""


class RateView(View):
    currency: str
    rate: str
    effective_from: datetime
    source: str

    @classmethod
    def of(cls, one: ExchangeRate) -> "RateView":
        return cls(currency=one.currency, rate=f"{one.rate:f}", effective_from=one.effective_from, source=one.source)


class CreditGrant(Body):
    org: Word = Field(description="id or name")
    credit_class: CreditClass = CreditClass.PROMOTIONAL
    amount: Amount = Field(description="in the org's currency")
    priority: Annotated[int, Field(ge=0, le=1000, strict=True)] = 100
    starts_at: Instant | None = Field(default=None, description="null: now")
    expires_at: Instant | None = Field(default=None, description="null: never")
    source_ref: Word | None = Field(default=None, description="what it is granted for; it is never granted twice")
    reason: Annotated[str, Field(max_length=500)] = ""


class Referral(Body):
    referrer: Word = Field(description="the org that is thanked, by id or name")
    referred: Word = Field(description="the org that it has brought")


class CreditView(View):
    id: str
    org_id: str
    credit_class: CreditClass
    priority: int
    currency: str
    amount: str
    drawn: str
    expired: str
    voided: str
    remaining: str
    starts_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    created_at: datetime
    source_ref: str | None
    reason: str

    @classmethod
    def of(cls, one: Standing) -> "CreditView":
        fields = {name: getattr(one.grant, name) for name in cls.model_fields if hasattr(one.grant, name)}
        parts = {name: exact(getattr(one, name)) for name in ("drawn", "expired", "voided", "remaining")}
        return cls(**{**fields, **parts, "amount": exact(one.grant.amount)})


class CommitmentBody(Body):
    amount_per_month: Amount
    starts_at: Instant
    ends_at: Instant | None = None


class AccountBody(Body):
    """All of it is replaced together."""

    currency: Word = "USD"
    prepaid: bool = Field(default=False, description="served as long as credits last")
    bill_overage: bool = Field(default=True, description="what goes beyond reserved capacity")
    free_tokens_per_month: Annotated[int, Field(ge=0, strict=True)] | None = Field(
        default=None, description="null: as the plan or the configuration says"
    )
    commitment: CommitmentBody | None = None

    def value(self, org_id: str) -> Account:
        commitment = self.commitment
        return Account(
            org_id,
            self.currency,
            self.prepaid,
            self.bill_overage,
            self.free_tokens_per_month,
            None
            if commitment is None
            else Commitment(pico(commitment.amount_per_month), commitment.starts_at, commitment.ends_at),
        )


class AccountView(View):
    org_id: str
    currency: str
    prepaid: bool
    bill_overage: bool
    free_tokens_per_month: int | None
    commitment: dict[str, Any] | None

    @classmethod
    def of(cls, one: Account) -> "AccountView":
        fields = msgspec.structs.asdict(one)
        if one.commitment is not None:
            fields["commitment"] = {
                **msgspec.to_builtins(one.commitment),
                "amount_per_month": exact(one.commitment.amount_per_month),
            }
        return cls(**fields)


class RebuiltView(View):
    org_id: str
    rows: int = Field(description="charges that were computed again")
    wrong_seq: int | None = Field(description="the first that is not as it was; null: all are")


class QuoteBody(Body):
    model: Word
    prompt_tokens: Tokens
    completion_tokens: Tokens = 0
    cached_tokens: Tokens = 0
    region: Annotated[str, Field(max_length=200)] = ""
    endpoint: Word = "chat/completions"


class LineView(View):
    item: str
    basis: str
    quantity: int
    unit_price: str
    list_amount: str
    discount_amount: str
    amount: str
    reductions: list[dict[str, Any]]
    reservation_id: str | None

    @classmethod
    def of(cls, line: ChargeLine) -> "LineView":
        return cls(
            item=line.item,
            basis=line.basis,
            quantity=line.quantity,
            unit_price=exact(line.unit_price),
            list_amount=exact(line.list_amount),
            discount_amount=exact(line.discount_amount),
            amount=exact(line.amount),
            reductions=[
                {
                    "reason": each.reason,
                    "amount": exact(each.amount),
                    "percent": None if each.basis_points is None else f"{Decimal(each.basis_points) / 100:f}",
                }
                for each in line.reductions
            ],
            reservation_id=line.reservation_id,
        )


class ChargeView(View):
    n: int = Field(description="0: the request; 1 and above: corrections of it")
    at: datetime
    model: str
    region: str
    endpoint: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    list_amount: str
    discount_amount: str
    amount: str
    price_version: str | None
    price_pattern: str | None
    region_multiplier: str | None
    exchange_rate: str | None
    plan: str | None
    note: str | None
    lines: list[LineView]

    @classmethod
    def of(cls, charge: Charge) -> "ChargeView":
        terms = charge.terms
        return cls(
            n=charge.n,
            at=charge.at,
            model=charge.model,
            region=charge.region,
            endpoint=charge.endpoint,
            prompt_tokens=charge.prompt_tokens,
            cached_tokens=charge.cached_tokens,
            completion_tokens=charge.completion_tokens,
            list_amount=exact(charge.list_amount),
            discount_amount=exact(charge.discount_amount),
            amount=exact(charge.amount),
            price_version=charge.price_version,
            price_pattern=terms.price_pattern,
            region_multiplier=terms.region_multiplier,
            exchange_rate=terms.exchange_rate,
            plan=terms.plan,
            note=terms.note,
            lines=[LineView.of(line) for line in terms.lines],
        )


class QuoteView(View):
    currency: str
    amount: str = Field(description="before credits")
    from_credits: str
    due: str
    charge: ChargeView

    @classmethod
    def of(cls, quote: Quote) -> "QuoteView":
        charge = quote.charge
        return cls(
            currency=charge.currency,
            amount=exact(charge.amount),
            from_credits=exact(charge.amount - quote.due),
            due=exact(quote.due),
            charge=ChargeView.of(charge),
        )


class ReceiptView(View):
    request_id: str
    currency: str
    amount: str = Field(description="all charges together, before credits")
    from_credits: str
    due: str
    charges: list[ChargeView]
    credits: dict[str, str] = Field(description="what was drawn of each credit, by its id")

    @classmethod
    def of(cls, receipt: Receipt) -> "ReceiptView":
        drawn: dict[str, int] = {}
        for draw in receipt.draws:
            drawn[draw.grant_id] = drawn.get(draw.grant_id, 0) + draw.amount
        first = receipt.charges[0]
        return cls(
            request_id=first.request_id,
            currency=first.currency,
            amount=exact(receipt.amount),
            from_credits=exact(receipt.drawn),
            due=exact(receipt.amount - receipt.drawn),
            charges=[ChargeView.of(each) for each in receipt.charges],
            credits={grant_id: exact(amount) for grant_id, amount in drawn.items()},
        )


class AdviceView(View):
    amount_per_month: str
    saving_per_month: str
    percent: str


class EstimateView(View):
    """Before credits and fees; of what is rated so far."""

    currency: str
    today: str
    month_to_date: str
    projected_month: str = Field(description="the rest of the month at the mean pace of the last seven days")
    last_month: str
    credits_left: str
    free_tokens_per_month: int
    free_tokens_used: int
    reference: str | None = Field(description="the same tokens by the reference price list; null: it lacks a model")
    reference_list: str | None = Field(description="whose prices these are, and of when")
    saving: str | None = Field(description="reference - month_to_date")
    commitment_advice: AdviceView | None = Field(description="a commitment that would pay, by what was used")
    rated_up_to: int = Field(description="position in the ledger")

    @classmethod
    def of(cls, found: MonthEstimate) -> "EstimateView":
        spent, elsewhere, advised = found.estimate, found.elsewhere, found.advice
        return cls(
            currency=found.currency,
            today=exact(spent.today),
            month_to_date=exact(spent.month_to_date),
            projected_month=exact(spent.projected_month),
            last_month=exact(spent.last_month),
            credits_left=exact(found.credits_left),
            free_tokens_per_month=found.free_tokens_per_month,
            free_tokens_used=found.free_tokens_used,
            reference=None if elsewhere is None else exact(elsewhere),
            reference_list=found.elsewhere_by,
            saving=None if elsewhere is None else exact(elsewhere - spent.month_to_date),
            commitment_advice=None
            if advised is None
            else AdviceView(
                amount_per_month=exact(advised.amount_per_month),
                saving_per_month=exact(advised.saving_per_month),
                percent=advised.percent,
            ),
            rated_up_to=found.rated_up_to,
        )


def pico(amount: Decimal) -> int:
    """Raises InvalidRequest for what is no whole number of pico-units."""
    scaled = amount.scaleb(12)
    if scaled != scaled.to_integral_value():
        raise InvalidRequest("an amount has at most 12 decimals", param="amount")
    return int(scaled)
