"""From what an org used in a period to the lines and sums of its invoice. Pure.

Invariants: each line is rounded once, half to even; |lines as rounded - lines exactly| is at most half a minor unit for
each of them, and is what `rounding_amount` says; given credits never take off more than there is, bought ones never
more than is owed; total = subtotal - discount - credit + tax.
"""

from collections.abc import Iterable, Sequence
from datetime import date
from typing import Any

import msgspec

from crosslogic.billing.charges.model import FeeKind
from crosslogic.billing.credits.model import RANKS, CreditClass
from crosslogic.billing.invoices.currency import exact_text, pico_per_minor, to_minor
from crosslogic.billing.invoices.model import Line, LineKind
from crosslogic.billing.profiles.model import BillingProfile, Seller
from crosslogic.billing.tax.model import Taxes, TaxPart, TaxRule
from crosslogic.billing.tax.rules import taxes_on

_CREDITS = {
    CreditClass.MONTHLY_FREE: "Free allowance of the month",
    CreditClass.PROMOTIONAL: "Promotional credit",
    CreditClass.REFERRAL: "Referral credit",
    CreditClass.SIGNUP: "Signup credit",
    CreditClass.COMMITMENT: "Committed amount",
    CreditClass.PAID: "Prepaid credit",
}


class UsageSum(msgspec.Struct, frozen=True):
    """Charges of one model in one region."""

    model: str
    region: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    list_amount: int
    discount_amount: int
    amount: int


class FeeSum(msgspec.Struct, frozen=True):
    id: str
    kind: FeeKind
    reference: str
    month: str
    description: str
    amount: int


class DrawSum(msgspec.Struct, frozen=True):
    """What the charges drew from one grant."""

    grant_id: str
    credit_class: CreditClass
    reason: str
    amount: int


class Bill(msgspec.Struct, frozen=True):
    """Everything that comes to stand on one invoice, in one currency."""

    currency: str
    usage: tuple[UsageSum, ...] = ()
    fees: tuple[FeeSum, ...] = ()
    draws: tuple[DrawSum, ...] = ()

    @property
    def empty(self) -> bool:
        return not (self.usage or self.fees or self.draws)

    @property
    def exact_net(self) -> int:
        """Before tax and bought credits."""
        given = sum(draw.amount for draw in self.draws if draw.credit_class is not CreditClass.PAID)
        return sum(each.amount for each in self.usage) + sum(each.amount for each in self.fees) - given


class Draft(msgspec.Struct, frozen=True):
    """The lines and sums of an invoice that has no number yet."""

    currency: str
    lines: tuple[Line, ...]
    taxes: Taxes
    subtotal_minor: int
    discount_minor: int
    credit_minor: int
    tax_minor: int
    total_minor: int
    prepaid_minor: int
    exact_amount: int
    rounding_amount: int

    def columns(self) -> dict[str, Any]:
        """What an `Invoice` takes over."""
        names = ("currency", "exact_amount", "rounding_amount")
        sums = ("subtotal", "discount", "credit", "tax", "total", "prepaid")
        values = {name: getattr(self, name) for name in (*names, *(f"{each}_minor" for each in sums))}
        return {**values, "line_count": len(self.lines)}


def drafted(bill: Bill, seller: Seller, buyer: BillingProfile, on: date, rules: Sequence[TaxRule] = ()) -> Draft:
    """`on` is the day whose tax rates hold."""
    currency = bill.currency
    usage = [_usage_line(each, currency) for each in sorted(bill.usage, key=lambda each: (each.model, each.region))]
    fees = [_fee_line(each, currency) for each in sorted(bill.fees, key=lambda each: (each.kind, each.month, each.id))]
    charged = sum(line.amount_minor for line in (*usage, *fees))
    given = [draw for draw in bill.draws if draw.credit_class is not CreditClass.PAID]
    credits = _credit_lines(given, LineKind.CREDIT, charged, currency)
    net = charged + sum(line.amount_minor for line in credits)
    taxes = taxes_on(net, seller, buyer, on, rules)
    tax_lines = [_tax_line(part, currency) for part in taxes.parts]
    total = net + taxes.amount_minor
    bought = [draw for draw in bill.draws if draw.credit_class is CreditClass.PAID]
    prepaid = _credit_lines(bought, LineKind.PREPAID, total, currency)
    discount = to_minor(sum(each.discount_amount for each in bill.usage), currency)
    return Draft(
        currency=currency,
        lines=(*usage, *fees, *credits, *tax_lines, *prepaid),
        taxes=taxes,
        subtotal_minor=charged + discount,
        discount_minor=discount,
        credit_minor=charged - net,
        tax_minor=taxes.amount_minor,
        total_minor=total,
        prepaid_minor=-sum(line.amount_minor for line in prepaid),
        exact_amount=bill.exact_net,
        rounding_amount=net * pico_per_minor(currency) - bill.exact_net,
    )


def _usage_line(each: UsageSum, currency: str) -> Line:
    quantity = {
        name: getattr(each, name) for name in ("requests", "prompt_tokens", "cached_tokens", "completion_tokens")
    }
    details = {
        "list_amount": exact_text(each.list_amount, currency),
        "discount_amount": exact_text(each.discount_amount, currency),
    }
    amount = to_minor(each.amount, currency)
    return Line(LineKind.USAGE, each.model, each.amount, amount, each.model, each.region, quantity, details)


def _fee_line(each: FeeSum, currency: str) -> Line:
    kind = LineKind.RESERVED if each.kind is FeeKind.RESERVED_CAPACITY else LineKind.FEE
    details = {"fee_id": each.id, "reference": each.reference, "month": each.month}
    return Line(kind, each.description, each.amount, to_minor(each.amount, currency), details=details)


def _credit_lines(draws: Iterable[DrawSum], kind: LineKind, most_minor: int, currency: str) -> list[Line]:
    """Several small roundings up may come to more than there is to take off: the last ones then take what is left."""
    lines, left = [], max(0, most_minor)
    for draw in sorted(draws, key=lambda draw: (RANKS[draw.credit_class], draw.grant_id)):
        rounded = min(to_minor(draw.amount, currency), left)
        left -= rounded
        name = _CREDITS[draw.credit_class]
        description = f"{name}: {draw.reason}" if draw.reason else name
        details = {"grant_id": draw.grant_id, "credit_class": draw.credit_class.value}
        lines.append(Line(kind, description, -draw.amount, -rounded, details=details))
    return lines


def _tax_line(part: TaxPart, currency: str) -> Line:
    details = {"percent": part.percent, "jurisdiction": part.jurisdiction, "taxable_minor": part.taxable_minor}
    exact = part.amount_minor * pico_per_minor(currency)
    return Line(LineKind.TAX, f"{part.name} {part.percent}%", exact, part.amount_minor, details=details)
