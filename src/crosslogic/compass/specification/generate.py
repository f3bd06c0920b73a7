"""From an intent to a specification: what was told, and for the rest what its use case usually is. Pure.

Invariant: every field has a value that a recommendation can be made from, and everything told is in it unchanged.
"""

from crosslogic.compass.intent.model import DeploymentIntent
from crosslogic.compass.specification.model import (
    Budget,
    DatacenterContext,
    DeploymentModel,
    Market,
    Priority,
    QualityTier,
    Slo,
    Specification,
    UseCase,
    Wishes,
)
from crosslogic.compass.specification.templates import CLASS_TARGETS, Template, template
from crosslogic.compass.traffic.demand import Demand, traffic_of

DEFAULT_AVAILABILITY = 0.999
_LEAST_QUALITY = {Priority.ACCURACY: QualityTier.HIGH}


def specify(intent: DeploymentIntent) -> Specification:
    """The specification of an intent; a use case that was not told is taken for a chatbot."""
    row = template(intent.use_case or UseCase.CHATBOT_CONVERSATIONAL)
    priority = intent.priority or Priority.BALANCED
    return Specification(
        use_case=row.use_case,
        experience=intent.experience_class or row.experience,
        traffic=traffic_of(row, _demand(intent)),
        slo=_slo(intent, row),
        priority=priority,
        quality=intent.quality_threshold or _LEAST_QUALITY.get(priority),
        availability=intent.reliability_target or DEFAULT_AVAILABILITY,
        budget=Budget(intent.budget.per_month_pusd, intent.budget.per_hour_pusd, intent.budget.per_1k_tokens_pusd),
        wishes=_wishes(intent),
        deployment_model=intent.deployment_model or DeploymentModel.CLOUD_RENTAL,
        market=intent.market or Market.ON_DEMAND,
        datacenter=intent.datacenter or DatacenterContext(),
        users=intent.user_count if intent.user_count is not None else intent.concurrent_users,
        domains=intent.domains,
        context_tokens=intent.context_tokens,
        description=intent.use_case_description,
    )


def _demand(intent: DeploymentIntent) -> Demand:
    peak = intent.peak_qps if intent.peak_qps is not None else intent.target_throughput_rps
    return Demand(
        users=intent.user_count,
        concurrent_users=intent.concurrent_users,
        active_share=intent.active_share,
        mean_qps=intent.expected_qps,
        peak_qps=peak,
        peak_over_mean=intent.peak_over_mean,
        requests_per_user_day=intent.requests_per_user_day,
        requests_per_active_user_minute=intent.requests_per_active_user_minute,
        prompt_mean=intent.prompt_length_avg,
        prompt_p95=intent.prompt_length_p95,
        output_mean=intent.generation_length_avg,
        output_p95=intent.generation_length_p95,
        burstiness=intent.burstiness_pattern,
        prefix_hit_rate=intent.prefix_hit_rate,
    )


def _slo(intent: DeploymentIntent, row: Template) -> Slo:
    """The use case's row, the class's targets where another class was asked for, and over both what was told."""
    ttft, itl, e2e = row.ttft_p95_ms, row.itl_p95_ms, row.e2e_p95_ms
    tokens = intent.generation_length_avg or float(row.output_tokens)
    asked = intent.experience_class
    if asked is not None and asked is not row.experience:
        ttft, itl = CLASS_TARGETS[asked]
        e2e = ttft + tokens * itl
    elif intent.generation_length_avg is not None:  # the row's is for answers of its own length
        e2e = ttft + (e2e - ttft) * max(0.0, tokens - 1) / max(1, row.output_tokens - 1)
    if intent.target_itl_p95_ms is not None:
        itl = intent.target_itl_p95_ms
    if intent.target_ttft_p95_ms is not None:
        ttft = intent.target_ttft_p95_ms
    told = intent.target_e2e_latency_p95_ms
    if told is not None:
        if told < ttft and intent.target_ttft_p95_ms is None:
            ttft = told
        return Slo(ttft, itl, told, e2e_output_tokens=tokens)
    if intent.target_itl_p95_ms is not None or intent.target_ttft_p95_ms is not None:
        e2e = max(e2e, ttft + tokens * itl)  # what was told must not be made impossible by what was not
    return Slo(ttft, itl, e2e, e2e_output_tokens=tokens)


def _wishes(intent: DeploymentIntent) -> Wishes:
    return Wishes(
        preferred_models=intent.preferred_models,
        excluded_models=intent.excluded_models,
        preferred_gpus=intent.preferred_gpus,
        excluded_gpus=intent.excluded_gpus,
        regions=intent.regions,
        excluded_regions=intent.excluded_regions,
        clouds=intent.clouds,
        excluded_clouds=intent.excluded_clouds,
        quantizations=intent.quantizations,
        max_gpus=intent.max_gpus,
        tensor_parallel=intent.tensor_parallel,
    )
