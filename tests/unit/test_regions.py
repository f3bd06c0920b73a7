"""The region catalogue: names, containment, fallbacks, distances and prices; and what a configuration changes of it."""

from decimal import Decimal

import pytest

from crosslogic.catalog.regions import City, Region, Regions, load_regions
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.scheduling.nearness import Nearness
from crosslogic.settings.regions import RegionSettings, RegionsSettings
from crosslogic.wiring.translate import price_book, regions

SHIPPED = Regions(load_regions())


@pytest.mark.parametrize(
    ("region", "city", "multiplier", "chain"),
    [
        ("in", "Mumbai", "0.7", ("sg", "eu", "us")),
        ("us", "Virginia", "1.0", ("eu",)),
        ("eu", "Frankfurt", "1.1", ("us", "sg")),
        ("sg", "Singapore", "0.9", ("in", "us", "eu")),
    ],
)
def test_the_shipped_regions_are_those_of_the_documents(
    region: str, city: str, multiplier: str, chain: tuple[str, ...]
) -> None:
    found = SHIPPED.by_id[region]
    assert found.cities[0].name == city
    assert found.cost_multiplier == Decimal(multiplier)
    assert SHIPPED.fallbacks(region) == chain


@pytest.mark.parametrize(
    ("place", "asked", "within"),
    [
        ("ap-south-1", "in", True),
        ("ap-south-1", "india", True),
        ("ap-south-1", "mumbai", True),
        ("asia-south1", "mumbai", True),
        ("ap-south-1", "ap-south-1", True),
        ("india", "in", True),
        ("in", "mumbai", False),  # somewhere in India is not Mumbai
        ("ap-south-2", "mumbai", False),
        ("ap-southeast-1", "in", False),
        ("eu-west-2", "eu", False),  # London
        ("rack-7", "rack-7", True),
        ("rack-7", "in", False),
    ],
)
def test_what_stands_in_what(place: str, asked: str, within: bool) -> None:
    assert SHIPPED.within(place, asked) is within


def test_a_place_falls_back_to_what_is_around_it_first() -> None:
    assert SHIPPED.fallbacks("ap-south-1") == ("mumbai", "in", "sg", "eu", "us")
    assert SHIPPED.fallbacks("rack-7") == ()


def test_names_that_are_taken_and_fallbacks_to_nowhere_are_refused() -> None:
    mumbai = City("Mumbai", "IN")
    with pytest.raises(ConfigurationError, match="taken"):
        Regions([Region("a", "A", (mumbai,)), Region("b", "B", (mumbai,))])
    with pytest.raises(ConfigurationError, match="nobody knows"):
        Regions([Region("a", "A", fallbacks=("b",))])


def test_a_configured_region_is_added_or_takes_the_place_of_a_shipped_one() -> None:
    own = RegionSettings(id="frankfurt-dc", members=("eu-central-1", "rack-7"), fallbacks=("eu",))
    cheap = RegionSettings(id="in", name="India", fallbacks=("sg",), cost_multiplier=Decimal("0.6"))
    found = regions(RegionsSettings(catalogue=(own, cheap)))
    assert found.within("rack-7", "frankfurt-dc")
    assert found.within("eu-central-1", "frankfurt-dc")
    assert not found.within("eu-central-1", "eu")  # the configuration's names come first
    assert found.within("eu-west-1", "eu")
    assert found.fallbacks("in") == ("sg",)


def test_what_a_region_costs_is_what_the_bill_says() -> None:
    book = price_book({}, RegionsSettings(catalogue=(RegionSettings(id="lab", cost_multiplier=Decimal("0.5")),)))
    base = book.price("llama-3-8b", "us").input_pusd
    for name in ("in", "ap-south-1", "pune"):
        assert book.price("llama-3-8b", name).input_pusd * 10 == base * 7
    assert book.price("llama-3-8b", "sg").input_pusd * 10 == base * 9
    assert book.price("llama-3-8b", "eu-north-1").input_pusd * 10 == base * 11
    assert book.price("llama-3-8b", "lab").input_pusd * 2 == base


def test_the_nearest_region_is_measured_where_it_can_be_and_reckoned_from_the_map_elsewhere() -> None:
    assert 6_000 < (SHIPPED.distance_km("mumbai", "frankfurt") or 0) < 7_000
    nearness = Nearness(SHIPPED, "in", by_latency=True)
    assert nearness.nearest(("us", "eu", "sg", "ap-south-2")) == "ap-south-2"
    assert nearness.nearest(("us", "eu", "sg")) == "sg"
    nearness.observed("sg", 400.0)
    assert nearness.nearest(("us", "eu", "sg")) == "eu"
    for _ in range(20):
        nearness.observed("sg", 30.0)
    assert nearness.nearest(("us", "eu", "sg")) == "sg"
    assert nearness.nearest(()) is None
    assert Nearness(SHIPPED).nearest(("us", "eu")) == "eu"  # nothing is known: in order of names
