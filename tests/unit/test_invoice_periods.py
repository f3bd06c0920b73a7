"""Months, fiscal years and numbers, wherever clocks jump."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.billing.invoices.crediting import credited_parts
from crosslogic.billing.invoices.currency import divided, exact_text, minor_text, to_minor
from crosslogic.billing.invoices.model import InvoiceStatus
from crosslogic.billing.invoices.numbering import fiscal_year, number_of
from crosslogic.billing.invoices.periods import ended, period_of
from crosslogic.billing.profiles.model import BillingTerms
from crosslogic.kernel.errors import ConfigurationError
from tests.invoice_samples import issued

ZONES = ["UTC", "Asia/Kolkata", "America/New_York", "Africa/Cairo", "Pacific/Apia", "America/Sao_Paulo", "Asia/Beirut"]
INSTANTS = st.datetimes(datetime(2010, 1, 1), datetime(2030, 1, 1)).map(lambda at: at.replace(tzinfo=UTC))


@given(INSTANTS, st.sampled_from(ZONES), st.integers(1, 28))
def test_months_touch_and_every_moment_lies_in_one(instant: datetime, zone: str, day: int) -> None:
    terms = BillingTerms(time_zone=zone, invoice_day=day)
    period = period_of(instant, terms)
    assert period.start <= instant < period.end
    assert timedelta(days=26) < period.end - period.start < timedelta(days=33)
    assert period_of(period.end, terms).start == period.end
    assert period_of(period.end - datetime.resolution, terms) == period
    assert period_of(period.start, terms) == period


@given(INSTANTS, st.integers(0, 400), st.sampled_from(ZONES))
def test_ended_periods_follow_on_each_other_without_a_gap(since: datetime, days: int, zone: str) -> None:
    now = since + timedelta(days=days)
    found = ended(since, now, BillingTerms(time_zone=zone))
    assert all(earlier.end == later.start for earlier, later in pairwise(found))
    assert not found or (found[0].start == since and found[-1].end <= now)


def test_march_ends_in_kolkata_when_it_ends_there() -> None:
    terms = BillingTerms(time_zone="Asia/Kolkata")
    midnight = datetime(2026, 3, 31, 18, 30, tzinfo=UTC)
    assert period_of(midnight - datetime.resolution, terms).end == midnight
    years = [fiscal_year(at, "Asia/Kolkata", 4) for at in (midnight - datetime.resolution, midnight)]
    assert years == ["2526", "2627"]
    assert fiscal_year(midnight, "UTC", 1) == "2026"


def test_numbers_have_at_most_sixteen_characters() -> None:
    assert number_of("INV", "2627", 42) == "INV/2627/000042"
    assert number_of("INV", "2627", 9_999_999) == "INV/2627/9999999"
    assert number_of("ACME-1", "2627", 7) == "ACME-1/2627/7"
    with pytest.raises(ConfigurationError, match="shorter"):
        number_of("ACME-1", "2627", 100_000)


@given(st.integers(-(10**25), 10**25), st.integers(1, 10**12))
def test_division_rounds_half_to_even(dividend: int, divisor: int) -> None:
    found = divided(dividend, divisor)
    assert abs(2 * (found * divisor - dividend)) <= divisor
    if abs(2 * (found * divisor - dividend)) == divisor:
        assert found % 2 == 0


def test_currencies_have_their_own_minor_units() -> None:
    assert [to_minor(12_345_678 * 10**8, currency) for currency in ("JPY", "USD", "KWD")] == [1235, 123457, 1234568]
    assert (minor_text(-1234, "JPY"), minor_text(5, "KWD"), minor_text(-123456, "USD", grouped=True)) == (
        "-1234",
        "0.005",
        "-1,234.56",
    )
    assert exact_text(-1_500_000_000_001, "USD") == "-1.500000000001"
    assert exact_text(0, "INR") == "0.00"


@given(st.integers(1, 10**6), st.integers(0, 40), st.lists(st.integers(1, 10**5), max_size=6))
def test_credit_notes_of_all_of_it_take_back_all_of_each_tax(net: int, percent: int, amounts: list[int]) -> None:
    tax = net * percent // 100
    parts = [{"amount_minor": tax - tax // 2, "taxable_minor": net}, {"amount_minor": tax // 2, "taxable_minor": net}]
    total, credited, nets, taxes = net + tax, 0, 0, [0, 0]
    for amount in [*amounts, total]:
        amount = min(amount, total - credited)
        if not amount:
            break
        invoice = issued(status=InvoiceStatus.ISSUED, tax_minor=tax, total_minor=total, credited_minor=credited)
        part_net, part_taxes = credited_parts(invoice, parts, amount)
        assert part_net + sum(each["amount_minor"] for each in part_taxes) == amount
        assert part_net >= 0
        credited += amount
        nets += part_net
        taxes = [have + each["amount_minor"] for have, each in zip(taxes, part_taxes, strict=True)]
    assert (nets, taxes) == (net, [tax - tax // 2, tax // 2])
