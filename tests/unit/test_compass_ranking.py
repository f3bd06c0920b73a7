"""What is recommended: size, cost, front, words for each choice and each rejection, and what nonsense gets."""

from dataclasses import dataclass
from decimal import Decimal

import msgspec
import pytest

from crosslogic.catalog.gpus import find_gpu
from crosslogic.catalog.prices import GpuPrice, PriceMarket
from crosslogic.compass.capacity.step_model import Evidence
from crosslogic.compass.knowledge.model import Benchmark, Setup
from crosslogic.compass.ranking import offers
from crosslogic.compass.ranking.explain import rate_text
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.ranking.planner import Planner, recommend
from crosslogic.compass.ranking.scores import latency_ms
from crosslogic.compass.ranking.sizing import spare_replicas
from crosslogic.compass.specification.model import (
    Budget,
    DatacenterContext,
    DeploymentModel,
    ExperienceClass,
    Market,
    Priority,
    QualityTier,
    Slo,
    Specification,
    Wishes,
)
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.money import PUSD_PER_USD
from tests.planner_samples import LLAMA, SPEC, TRAFFIC, planner

replace = msgspec.structs.replace
SITE = DatacenterContext(power_per_kwh_pusd=12 * PUSD_PER_USD // 100)


def asked(**changes: object) -> Recommendation:
    return planner().recommend(replace(SPEC, **changes), confirm=0)


def test_a_recommendation_says_size_cost_and_why_with_numbers() -> None:
    best = recommend(SPEC, planner()).best
    assert best is not None
    assert best.candidate.model == LLAMA
    assert best.sizing.simulated
    assert best.sizing.replicas == best.sizing.needed + best.sizing.spare
    assert best.forecast.ttft_p95.low < best.forecast.ttft_p95.value < best.forecast.ttft_p95.high
    assert best.forecast.ttft_p95.value <= 300
    words = " | ".join(best.reasons)
    assert "for 20 requests/s at the peak" in words
    assert "p95 ITL" in words
    assert "likely to meet all targets" in words
    assert "a month" in words
    assert any(str(best.forecast.itl_p95.evidence) in each for each in best.caveats)


def test_every_candidate_is_an_option_or_a_rejection_with_its_numbers() -> None:
    found = asked(slo=Slo(300.0, 25.0, 900.0, e2e_output_tokens=256.0))
    assert not found.options
    assert any("p95 E2E" in each.reason and "> 900 ms" in each.reason for each in found.rejections)
    assert "nothing meets all targets; nearest is" in found.advice[0]
    over = asked(budget=Budget(per_month_pusd=10 * PUSD_PER_USD))
    assert any("a month > $10 at 20 requests/s on" in each.reason for each in over.rejections)
    few = asked(wishes=replace(SPEC.wishes, max_gpus=1))
    assert any("GPUs > 1" in each.reason for each in few.rejections)
    big = asked(wishes=Wishes(preferred_models=("meta-llama/Llama-3.1-405B-Instruct",), preferred_gpus=("l4",)))
    assert not big.options
    assert "exceed" in big.rejections[0].reason


def test_no_option_is_beaten_by_another_on_the_front_and_none_misses_a_target() -> None:
    wishes = Wishes(preferred_models=(LLAMA, "Qwen/Qwen3-8B", "openai/gpt-oss-120b"))
    found = asked(wishes=wishes)
    assert len(found.options) > 4
    front = [option for option in found.options if option.pareto]
    for one in front:
        for other in found.options:
            cheaper = other.cost.per_month_pusd < one.cost.per_month_pusd
            assert not (cheaper and latency_ms(other) < latency_ms(one) and other.quality == one.quality)
    for option in found.options:
        assert option.forecast.ttft_p95.value <= 300 * 1.001
        assert option.forecast.itl_p95.value <= 25 * 1.001
    cost, latency = (asked(wishes=wishes, priority=each).best for each in (Priority.COST, Priority.LATENCY))
    assert cost is not None
    assert latency is not None
    assert cost.cost.per_month_pusd <= latency.cost.per_month_pusd
    assert latency_ms(latency) <= latency_ms(cost)
    quality = asked(wishes=wishes, priority=Priority.ACCURACY).best
    assert quality is not None
    assert quality.quality is QualityTier.VERY_HIGH


def test_more_traffic_never_takes_fewer_replicas_and_spares_follow_availability() -> None:
    replicas = []
    for peak in (1.0, 10.0, 100.0, 1000.0):
        best = asked(traffic=replace(TRAFFIC, mean_qps=peak / 2, peak_qps=peak)).best
        assert best is not None
        replicas.append(best.sizing.replicas)
    assert replicas == sorted(replicas)
    assert replicas[-1] > 4 * replicas[0]
    assert spare_replicas(10, replace(SPEC, experience=ExperienceClass.BATCH), 100) == 0
    assert spare_replicas(1, SPEC, 100) == 1
    spot = replace(SPEC, market=Market.SPOT, availability=0.9999)
    assert spare_replicas(100, spot, 600) > spare_replicas(100, SPEC, 100) >= 1


def test_the_documents_purchase_pays_off_after_five_months_not_forty_one() -> None:
    gpu = find_gpu("a100_80")
    assert gpu is not None
    assert offers.operating_per_month_pusd(gpu, 4, SITE) == int(Decimal("182.208") * PUSD_PER_USD)
    rental = int(Decimal("4.10") * 4 * 730 * PUSD_PER_USD)
    even = offers.break_even_months(60_000 * PUSD_PER_USD, rental, 182 * PUSD_PER_USD)
    assert even == pytest.approx(5.1, abs=0.05)
    assert offers.break_even_months(1, 5, 5) is None


def test_owned_and_bought_gpus_cost_power_and_capital() -> None:
    wishes = Wishes(preferred_models=(LLAMA,), preferred_gpus=("a100_80",))
    slo = Slo(800.0, 50.0, None)
    owned = asked(wishes=wishes, slo=slo, deployment_model=DeploymentModel.OWNED_HARDWARE, datacenter=SITE).best
    assert owned is not None
    assert owned.cost.per_month_pusd == pytest.approx(400 * 0.73 * 0.12 * 1.3 * owned.cost.gpus * 1e12, rel=1e-6)
    unpriced = asked(wishes=wishes, slo=slo, deployment_model=DeploymentModel.OWNED_HARDWARE).best
    assert unpriced is not None
    assert "no price of power" in unpriced.cost.basis
    renting = Planner(planner().pool, offers.list_prices())
    spec = replace(SPEC, wishes=wishes, slo=slo, deployment_model=DeploymentModel.PURCHASE, datacenter=SITE)
    bought = renting.recommend(spec, confirm=0).best
    assert bought is not None
    assert bought.cost.capital_pusd == 15_000 * bought.cost.gpus * PUSD_PER_USD
    assert bought.cost.break_even_months == pytest.approx(5.9, abs=0.6)  # rented from GCP's list price


@dataclass(frozen=True)
class Listed:
    gpu_count: int
    usd: int
    region: str = "us-east-1"
    market: PriceMarket = PriceMarket.ON_DEMAND
    doubts: tuple[str, ...] = ()

    def price(self) -> GpuPrice:
        return GpuPrice(
            cloud="aws",
            region=self.region,
            instance_type=f"p{self.gpu_count}",
            gpu="h100_sxm",
            gpu_count=self.gpu_count,
            market=self.market,
            per_hour_pusd=self.usd * PUSD_PER_USD,
            doubts=self.doubts,
        )


def test_whole_instances_are_paid_for_and_distrusted_prices_are_not() -> None:
    eight, suspect = (
        Listed(8, 55).price(),
        Listed(8, 20, doubts=("far_below_elsewhere",)).price(),
    )
    prices = offers.allowed([eight, suspect], Wishes(regions=("us-east-1",)), Market.ON_DEMAND)
    assert prices == [eight]
    rented = offers.cheapest(prices, "h100_sxm", 4, 3)
    assert rented is not None
    assert (rented.instances, rented.per_hour_pusd) == (2, 110 * PUSD_PER_USD)
    assert offers.cheapest([Listed(2, 10).price()], "h100_sxm", 4, 1) is None
    assert offers.allowed([eight], Wishes(regions=("eu-west-1",)), Market.ON_DEMAND) == []


def test_spot_says_how_often_it_is_interrupted_and_region_moves_the_price() -> None:
    spot = Listed(1, 2, market=PriceMarket.SPOT).price()
    asking = Planner(planner().pool, [Listed(1, 5).price(), Listed(1, 4, "eu-west-1").price(), spot])
    best = asking.recommend(replace(SPEC, market=Market.SPOT), confirm=0).best
    assert best is not None
    assert best.cost.interruptions_per_month is not None
    assert best.cost.interruptions_per_month > 0
    there = asking.recommend(replace(SPEC, wishes=replace(SPEC.wishes, regions=("us-east-1",))), confirm=0).best
    anywhere = asking.recommend(SPEC, confirm=0).best
    assert anywhere is not None
    assert there is not None
    assert anywhere.cost.region == "eu-west-1"
    assert there.cost.per_hour_pusd > anywhere.cost.per_hour_pusd


def nonsense() -> list[Specification]:
    traffic = SPEC.traffic
    return [
        replace(SPEC, traffic=replace(traffic, peak_qps=1e12, mean_qps=1e12)),
        replace(SPEC, traffic=replace(traffic, peak_qps=-1.0)),
        replace(SPEC, traffic=replace(traffic, peak_qps=float("nan"))),
        replace(SPEC, slo=Slo(-5.0, 1.0, 1.0)),
        replace(SPEC, wishes=Wishes(preferred_gpus=("abacus",))),
        replace(SPEC, wishes=Wishes(quantizations=("nonsense",))),
        replace(SPEC, wishes=Wishes(tensor_parallel=-1)),
    ]


@pytest.mark.parametrize("spec", nonsense())
def test_nonsense_is_refused_in_a_sentence(spec: Specification) -> None:
    with pytest.raises(InvalidRequest) as refusal:
        planner().recommend(spec)
    assert len(str(refusal.value)) > 10


def test_what_was_measured_at_exactly_this_traffic_is_quoted_and_may_reject() -> None:
    def measured(ttft_ms: float) -> Recommendation:
        found = []
        for tp in (1, 2, 4, 8):
            for precision in ("bf16", "fp8"):
                found.append(
                    Benchmark(
                        setup=Setup(LLAMA, "h100_sxm", tp, precision),
                        prompt_tokens=512,
                        output_tokens=256,
                        ttft_p95_ms=ttft_ms,
                        itl_p95_ms=11.0,
                        requests_per_second=500.0,
                    )
                )
        return Planner(planner().pool, benchmarks=found).recommend(SPEC, confirm=0)

    best = measured(99.0).best
    assert best is not None
    assert (best.forecast.ttft_p95.value, best.forecast.ttft_p95.evidence) == (99.0, Evidence.MEASURED)
    late = measured(310.0)
    assert not late.options
    assert any("p95 TTFT 310 ms > 300 ms at 500 requests/s, measured" in each.reason for each in late.rejections)


@pytest.mark.parametrize("peak_qps", [0.5, 30.0, 300.0, 3000.0])
def test_every_figure_of_every_option_is_a_number(peak_qps: float) -> None:
    """Infinity is no JSON: it came back as null, and broke whoever read it."""
    traffic = msgspec.structs.replace(SPEC.traffic, peak_qps=peak_qps, mean_qps=peak_qps / 20)
    found = planner().recommend(msgspec.structs.replace(SPEC, traffic=traffic))
    again = msgspec.json.decode(msgspec.json.encode(found), type=type(found))
    assert again.options
    assert [each.sizing for each in again.options] == [each.sizing for each in found.options]


@pytest.mark.parametrize(("rate", "text"), [(8 / 3, "2.67"), (0.001, "0.001"), (47.31, "47.3"), (12345.6, "12,346")])
def test_rates_are_written_for_people(rate: float, text: str) -> None:
    assert rate_text(rate) == text
