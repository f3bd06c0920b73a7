"""Price versions: what is refused, in words; which entry answers; graduated discounts at their edges."""

from decimal import Decimal
from itertools import pairwise

import pytest

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.pricing.card import PriceCard, VolumeStep, discount_until, volume_discount
from crosslogic.pricing.defaults import default_price_list
from crosslogic.pricing.terms import Counted, PricedModel, PriceTerms, terms_of
from tests.rating_samples import steps, terms

STEPS = (VolumeStep(10, 1_000), VolumeStep(30, 2_000))


def card(*prices: PricedModel, **changes: object) -> PriceCard:
    return PriceCard(terms(*prices, **changes), "USD")


def test_the_shipped_price_list_can_be_published() -> None:
    units = PriceCard(terms_of(default_price_list()), "USD").price("llama-3-8b", "in-mumbai", "chat/completions", "")
    assert units is not None
    assert units.input > 0


@pytest.mark.parametrize(
    ("refused", "says"),
    [
        (terms(PricedModel("m", Decimal("0.0000001"))), "no whole number of 1e-12 units a piece"),
        (terms(PricedModel("m", Decimal("0.000001")), regions={"in": Decimal("0.7")}), "multiplier 0.7"),
        (terms(PricedModel("m", Decimal("0.000007")), plan_percent={"pro": Decimal(15)}), "once 15% is taken off"),
        (terms(PricedModel("m", Decimal("0.000001")), volume=steps((0, 10))), "once 10% is taken off"),
        (terms(PricedModel("m", Decimal("-1"))), "-1 is not a price"),
        (terms(PricedModel("m", Decimal("NaN"))), "NaN is not a price"),
        (terms(PricedModel("m", Decimal("1e400"))), "is not a price"),
        (terms(plan_percent={"pro": Decimal("101")}), "101 is no discount"),
        (terms(batch_percent=Decimal("0.001")), "0.001 is no discount"),
        (terms(volume=steps((10, 20), (5, 30))), "rise"),
        (terms(volume=steps((10, 20), (20, 10))), "rise"),
        (terms(volume=steps()), "1 to 20 steps"),
        (PriceTerms(()), "1 to 1000 prices"),
        (terms(regions={"in": Decimal("0.1")}, volume=steps((10, 50))), "would let more usage lower a bill"),
    ],
)
def test_what_cannot_be_charged_exactly_and_steadily_is_refused_with_a_sentence(refused: PriceTerms, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        PriceCard(refused, "USD")


def test_the_first_entry_that_matches_model_endpoint_and_plan_answers() -> None:
    found = card(
        PricedModel("m-*", Decimal(1), endpoints=("embeddings",)),
        PricedModel("m-*", Decimal(2), plans=("pro",)),
        PricedModel("M-1", Decimal(3), Decimal(4), Decimal(1), regions={"in-*": Decimal("0.5")}),
        PricedModel("rerank-*", request=Decimal("2.00")),
        regions={"*": Decimal("1.1")},
    )

    def prices(model: str, region: str, endpoint: str, plan: str) -> tuple[int, int, int, int]:
        units = found.price(model, region, endpoint, plan)
        assert units is not None
        return units.input, units.cached, units.output, units.request

    assert prices("m-1", "us", "embeddings", "pro") == (1_100_000, 1_100_000, 0, 0)
    assert prices("m-1", "us", "chat/completions", "pro") == (2_200_000, 2_200_000, 0, 0)
    assert prices("m-1", "in-mumbai", "chat/completions", "free") == (1_500_000, 500_000, 2_000_000, 0)
    assert prices("rerank-1", "us", "rerank", "") == (0, 0, 0, 2_200_000_000)
    assert found.price("other", "us", "chat/completions", "") is None


@pytest.mark.parametrize(
    ("start", "end", "pieces"),
    [
        (0, 9, [(9, 0)]),
        (0, 10, [(10, 0)]),
        (0, 11, [(10, 0), (1, 1_000)]),
        (10, 30, [(20, 1_000)]),
        (29, 31, [(1, 1_000), (1, 2_000)]),
        (5, 100, [(5, 0), (20, 1_000), (70, 2_000)]),
        (7, 7, []),
    ],
)
def test_a_discount_counts_for_what_lies_above_its_step(start: int, end: int, pieces: list[tuple[int, int]]) -> None:
    assert volume_discount(STEPS, start, end) == pieces


def test_a_discount_by_spend_grows_by_no_more_than_what_is_spent() -> None:
    off = [discount_until(STEPS, position) for position in range(200)]
    assert (off[30], off[130]) == (2, 22)
    assert all(0 <= after - before <= 1 for before, after in pairwise(off))


def test_discounts_follow_one_another() -> None:
    found = card(plan_percent={"pro": Decimal(10)}, batch_percent=Decimal(50), commitment_percent=Decimal(20))
    assert found.discounts("chat/completions", "free", committed=False) == []
    assert found.discounts("batch/chat/completions", "pro", committed=True) == [
        ("plan", 1_000), ("batch", 5_000), ("commitment", 2_000),
    ]  # fmt: skip
    assert found.counted is None
    assert card(volume=steps((1, 1), counts=Counted.SPEND)).steps == (VolumeStep(10**12, 100),)
