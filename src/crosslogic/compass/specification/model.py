"""Values of a specification: what is to be served, how fast, for whom and at what cost (planner document, Context and
Intent Engine). Recommendations are a function of this and of the catalogue alone.

Invariant: every figure is for the whole deployment, not for one replica. Money is in pico-USD. Empty means: no wish.
"""

from enum import StrEnum

import msgspec

from crosslogic.compass.specification.lengths import Lengths


class UseCase(StrEnum):
    CHATBOT_CONVERSATIONAL = "chatbot_conversational"
    CODE_COMPLETION = "code_completion"
    CODE_GENERATION_DETAILED = "code_generation_detailed"
    TRANSLATION = "translation"
    CONTENT_GENERATION = "content_generation"
    SUMMARIZATION_SHORT = "summarization_short"
    DOCUMENT_ANALYSIS_RAG = "document_analysis_rag"
    LONG_DOCUMENT_SUMMARIZATION = "long_document_summarization"
    RESEARCH_LEGAL_ANALYSIS = "research_legal_analysis"


class ExperienceClass(StrEnum):
    INSTANT = "instant"
    CONVERSATIONAL = "conversational"
    INTERACTIVE = "interactive"
    DEFERRED = "deferred"
    BATCH = "batch"


class Priority(StrEnum):
    ACCURACY = "accuracy"
    LATENCY = "latency"
    COST = "cost"
    BALANCED = "balanced"


class QualityTier(StrEnum):
    """In rising order, as `TIERS` has them."""

    BASIC = "basic"
    STANDARD = "standard"
    HIGH = "high"
    VERY_HIGH = "very_high"


TIERS = (QualityTier.BASIC, QualityTier.STANDARD, QualityTier.HIGH, QualityTier.VERY_HIGH)


class DeploymentModel(StrEnum):
    CLOUD_RENTAL = "cloud_rental"
    OWNED_HARDWARE = "owned_hardware"
    PURCHASE = "purchase"


class Market(StrEnum):
    """How rented GPUs are paid for."""

    ON_DEMAND = "on_demand"
    SPOT = "spot"
    RESERVED = "reserved"


class TrafficProfile(msgspec.Struct, frozen=True):
    """What arrives. `burstiness_cv` is the coefficient of variation of the time between requests: 1 is Poisson."""

    prompt_tokens: Lengths
    output_tokens: Lengths
    mean_qps: float
    peak_qps: float
    burstiness_cv: float = 2.0
    prefix_hit_rate: float = 0.0  # share of prompt tokens that a prefix cache has already
    basis: tuple[str, ...] = ()  # where these figures are from, in sentences


class Slo(msgspec.Struct, frozen=True):
    """95th percentiles in milliseconds; None: no target.

    Where `e2e_output_tokens` is set, the end-to-end target is for an answer of that length, and other lengths have
    theirs in proportion (`e2e_limit_ms`); else 95% of all answers, short and long, are to end within it.
    """

    ttft_p95_ms: float | None = None
    itl_p95_ms: float | None = None
    e2e_p95_ms: float | None = None
    e2e_output_tokens: float | None = None

    def e2e_limit_ms(self, output_tokens: float) -> float | None:
        """How long an answer of this length may take."""
        if self.e2e_p95_ms is None or self.e2e_output_tokens is None:
            return self.e2e_p95_ms
        first_ms = self.ttft_p95_ms or 0.0
        steps = max(1.0, self.e2e_output_tokens - 1)
        return first_ms + max(0.0, self.e2e_p95_ms - first_ms) * max(0.0, output_tokens - 1) / steps

    def effective_itl_p95_ms(self, traffic: TrafficProfile) -> float | None:
        """The inter-token latency that keeps both its own target and the end-to-end one.

        At their own ITL four of the documents' use cases break their E2E: there E2E binds (planner notes §3).
        """
        bounds = [] if self.itl_p95_ms is None else [self.itl_p95_ms]
        if self.e2e_p95_ms is not None:
            tokens = self.e2e_output_tokens or traffic.output_tokens.p95
            bounds.append(max(0.0, self.e2e_p95_ms - (self.ttft_p95_ms or 0.0)) / max(1.0, tokens - 1))
        return min(bounds, default=None)

    def e2e_binds(self, traffic: TrafficProfile) -> bool:
        """Whether the end-to-end target asks for a lower ITL than the ITL target itself."""
        effective = self.effective_itl_p95_ms(traffic)
        return effective is not None and (self.itl_p95_ms is None or effective < self.itl_p95_ms)


class Budget(msgspec.Struct, frozen=True):
    """The most that it may cost; None: no bound."""

    per_month_pusd: int | None = None
    per_hour_pusd: int | None = None
    per_1k_tokens_pusd: int | None = None


class DatacenterContext(msgspec.Struct, frozen=True):
    """What owned or bought GPUs cost to run. Unknown power cost: taken as accounted for elsewhere."""

    power_per_kwh_pusd: int | None = None
    pue: float = 1.3  # power usage effectiveness: all power over that of the machines
    rack_per_month_pusd: int | None = None
    amortization_months: int = 36
    gpu_pusd: int | None = None  # what one GPU costs to buy, with its share of the machine


class Wishes(msgspec.Struct, frozen=True):
    """What may be chosen from. `preferred`: only these, where any is named; `excluded`: none of these.

    Models and GPUs are ids of the catalogue. Regions are ids of the region catalogue ("us", "frankfurt") or names of
    clouds ("us-east-1"): `catalog.regions.Regions.within` tells whether a price is in one.
    """

    preferred_models: tuple[str, ...] = ()
    excluded_models: tuple[str, ...] = ()
    preferred_gpus: tuple[str, ...] = ()
    excluded_gpus: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    excluded_regions: tuple[str, ...] = ()
    clouds: tuple[str, ...] = ()
    excluded_clouds: tuple[str, ...] = ()
    quantizations: tuple[str, ...] = ()  # bf16, fp8, int8, int4
    max_gpus: int | None = None
    tensor_parallel: int | None = None  # exactly this, where it is set


class Specification(msgspec.Struct, frozen=True):
    """All that a recommendation is made from."""

    use_case: UseCase
    experience: ExperienceClass
    traffic: TrafficProfile
    slo: Slo
    priority: Priority = Priority.BALANCED
    quality: QualityTier | None = None  # at least this
    availability: float = 0.999  # share of the time that the peak can be served
    budget: Budget = Budget()
    wishes: Wishes = Wishes()
    deployment_model: DeploymentModel = DeploymentModel.CLOUD_RENTAL
    market: Market = Market.ON_DEMAND
    datacenter: DatacenterContext = DatacenterContext()
    users: int | None = None
    domains: tuple[str, ...] = ()  # subject matter: code, legal, medical, multilingual, …
    context_tokens: int | None = None  # the longest prompt and answer together that must fit
    description: str = ""  # in the user's own words; text only, nothing follows from it
