"""What was understood of a conversation: the planner document's `DeploymentIntent`, each field as far as it was told.

Invariant: None or empty means that nothing was said about it; nothing here is derived or assumed, that is the
specification's part.
"""

from enum import StrEnum

import msgspec

from crosslogic.compass.specification.model import (
    DatacenterContext,
    DeploymentModel,
    ExperienceClass,
    Market,
    Priority,
    QualityTier,
    UseCase,
)


class Level(StrEnum):
    """How much one of several aims matters."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class Burstiness(StrEnum):
    STEADY = "steady"
    MODERATE = "moderate"
    HIGH = "high"
    DIURNAL = "diurnal"


class BudgetConstraint(msgspec.Struct, frozen=True):
    """In pico-USD."""

    per_month_pusd: int | None = None
    per_hour_pusd: int | None = None
    per_1k_tokens_pusd: int | None = None


class DeploymentIntent(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths in tokens, latencies in milliseconds, rates in requests a second."""

    use_case: UseCase | None = None
    experience_class: ExperienceClass | None = None
    use_case_description: str = ""  # all turns of the user, as they were
    domains: tuple[str, ...] = ()

    user_count: int | None = None
    user_count_min: int | None = None  # where a range was given
    user_count_max: int | None = None
    concurrent_users: int | None = None
    active_share: float | None = None
    expected_qps: float | None = None
    peak_qps: float | None = None
    peak_over_mean: float | None = None
    requests_per_user_day: float | None = None
    requests_per_active_user_minute: float | None = None
    prompt_length_avg: float | None = None
    prompt_length_p95: float | None = None
    generation_length_avg: float | None = None
    generation_length_p95: float | None = None
    context_tokens: int | None = None
    burstiness_pattern: Burstiness | None = None
    prefix_hit_rate: float | None = None
    streaming: bool | None = None

    priority: Priority | None = None
    accuracy_priority: Level = Level.MEDIUM
    cost_priority: Level = Level.MEDIUM
    latency_priority: Level = Level.MEDIUM
    budget: BudgetConstraint = BudgetConstraint()

    target_ttft_p95_ms: float | None = None
    target_itl_p95_ms: float | None = None
    target_e2e_latency_p95_ms: float | None = None
    target_throughput_rps: float | None = None
    quality_threshold: QualityTier | None = None
    reliability_target: float | None = None  # 0.999

    preferred_models: tuple[str, ...] = ()
    excluded_models: tuple[str, ...] = ()
    preferred_gpus: tuple[str, ...] = ()
    excluded_gpus: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    excluded_regions: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()
    excluded_clouds: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()
    max_gpus: int | None = None
    tensor_parallel: int | None = None

    deployment_model: DeploymentModel | None = None
    market: Market | None = None
    datacenter: DatacenterContext | None = None

    unknown_models: tuple[str, ...] = ()  # named, and in no catalogue
    unknown_gpus: tuple[str, ...] = ()
    declined: tuple[str, ...] = ()  # fields to which "I don't know" was answered
    doubts: tuple[str, ...] = ()  # sentences: what was said and cannot be taken as it stands
