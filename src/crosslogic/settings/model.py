"""All settings of CrossLogic, as one immutable value.

Invariant: a `Settings` that exists is valid as a whole; nothing checks it again.
"""

from collections import Counter
from pathlib import Path
from typing import Annotated

from pydantic import Field, PrivateAttr, model_validator

from crosslogic.settings.agent import AgentSettings
from crosslogic.settings.commerce import (
    AnomalyDetectionSettings,
    BillingSettings,
    CacheSettings,
    CapacityPlanningSettings,
    CapacitySettings,
    CostTrackingSettings,
    DistributedSettings,
    IdempotencySettings,
    ModelSettings,
    MultiTenantSettings,
    PaymentSettings,
    PriceSettings,
    QueueSettings,
    ResourceSettings,
    TierSettings,
)
from crosslogic.settings.compass import CompassSettings
from crosslogic.settings.limits import LimitsSettings
from crosslogic.settings.notifications import FinopsSettings, NotificationSettings
from crosslogic.settings.regions import RegionsSettings
from crosslogic.settings.sections import (
    AuthSettings,
    ControlSettings,
    DatabaseSettings,
    FleetSettings,
    JournalSettings,
    LogSettings,
    MetricsSettings,
    NodeSettings,
    RedisSettings,
    SchedulingSettings,
    ServerSettings,
    TimeoutSettings,
)
from crosslogic.settings.source import SettingsSource
from crosslogic.settings.values import Directory, Section, Truth, list_as_tuple

FLAGS = (
    "enable_auth",
    "enable_rate_limit",
    "enable_caching",
    "enable_queuing",
    "enable_multi_tenant",
    "enable_priority",
    "enable_cost_tracking",
    "enable_billing",
    "enable_payments",
    "enable_multi_model",
    "enable_distributed",
)


class Settings(Section):
    """The root: feature flags of the interface document, then one section for each concern."""

    enable_auth: Truth = Field(default=True, description="Callers need a key.")
    enable_rate_limit: Truth = Field(default=True, description="Limits are enforced.")
    enable_caching: Truth = Field(default=False, description="Answers are cached.")
    enable_queuing: Truth = Field(default=False, description="Requests wait for a node instead of being refused.")
    enable_multi_tenant: Truth = Field(default=True, description="Organisations and environments.")
    enable_priority: Truth = Field(default=False, description="Tiers with a higher priority go first.")
    enable_cost_tracking: Truth = Field(default=True, description="Usage is recorded.")
    enable_billing: Truth = Field(default=False, description="Usage becomes invoices.")
    enable_payments: Truth = Field(default=False, description="Invoices are charged.")
    enable_multi_model: Truth = Field(default=True, description="More than one model.")
    enable_distributed: Truth = Field(default=False, description="Models over several machines.")

    data_dir: Directory = Field(default=Path(".crosslogic"), description="Where this machine keeps its files.")
    server: ServerSettings = ServerSettings()
    control: ControlSettings = ControlSettings()
    database: DatabaseSettings = DatabaseSettings()
    redis: RedisSettings = RedisSettings()
    auth: AuthSettings = AuthSettings()
    limits: LimitsSettings = LimitsSettings()
    nodes: Annotated[tuple[NodeSettings, ...], list_as_tuple] = Field(default=(), description="Static nodes.")
    fleet: FleetSettings = FleetSettings()
    agent: AgentSettings = AgentSettings()
    scheduling: SchedulingSettings = SchedulingSettings()
    regions: RegionsSettings = RegionsSettings()
    timeouts: TimeoutSettings = TimeoutSettings()
    models: Annotated[tuple[ModelSettings, ...], list_as_tuple] = Field(
        default=(),
        description="What callers may ask of models; models without an entry are served without such limits.",
    )
    prices: dict[str, PriceSettings] = Field(default={}, description="Prices by model id.")
    journal: JournalSettings = JournalSettings()
    metrics: MetricsSettings = MetricsSettings()
    log: LogSettings = LogSettings()

    multi_tenant: MultiTenantSettings = MultiTenantSettings()
    tiers: Annotated[tuple[TierSettings, ...], list_as_tuple] = Field(default=(), description="Plans of tenants.")
    cache: CacheSettings = CacheSettings()
    idempotency: IdempotencySettings = IdempotencySettings()
    queue: QueueSettings = QueueSettings()
    capacity: CapacitySettings = CapacitySettings()
    compass: CompassSettings = CompassSettings()
    resources: ResourceSettings = ResourceSettings()
    cost_tracking: CostTrackingSettings = CostTrackingSettings()
    billing: BillingSettings = BillingSettings()
    payments: PaymentSettings = PaymentSettings()
    notifications: NotificationSettings = NotificationSettings()
    finops: FinopsSettings = FinopsSettings()
    distributed: DistributedSettings = DistributedSettings()
    capacity_planning: CapacityPlanningSettings = CapacityPlanningSettings()
    anomaly_detection: AnomalyDetectionSettings = AnomalyDetectionSettings()

    _source: SettingsSource = PrivateAttr(default_factory=SettingsSource)

    @property
    def source(self) -> SettingsSource:
        """Where these settings were read from, so that they can be read again."""
        return self._source

    def database_url(self) -> str:
        """The configured database, else the SQLite file in `data_dir`. It may hold a password: do not show it."""
        return self.database.address() or f"sqlite:///{self.sqlite_file()}"

    def sqlite_file(self) -> Path:
        """The database when no other is configured."""
        return self.data_dir / "crosslogic.db"

    def journal_dir(self) -> Path:
        return self.journal.dir or self.data_dir / "journal"

    @model_validator(mode="after")
    def _unique_and_known_names(self) -> "Settings":
        names = [name for model in self.models for name in (model.id, *model.aliases)]
        _refuse_repeated("models", "id or alias", names)
        _refuse_repeated("tiers", "id", [tier.id for tier in self.tiers])
        _refuse_repeated("nodes", "name", [node.shown_name() for node in self.nodes])
        default = self.multi_tenant.default_tier
        if default is not None and self.tiers and default not in {tier.id for tier in self.tiers}:
            raise ValueError(f"multi_tenant.default_tier is {default!r}, but tiers has no such id; add it there")
        return self


def _refuse_repeated(section: str, what: str, names: list[str]) -> None:
    repeated = [name for name, times in Counter(names).items() if times > 1]
    if repeated:
        raise ValueError(f"{section} uses the {what} {repeated[0]!r} more than once; rename one")
