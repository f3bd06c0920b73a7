"""Values of a recommendation. Times are milliseconds, money is pico-USD.

Invariant: every figure says how low and how high it may be with 90% confidence, and how well founded it is.
"""

from __future__ import annotations

import msgspec

from crosslogic.compass.capacity.step_model import Evidence
from crosslogic.compass.specification.model import DeploymentModel, Market, Priority, QualityTier, Specification


class Figure(msgspec.Struct, frozen=True):
    """A forecast with its 90% interval."""

    value: float
    low: float
    high: float
    evidence: Evidence
    unit: str = "ms"


class Candidate(msgspec.Struct, frozen=True, order=True):
    """One way to run a model; `backend` is the engine."""

    model: str
    gpu: str
    tp: int
    precision: str
    backend: str = "vllm"

    @property
    def id(self) -> str:
        return f"{self.model}@{self.tp}x{self.gpu}/{self.precision}/{self.backend}"


class Forecast(msgspec.Struct, frozen=True):
    """95th percentiles at the peak, on the replicas that are needed for it, and how likely they are to be met."""

    ttft_p95: Figure
    itl_p95: Figure
    e2e_p95: Figure
    tokens_per_s: Figure  # prompt and answer together, of the whole deployment at the peak
    likely: float  # share of the model's uncertainty in which all targets are met


class Sizing(msgspec.Struct, frozen=True):
    """How many replicas, and why so many."""

    replicas: int
    needed: int  # at the peak with all of them up
    spare: int  # so that the peak is served while so many are down
    replicas_at_mean: int
    rate_per_replica: float  # the largest that meets all targets, requests a second
    scale_out_at: float  # requests a second of a replica at which another has to be started
    startup_s: float
    binding: str  # the target that limits the rate
    kv_tokens: int
    most_running: int
    running: float  # requests in a replica at the peak
    simulated: bool  # confirmed in the virtual-time scheduler, not only read off the surface


class Cost(msgspec.Struct, frozen=True):
    """Of the whole deployment. `per_hour` is of the peak's replicas, all the time."""

    per_hour_pusd: int
    per_month_pusd: int
    per_month_at_mean_pusd: int  # with as many replicas as the mean asks for
    per_million_tokens_pusd: int | None
    gpus: int
    instances: int
    basis: str
    cloud: str | None = None
    region: str | None = None
    instance_type: str | None = None
    stale: bool = False
    interruptions_per_month: float | None = None  # of all spot instances together
    redo_per_month_pusd: int | None = None  # of it, for machines that start anew and answers begun again
    capital_pusd: int | None = None  # purchase: the GPUs
    break_even_months: float | None = None


class Option(msgspec.Struct, frozen=True):
    """A candidate that meets what was asked for, with all that speaks for and against it."""

    candidate: Candidate
    quality: QualityTier
    forecast: Forecast
    sizing: Sizing
    cost: Cost
    score: float
    pareto: bool
    reasons: tuple[str, ...]
    caveats: tuple[str, ...] = ()


class Rejection(msgspec.Struct, frozen=True):
    """`reason` is a sentence with numbers; `near` how many times over its target the worst figure is, if one is."""

    candidate: Candidate
    reason: str
    near: float | None = None


class Recommendation(msgspec.Struct, frozen=True):
    """`options` best first; empty where nothing meets all targets, and then `advice` says what would."""

    specification: Specification
    priority: Priority
    deployment_model: DeploymentModel
    market: Market
    options: tuple[Option, ...]
    rejections: tuple[Rejection, ...]
    considered: int
    advice: tuple[str, ...] = ()

    @property
    def best(self) -> Option | None:
        return self.options[0] if self.options else None
