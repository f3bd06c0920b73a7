"""Rating is exact, never negative, and pays no token twice."""

from hypothesis import given
from hypothesis import strategies as st

from crosslogic.kernel.money import PicoUsd
from crosslogic.metering.model import Usage
from crosslogic.pricing.book import Price
from crosslogic.pricing.rate import rate

counts = st.integers(0, 10**9)
prices = st.builds(
    Price,
    st.integers(0, 10**9).map(PicoUsd),
    st.integers(0, 10**9).map(PicoUsd),
    st.integers(0, 10**9).map(PicoUsd),
    st.just("v"),
)


@given(prices, counts, counts, counts)
def test_each_token_is_paid_once(price: Price, uncached: int, cached: int, completion: int) -> None:
    usage = Usage(uncached + cached, completion, cached, reasoning_tokens=completion)
    assert rate(usage, price) == (
        uncached * price.input_pusd + cached * price.cached_pusd + completion * price.output_pusd
    )


@given(prices, st.integers(), st.integers(), st.integers())
def test_no_numbers_of_an_engine_make_a_negative_bill(price: Price, prompt: int, completion: int, cached: int) -> None:
    assert rate(Usage(prompt, completion, cached), price) >= 0


@given(prices, counts, counts, counts, counts)
def test_more_output_never_lowers_the_bill(price: Price, prompt: int, cached: int, completion: int, more: int) -> None:
    before = rate(Usage(prompt, completion, cached), price)
    assert rate(Usage(prompt, completion + more, cached), price) >= before
