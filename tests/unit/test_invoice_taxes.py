"""Which taxes a supply bears: GST by place of supply, VAT by who buys where, and the operator's own rules."""

from datetime import date

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.billing.profiles import rules as profile_rules
from crosslogic.billing.profiles.model import Address, BillingProfile, Seller
from crosslogic.billing.tax.data import gst_states, vat_percent
from crosslogic.billing.tax.model import Scheme, Taxes, TaxRule
from crosslogic.billing.tax.rules import split, taxes_on
from crosslogic.kernel.errors import InvalidRequest

INDIAN = Seller(gstin="29AAPFU0939F1ZR")
IRISH = Seller(vat_id="IE6388047V", vat_countries=("GB",))
AMERICAN = Seller()
TODAY = date(2026, 2, 1)


def of(country: str, state: str = "", **numbers: str) -> BillingProfile:
    return BillingProfile(address=Address(country=country, state=state), **numbers)


def parts(taxes: Taxes) -> list[tuple[str, str, int]]:
    return [(part.name, part.percent, part.amount_minor) for part in taxes.parts]


def test_gst_is_shared_within_a_state_and_integrated_between_states() -> None:
    within = taxes_on(10_005, INDIAN, of("IN", "KA"), TODAY)
    assert parts(within) == [("CGST", "9", 901), ("SGST", "9", 900)]
    assert within.place_of_supply == "29 Karnataka"
    between = taxes_on(10_005, INDIAN, of("IN", "KA", gstin="27AAPFU0939F1ZV"), TODAY)
    assert parts(between) == [("IGST", "18", 1801)]
    assert (between.place_of_supply, between.supply) == ("27 Maharashtra", "B2B")
    nowhere = taxes_on(100, INDIAN, BillingProfile(), TODAY)
    assert (nowhere.place_of_supply, nowhere.supply) == ("29 Karnataka", "B2C")


def test_union_territories_have_a_tax_of_their_own() -> None:
    chandigarh = Seller(gstin=f"04{INDIAN.gstin and INDIAN.gstin[2:]}")
    assert [part.name for part in taxes_on(100, chandigarh, of("IN", "CH"), TODAY).parts] == ["CGST", "UTGST"]


def test_exports_bear_integrated_tax_unless_there_is_a_letter_of_undertaking() -> None:
    assert parts(taxes_on(100, INDIAN, of("US"), TODAY)) == [("IGST", "18", 18)]
    under = taxes_on(100, msgspec.structs.replace(INDIAN, lut="AD290326"), of("US"), TODAY)
    assert (under.parts, under.supply) == ((), "EXPWOP")
    assert "under LUT AD290326" in under.notes[0]


def test_gst_was_not_before_it_began() -> None:
    assert taxes_on(100, INDIAN, of("IN", "KA"), date(2017, 6, 30)).scheme is Scheme.NONE


@pytest.mark.parametrize(
    ("buyer", "expected", "reverse"),
    [
        (of("IE"), [("VAT", "23", 230)], False),
        (of("IE", vat_id="IE6388047V"), [("VAT", "23", 230)], False),
        (of("DE", vat_id="DE136695976"), [], True),
        (of("DE"), [("VAT", "19", 190)], False),  # a consumer pays at home
        (of("GB"), [("VAT", "20", 200)], False),  # where the seller is registered
        (of("GB", vat_id="GB980780684"), [], True),
        (of("US"), [], False),
        (of("CH"), [], False),
    ],
)
def test_vat_depends_on_who_buys_where(
    buyer: BillingProfile, expected: list[tuple[str, str, int]], reverse: bool
) -> None:
    taxes = taxes_on(1000, IRISH, buyer, TODAY)
    assert (parts(taxes), taxes.reverse_charge) == (expected, reverse)
    assert expected or taxes.notes  # who pays nothing is told why


def test_rates_change_on_their_day() -> None:
    assert [vat_percent("EE", day) for day in (date(2025, 6, 30), date(2025, 7, 1))] == ["22", "24"]
    assert [vat_percent("FI", day) for day in (date(2024, 8, 31), date(2024, 9, 1))] == ["24", "25.5"]
    assert vat_percent("US", TODAY) is None


