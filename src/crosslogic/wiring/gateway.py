"""Builds the gateway of one process: the request path, and what keeps its picture of tenants and nodes fresh."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.cache.model import NO_CACHE
from crosslogic.cache.service import Answers
from crosslogic.capacity.dedication import Dedication
from crosslogic.capacity.guarantees import Guarantees
from crosslogic.capacity.sync import CapacitySync
from crosslogic.fleet.model import Node, NodeStatus, Symptom
from crosslogic.fleet.sync import NodeSync
from crosslogic.gateway.app import Gateway
from crosslogic.gateway.dispatch import Dispatcher
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.observer import TelemetryObserver
from crosslogic.gateway.operations import Check, Operations
from crosslogic.gateway.picture import Picture
from crosslogic.gateway.pings import keep_pinging
from crosslogic.gateway.pipeline import Pipeline
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.upstream import FORWARDED_HEADERS, Upstreams
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.clock import SystemClock
from crosslogic.limits.ports import Limiter
from crosslogic.metering.floors import SpendFloors
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.spend import SpendBook
from crosslogic.net.exchange import Exchange
from crosslogic.net.redis import RedisConnection
from crosslogic.orchestration.sync import SplitSync
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.pricing.sync import PriceSync
from crosslogic.scheduling.failover import FailoverThrottle
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.scheduling.split import Split
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable
from crosslogic.store.changes import Follower, Following
from crosslogic.telemetry.log import LogWriter
from crosslogic.telemetry.metrics import Metrics
from crosslogic.tenancy.anonymous_users import AnonymousUsers
from crosslogic.tenancy.apikey_users import ApiKeyUsers, EitherUsers
from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.jwt_users import JwtUsers
from crosslogic.tenancy.ports import UserManager
from crosslogic.tenancy.strangers import Strangers
from crosslogic.tenancy.sync import DirectorySync
from crosslogic.wiring import translate
from crosslogic.wiring.answers import prefix_salts
from crosslogic.wiring.process import Background
from crosslogic.wiring.queue import most_per_node, new_lanes, new_queue, new_turns, policy
from crosslogic.wiring.scrape import public_metrics_path
from crosslogic.wiring.tunnels import Tunnels
from crosslogic.wiring.web_tokens import new_verifier

FINISH_TIMEOUT_S = 2.0  # a record may wait 1 s for the count of its prompt


class GatewayProcess:
    """The gateway of this process. `handler` goes into an `HttpServer`."""

    def __init__(
        self,
        settings: Settings,
        *,
        engine: AsyncEngine,
        journal: FileJournal,
        limiter: Limiter,
        redis: RedisConnection | None,
        answers: Answers,
        metrics: Metrics,
        log: LogWriter,
        background: Background,
        checks: dict[str, Check],
        workers: int = 1,
        tunnels: Tunnels | None = None,
        following: Callable[[Exchange], None] | None = None,
        forwarded_headers: tuple[bytes, ...] = FORWARDED_HEADERS,
    ) -> None:
        self._background = background
        self._region = settings.server.home_region()
        self._regions = settings.regions
        self._journal = journal
        self._limiter = limiter
        self._metrics = metrics
        self.active_nodes = 0
        regions = translate.regions(settings.regions)
        self._pool = Pool(regions=regions)
        self._models = ModelTable()
        self._models.configure(translate.model_settings(settings.models), translate.catalogued_models())
        limits = translate.layer_limits(settings.limits)
        cache_policy = translate.cache_policy(settings)
        self._directory = Directory(
            translate.key_hasher_of(settings),
            limits,
            translate.plans(settings.tiers),
            cache_policy,
            home_region=self._region,
            regions=regions,
        )
        self._nodes: list[Node] = []
        self._dedication = Dedication()
        self._guarantees = Guarantees(time.time, burst_s=settings.capacity.burst_s, limits=settings.enable_rate_limit)
        self._capacity_sync = CapacitySync(engine, self._guarantees, SystemClock(), self._capacity_changed)
        self._tunnels = tunnels
        self._costs = CostEstimates(translate.price_book(settings.prices, settings.regions))
        self._following = Following(engine, self._followers(engine))
        self._spend_floors = SpendFloors(SpendBook(engine), self._directory, limiter, SystemClock())
        self._answers = answers
        self._upstreams = Upstreams(
            connect_timeout_s=settings.timeouts.connect_s,
            forwarded_headers=forwarded_headers,
            salts=prefix_salts(settings),
            tunnels=None if tunnels is None else tunnels.hub,
        )
        self._watchdog = Watchdog()
        now_s = asyncio.get_running_loop().time()  # before anything is read
        self._picture = Picture(settings.auth.stale_after_s, now_s, metrics.picture_age)
        self._watchdog.add(self._picture)
        observer = TelemetryObserver(metrics, log if settings.log.access else None)
        self._nearness = translate.nearness(settings.regions, settings.server.region, regions)
        self._scheduler = scheduler = Scheduler(
            self._pool,
            new_strategy(settings.scheduling.strategy),
            random.Random(),
            SystemClock(),
            max_requests_per_node=most_per_node(settings, workers),
            failover=FailoverThrottle(settings.regions.failover_share),
            nearness=self._nearness,
        )
        lanes = new_lanes(settings, self._guarantees, scheduler.places, workers)
        self.queue = new_queue(settings, redis, scheduler.places, metrics, lanes)
        self._turns = new_turns(settings, self.queue, scheduler.places, observer, lanes)
        self._dispatcher = Dispatcher(
            models=self._models,
            scheduler=scheduler,
            turns=self._turns,
            upstreams=self._upstreams,
            journal=journal,
            watchdog=self._watchdog,
            observer=observer,
            settings=translate.gateway_settings(settings, self._region),
        )
        self._anonymous = AnonymousUsers(limits, cache_policy or NO_CACHE, self._region)
        self._key_holders = self._key_holders_of(settings)
        self._pipeline = Pipeline(
            users=self._users(settings.enable_auth),
            models=self._models,
            limiter=limiter,
            dispatcher=self._dispatcher,
            prompt_counter=PromptCounter(self._upstreams),
            journal=journal,
            observer=observer,
            answers=answers,
            strangers=Strangers(settings.auth.bad_keys_per_minute),
            costs=self._costs,
            cap_met=self._spend_floors.met,
            scopes_for=self._guarantees.scopes_for,
            picture=self._picture,
        )
        self._edge = Gateway(self._pipeline, self._pool, self._models, following)
        self.handler = Operations(
            checks,
            metrics.slots,
            self._edge,
            metrics_path=public_metrics_path(settings),
        )

    def _followers(self, engine: AsyncEngine) -> tuple[Follower, ...]:
        """Who is told of changes in the database, in this order."""
        of_tunnels = () if self._tunnels is None else (self._tunnels.verification,)
        return (
            DirectorySync(engine, self._directory),
            self._capacity_sync,  # before the nodes, so that what is dedicated is nobody else's from the start
            SplitSync(engine, self._splits_changed),
            NodeSync(engine, self._nodes_changed),
            *of_tunnels,
            PriceSync(engine, self._costs.publish),
        )

    def _key_holders_of(self, settings: Settings) -> UserManager:
        keys = ApiKeyUsers(self._directory)
        verifier = new_verifier(settings, self._background)
        return keys if verifier is None else EitherUsers(keys, JwtUsers(verifier, self._directory))

    async def start(self) -> None:
        """Load tenants and nodes, then follow their changes. Raises what SQLAlchemy raises without a database."""
        await self._following.start()
        await self._spend_floors.start()
        self._watchdog.start()
        if self._tunnels is not None:
            self._tunnels.start(self._background)
        self._background.start("change feed", self._following.run(self._picture.confirmed))
        self._background.start("spend of the month", self._spend_floors.run())
        self._background.start("begin and end of reservations", self._capacity_sync.follow_time())

        if self._nearness is not None and self._nearness.by_latency:
            self._background.start("pings", keep_pinging(self._pool.nodes, self._nearness.observed))

    def apply(self, reloadable: Reloadable) -> None:
        """Take over what may change without a restart."""
        limits = translate.layer_limits(reloadable.limits)
        self._models.configure(translate.model_settings(reloadable.models))
        self._directory.set_limits(limits)
        self._directory.configure_plans(translate.plans(reloadable.tiers))
        self._anonymous.set_limits(limits)
        self._costs.reprice(translate.price_book(reloadable.prices, self._regions))
        self._dispatcher.settings = translate.gateway_settings(reloadable, self._region)
        self._scheduler.strategy = new_strategy(reloadable.scheduling.strategy)
        self._turns.order_by(policy(reloadable.scheduling))
        self._pipeline.users = self._users(reloadable.enable_auth)

    def _users(self, enable_auth: bool) -> UserManager:
        return self._key_holders if enable_auth else self._anonymous

    def served_models(self) -> list[str]:
        return [listing.name for listing in self._pool.models()]

    async def close(self) -> None:
        """After the server has drained: settle limits, then close connections and journal."""
        await self._edge.finish(FINISH_TIMEOUT_S)
        self._watchdog.stop()
        self._upstreams.close()
        if self._tunnels is not None:
            await self._tunnels.hub.close()
        await self.queue.close()
        await self._answers.close()
        await self._limiter.close()
        await self._journal.close()

    def _splits_changed(self, splits: Mapping[str, Split]) -> None:
        self._scheduler.splits = splits

    def _nodes_changed(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._costs.serve_in(node.region for node in nodes)
        self._capacity_changed()
        self._upstreams.update(nodes)
        self._models.serve(sorted({model for node in nodes for model in node.models}))
        active = [node for node in nodes if node.status is NodeStatus.ACTIVE]
        self.active_nodes = len(active)
        health: dict[str, float] = {node.id: node.health_score * node.health.weight for node in nodes}
        spot: dict[str, float] = {
            node.id: price for node in nodes if (price := node.spot_price_usd_per_hour) is not None
        }
        self._metrics.nodes(health, self.active_nodes, spot)
        unwell = Counter(dict.fromkeys((symptom.value for symptom in Symptom), 0))
        unwell.update(node.health.symptom.value for node in active if node.health.symptom is not None)
        self._metrics.nodes_unwell(unwell, sum(node.health.ejected for node in active))

    def _capacity_changed(self) -> None:
        """Other nodes are dedicated, or there are other nodes."""
        self._pool.confine(self._guarantees.confined())
        self._pool.update(self._dedication.seen(self._nodes, self._guarantees.dedicated_nodes()))
        self.queue.places_changed()
