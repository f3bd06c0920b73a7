"""Settings of what is sold, and of the later rooms: models, prices, tiers, billing, planning.

Names and defaults are those of the interface document. What has no effect yet is listed in `effects.py`.
"""

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.money import PUSD_PER_USD, token_price_pusd
from crosslogic.limits.model import Limits
from crosslogic.settings.sections import LimitSettings
from crosslogic.settings.values import Count, Money, Positive, Real, Seconds, Section, Texts, Truth, list_as_tuple
from crosslogic.tenancy.model import Feature, Plan


class DeploymentSettings(Section):
    """How a model is spread over GPUs."""

    tensor_parallelism: Positive = Field(default=1, description="GPUs that share each layer.")
    pipeline_parallelism: Positive = Field(default=1, description="Groups of layers.")
    max_batch_size: Positive | None = Field(default=None, description="Sequences that run together.")
    quantization: str | None = Field(default=None, description="Number format of the weights.")
    replicas: Positive = Field(default=1, description="Copies.")
    nodes: Texts = Field(default=(), description="Names of the nodes.")


class ModelSettings(Section):
    """A model and what callers may ask of it."""

    id: str = Field(min_length=1, description="Name that callers use, and nodes serve.")
    name: str | None = Field(default=None, description="Name for people.")
    aliases: Texts = Field(default=(), description="Other names that callers may use.")
    context_window: Positive | None = Field(default=None, description="Most tokens of prompt and answer together.")
    max_output_tokens: Positive | None = Field(default=None, description="Largest `max_tokens`.")
    fallbacks: Texts = Field(default=(), description="Models to serve instead, in this order, when no node can.")
    capabilities: Texts = Field(default=(), description="What it can do: `chat`, `code`, `vision`.")
    deployment: DeploymentSettings | None = Field(default=None, description="Where it runs.")

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        if self.id in self.fallbacks or self.id in self.aliases:
            raise ValueError(f"{self.id} cannot be its own alias or fallback; remove it from the list")
        if self.context_window and self.max_output_tokens and self.max_output_tokens > self.context_window:
            raise ValueError("max_output_tokens must not be larger than context_window")
        return self


class PriceSettings(Section):
    """What a model costs its callers, in USD for a million tokens, at most 6 decimals after the multiplier."""

    input_usd_per_million: Money = Field(description="Prompt tokens.")
    output_usd_per_million: Money = Field(description="Generated tokens.")
    cached_input_usd_per_million: Money | None = Field(
        default=None, description="Prompt tokens from the engine's cache; as `input` when absent."
    )
    region_multipliers: dict[str, Money] = Field(default={}, description="Factor on all three, by region.")

    @model_validator(mode="after")
    def _whole_picodollars(self) -> "PriceSettings":
        prices = (self.input_usd_per_million, self.output_usd_per_million, self.cached_input_usd_per_million)
        try:
            for factor in (Decimal(1), *self.region_multipliers.values()):
                for price in prices:
                    token_price_pusd((price or Decimal(0)) * factor)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self


TierFeature = Annotated[Feature, Field(strict=False)]


def _pusd(usd: Decimal) -> int:
    exact = usd * PUSD_PER_USD
    if exact != exact.to_integral_value():
        raise ValueError("a price has at most 12 decimals")
    return int(exact)


class TierRateSettings(Section):
    """Rates of a tier, in the interface document's names."""

    default_rpm: Positive | None = Field(default=None, description="Requests a minute.")
    default_daily_limit: Positive | None = Field(default=None, description="Requests a day.")


