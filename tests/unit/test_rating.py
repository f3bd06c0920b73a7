"""What single requests cost, in numbers that can be checked by hand."""

from datetime import timedelta
from decimal import Decimal

import msgspec

from crosslogic.billing.charges.model import Basis, Charge, Item
from crosslogic.billing.charges.rate import rate
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.terms import OrgTerms, ReservedCapacity
from crosslogic.pricing.terms import Counted, PricedModel
from crosslogic.pricing.versions import VersionSource
from tests.rating_samples import JANUARY_2026, corrected, flat, history, steps, terms, used, version

PRICES = history(version(terms(regions={"in-*": Decimal("0.7")})))


def lines(charge: Charge) -> list[tuple[Item, Basis, int, int]]:
    return [(line.item, line.basis, line.quantity, line.amount) for line in charge.terms.lines]


def test_input_cached_and_output_have_prices_of_their_own_and_regions_their_multiplier() -> None:
    charge = rate(used(1, 10, 4, 20, region="in-mumbai"), PRICES, OrgTerms(), RatingState())
    assert lines(charge) == [
        (Item.INPUT, Basis.PAID, 6, 6 * 35_000),
        (Item.CACHED, Basis.PAID, 4, 4 * 7_000),
        (Item.OUTPUT, Basis.PAID, 20, 20 * 70_000),
    ]
    assert charge.amount == 1_638_000
    assert (charge.terms.region_multiplier, charge.terms.price_pattern) == ("0.7", "model-a")


def test_a_request_that_crosses_free_tokens_and_a_step_is_split() -> None:
    prices, state = flat(volume=steps((10, 10))), RatingState()
    charge = rate(used(1, 0, 0, 25), prices, OrgTerms(free_tokens_per_month=5), state)
    assert lines(charge) == [
        (Item.OUTPUT, Basis.FREE, 5, 0),
        (Item.OUTPUT, Basis.PAID, 10, 10 * 1_000_000),
        (Item.OUTPUT, Basis.PAID, 10, 10 * 900_000),
    ]
    assert state.position("2026-01", "output:model-a") == 20  # free tokens do not advance the tier


def test_free_tokens_and_tiers_begin_anew_with_the_month() -> None:
    prices, state, own = flat(volume=steps((10, 10))), RatingState(), OrgTerms(free_tokens_per_month=5)
    first = rate(used(1, 0, 0, 25), prices, own, state)
    second = rate(used(2, 0, 0, 25, at=JANUARY_2026 + timedelta(days=31)), prices, own, state)
    late = rate(used(3, 0, 0, 1, at=JANUARY_2026), prices, own, state)
    assert first.amount == second.amount
    assert late.amount == 900_000  # it still belongs to January


def test_reserved_capacity_is_used_before_anything_is_paid_for() -> None:
    reserved = ReservedCapacity("res_1", "model-a", None, 1, JANUARY_2026, JANUARY_2026 + timedelta(seconds=30))
    own = OrgTerms(reservations=(reserved,), free_tokens_per_month=100)
    charge = rate(used(1, 10, 0, 25), flat(), own, RatingState())
    assert lines(charge) == [
        (Item.INPUT, Basis.RESERVED, 10, 0),
        (Item.OUTPUT, Basis.RESERVED, 20, 0),
        (Item.OUTPUT, Basis.PAID, 5, 5_000_000),  # the free tokens are for those without reserved capacity
    ]
    flatrate = msgspec.structs.replace(own, bill_overage=False)
    assert rate(used(1, 10, 0, 25), flat(), flatrate, RatingState()).amount == 0
    outside = rate(used(1, 10, 0, 25, at=JANUARY_2026 + timedelta(minutes=1)), flat(), own, RatingState())
    assert outside.terms.lines[0].basis is Basis.FREE


def test_calls_that_are_sold_by_the_call_cost_so_even_without_tokens() -> None:
    prices = history(version(terms(PricedModel("rerank-*", Decimal("0.02"), request=Decimal(2)))))
    own = OrgTerms(free_tokens_per_month=10**6)
    charge = rate(used(1, 7, 0, 0, model="rerank-1", endpoint="rerank"), prices, own, RatingState())
    assert lines(charge) == [
        (Item.REQUEST, Basis.PAID, 1, 2_000_000_000),
        (Item.INPUT, Basis.FREE, 7, 0),
    ]


