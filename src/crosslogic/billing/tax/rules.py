"""Which taxes a supply bears, from who sells, who buys and the day. Pure.

Invariants: the tax of a scheme is rounded once, half to even, and its parts sum to it (largest remainder); who is
exempt bears none, and the invoice says why. Where no rule is known, there is no tax: this module never guesses a rate.
"""

from collections.abc import Sequence
from datetime import date
from decimal import Decimal

import msgspec

from crosslogic.billing.invoices.currency import divided
from crosslogic.billing.profiles.model import Address, BillingProfile, Seller
from crosslogic.billing.tax import data
from crosslogic.billing.tax.model import Scheme, Taxes, TaxPart, TaxRule

_SCALE = 10**6


def taxes_on(
    taxable_minor: int, seller: Seller, buyer: BillingProfile, on: date, rules: Sequence[TaxRule] = ()
) -> Taxes:
    """The taxes on so much before tax. The operator's own rules go before those that are shipped."""
    ruled = _by_rules(taxable_minor, buyer, on, rules)
    if ruled is not None:
        return _exempted(ruled, buyer)
    if seller.gstin is not None:
        return _exempted(_gst(taxable_minor, seller, buyer, on), buyer)
    if seller.vat_id is not None:
        return _exempted(_vat(taxable_minor, seller, buyer, on), buyer)
    return Taxes(Scheme.NONE)


def split(total: int, weights: Sequence[int]) -> list[int]:
    """`total` in parts as the weights say, which sum to it: the largest remainders get what is left over."""
    whole = sum(weights)
    if not whole:
        return [0] * len(weights)
    parts = [total * weight // whole for weight in weights]
    remainders = [total * weight % whole for weight in weights]
    for n in sorted(range(len(weights)), key=lambda n: (-remainders[n], n))[: total - sum(parts)]:
        parts[n] += 1
    return parts


def _exempted(taxes: Taxes, buyer: BillingProfile) -> Taxes:
    if buyer.tax_exemption is None or not taxes.parts:
        return taxes
    return msgspec.structs.replace(taxes, parts=(), notes=(f"Exempt from tax: {buyer.tax_exemption}",))


def _by_rules(taxable_minor: int, buyer: BillingProfile, on: date, rules: Sequence[TaxRule]) -> Taxes | None:
    """All rules of the buyer's place that hold on that day; None where the operator has none for it."""
    here = [rule for rule in rules if _holds(rule, buyer.address, on)]
    if not here:
        return None
    business = buyer.vat_id is not None or buyer.gstin is not None
    charged = [rule for rule in here if rule.businesses or not business]
    parts = []
    for rule in charged:
        taxable = _percent_of(taxable_minor, rule.taxable_percent)
        place = "-".join(filter(None, (rule.country, rule.state)))
        parts.append(TaxPart(rule.name, rule.percent, place, taxable, _percent_of(taxable, rule.percent)))
    notes = () if charged else ("Reverse charge: the recipient accounts for the tax",)
    return Taxes(Scheme.RULE, tuple(parts), notes, place_of_supply=_place(buyer.address), reverse_charge=not charged)


def _holds(rule: TaxRule, address: Address, on: date) -> bool:
    here = rule.country == address.country and rule.state in ("", address.state)
    return here and rule.since <= on and (rule.until is None or on < rule.until)


def _gst(taxable_minor: int, seller: Seller, buyer: BillingProfile, on: date) -> Taxes:
    """IGST between states and abroad; within one, half to the union and half to the state."""
    percent = data.gst_percent(on)
    if percent is None:
        return Taxes(Scheme.NONE)
    assert seller.gstin is not None
    home = seller.gstin[:2]
    code = seller.sac
    if buyer.address.country not in ("", "IN"):
        if seller.lut is not None:
            note = f"Supply meant for export under LUT {seller.lut} without payment of integrated tax"
            return Taxes(Scheme.GST, (), (note,), "96 Other country", supply="EXPWOP", service_code=code)
        part = _part("IGST", percent, "IN", taxable_minor)
        note = "Supply meant for export on payment of integrated tax"
        return Taxes(Scheme.GST, (part,), (note,), "96 Other country", supply="EXPWP", service_code=code)
    there = buyer.gstin[:2] if buyer.gstin else data.gst_digits_of(buyer.address.state) or home
    state = data.gst_states()[there]
    place = f"{there} {state.name}"
    supply = "B2B" if buyer.gstin else "B2C"
    if there != home:
        parts: tuple[TaxPart, ...] = (_part("IGST", percent, "IN", taxable_minor),)
    else:
        half = _decimal_text(Decimal(percent) / 2)
        union, local = split(_percent_of(taxable_minor, percent), (1, 1))
        parts = (
            TaxPart("CGST", half, "IN", taxable_minor, union),
            TaxPart("UTGST" if state.union_territory else "SGST", half, f"IN-{state.code}", taxable_minor, local),
        )
    return Taxes(Scheme.GST, parts, ("Tax is not payable on reverse charge",), place, supply=supply, service_code=code)


def _vat(taxable_minor: int, seller: Seller, buyer: BillingProfile, on: date) -> Taxes:
    """At home the home rate; between businesses of the Union reverse charge; to its consumers their own rate."""
    assert seller.vat_id is not None
    prefix = seller.vat_id[:2]
    home = "GR" if prefix == "EL" else prefix
    there = buyer.address.country or home
    place = there
    both_in_union = data.in_european_union(home) and data.in_european_union(there)
    if there != home and buyer.vat_id is not None and (both_in_union or there in seller.vat_countries):
        note = "Reverse charge: VAT is to be accounted for by the recipient (Article 196 of Directive 2006/112/EC)"
        if not both_in_union:
            note = "Reverse charge: VAT is to be accounted for by the recipient"
        return Taxes(Scheme.VAT, (), (note,), place, reverse_charge=True)
    if there == home or both_in_union or there in seller.vat_countries:
        percent = data.vat_percent(there, on)
        if percent is not None:
            return Taxes(Scheme.VAT, (_part("VAT", percent, there, taxable_minor),), (), place)
    return Taxes(Scheme.VAT, (), (f"Not subject to VAT in {home}: the place of supply is {there}",), place)


def _part(name: str, percent: str, place: str, taxable_minor: int) -> TaxPart:
    return TaxPart(name, percent, place, taxable_minor, _percent_of(taxable_minor, percent))


def _percent_of(amount: int, percent: str) -> int:
    """Exact, then rounded once, half to even."""
    scaled = Decimal(percent) * _SCALE
    return divided(amount * int(scaled), 100 * _SCALE)


def _place(address: Address) -> str:
    return "-".join(filter(None, (address.country, address.state)))


def _decimal_text(value: Decimal) -> str:
    return format(value.normalize(), "f")
