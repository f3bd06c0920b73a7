"""What contradicts itself or cannot be, in a specification: each finding is a sentence that names the field. Pure.

Invariant: an error means that no recommendation can keep the specification; a warning, that its author may not have
meant it.
"""

from collections.abc import Iterator
from enum import StrEnum
from math import isfinite

import msgspec

from crosslogic.catalog.cards import find_card
from crosslogic.catalog.gpus import find_gpu
from crosslogic.compass.specification.lengths import Lengths
from crosslogic.compass.specification.model import DeploymentModel, Market, Specification
from crosslogic.kernel.money import PUSD_PER_USD

MOST_QPS = 1e6
_MOST_TOKENS = 10_000_000
_FASTEST_ITL_MS = 1.0
_HOURS_A_MONTH = 730


class Weight(StrEnum):
    ERROR = "error"
    WARNING = "warning"


class Finding(msgspec.Struct, frozen=True):
    field: str
    weight: Weight
    sentence: str


def validate(specification: Specification) -> list[Finding]:
    """All findings, errors first."""
    checks = (_traffic, _targets, _money, _wishes, _place)
    found = [finding for check in checks for finding in check(specification)]
    return sorted(found, key=lambda finding: finding.weight is not Weight.ERROR)


def _error(field: str, sentence: str) -> Finding:
    return Finding(field, Weight.ERROR, sentence)


def _warning(field: str, sentence: str) -> Finding:
    return Finding(field, Weight.WARNING, sentence)


def _traffic(spec: Specification) -> Iterator[Finding]:
    traffic = spec.traffic
    for field, qps in (("traffic.mean_qps", traffic.mean_qps), ("traffic.peak_qps", traffic.peak_qps)):
        if not isfinite(qps) or qps <= 0:
            yield _error(field, f"a rate of {qps:g} requests/s is none; say how many arrive")
        elif qps > MOST_QPS:
            yield _error(
                field,
                f"{qps:g} requests/s are more than a million, beyond what any one deployment serves; "
                "give the rate in requests a second, or split it",
            )
    if isfinite(traffic.mean_qps) and traffic.peak_qps < traffic.mean_qps:
        yield _error(
            "traffic.peak_qps",
            f"the peak of {traffic.peak_qps:g} requests/s is below the mean of {traffic.mean_qps:g}",
        )
    if not 0 < traffic.burstiness_cv <= 100:
        yield _error(
            "traffic.burstiness_cv", f"a burstiness of {traffic.burstiness_cv:g} is none; 1 is Poisson, 2 usual"
        )
    if not 0 <= traffic.prefix_hit_rate < 1:
        yield _error("traffic.prefix_hit_rate", "the share of prompts found in the prefix cache is from 0 to below 1")
    yield from _lengths("traffic.prompt_tokens", "prompts", traffic.prompt_tokens)
    yield from _lengths("traffic.output_tokens", "answers", traffic.output_tokens)
    if spec.users is not None and spec.users <= 0:
        yield _error("users", f"{spec.users} users are none")
    if spec.context_tokens is not None:
        usual = traffic.prompt_tokens.mean + traffic.output_tokens.mean
        if spec.context_tokens < usual:
            yield _error(
                "context_tokens",
                f"a context of {spec.context_tokens:,} tokens does not hold an average request ({usual:,.0f})",
            )


def _lengths(field: str, what: str, lengths: Lengths) -> Iterator[Finding]:
    if not isfinite(lengths.mean) or not 1 <= lengths.mean <= _MOST_TOKENS:
        yield _error(f"{field}.mean", f"{what} of {lengths.mean:g} tokens on average cannot be")
    elif lengths.p95 < 0.2 * lengths.mean:
        yield _error(
            f"{field}.p95", f"95% of the {what} are below {lengths.p95:g} tokens, but their mean is {lengths.mean:g}"
        )
    elif lengths.p95 > 4 * lengths.mean and not lengths.histogram:
        yield _warning(
            f"{field}.p95",
            f"the 95th percentile of the {what} is {lengths.p95 / lengths.mean:.1f} times their mean; beyond 3.9 times "
            "only a histogram can say how they spread, so import a log",
        )


