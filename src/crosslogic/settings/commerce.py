"""Settings of what is sold, and of the later rooms: models, prices, tiers, billing, planning.

Names and defaults are those of the interface document. What has no effect yet is listed in `effects.py`.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, SecretStr, model_validator

from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.money import pusd_of, token_price_pusd
from crosslogic.limits.model import Limits
from crosslogic.settings.credits import CreditSettings
from crosslogic.settings.invoicing import InvoiceSettings
from crosslogic.settings.limits import LimitSettings
from crosslogic.settings.values import (
    Bytes,
    Count,
    Money,
    Positive,
    Real,
    Seconds,
    Section,
    Texts,
    Truth,
    list_as_tuple,
)
from crosslogic.tenancy.model import Feature, Plan, QueuePolicy


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
    fallbacks_by_environment: dict[str, Texts] = Field(
        default={}, description="The same for environments of a name, in place of `fallbacks`."
    )
    capabilities: Texts = Field(default=(), description="What it can do: `chat`, `code`, `vision`.")
    deployment: DeploymentSettings | None = Field(default=None, description="Where it runs.")

    @model_validator(mode="after")
    def _consistent(self) -> "ModelSettings":
        chains = (self.fallbacks, *self.fallbacks_by_environment.values())
        if any(self.id in chain for chain in chains) or self.id in self.aliases:
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
    weight: Annotated[Positive, Field(le=1000)] = Field(
        default=1, description="Share of a full fleet: twice the weight, twice the tokens."
    )
    policy: Annotated[QueuePolicy | None, Field(strict=False)] = Field(
        default=None, description="In which order its requests wait; absent: `scheduling.policy`."
    )
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
            weight=self.weight,
            policy=self.policy,
            price_per_token_pusd=None if self.price_per_token is None else pusd_of(self.price_per_token),
            price_per_month_pusd=pusd_of(self.price_usd_per_month),
            included_tokens_per_month=self.included_tokens_per_month,
            support=self.support,
            sla_percent=self.sla_percent,
        )


class MultiTenantSettings(Section):
    """Tenants and their tiers."""

    default_tier: str | None = Field(default=None, description="Tier of an organisation that names none.")


CacheUse = Annotated[
    Literal["off", "opt_in", "on"],
    # YAML reads `on` and `off` as true and false
    BeforeValidator(lambda value: ("off", "on")[value] if isinstance(value, bool) else value),
]


class CacheSettings(Section):
    """Response cache (`enable_caching`)."""

    backend: Literal["redis", "memory"] = Field(default="memory", description="Where answers are kept.")
    use: CacheUse = Field(
        default="opt_in",
        description="Where organisation and environment choose nothing: `off`, `on`, or `opt_in` by `x-cache`.",
    )
    sampled: Truth = Field(default=False, description="The same: also answers at any temperature.")
    default_ttl_s: Annotated[Seconds, Field(ge=1, le=30 * 86_400)] = Field(
        default=3600.0, description="The same: how long answers are kept."
    )
    max_answer_bytes: Bytes = Field(
        default=4 * 2**20, description="Longer answers are not kept, neither for the cache nor for idempotency keys."
    )
    max_memory_bytes: Bytes = Field(default=256 * 2**20, description="All answers in the memory of one process.")
    max_org_bytes: Bytes | None = Field(
        default=None, description="Of one organisation; absent: 256 MiB in Redis, a quarter of all in memory."
    )
    max_org_answers: Positive = Field(default=100_000, description="Answers of one organisation.")


class IdempotencySettings(Section):
    """Requests with an `Idempotency-Key`; over Redis where there is one, else for each worker alone."""

    ttl_s: Annotated[Seconds, Field(ge=1, le=30 * 86_400)] = Field(
        default=86_400.0, description="How long a repeat is given the first answer."
    )
    strict: Truth = Field(
        default=False, description="While Redis is away, refuse requests with a key rather than run one twice perhaps."
    )
    max_memory_bytes: Bytes = Field(default=64 * 2**20, description="Their answers in the memory of one process.")
    max_org_bytes: Bytes = Field(default=256 * 2**20, description="Of one organisation in Redis, in each `ttl_s`.")


class QueueSettings(Section):
    """Requests that wait for a node."""

    max_size: Positive = Field(default=1000, description="Most requests that wait.")
    max_size_per_tenant: Positive = Field(default=100, description="Of one organisation, where its plan says nothing.")
    timeout_s: Seconds = Field(default=30.0, description="Longest wait.")


class CapacitySettings(Section):
    """Reserved capacity: tokens a second that are guaranteed to an organisation."""

    overcommit: Annotated[Real, Field(gt=0)] = Field(
        default=1.0, description="Units that may be promised for each token a second of a node."
    )
    tokens_per_s_per_gpu: Annotated[Real, Field(gt=0)] = Field(
        default=1000.0, description="Throughput of a node that does not say its own."
    )
    burst_s: Annotated[Real, Field(gt=0, le=60)] = Field(
        default=10.0, description="Seconds of its rate that an organisation may use at once."
    )
    place_tokens_per_s: Annotated[Real, Field(gt=0)] = Field(
        default=100.0, description="Tokens a second of one running request, until measured."
    )
    ready_share: Annotated[Real, Field(ge=0, le=1)] = Field(
        default=0.34, description="Of the places kept for reserved requests, those that are never lent."
    )


class ResourceSettings(Section):
    """GPU memory, CPU cores and concurrency that are shared out among organisations."""

    enable_reservations: Truth = Field(default=False, description="Allow it.")
    total_gpu_memory_mb: Count | None = Field(
        default=None, description="GPU memory to share out; what registered nodes have when absent."
    )
    total_cpu_cores: Annotated[Real, Field(ge=0)] | None = Field(
        default=None, description="Cores to share out; absent: nothing is refused for want of cores."
    )


class ClickHouseSettings(Section):
    """A ClickHouse server's HTTP interface."""

    url: str = Field(default="http://localhost:8123", description="Where it listens.")
    database: str = Field(default="default", description="Database that holds the table `usage_rows`.")
    user: str = Field(default="default", description="Who may write and read there.")
    password: SecretStr | None = Field(default=None, description="Its password.")


