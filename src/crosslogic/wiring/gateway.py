"""Builds the gateway of one process: the request path, and what keeps its picture of tenants and nodes fresh."""

import random
from collections.abc import Callable

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.cache.service import Answers
from crosslogic.fleet.model import Node, NodeStatus
from crosslogic.fleet.sync import NodeSync
from crosslogic.gateway.app import Gateway
from crosslogic.gateway.dispatch import Dispatcher
from crosslogic.gateway.models import ModelTable
from crosslogic.gateway.observer import TelemetryObserver
from crosslogic.gateway.operations import Check, Operations
from crosslogic.gateway.pipeline import Pipeline
from crosslogic.gateway.prompt_count import PromptCounter
from crosslogic.gateway.upstream import FORWARDED_HEADERS, Upstreams
from crosslogic.gateway.watchdog import Watchdog
from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.limits.ports import Limiter
from crosslogic.limits.scopes import reservable_tokens, scopes_of
from crosslogic.metering.journal import FileJournal
from crosslogic.net.exchange import Exchange
from crosslogic.net.redis import RedisConnection
from crosslogic.scheduling.pool import Pool
from crosslogic.scheduling.registry import new_strategy
from crosslogic.scheduling.scheduler import Scheduler
from crosslogic.settings.model import Settings
from crosslogic.settings.reload import Reloadable
from crosslogic.telemetry.log import LogWriter
from crosslogic.telemetry.metrics import Metrics
from crosslogic.tenancy.apikey_users import ApiKeyUsers, EitherUsers
from crosslogic.tenancy.directory import Directory, LayerLimits
from crosslogic.tenancy.jwt_users import JwtUsers
from crosslogic.tenancy.model import Principal, Role
from crosslogic.tenancy.ports import UserManager
from crosslogic.tenancy.sync import DirectorySync
from crosslogic.wiring import translate
from crosslogic.wiring.answers import prefix_salts
from crosslogic.wiring.process import Background
from crosslogic.wiring.queue import most_per_node, new_queue, new_turns
from crosslogic.wiring.scrape import public_metrics_path
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
        following: Callable[[Exchange], None] | None = None,
        forwarded_headers: tuple[bytes, ...] = FORWARDED_HEADERS,
    ) -> None:
        self._background = background
        self._journal = journal
        self._limiter = limiter
        self._metrics = metrics
        self.active_nodes = 0
        self._pool = Pool()
        self._models = ModelTable()
        self._models.configure(translate.model_settings(settings.models), translate.catalogued_models())
        limits = translate.layer_limits(settings.limits)
        self._directory = Directory(translate.key_hasher_of(settings), limits, translate.plans(settings.tiers))
        self._directory_sync = DirectorySync(engine, self._directory)
        self._node_sync = NodeSync(engine, self._nodes_changed)
        self._answers = answers
        self._upstreams = Upstreams(
            connect_timeout_s=settings.timeouts.connect_s,
            forwarded_headers=forwarded_headers,
            salts=prefix_salts(settings),
        )
        self._watchdog = Watchdog()
        strategy = new_strategy(settings.scheduling.strategy)
        observer = TelemetryObserver(metrics, log if settings.log.access else None)
        clock = SystemClock()
        ceiling = most_per_node(settings, workers)
        self._scheduler = scheduler = Scheduler(
            self._pool, strategy, random.Random(), clock, max_requests_per_node=ceiling
        )
        self._queue = new_queue(settings, redis, scheduler.places)
        self._dispatcher = Dispatcher(
            models=self._models,
            scheduler=scheduler,
            turns=new_turns(settings, self._queue, scheduler.places),
            upstreams=self._upstreams,
            journal=journal,
            watchdog=self._watchdog,
            observer=observer,
            settings=translate.gateway_settings(settings),
        )
        self._anonymous = _Anonymous(limits)
        keys = ApiKeyUsers(self._directory)
        verifier = new_verifier(settings, background)
        self._key_holders: UserManager = (
            keys if verifier is None else EitherUsers(keys, JwtUsers(verifier, self._directory))
        )
        self._pipeline = Pipeline(
            users=self._users(settings.enable_auth),
            models=self._models,
            limiter=limiter,
            dispatcher=self._dispatcher,
            prompt_counter=PromptCounter(self._upstreams),
            journal=journal,
            observer=observer,
            answers=answers,
        )
        self._edge = Gateway(self._pipeline, self._pool, self._models, following)
        self.handler = Operations(
            checks,
            metrics.slots,
            self._edge,
            metrics_path=public_metrics_path(settings),
        )

    async def start(self) -> None:
        """Load tenants and nodes, then follow their changes. Raises what SQLAlchemy raises without a database."""
        await self._directory_sync.start()
        await self._node_sync.start()
        self._watchdog.start()
        self._background.start("tenant sync", self._directory_sync.run())
        self._background.start("node sync", self._node_sync.run())

    def apply(self, reloadable: Reloadable) -> None:
        """Take over what may change without a restart."""
        limits = translate.layer_limits(reloadable.limits)
        self._models.configure(translate.model_settings(reloadable.models))
        self._directory.set_limits(limits)
        self._directory.configure_plans(translate.plans(reloadable.tiers))
        self._anonymous.set_limits(limits)
        self._dispatcher.settings = translate.gateway_settings(reloadable)
        self._scheduler.strategy = new_strategy(reloadable.scheduling.strategy)
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
        await self._queue.close()
        await self._answers.close()
        await self._limiter.close()
        await self._journal.close()

    def _nodes_changed(self, nodes: list[Node]) -> None:
        self._pool.update(nodes)
        self._queue.places_changed()
        self._upstreams.update(nodes)
        self._models.serve(sorted({model for node in nodes for model in node.models}))
        self.active_nodes = sum(node.status is NodeStatus.ACTIVE for node in nodes)
        self._metrics.nodes({node.id: node.health_score for node in nodes}, self.active_nodes)


class _Anonymous:
    """Everybody, where keys are off (`enable_auth: false`): one tenant without a key."""

    def __init__(self, limits: LayerLimits) -> None:
        self.set_limits(limits)

    def set_limits(self, limits: LayerLimits) -> None:
        scopes = scopes_of(
            limits.global_,
            org_id="anonymous",
            org_limits=limits.org,
            env_id="anonymous",
            env_limits=limits.env,
            key_id="anonymous",
            key_limits=limits.key,
        )
        self._principal = Principal(
            org_id=OrgId("anonymous"),
            org_name="anonymous",
            env_id=EnvId("anonymous"),
            env_name="anonymous",
            key_id=KeyId("anonymous"),
            role=Role.DEVELOPER,
            region=None,
            allowed_models=None,
            scopes=scopes,
            reservable_tokens=reservable_tokens(scopes),
        )

    def resolve(self, token: bytes) -> Principal:
        return self._principal

    async def authenticate(self, token: bytes) -> Principal:
        return self._principal
