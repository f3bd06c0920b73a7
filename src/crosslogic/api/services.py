"""What the routes of the management API act on. `wiring.py` builds it; no route builds anything."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from fastapi import Request

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.charges.accounts import AccountsService
from crosslogic.billing.charges.inquiries import Inquiries
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.charges.shadow import ShadowRating
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.exports.licensed import LicensedSite
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.invoices.invoicing import Invoicing
from crosslogic.billing.payments.service import PaymentService
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.billing.retention.service import RetentionService
from crosslogic.cache.ports import KeptAnswers
from crosslogic.capacity.allocations.ports import ResourceAllocator
from crosslogic.capacity.service import CapacityService
from crosslogic.catalog.regions import Regions, load_regions
from crosslogic.catalog.store import CatalogStore
from crosslogic.compass.conversation.service import CompassService
from crosslogic.compass.deployments.service import DeploymentService
from crosslogic.compass.outcomes.service import OutcomeService
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.fleet.agents import Agents
from crosslogic.fleet.heartbeats import Heartbeats
from crosslogic.fleet.registry import Registry
from crosslogic.fleet.trust import Trust
from crosslogic.insight.anomalies.sql import AnomaliesSql
from crosslogic.insight.finops.sql import FinopsSql
from crosslogic.insight.forecast.service import CapacityPlanner
from crosslogic.insight.notices.channels import ChannelService
from crosslogic.kernel.errors import Unavailable
from crosslogic.metering.costs.ports import CostTracker
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.live.boards import LiveBoard
from crosslogic.metering.model import UsageSum
from crosslogic.metering.requests import RequestFinder
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.pricing.service import PricesService
from crosslogic.queueing.board.null import NullBoard
from crosslogic.queueing.board.ports import QueueBoard
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.strangers import Strangers

Check = Callable[[], Awaitable[None]]


class UsageReader(Protocol):
    async def summary(
        self,
        org_id: str,
        *,
        start: datetime | None,
        end: datetime | None,
        group_by: Sequence[str] = (),
        only: Mapping[str, str] | None = None,
        after: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[UsageSum]:
        """Sums of the ledger rows with start ≤ timestamp < end, one for each combination of `group_by`.

        Of the rows that have the values of `only`; the first `limit` sums behind that of the values `after`.
        """
        ...


@dataclass(frozen=True)
class AgentServices:
    """What node agents need of this process; `trust` is None where it lets none in."""

    agents: Agents
    heartbeats: Heartbeats
    trust: Trust | None
    port: Callable[[], int]  # where gRPC is served, once it is
    host: str | None  # as agents reach it; None: as they reach the management API


@dataclass(frozen=True)
class PaymentRooms:
    """What is there where payments are on."""

    service: PaymentService
    inbound: Inbound
    chargebacks: ChargebackService
    exports: Exports | None = None  # None: the provider takes none


@dataclass(frozen=True)
class MoneyServices:
    """Prices, what usage costs by them, and credits."""

    prices: PricesService
    credits: CreditsService
    accounts: AccountsService
    rating: RatingService
    inquiries: Inquiries
    shadow: ShadowRating
    referral_amount: int  # pico-units of the currency of whoever is thanked


@dataclass(frozen=True)
class Deployed:
    """Planned deployments, and what they really do."""

    service: DeploymentService
    outcomes: OutcomeService
    grafana_url: str | None = None  # where the dashboards are


@dataclass(frozen=True)
class ApiServices:
    tenancy: TenancyService
    usage: UsageReader
    usage_log: LedgerReader
    requests: RequestFinder
    nodes: Registry
    models: ModelRegistry
    capacity: CapacityService
    invoicing: Invoicing
    allocator: ResourceAllocator
    channels: ChannelService
    finops: FinopsSql
    planning: PlanningService
    admin_key_hash: bytes = field(repr=False)
    hash_key: KeyHasher
    cache: KeptAnswers  # the response cache, as far as this process sees it
    checks: Mapping[str, Check]  # what /ready asks, by the name that it tells; a failing check raises
    queues: QueueBoard = field(default_factory=NullBoard)
    strangers: Strangers = field(default_factory=lambda: Strangers(0))  # who presents bad keys, by address
    jwt: JwtVerifier | None = None  # None: JSON web tokens are not accepted
    agents: AgentServices | None = None
    licensed: LicensedSite | None = None  # None: there is no licence file
    payments: PaymentRooms | None = None  # None: payments are off
    money: MoneyServices | None = None
    reconciler: Reconciler | None = None
    costs: CostTracker | None = None
    live: LiveBoard | None = None
    retention: RetentionService | None = None
    compass: CompassService | None = None  # the planner
    deployed: Deployed | None = None
    forecast: CapacityPlanner | None = None
    anomalies: AnomaliesSql | None = None
    catalog: CatalogStore | None = None  # what was imported into the planner's catalogue
    regions: Regions = field(default_factory=lambda: Regions(load_regions()))


def services_of(request: Request) -> ApiServices:
    """The services of the app that serves this request; for `Depends`."""
    services = request.app.state.services
    assert isinstance(services, ApiServices)
    return services


def money_of(services: ApiServices) -> MoneyServices:
    if services.money is None:
        raise Unavailable("this process knows nothing of prices and credits")
    return services.money