class CostTrackingSettings(Section):
    """Where usage is asked what it cost, and how long its rows are kept."""

    storage_backend: Literal["postgres", "clickhouse"] = Field(
        default="postgres",
        description="What answers for the costs of all organisations: the database itself, or a copy in ClickHouse.",
    )
    aggregation_interval_s: Seconds = Field(
        default=3600.0, description="How often new usage is copied there, for `clickhouse`."
    )
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    retention_months: Annotated[Positive, Field(ge=2)] | None = Field(
        default=None,
        description="Whole months before this one whose usage rows are kept, sums stay; absent: all, for ever.",
    )


class BillingSettings(Section):
    """Invoices."""

    cycle: Literal["monthly", "usage-based"] = Field(default="monthly", description="When an invoice is made.")
    invoice_day: Annotated[Positive, Field(le=28)] = Field(default=1, description="Day of the month.")
    grace_period_days: Count = Field(default=7, description="Days until an unpaid invoice suspends.")
    export_interval_s: Seconds = Field(default=300.0, description="How often usage goes to the payment provider.")
    credits: CreditSettings = CreditSettings()
    reference_prices: dict[str, PriceSettings] = Field(
        default={}, description="Prices by model that estimates compare with, before those of `reference_list`."
    )
    reference_list: Literal["openai", "none"] = Field(
        default="openai", description="Another provider's prices that estimates compare with, as far as shipped."
    )
    reference_file: Path | None = Field(
        default=None, description="A price list of your own to compare with, in the form of the shipped one (JSON)."
    )
    invoices: InvoiceSettings = InvoiceSettings()


class PaymentSettings(Section):
    """Payment provider (`enable_payments`)."""

    provider: Literal["none", "stripe", "paypal"] = Field(default="none", description="`none` for air-gapped sites.")
    client_id: str | None = Field(default=None, description="Client id of the application, for `paypal`.")
    api_key: SecretStr | None = Field(default=None, description="Its secret key; the application's secret of `paypal`.")
    webhook_secret: SecretStr | None = Field(
        default=None, description="Secret that signs its webhooks; of `paypal` the webhook's id."
    )
    former_webhook_secret: SecretStr | None = Field(
        default=None, description="The secret before this one, while both are in use (`stripe`)."
    )
    base_url: str | None = Field(default=None, description="Address of its API; that of real money when absent.")
    return_url: str = Field(
        default="https://localhost/billing", description="Where payers come back to after they have agreed."
    )
    network_retries: Count = Field(default=2, description="Further tries of one call, under the same idempotency key.")
    timeout_s: Seconds = Field(default=30.0, description="Longest wait for one answer.")
    auto_charge: Truth = Field(default=False, description="Charge issued invoices with the default payment method.")
    export: Literal["stripe_invoice", "stripe_meter", "none"] = Field(
        default="stripe_invoice",
        description="How usage of organisations that have chosen nothing reaches Stripe: as our invoices, by its "
        "billing meters, or not at all.",
    )
    licence_file: Path | None = Field(default=None, description="Signed licence of a site that no network reaches.")
    licence_key_file: Path | None = Field(default=None, description="Public key that it is checked with.")


class DistributedSettings(Section):
    """Coordination of several machines."""

    coordinator_type: Literal["database", "etcd", "kubernetes"] = Field(
        default="database", description="Who keeps the lease by which one of several control processes leads."
    )
    etcd_endpoints: Texts = Field(default=(), description="`http://host:2379` of each etcd, for `etcd`.")
    kubernetes_namespace: str = Field(default="default", description="Where the Lease lives, for `kubernetes`.")
    lease_ttl_s: Seconds = Field(default=6.0, description="A leader that died is followed after this and a third.")
    rebalance_interval_s: Seconds = Field(
        default=300.0, description="No effect: nodes say themselves what they serve, so nothing of theirs is moved."
    )


class CapacityPlanningSettings(Section):
    """Whether the [forecast](forecast.md) is looked at by itself, hour by hour. It answers who asks in any case."""

    enabled: Truth = Field(default=False, description="Tell operators of models whose nodes will be too few.")
    forecast_horizon_s: Annotated[Seconds, Field(le=14 * 86400.0)] = Field(
        default=86400.0, description="How far ahead, in whole days, up to 14."
    )
    prediction_model: Literal["linear", "arima", "ml"] = Field(
        default="linear",
        description="Level, course and trend; a seasonal autoregression; or whichever of both erred least so far.",
    )
    auto_scaling_enabled: Truth = Field(
        default=False, description="Change the replicas that deployments of models want, as the forecast advises."
    )


class AnomalyDetectionSettings(Section):
    """Notices of what is [unusual](anomalies.md) in usage and service."""

    enabled: Truth = Field(default=False, description="Look for anomalies.")
    sensitivity_level: Annotated[Real, Field(gt=0, le=10)] = Field(
        default=1.0, description="Higher finds more: 2 halves what it takes."
    )
    alert_channels: Annotated[tuple[Literal["email", "slack", "pagerduty", "webhook"], ...], list_as_tuple] = Field(
        default=(), description="Only to operators' channels of these kinds; empty: to all of them."
    )
