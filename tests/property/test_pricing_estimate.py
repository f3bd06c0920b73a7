"""No request costs more than was reserved for it, whatever serves it wherever."""

from decimal import Decimal

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.metering.model import Usage
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.pricing.estimate import CostEstimates, flat_price
from crosslogic.pricing.rate import rate

usd = st.decimals(0, 1000, places=4, allow_nan=False)
factor = st.decimals(0, 5, places=1, allow_nan=False)
entries = st.builds(
    PriceEntry,
    model=st.sampled_from(["small", "large", "spare", "*"]),
    input=usd,
    output=usd,
    cached=st.none() | usd,
    regions=st.dictionaries(st.sampled_from(["eu", "us", "in"]), factor, max_size=2),
)
books = st.builds(
    PriceList,
    prices=st.lists(entries, max_size=4).map(tuple),
    regions=st.dictionaries(st.sampled_from(["eu", "us-*", "*"]), factor, max_size=2),
).map(PriceBook)
counts = st.integers(0, 200_000)


class Served(msgspec.Struct):
    """What was reserved, and how much of it was used where."""

    prompt: int
    output: int
    used_prompt: int
    used_output: int
    cached: int


@st.composite
def served(draw: st.DrawFn) -> Served:
    prompt, output = draw(counts), draw(counts)
    used_prompt, used_output = draw(st.integers(0, prompt)), draw(st.integers(0, output))
    return Served(prompt, output, used_prompt, used_output, draw(st.integers(0, used_prompt)))


@given(
    book=books,
    regions=st.sets(st.sampled_from(["eu", "us", "in"]), min_size=1),
    one=served(),
    plan=st.none() | st.integers(0, 10**9),
    data=st.data(),
)
def test_the_estimate_covers_the_cost(
    book: PriceBook, regions: set[str], one: Served, plan: int | None, data: st.DataObject
) -> None:
    estimates = CostEstimates(book, regions)
    models = ("small", "spare")
    reserved = estimates.at_most(models, one.prompt, one.output, plan)
    model, region = data.draw(st.sampled_from(models)), data.draw(st.sampled_from(sorted(regions)))
    usage = Usage(one.used_prompt, one.used_output, one.cached)
    cost = estimates.of(usage, model, region, plan)
    assert 0 <= cost <= reserved
    assert cost == rate(usage, book.price(model, region) if plan is None else flat_price(plan))


def test_a_new_price_and_a_new_region_count_at_once() -> None:
    cheap = PriceBook(PriceList((PriceEntry("*", Decimal(1), Decimal(2), regions={"eu": Decimal(3)}),)))
    estimates = CostEstimates(cheap, ["us"])
    assert estimates.at_most(("m",), 1, 1) == 3_000_000
    estimates.serve_in(["us", "eu"])
    assert estimates.at_most(("m",), 1, 1) == 9_000_000
    estimates.reprice(PriceBook(PriceList((PriceEntry("*", Decimal(10), Decimal(10)),))))
    assert estimates.at_most(("m",), 1, 1) == 20_000_000


def test_a_model_without_a_price_costs_nothing() -> None:
    assert CostEstimates(PriceBook(PriceList(())), ["eu"]).at_most(("m",), 1000, 1000) == 0