def test_the_operator_s_rules_go_first_and_have_their_time() -> None:
    texas = TaxRule("Texas sales tax", "US", "8.25", "TX", taxable_percent="80", since=date(2026, 1, 1))
    city = TaxRule("Austin", "US", "1", "TX", until=date(2026, 3, 1))
    rules = (texas, city)
    assert parts(taxes_on(10_000, AMERICAN, of("US", "TX"), TODAY, rules)) == [
        ("Texas sales tax", "8.25", 660),
        ("Austin", "1", 100),
    ]
    assert parts(taxes_on(10_000, AMERICAN, of("US", "TX"), date(2026, 3, 1), rules)) == [
        ("Texas sales tax", "8.25", 660)
    ]
    assert taxes_on(10_000, AMERICAN, of("US", "CA"), TODAY, rules).scheme is Scheme.NONE
    singapore = TaxRule("GST", "SG", "9", businesses=False)
    assert taxes_on(100, AMERICAN, of("SG", vat_id="SG1"), TODAY, (singapore,)).reverse_charge


def test_who_is_exempt_pays_nothing_and_the_invoice_says_why() -> None:
    exempt = taxes_on(1000, INDIAN, of("IN", "KA", tax_exemption="SEZ unit, LUT AD1"), TODAY)
    assert (exempt.parts, exempt.notes) == ((), ("Exempt from tax: SEZ unit, LUT AD1",))


@given(st.integers(0, 10**15), st.lists(st.integers(0, 10**6), min_size=1, max_size=8))
def test_parts_by_largest_remainder_sum_to_the_whole(total: int, weights: list[int]) -> None:
    found = split(total, weights)
    whole = sum(weights)
    assert sum(found) == (total if whole else 0)
    assert all(abs(part * whole - total * weight) < whole for part, weight in zip(found, weights, strict=True) if whole)


@given(st.integers(0, 10**12), st.sampled_from([code.code for code in gst_states().values()]))
def test_gst_parts_sum_to_eighteen_percent_rounded_once(taxable: int, state: str) -> None:
    taxes = taxes_on(taxable, INDIAN, of("IN", state), TODAY)
    assert abs(100 * taxes.amount_minor - 18 * taxable) <= 50
    assert sum(part.amount_minor for part in taxes.parts) == taxes.amount_minor


@pytest.mark.parametrize(
    "wrong",
    [
        BillingProfile(gstin="27AAPFU0939F1ZA"),
        BillingProfile(gstin="27AAPFU0939F1ZV", address=Address(country="US")),
        BillingProfile(gstin="27AAPFU0939F1ZV", address=Address(country="IN", state="KA")),
        BillingProfile(vat_id="DE136695977"),
        BillingProfile(vat_id="XX1"),
        BillingProfile(vat_id="DE136695976", address=Address(country="FR")),
        BillingProfile(address=Address(country="IN", state="Atlantis")),
        BillingProfile(address=Address(country="IND")),
        BillingProfile(legal_name="a\x00b"),
        BillingProfile(legal_name="\u202eevil"),
        BillingProfile(email="a@b\r\nBcc: x@y.z"),
        BillingProfile(invoice_day=29),
        BillingProfile(time_zone="../../etc/passwd"),
    ],
)
def test_profiles_that_cannot_be_right_are_refused(wrong: BillingProfile) -> None:
    with pytest.raises(InvalidRequest):
        profile_rules.checked(wrong)


def test_profiles_are_kept_in_one_form() -> None:
    kept = profile_rules.checked(of("in", "maharashtra", gstin=" 27aapfu0939f1zv", legal_name="  Acme\n Labs "))
    assert (kept.address.state, kept.address.country, kept.gstin) == ("MH", "IN", "27AAPFU0939F1ZV")
    assert kept.legal_name == "Acme Labs"
    assert profile_rules.checked(of("DE", vat_id="de 136 695 976")).vat_id == "DE136695976"