class TierSettings(Section):
    """What a tenant gets for its plan."""

    id: str = Field(min_length=1, description="Name that organisations refer to.")
    name: str | None = Field(default=None, description="Name for people.")
    max_concurrency: Positive | None = Field(default=None, description="Requests of an organisation at the same time.")
    max_queue_depth: Count | None = Field(default=None, description="Requests that may wait.")
    priority: Count = Field(default=1, description="Higher is served first.")
    rate_limit: TierRateSettings = Field(default=TierRateSettings(), description="Rates.")
    tokens_per_minute: Positive | None = Field(default=None, description="Tokens a minute of an organisation.")
    env: LimitSettings = Field(default=LimitSettings(), description="Each environment that sets none of its own.")
    key: LimitSettings = Field(default=LimitSettings(), description="Each key that sets none of its own.")
    features: Annotated[tuple[TierFeature, ...], list_as_tuple] = Field(
        default=(Feature.API_ACCESS,), description="What it includes; without `api_access` keys are refused."
    )
    price_per_token: Money | None = Field(default=None, description="USD a token, at most 12 decimals.")
    price_usd_per_month: Money = Field(default=Decimal(0), description="USD a month, at most 12 decimals.")
    included_tokens_per_month: Count = Field(default=0, description="Tokens a month that the price includes.")
    support: str | None = Field(default=None, description="Such as `community`, `email`, `slack`.")
    sla_percent: str | None = Field(default=None, description='Availability that is promised, as text: `"99.9"`.')

    @model_validator(mode="after")
    def _is_a_plan(self) -> "TierSettings":
        self.plan()
        return self

    def plan(self) -> Plan:
        """The tier as the plan that organisations are on. Raises ValueError for a price with too many decimals."""
        return Plan(
            id=self.id,
            name=self.name or self.id,
            features=self.features,
            limits=Limits(
                requests_per_minute=self.rate_limit.default_rpm,
                requests_per_day=self.rate_limit.default_daily_limit,
                tokens_per_minute=self.tokens_per_minute,
                concurrency=self.max_concurrency,
            ),
            env_limits=self.env.limits(),
            key_limits=self.key.limits(),
            max_queue_depth=self.max_queue_depth,
            priority=self.priority,
            price_per_token_pusd=None if self.price_per_token is None else _pusd(self.price_per_token),
            price_per_month_pusd=_pusd(self.price_usd_per_month),
            included_tokens_per_month=self.included_tokens_per_month,
            support=self.support,
            sla_percent=self.sla_percent,
        )


class MultiTenantSettings(Section):
    """Tenants and their tiers."""

    default_tier: str | None = Field(default=None, description="Tier of an organisation that names none.")


class CacheSettings(Section):
    """Response cache (`enable_caching`)."""

    backend: Literal["redis", "memory"] = Field(default="memory", description="Where answers are kept.")
    mode: Literal["never", "deterministic", "always"] = Field(
        default="deterministic", description="Which answers may be given again."
    )
    unasked: Truth = Field(default=False, description="Also for requests without the header `x-cache: use`.")
    default_ttl_s: Seconds = Field(default=3600.0, description="How long.")


class QueueSettings(Section):
    """Requests that wait for a node."""

    max_size: Positive = Field(default=1000, description="Most requests that wait.")
    max_size_per_tenant: Positive = Field(default=100, description="Of one organisation, where its plan says nothing.")
    timeout_s: Seconds = Field(default=30.0, description="Longest wait.")


class ResourceSettings(Section):
    """Reservations of capacity."""

    enable_reservations: Truth = Field(default=False, description="Allow them.")
    total_gpu_memory_mb: Count | None = Field(default=None, description="GPU memory to share out.")
    total_cpu_cores: Annotated[Real, Field(ge=0)] | None = Field(default=None, description="Cores to share out.")


class CostTrackingSettings(Section):
    """Roll-up of usage."""

    storage_backend: Literal["postgres", "clickhouse"] = Field(default="postgres", description="Where.")
    aggregation_interval_s: Seconds = Field(default=3600.0, description="How often.")


class BillingSettings(Section):
    """Invoices."""

    cycle: Literal["monthly", "usage-based"] = Field(default="monthly", description="When an invoice is made.")
    invoice_day: Annotated[Positive, Field(le=28)] = Field(default=1, description="Day of the month.")
    grace_period_days: Count = Field(default=7, description="Days until an unpaid invoice suspends.")
    export_interval_s: Seconds = Field(default=300.0, description="How often usage goes to the payment provider.")


class PaymentSettings(Section):
    """Payment provider."""

    provider: Literal["none", "stripe", "paypal"] = Field(default="none", description="`none` for air-gapped sites.")
    api_key: SecretStr | None = Field(default=None, description="Its secret key.")
    webhook_secret: SecretStr | None = Field(default=None, description="Secret that signs its webhooks.")
    auto_charge: Truth = Field(default=False, description="Charge invoices at once.")


class DistributedSettings(Section):
    """Coordination of several machines."""

    coordinator_type: Literal["etcd", "consul", "kubernetes"] | None = Field(default=None, description="Coordinator.")
    rebalance_interval_s: Seconds = Field(default=300.0, description="How often models are moved.")


class CapacityPlanningSettings(Section):
    """Forecasts."""

    enabled: Truth = Field(default=False, description="Forecast load.")
    forecast_horizon_s: Seconds = Field(default=86400.0, description="How far ahead.")
    prediction_model: Literal["linear", "arima", "ml"] = Field(default="linear", description="How.")
    auto_scaling_enabled: Truth = Field(default=False, description="Act on the forecast.")


class AnomalyDetectionSettings(Section):
    """Alerts on unusual usage."""

    enabled: Truth = Field(default=False, description="Look for anomalies.")
    sensitivity_level: Real = Field(default=1.0, description="Higher finds more.")
    alert_channels: Texts = Field(default=(), description="`email`, `slack`, `pagerduty`.")
