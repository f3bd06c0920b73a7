"""Rating as the books must have it: exact, in order, never cheaper for using more, the same however it is cut."""

from collections.abc import Sequence
from datetime import timedelta
from decimal import Decimal
from random import Random

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from crosslogic.billing.charges.batch import Before, Rated, rate_batch
from crosslogic.billing.charges.model import Basis, Charge
from crosslogic.billing.charges.rows import canonical
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import RatedUsage
from crosslogic.billing.charges.terms import Commitment, OrgTerms, ReservedCapacity
from crosslogic.billing.credits.draw import in_order, is_good, standing
from crosslogic.billing.credits.model import CreditClass, Grant
from crosslogic.pricing.terms import Counted, PricedModel
from crosslogic.pricing.versions import PriceHistory
from tests.rating_samples import JANUARY_2026, corrected, flat, history, numbered, steps, terms, used, version
from tests.rating_samples import granted as granted_credit

TOKEN_LADDER = steps((30, 10), (70, 20), (100, 30))
SPEND_LADDER = steps(("0.000020", 10), ("0.000050", 35), ("0.0001", 50), counts=Counted.SPEND)
DAY = timedelta(days=1)

sizes = st.integers(0, 60)
models = st.sampled_from(["model-a", "model-b"])
rows_of_any_kind = st.lists(
    st.builds(
        lambda prompt, cached, output, model, region, hours: used(
            1, prompt, min(cached, prompt), output, model=model, region=region, at=JANUARY_2026 + hours
        ),
        sizes, sizes, sizes, models, st.sampled_from(["us", "in-mumbai"]),
        st.sampled_from([timedelta(0), timedelta(hours=1), 20 * DAY, 32 * DAY]),
    ),
    max_size=12,
).map(
    lambda rows: numbered(msgspec.structs.replace(row, request_id=f"req_{index}") for index, row in enumerate(rows))
)  # fmt: skip
price_histories = st.sampled_from([
    history(version(terms(regions={"in-*": Decimal("0.7")}))),
    history(version(terms(volume=SPEND_LADDER, regions={"in-*": Decimal("0.7")}, commitment_percent=Decimal(20)))),
    history(version(terms(volume=TOKEN_LADDER))),
])  # fmt: skip
org_terms = st.sampled_from([
    OrgTerms(),
    OrgTerms(free_tokens_per_month=50),
    OrgTerms(free_tokens_per_month=25, commitment=Commitment(10**6, JANUARY_2026, JANUARY_2026 + 25 * DAY)),
    OrgTerms(reservations=(
        ReservedCapacity("res_1", "model-a", None, 1, JANUARY_2026, JANUARY_2026 + timedelta(seconds=40)),
    )),
])  # fmt: skip
grants = st.lists(
    st.builds(
        lambda number, credit_class, priority, amount, starts, ends: granted_credit(
            number,
            credit_class=credit_class,
            priority=priority,
            amount=amount,
            starts_at=JANUARY_2026 + starts,
            expires_at=None if ends is None else JANUARY_2026 + starts + ends,
        ),
        st.integers(1, 10**6), st.sampled_from(list(CreditClass)), st.integers(0, 2), st.integers(1, 10**8),
        st.sampled_from([timedelta(0), timedelta(hours=1), 5 * DAY]),
        st.sampled_from([None, timedelta(minutes=30), 10 * DAY, 31 * DAY]),
    ),
    max_size=4, unique_by=lambda each: each.id,
)  # fmt: skip


def rated(rows: Sequence[RatedUsage], prices: PriceHistory, own: OrgTerms, granted: Sequence[Grant] = ()) -> Rated:
    return rate_batch(rows, prices, [(0, own)], granted, RatingState())


def owed(rows: Sequence[RatedUsage], prices: PriceHistory, own: OrgTerms, granted: Sequence[Grant] = ()) -> int:
    result = rated(rows, prices, own, granted)
    return sum(each.amount for each in result.charges) - sum(each.amount for each in result.draws)


def text(result: Rated) -> str:
    return canonical([result.charges, result.draws, result.state])


@settings(deadline=None)
@given(rows_of_any_kind, price_histories, org_terms)
def test_every_charge_is_the_sum_of_lines_that_explain_it(
    rows: list[RatedUsage], prices: PriceHistory, own: OrgTerms
) -> None:
    for row, charge in zip(rows, rated(rows, prices, own).charges, strict=True):
        lines = charge.terms.lines
        assert charge.amount == charge.list_amount - charge.discount_amount == sum(line.amount for line in lines)
        assert sum(line.quantity for line in lines) == row.prompt_tokens + row.completion_tokens
        for line in lines:
            assert line.list_amount == line.quantity * line.unit_price
            assert line.discount_amount == sum(each.amount for each in line.reductions)
            assert 0 <= line.amount <= line.list_amount
            assert line.basis is Basis.PAID or line.amount == 0


