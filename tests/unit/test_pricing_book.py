"""Prices are exact or refused, and the first pattern that matches decides."""

from decimal import Decimal

import msgspec
import pytest

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.pricing.book import NO_PRICE, PriceBook, PriceEntry, PriceList
from crosslogic.pricing.defaults import default_price_list


def book(*entries: PriceEntry, **regions: str) -> PriceBook:
    return PriceBook(PriceList(entries, {name: Decimal(value) for name, value in regions.items()}))


def entry(model: str, usd: str, **more: object) -> PriceEntry:
    return msgspec.structs.replace(PriceEntry(model, Decimal(usd), Decimal(usd)), **more)


def test_five_cents_a_million_is_fifty_thousand_pico_usd_a_token() -> None:
    assert book(entry("llama", "0.05")).price("llama", "us").input_pusd == 50_000


def test_a_region_multiplies_exactly_and_an_unlisted_one_counts_one() -> None:
    prices = book(entry("llama", "0.05"), india="0.7")
    assert prices.price("llama", "india").output_pusd == 35_000
    assert prices.price("llama", "mars").output_pusd == 50_000


def test_a_models_own_multiplier_comes_before_the_lists() -> None:
    prices = book(entry("llama", "0.05", regions={"india": Decimal("0.5")}), india="0.7")
    assert prices.price("llama", "india").input_pusd == 25_000


def test_the_first_matching_pattern_wins_in_any_case() -> None:
    prices = book(entry("*70B*", "0.6"), entry("*", "0.1"))
    assert prices.price("meta-llama/Llama-3.1-70b-Instruct", "us").input_pusd == 600_000
    assert prices.price("anything", "us").input_pusd == 100_000


def test_cached_tokens_cost_what_the_prompt_costs_unless_priced() -> None:
    assert book(entry("m", "0.2")).price("m", "us").cached_pusd == 200_000
    assert book(entry("m", "0.2", cached=Decimal("0.02"))).price("m", "us").cached_pusd == 20_000


def test_an_unknown_model_is_free_and_says_so() -> None:
    price = book(entry("llama", "0.05")).price("gpt", "us")
    assert price is NO_PRICE
    assert not price.known


@pytest.mark.parametrize(
    ("usd", "multiplier"),
    [("0.0000001", "1"), ("0.05", "0.333333333"), ("1." + "0" * 40 + "1", "1"), ("-1", "1"), ("1", "-0.5")],
)
def test_what_is_inexact_or_negative_is_refused_at_load(usd: str, multiplier: str) -> None:
    with pytest.raises(ConfigurationError, match="price of 'llama'"):
        book(entry("llama", usd), india=multiplier)


@pytest.mark.parametrize("usd", ["NaN", "Infinity", "-Infinity", "sNaN"])
def test_what_is_no_number_is_refused(usd: str) -> None:
    with pytest.raises(ConfigurationError):
        book(entry("llama", usd), india="0")


def test_the_version_is_that_of_the_content() -> None:
    assert book(entry("m", "1")).version == book(entry("m", "1")).version
    assert book(entry("m", "1")).version != book(entry("m", "2")).version
    assert book(entry("m", "1")).version != book(entry("m", "1"), india="0.7").version


def test_the_documents_example_prices_ship_with_the_product() -> None:
    prices = PriceBook(default_price_list())
    for model, pusd in (
        ("meta-llama/Llama-3.1-8B-Instruct", 50_000),
        ("meta-llama/Meta-Llama-3-70B-Instruct", 600_000),
        ("Qwen/Qwen2.5-7B-Instruct", 40_000),
        ("google/gemma-7b-it", 30_000),
    ):
        assert prices.price(model, "us-east-1").input_pusd == pusd
        assert prices.price(model, "eu-west-1").input_pusd == pusd * 11 // 10
        assert prices.price(model, "ap-south-1").input_pusd == pusd * 7 // 10, "Mumbai is in India"
        assert prices.price(model, "ap-southeast-1").input_pusd == pusd * 9 // 10
