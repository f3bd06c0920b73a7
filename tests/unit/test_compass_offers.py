"""What renting costs: places by any of their names, spot machines that are taken back, reserved ones that stay."""

from math import log

import msgspec
import pytest

from crosslogic.catalog.gpus import load_gpus
from crosslogic.catalog.prices import GpuPrice, PriceMarket
from crosslogic.catalog.spot import taken_back
from crosslogic.compass.ranking import offers
from crosslogic.compass.ranking.planner import Planner
from crosslogic.compass.ranking.sizing import spare_replicas
from crosslogic.compass.specification.model import DatacenterContext, DeploymentModel, Market, Wishes
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD
from tests.planner_samples import SPEC, TRAFFIC, planner

replace = msgspec.structs.replace


def price(
    region: str = "us-east-1",
    *,
    usd: int = 4,
    market: PriceMarket = PriceMarket.ON_DEMAND,
    instance_type: str = "p5.48xlarge",
    gpus: int = 1,
    cloud: str = "aws",
) -> GpuPrice:
    return GpuPrice(
        cloud=cloud,
        region=region,
        instance_type=instance_type,
        gpu="h100_sxm",
        gpu_count=gpus,
        market=market,
        per_hour_pusd=usd * PUSD_PER_USD,
    )


EVERYWHERE = [
    price("eu-central-1"),
    price("europe-west4", cloud="gcp"),
    price("us-east-1"),
    price("eastus", cloud="azure"),
    price("ap-south-1"),
    price("all-regions", cloud="runpod"),
]


@pytest.mark.parametrize(
    ("place", "found"),
    [
        ("eu", {"eu-central-1", "europe-west4"}),
        ("frankfurt", {"eu-central-1"}),
        ("mumbai", {"ap-south-1"}),
        ("in", {"ap-south-1"}),
        ("us", {"us-east-1", "eastus"}),
        ("us-east-1", {"us-east-1"}),
    ],
)
def test_a_price_is_of_a_city_a_country_and_a_continent(place: str, found: set[str]) -> None:
    wanted = offers.allowed(EVERYWHERE, Wishes(regions=(place,)), Market.ON_DEMAND)
    assert {each.region for each in wanted} == found
    others = offers.allowed(EVERYWHERE, Wishes(excluded_regions=(place,)), Market.ON_DEMAND)
    # Where a price is for all regions of a cloud, one may get a machine in the refused one.
    assert {each.region for each in others} == {each.region for each in EVERYWHERE} - found - {"all-regions"}


def test_the_advisor_knows_each_type_in_each_region() -> None:
    steady, shaky = taken_back("aws", "us-east-1", "p5en.48xlarge"), taken_back("aws", "us-east-1", "p5.48xlarge")
    assert steady is not None
    assert shaky is not None
    assert (steady.label, shaky.label) == ("<5%", ">20%")
    assert steady.share < 0.05 < 0.2 < shaky.share
    assert taken_back("gcp", "us-east-1", "p5.48xlarge") is None
    assert taken_back("aws", "us-east-1", "p99.metal") is None


def test_spot_costs_its_interruptions_and_steadier_machines_cost_fewer() -> None:
    spot = replace(SPEC, market=Market.SPOT)

    def on(instance_type: str) -> tuple[float, int, int, str]:
        prices = [price(instance_type=instance_type, market=PriceMarket.SPOT)]
        best = Planner(planner().pool, prices).recommend(spot, confirm=0).best
        assert best is not None
        cost = best.cost
        assert cost.interruptions_per_month is not None
        assert cost.redo_per_month_pusd is not None
        assert cost.per_month_pusd == cost.per_hour_pusd * 730 + cost.redo_per_month_pusd
        words = next(each for each in best.caveats if "interruptions" in each)
        return cost.interruptions_per_month / cost.instances, cost.redo_per_month_pusd, best.sizing.replicas, words

    shaky, steady, unknown = on("p5.48xlarge"), on("p5en.48xlarge"), on("p99.metal")
    assert shaky[0] == pytest.approx(-log(0.75))
    assert steady[0] == pytest.approx(-log(0.975))
    assert unknown[0] == pytest.approx(-log(1 - offers.SPOT_INTERRUPTED_PER_MONTH))
    assert shaky[1] > unknown[1] > steady[1] > 0
    assert "AWS took back >20% of its p5.48xlarge in us-east-1" in shaky[3]
    assert "a fifth is assumed" in unknown[3]