@settings(deadline=None)
@given(rows_of_any_kind, st.integers(0, 12), price_histories, org_terms, grants)
def test_more_usage_never_lowers_a_bill(
    rows: list[RatedUsage], at: int, prices: PriceHistory, own: OrgTerms, granted: list[Grant]
) -> None:
    """Nor what is left to pay, while credits neither begin nor expire between. (One that expires unused is lost, so
    using it up before pays: that is what an expiry means.)"""
    lasting = [msgspec.structs.replace(each, starts_at=JANUARY_2026, expires_at=None) for each in granted]
    fewer = [row for index, row in enumerate(rows) if index != at]
    for credits in ([], lasting):
        assert owed(numbered(fewer), prices, own, credits) <= owed(rows, prices, own, credits)


@settings(deadline=None)
@given(rows_of_any_kind, st.data(), price_histories, org_terms)
def test_more_tokens_in_a_request_never_lower_a_bill(
    rows: list[RatedUsage], data: st.DataObject, prices: PriceHistory, own: OrgTerms
) -> None:
    more = [
        msgspec.structs.replace(row, completion_tokens=row.completion_tokens + data.draw(st.integers(0, 5)))
        for row in rows
    ]
    assert owed(rows, prices, own) <= owed(more, prices, own)


@settings(deadline=None)
@given(rows_of_any_kind, st.data(), price_histories, org_terms)
def test_a_request_costs_the_same_cut_in_two(
    rows: list[RatedUsage], data: st.DataObject, prices: PriceHistory, own: OrgTerms
) -> None:
    """Cut where its tokens are placed: input, cached, output."""
    cut = []
    for row in rows:
        parts = (row.prompt_tokens - row.cached_tokens, row.cached_tokens, row.completion_tokens)
        first = _first_of(parts, data.draw(st.integers(0, sum(parts))))
        rest = tuple(whole - part for whole, part in zip(parts, first, strict=True))
        for name, (uncached, cached, output) in (("a", first), ("b", rest)):
            cut.append(msgspec.structs.replace(
                row, request_id=row.request_id + name, prompt_tokens=uncached + cached, cached_tokens=cached,
                completion_tokens=output,
            ))  # fmt: skip
    assert owed(numbered(cut), prices, own) == owed(rows, prices, own)


def _first_of(parts: tuple[int, ...], tokens: int) -> tuple[int, ...]:
    first = []
    for part in parts:
        first.append(min(part, tokens))
        tokens -= first[-1]
    return tuple(first)


@settings(deadline=None)
@given(rows_of_any_kind, st.randoms(use_true_random=False), st.booleans())
def test_in_which_order_usage_comes_makes_no_difference_where_prices_are_equal(
    rows: list[RatedUsage], random: Random, by_spend: bool
) -> None:
    ladder = SPEND_LADDER if by_spend else None
    prices, own = flat(volume=ladder), OrgTerms(free_tokens_per_month=30)
    shuffled = list(rows)
    random.shuffle(shuffled)
    assert owed(numbered(shuffled), prices, own) == owed(rows, prices, own)


@settings(deadline=None)
@given(rows_of_any_kind, st.data(), price_histories, org_terms, grants)
def test_where_the_ledger_is_cut_into_batches_makes_no_difference(
    rows: list[RatedUsage], data: st.DataObject, prices: PriceHistory, own: OrgTerms, granted: list[Grant]
) -> None:
    rows = with_corrections(rows, data)
    whole = rated(rows, prices, own, granted)
    cut = Rated([], [], RatingState())
    while len(cut.charges) < len(rows):
        start = len(cut.charges)
        batch = rows[start : start + data.draw(st.integers(1, 5))]
        before = {
            row.request_id: Before(
                tuple(each for each in cut.charges if each.request_id == row.request_id),
                tuple(
                    draw for draw in cut.draws
                    if any(each.seq == draw.seq and each.request_id == row.request_id for each in cut.charges)
                ),
            )
            for row in batch
        }  # fmt: skip
        added = rate_batch(batch, prices, [(0, own)], granted, cut.state, before)
        cut = Rated(cut.charges + added.charges, cut.draws + added.draws, added.state)
    assert text(cut) == text(whole)


def with_corrections(rows: list[RatedUsage], data: st.DataObject) -> list[RatedUsage]:
    """The rows, and behind them some that correct them; a request never has less than nothing."""
    made, quantities = list(rows), {}
    for row in rows:
        quantities[row.request_id] = [row.prompt_tokens, row.cached_tokens, row.completion_tokens, 0]
    for _ in range(data.draw(st.integers(0, 5)) if rows else 0):
        row = data.draw(st.sampled_from(rows))
        standing_at = quantities[row.request_id]
        prompt = data.draw(st.integers(0, 60))
        truth = [prompt, data.draw(st.integers(0, prompt)), data.draw(st.integers(0, 60))]
        deltas = [new - old for new, old in zip(truth, standing_at, strict=False)]
        quantities[row.request_id] = [*truth, standing_at[3] + 1]
        made.append(corrected(row, len(made) + 1, standing_at[3] + 1, *deltas))
    return made