def _targets(spec: Specification) -> Iterator[Finding]:
    slo = spec.slo
    targets = (("ttft", slo.ttft_p95_ms), ("itl", slo.itl_p95_ms), ("e2e", slo.e2e_p95_ms))
    broken = [(name, value) for name, value in targets if value is not None and (not isfinite(value) or value <= 0)]
    for name, value in broken:
        yield _error(f"slo.{name}_p95_ms", f"a target of {value:g} ms cannot be met")
    if broken:
        return
    if slo.e2e_p95_ms is not None and slo.ttft_p95_ms is not None and slo.e2e_p95_ms <= slo.ttft_p95_ms:
        yield _error(
            "slo.e2e_p95_ms",
            f"an answer cannot end within {slo.e2e_p95_ms:g} ms and begin only within {slo.ttft_p95_ms:g} ms; "
            "raise the end-to-end target or lower TTFT",
        )
        return
    effective = slo.effective_itl_p95_ms(spec.traffic)
    if effective is None or slo.e2e_p95_ms is None:
        return
    tokens = slo.e2e_output_tokens or spec.traffic.output_tokens.p95
    if effective < _FASTEST_ITL_MS:
        yield _error(
            "slo.e2e_p95_ms",
            f"{tokens:,.0f} tokens within {slo.e2e_p95_ms:g} ms leave {effective:.2f} ms for each, which no GPU does; "
            f"give it at least {(slo.ttft_p95_ms or 0) + (tokens - 1) * _FASTEST_ITL_MS:,.0f} ms or shorter answers",
        )
    elif slo.e2e_binds(spec.traffic) and slo.itl_p95_ms is not None:
        takes = (slo.ttft_p95_ms or 0) + (tokens - 1) * slo.itl_p95_ms
        yield _warning(
            "slo.e2e_p95_ms",
            f"at its own target of {slo.itl_p95_ms:g} ms a token, an answer of {tokens:,.0f} tokens takes "
            f"{takes / 1000:.1f} s, more than the {slo.e2e_p95_ms / 1000:g} s end to end; so {effective:.1f} ms count",
        )


def _money(spec: Specification) -> Iterator[Finding]:
    budget = spec.budget
    amounts = (
        ("per_month_pusd", budget.per_month_pusd, "a month"),
        ("per_hour_pusd", budget.per_hour_pusd, "an hour"),
        ("per_1k_tokens_pusd", budget.per_1k_tokens_pusd, "for 1,000 tokens"),
    )
    for field, amount, per in amounts:
        if amount is not None and amount <= 0:
            yield _error(f"budget.{field}", f"a budget of {amount / PUSD_PER_USD:g} USD {per} buys nothing")
    if budget.per_month_pusd and budget.per_hour_pusd and budget.per_hour_pusd * _HOURS_A_MONTH < budget.per_month_pusd:
        yield _warning(
            "budget.per_hour_pusd",
            f"{budget.per_hour_pusd / PUSD_PER_USD:g} USD an hour end at "
            f"{budget.per_hour_pusd * _HOURS_A_MONTH / PUSD_PER_USD:,.0f} USD a month, below the monthly budget; "
            "the hourly one counts",
        )


def _wishes(spec: Specification) -> Iterator[Finding]:
    wishes = spec.wishes
    for kind, wanted, excluded in (
        ("models", wishes.preferred_models, wishes.excluded_models),
        ("gpus", wishes.preferred_gpus, wishes.excluded_gpus),
        ("regions", wishes.regions, wishes.excluded_regions),
        ("clouds", wishes.clouds, wishes.excluded_clouds),
    ):
        both = sorted(set(wanted) & set(excluded))
        if both:
            yield _error(
                f"wishes.excluded_{kind}", f"{', '.join(both)} is both wanted and excluded; remove it from one"
            )
    for field, models in (("preferred_models", wishes.preferred_models), ("excluded_models", wishes.excluded_models)):
        for name in models:
            if find_card(name) is None:
                yield _error(
                    f"wishes.{field}", f"the model {name[:80]!r} is in no catalogue; import its config.json first"
                )
    for field, gpus in (("preferred_gpus", wishes.preferred_gpus), ("excluded_gpus", wishes.excluded_gpus)):
        for name in gpus:
            if find_gpu(name) is None:
                yield _error(
                    f"wishes.{field}",
                    f"the GPU {name[:80]!r} is not known; `crosslogic catalog gpus` lists those that are",
                )
    if wishes.max_gpus is not None and wishes.max_gpus < 1:
        yield _error("wishes.max_gpus", f"{wishes.max_gpus} GPUs serve nothing")
    if wishes.tensor_parallel is not None:
        if wishes.tensor_parallel < 1:
            yield _error("wishes.tensor_parallel", f"a tensor parallelism of {wishes.tensor_parallel} is none")
        elif wishes.max_gpus is not None and wishes.tensor_parallel > wishes.max_gpus:
            yield _error(
                "wishes.tensor_parallel",
                f"one replica over {wishes.tensor_parallel} GPUs does not fit into the {wishes.max_gpus} allowed",
            )


def _place(spec: Specification) -> Iterator[Finding]:
    if not 0 < spec.availability < 1:
        yield _error("availability", f"{spec.availability:.4%} of the time cannot be promised; say 99.9% or the like")
    elif spec.market is Market.SPOT and spec.availability > 0.999:
        yield _warning(
            "market", f"{spec.availability:.3%} on spot instances needs spares for losses; reserve or pay on demand"
        )
    if spec.deployment_model is not DeploymentModel.CLOUD_RENTAL and spec.market is not Market.ON_DEMAND:
        yield _warning("market", f"GPUs that are not rented have no {spec.market} market; it is ignored")
    if spec.datacenter.pue < 1:
        yield _error(
            "datacenter.pue", f"a power usage effectiveness of {spec.datacenter.pue:g} is below 1, which cannot be"
        )
    if spec.datacenter.gpu_pusd is not None and spec.datacenter.gpu_pusd <= 0:
        yield _error("datacenter.gpu_pusd", "a GPU costs more than nothing")
    if spec.datacenter.amortization_months < 1:
        yield _error("datacenter.amortization_months", "hardware is written off over at least a month")