def test_a_machine_that_is_taken_back_costs_its_start_and_half_an_answer() -> None:
    one = offers.Rented(price(market=PriceMarket.SPOT, instance_type="p99.metal"), 10, 40 * PUSD_PER_USD)
    cost = offers.rental(one, one, 10, 1e9, Market.SPOT, redo_s=360.0)
    interruptions = 10 * -log(1 - offers.SPOT_INTERRUPTED_PER_MONTH)
    assert cost.redo_per_month_pusd == pytest.approx(interruptions * 0.1 * 4 * PUSD_PER_USD)
    assert offers.rental(one, one, 10, 1e9, Market.ON_DEMAND, redo_s=360.0).redo_per_month_pusd is None


def test_shaky_machines_take_more_spares() -> None:
    spec = replace(SPEC, market=Market.SPOT, availability=0.99999)
    assert spare_replicas(300, spec, 600, 0.25) > spare_replicas(300, spec, 600, 0.025)


def test_a_larger_fleet_never_has_fewer_spares() -> None:
    spec = replace(SPEC, market=Market.SPOT, availability=0.99999)
    spares = [spare_replicas(count, spec, 600, 0.25) for count in (1, 10, 100, 390, 410, 1000, 4000)]
    assert spares == sorted(spares)
    assert spares[0] >= 1
    assert spares[-1] < 40


def test_what_is_reserved_is_paid_for_at_night_too() -> None:
    prices = [price(usd=5), price(usd=3, market=PriceMarket.RESERVED)]
    busy = replace(SPEC, traffic=replace(TRAFFIC, mean_qps=20.0, peak_qps=200.0))
    asking = Planner(planner().pool, prices)
    reserved = asking.recommend(replace(busy, market=Market.RESERVED), confirm=0).best
    on_demand = asking.recommend(busy, confirm=0).best
    assert reserved is not None
    assert on_demand is not None
    assert "reserved" in reserved.cost.basis
    assert reserved.cost.per_month_at_mean_pusd == reserved.cost.per_month_pusd < on_demand.cost.per_month_pusd
    assert on_demand.cost.per_month_at_mean_pusd < on_demand.cost.per_month_pusd
    assert any("paid for all the time" in each for each in reserved.caveats)


def test_a_market_without_prices_is_said_and_priced_on_demand() -> None:
    asking = Planner(planner().pool, [price(usd=5)])
    for market in (Market.RESERVED, Market.SPOT):
        found = asking.recommend(replace(SPEC, market=market), confirm=0)
        assert found.best is not None
        assert f"no {market} price is known" in found.advice[0]
        assert found.best.cost.redo_per_month_pusd is None
        assert "on_demand" in found.best.cost.basis
    bought = asking.recommend(replace(SPEC, deployment_model=DeploymentModel.PURCHASE), confirm=0)
    assert not bought.options
    assert any("nobody has said what one H100 costs to buy" in each.reason for each in bought.rejections)


def test_bought_gpus_cost_what_their_buyer_was_told() -> None:
    site = DatacenterContext(
        power_per_kwh_pusd=PUSD_PER_USD // 10, rack_per_month_pusd=500 * PUSD_PER_USD, gpu_pusd=30_000 * PUSD_PER_USD
    )
    spec = replace(SPEC, deployment_model=DeploymentModel.PURCHASE, datacenter=site)
    found = Planner(planner().pool, [price(usd=5)]).recommend(spec, confirm=0).best
    assert found is not None
    cost = found.cost
    operating = offers.operating_per_month_pusd(load_gpus()["h100_sxm"], cost.gpus, site)
    assert cost.capital_pusd == 30_000 * PUSD_PER_USD * cost.gpus
    assert cost.per_month_pusd == cost.capital_pusd // 36 + operating
    rented = 5 * 730 * cost.gpus * PUSD_PER_USD
    assert cost.break_even_months == pytest.approx(cost.capital_pusd / (rented - operating))
    assert any("buying pays off after" in each for each in found.reasons)
    with pytest.raises(InvalidRequest, match="costs more than nothing"):
        planner().recommend(replace(spec, datacenter=replace(site, gpu_pusd=-1)))