def test_another_currency_has_exact_unit_prices_and_steps_that_stay_for_the_month() -> None:
    prices = history(version(terms(volume=steps(("0.000001", 50), counts=Counted.SPEND))), rates=[("INR", "88.125")])
    state = RatingState()
    charge = rate(used(1, 0, 0, 20), prices, OrgTerms(currency="INR"), state)
    (line,) = charge.terms.lines
    assert (charge.currency, line.unit_price, charge.terms.exchange_rate) == ("INR", 8_812_500, "88.125")
    assert line.list_amount == 20 * 8_812_500
    assert line.discount_amount == (20 * 8_812_500 - 88_125_000) // 2


def test_an_orgs_own_version_comes_first_where_it_has_a_price() -> None:
    own = version(terms(PricedModel("model-b", Decimal("0.30"), Decimal("0.30"))), id="price_own", org_id="org_1")
    prices = history(own, version(terms()))
    charge = rate(used(1, 1, 0, 0, model="model-b"), prices, OrgTerms(), RatingState())
    other = rate(used(1, 1, 0, 0), prices, OrgTerms(), RatingState())
    assert (charge.price_version, charge.amount) == ("price_own", 300_000)
    assert (other.price_version, other.amount) == ("price_1", 50_000)


def test_without_a_version_the_configurations_list_counts_that_the_ledger_names() -> None:
    kept = version(terms(), id="prices_abc", source=VersionSource.CONFIGURATION)
    row = used(1, 10, 0, 0, price_version="prices_abc", cost_pusd=500_000)
    assert rate(row, history(kept), OrgTerms(), RatingState()).amount == 500_000
    unknown = rate(row, history(), OrgTerms(), RatingState())
    assert (unknown.amount, unknown.price_version) == (500_000, "prices_abc")  # as the ledger says


def test_a_plans_own_price_of_a_token_is_what_the_ledger_noted_down() -> None:
    row = used(1, 10, 4, 20, price_version="plan", cost_pusd=30 * 123)
    charge = rate(row, PRICES, OrgTerms(free_tokens_per_month=10), RatingState())
    assert (charge.price_version, charge.amount) == ("plan", 20 * 123)
    free = rate(used(1, price_version="plan"), PRICES, OrgTerms(), RatingState())
    assert free.amount == 0  # billing is off for the org


def test_a_correction_gives_back_what_was_charged_last_first() -> None:
    prices, state, own = flat(volume=steps((10, 10))), RatingState(), OrgTerms(free_tokens_per_month=5)
    row = used(1, 0, 0, 25)
    first = rate(row, prices, own, state)
    back = rate(corrected(row, 2, 1, 0, 0, -12), prices, own, state, [first])
    assert lines(back) == [
        (Item.OUTPUT, Basis.PAID, -10, -10 * 900_000),
        (Item.OUTPUT, Basis.PAID, -2, -2 * 1_000_000),
    ]
    rest = rate(corrected(row, 3, 2, 0, 0, -13), prices, own, state, [first, back])
    assert lines(rest) == [(Item.OUTPUT, Basis.PAID, -8, -8_000_000), (Item.OUTPUT, Basis.FREE, -5, 0)]
    assert first.amount + back.amount + rest.amount == 0
    assert (state.free_used["2026-01"], state.position("2026-01", "output:model-a")) == (0, 0)


def test_a_correction_upwards_is_charged_like_usage_by_the_price_of_its_time() -> None:
    dearer = version(
        terms(PricedModel("*", Decimal(9))), id="price_2", effective_from=JANUARY_2026 + timedelta(hours=1)
    )
    prices, state = history(version(terms()), dearer), RatingState()
    row = used(1, 10, 0, 0)
    first = rate(row, prices, OrgTerms(), state)
    found_late = msgspec.structs.replace(row, at=JANUARY_2026 + timedelta(hours=2))
    more = rate(corrected(found_late, 2, 1, 5, 0, 0), prices, OrgTerms(), state, [first])
    assert (more.amount, more.price_version) == (5 * 50_000, "price_1")