@settings(deadline=None)
@given(rows_of_any_kind, st.data(), price_histories, org_terms, grants)
def test_corrections_never_give_back_more_than_was_charged(
    rows: list[RatedUsage], data: st.DataObject, prices: PriceHistory, own: OrgTerms, granted: list[Grant]
) -> None:
    rows = with_corrections(rows, data)
    result = rated(rows, prices, own, granted)
    for request_id in {row.request_id for row in rows}:
        own_charges = [each for each in result.charges if each.request_id == request_id]
        seqs = {each.seq for each in own_charges}
        assert sum(each.amount for each in own_charges) >= 0
        for given_id in {each.grant_id for each in result.draws}:
            assert sum(each.amount for each in result.draws if each.seq in seqs and each.grant_id == given_id) >= 0
        _check_quantities([row for row in rows if row.request_id == request_id], own_charges)
    assert all(used_up >= 0 for used_up in (*result.state.free_used.values(), *result.state.drawn.values()))


def _check_quantities(rows: list[RatedUsage], charges: list[Charge]) -> None:
    tokens = sum(line.quantity for charge in charges for line in charge.terms.lines)
    assert tokens == sum(row.prompt_tokens + row.completion_tokens for row in rows)


@settings(deadline=None)
@given(rows_of_any_kind, price_histories, org_terms, grants)
def test_usage_that_is_taken_back_wholly_leaves_nothing(
    rows: list[RatedUsage], prices: PriceHistory, own: OrgTerms, granted: list[Grant]
) -> None:
    back = [
        corrected(row, len(rows) + index, 1, -row.prompt_tokens, -row.cached_tokens, -row.completion_tokens)
        for index, row in enumerate(reversed(rows), start=1)
    ]
    result = rated([*rows, *back], prices, own, granted)
    assert sum(each.amount for each in result.charges) == 0
    assert not any(result.state.drawn.values())


@settings(deadline=None)
@given(rows_of_any_kind, st.data(), price_histories, org_terms, grants)
def test_grants_are_drawn_in_order_while_they_are_good_and_never_below_zero(
    rows: list[RatedUsage], data: st.DataObject, prices: PriceHistory, own: OrgTerms, granted: list[Grant]
) -> None:
    rows = with_corrections(rows, data)
    result = rated(rows, prices, own, granted)
    drawn = {each.id: 0 for each in granted}
    for charge in result.charges:
        draws = {each.grant_id: each.amount for each in result.draws if each.seq == charge.seq}
        if charge.amount >= 0:
            left = charge.amount - sum(draws.values())
            good = [each for each in in_order(granted) if is_good(each, charge)]
            assert set(draws) <= {each.id for each in good}
            for one in good:
                # whoever comes later was drawn only if this one is empty, and nothing is owed before all are
                assert draws.get(one.id, 0) == min(
                    one.amount - drawn[one.id], charge.amount - _before(one, good, draws)
                )
            assert left == 0 or all(drawn[one.id] + draws.get(one.id, 0) == one.amount for one in good)
        for grant_id, amount in draws.items():
            drawn[grant_id] += amount
            assert drawn[grant_id] >= 0
    assert drawn == {each.id: result.state.drawn.get(each.id, 0) for each in granted}
    for one in granted:
        found = standing(one, drawn[one.id], JANUARY_2026 + 12 * DAY)
        assert min(found.drawn, found.expired, found.voided, found.remaining) >= 0
        assert found.drawn + found.expired + found.voided + found.remaining == one.amount


def _before(one: Grant, good: list[Grant], draws: dict[str, int]) -> int:
    return sum(draws.get(each.id, 0) for each in good[: good.index(one)])


@settings(deadline=None)
@given(rows_of_any_kind, price_histories, org_terms)
def test_a_price_change_never_alters_earlier_usage(rows: list[RatedUsage], prices: PriceHistory, own: OrgTerms) -> None:
    """A version that begins on 10 January, and one of another org, leave everything before as it was."""
    (before,) = prices.at("org_1", JANUARY_2026)
    dearer = terms(PricedModel("*", Decimal(7), Decimal(7)))
    later = version(dearer, id="price_2", effective_from=JANUARY_2026 + 10 * DAY)
    foreign = version(dearer, id="price_3", org_id="org_2")
    early = [row for row in rows if row.at < JANUARY_2026 + 10 * DAY]
    assert text(rated(early, history(before.version, later, foreign), own)) == text(rated(early, prices, own))


@settings(deadline=None)
@given(rows_of_any_kind)
def test_what_is_answered_from_the_cache_or_has_no_price_costs_nothing(rows: list[RatedUsage]) -> None:
    kept = [msgspec.structs.replace(row, answered_from_cache=True) for row in rows]
    assert owed(kept, flat(), OrgTerms()) == 0
    assert owed(rows, history(), OrgTerms()) == 0
