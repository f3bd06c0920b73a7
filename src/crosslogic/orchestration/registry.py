"""The model registry (interface document, `ModelRegistry`): which models there are, and what of them runs.

Invariants: every change commits with its entries in the audit log and the change feed; of each model at most one
rollout runs; the shares of a model's deployments never add up to more than the whole.
"""

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import RowMapping, Select, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import new_id
from crosslogic.orchestration import deployment as life
from crosslogic.orchestration.model import (
    WHOLE,
    Deployment,
    DeploymentConfig,
    DeploymentId,
    DeploymentStatus,
    RegisteredModel,
    Rollout,
    RolloutId,
    RolloutKind,
    RolloutRules,
    RolloutStatus,
)
from crosslogic.orchestration.rows import (
    deployment_columns,
    model_columns,
    rollout_columns,
    to_deployment,
    to_model,
    to_rollout,
)
from crosslogic.store.tables import deployments, registered_models, rollouts
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer, check_ref, locked

MODEL_CHANGED = "model"
DEPLOYMENT_CHANGED = "deployment"
ROLLOUT_CHANGED = "rollout"
UNDEPLOYED = DeploymentId("")  # stands for the nodes of no deployment

_MAX_REPLICAS = 10_000
_MAX_NAME_CHARS = 256


class ModelRegistry:
    """Raises NotFound, Conflict, InvalidRequest, and what SQLAlchemy raises when the database is away."""

    def __init__(self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, actor: Actor = SYSTEM) -> None:
        self.engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._rows = Writer(engine, AuditTrail(actor, hash_key, clock))

    def acting_as(self, actor: Actor) -> "ModelRegistry":
        """The same registry; what it changes is written down as done by `actor`."""
        return ModelRegistry(self.engine, self._hash_key, self._clock, actor)

    # models

    async def register(self, model_id: str, version: str, **card: Any) -> RegisteredModel:
        """`card` holds the other fields of `RegisteredModel`. Raises Conflict when the model is there."""
        now = self._clock.now()
        name = card.pop("name", None) or model_id
        model = _checked(RegisteredModel(model_id, name, version, now, now, **card))
        taken = f"the model {model_id!r} is registered; change it instead"
        await self._rows.add(registered_models, model_columns(model), MODEL_CHANGED, taken)
        return model

    async def update(self, model_id: str, **changes: Any) -> RegisteredModel:
        """Another version, or a better description. Running deployments keep the version that they were made of."""
        async with self.engine.begin() as conn:
            before = await self._locked_model(conn, model_id)
            fields = {name: value for name, value in changes.items() if value is not None}
            model = _checked(msgspec.structs.replace(to_model(before), updated_at=self._clock.now(), **fields))
            return to_model(
                await self._rows.change_in(
                    conn, registered_models, before, model_columns(model), MODEL_CHANGED, "change"
                )
            )

    async def model(self, model_id: str) -> RegisteredModel:
        check_ref(model_id, MODEL_CHANGED)
        query = select(registered_models).where(registered_models.c.id == model_id)
        return to_model(await self._rows.one(query, MODEL_CHANGED))

    async def models(
        self, *, capability: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[RegisteredModel]:
        """A page in the order of their ids."""
        query = _page(select(registered_models), registered_models.c.id, after)
        found = [to_model(row) for row in await self._rows.all(query)]
        return [model for model in found if capability is None or capability in model.capabilities][:limit]

    # deployments

    async def deploy(
        self,
        model_id: str,
        *,
        replicas: int = 1,
        version: str | None = None,
        config: DeploymentConfig | None = None,
        deployment_id: DeploymentId | None = None,
    ) -> Deployment:
        """Want so many nodes of a version (the registered one when None). They come with `deployment_id` set.

        The first deployment of a model has all of its requests, a further one none until a rollout gives it some.
        Whoever must not ask twice chooses the id.
        """
        _check_replicas(replicas)
        now = self._clock.now()
        async with self.engine.begin() as conn:
            model = to_model(await self._locked_model(conn, model_id))
            others = await self._serving(conn, model_id)
            made = Deployment(
                deployment_id or DeploymentId(new_id("dep")),
                model_id,
                version or model.version,
                DeploymentStatus.PENDING,
                replicas,
                0 if others else WHOLE,
                now,
                now,
                config or DeploymentConfig(),
            )
            await self._rows.add_in(conn, deployments, deployment_columns(made), DEPLOYMENT_CHANGED)
        return made

    async def scale(self, deployment_id: str, replicas: int) -> Deployment:
        _check_replicas(replicas)
        async with self.engine.begin() as conn:
            before = await self._locked_deployment(conn, deployment_id)
            if before.status in life.ENDING:
                raise Conflict(f"a deployment that is {before.status.value} cannot be scaled")
            after = msgspec.structs.replace(before, replicas=replicas, updated_at=self._clock.now())
            if before.status is DeploymentStatus.READY:
                after = life.moved(after, DeploymentStatus.SCALING, self._clock.now())
            return await self.write_deployment(conn, before, after, "scale")

    async def undeploy(self, deployment_id: str) -> Deployment:
        """Let its nodes finish, and give it nothing new. Raises Conflict while a rollout needs it."""
        async with self.engine.begin() as conn:
            before = await self._locked_deployment(conn, deployment_id)
            if before.status in (DeploymentStatus.DRAINING, DeploymentStatus.RETIRED):
                return before
            running = await self.running_rollout(conn, before.model_id)
            if running is not None and before.id in (running.old, running.new):
                raise Conflict(f"the rollout {running.id} needs this deployment; cancel it first")
            return await self.end_deployment(conn, before, "undeploy")

    async def deployment(self, deployment_id: str) -> Deployment:
        check_ref(deployment_id, DEPLOYMENT_CHANGED)
        query = select(deployments).where(deployments.c.id == deployment_id)
        return to_deployment(await self._rows.one(query, DEPLOYMENT_CHANGED))

    async def deployments(
        self,
        *,
        model_id: str | None = None,
        status: DeploymentStatus | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Deployment]:
        """A page in the order in which they were made."""
        query = _page(select(deployments), deployments.c.id, after).limit(limit)
        if model_id is not None:
            query = query.where(deployments.c.model_id == model_id)
        if status is not None:
            query = query.where(deployments.c.status == status.value)
        return [to_deployment(row) for row in await self._rows.all(query)]

    async def unended(self) -> list[Deployment]:
        """All that something may still become of."""
        query = select(deployments).where(deployments.c.status != DeploymentStatus.RETIRED.value)
        return [to_deployment(row) for row in await self._rows.all(query.order_by(deployments.c.id))]

    # rollouts

    async def roll_out(
        self, deployment_id: str, kind: RolloutKind, rules: RolloutRules | None = None, *, old: str | None = None
    ) -> Rollout:
        """Begin to move a model's requests to this deployment, from `old` or from the one that has most of them."""
        rules = _checked_rules(rules or RolloutRules())
        now = self._clock.now()
        async with self.engine.begin() as conn:
            new = await self._locked_deployment(conn, deployment_id)
            await self._locked_model(conn, new.model_id)
            if new.status in life.ENDING:
                raise Conflict(f"a deployment that is {new.status.value} cannot be rolled out")
            running = await self.running_rollout(conn, new.model_id)
            if running is not None:
                raise Conflict(f"the rollout {running.id} of this model is running; finish or cancel it first")
            others = [one for one in await self._serving(conn, new.model_id) if one.id != new.id]
            chosen = _old_of(others, old)
            made = Rollout(
                RolloutId(new_id("roll")),
                new.model_id,
                kind,
                RolloutStatus.RUNNING,
                chosen,
                new.id,
                -1,
                now,
                now,
                rules,
            )
            await self._rows.add_in(conn, rollouts, rollout_columns(made), ROLLOUT_CHANGED)
            await self.share_out(conn, made, 0)
        return made

    async def rollout(self, rollout_id: str) -> Rollout:
        check_ref(rollout_id, ROLLOUT_CHANGED)
        return to_rollout(await self._rows.one(select(rollouts).where(rollouts.c.id == rollout_id), ROLLOUT_CHANGED))

    async def rollouts(
        self,
        *,
        model_id: str | None = None,
        status: RolloutStatus | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Rollout]:
        query = _page(select(rollouts), rollouts.c.id, after).limit(limit)
        if model_id is not None:
            query = query.where(rollouts.c.model_id == model_id)
        if status is not None:
            query = query.where(rollouts.c.status == status.value)
        return [to_rollout(row) for row in await self._rows.all(query)]

    async def end_rollout(self, rollout_id: str, status: RolloutStatus, reason: str | None = None) -> Rollout:
        """FINISHED: all to the new deployment, the old one drains. Else the other way round. Harmless to repeat."""
        async with self.engine.begin() as conn:
            before = to_rollout(await locked(conn, rollouts, rollout_id, ROLLOUT_CHANGED))
            if before.status is not RolloutStatus.RUNNING:
                if before.status is not status:
                    raise Conflict(f"this rollout is {before.status.value}")
                return before
            after = msgspec.structs.replace(before, status=status, reason=reason)
            await self.write_rollout(conn, before, after, status.value)
            finished = status is RolloutStatus.FINISHED
            await self.share_out(conn, after, WHOLE if finished else 0)
            loser = before.old if finished else before.new
            if loser != UNDEPLOYED:
                await self.end_deployment(conn, await self._locked_deployment(conn, loser), "undeploy", reason)
        return after

    # steps of both, in a transaction of the caller's

    async def running_rollout(self, conn: AsyncConnection, model_id: str) -> Rollout | None:
        query = select(rollouts).where(
            rollouts.c.model_id == model_id, rollouts.c.status == RolloutStatus.RUNNING.value
        )
        row = (await conn.execute(query)).mappings().first()
        return None if row is None else to_rollout(row)

    async def share_out(self, conn: AsyncConnection, rollout: Rollout, new_share: int) -> None:
        """Give the new deployment this share, and the old one the rest."""
        for deployment_id, share in ((rollout.new, new_share), (rollout.old, WHOLE - new_share)):
            if deployment_id == UNDEPLOYED:
                continue
            before = await self._locked_deployment(conn, deployment_id)
            if before.share != share:
                after = msgspec.structs.replace(before, share=share, updated_at=self._clock.now())
                await self.write_deployment(conn, before, after, "share")

    async def end_deployment(
        self, conn: AsyncConnection, before: Deployment, verb: str, reason: str | None = None
    ) -> Deployment:
        now = self._clock.now()
        after = msgspec.structs.replace(life.moved(before, DeploymentStatus.DRAINING, now, reason), share=0)
        return await self.write_deployment(conn, before, after, verb)

    async def write_deployment(
        self, conn: AsyncConnection, before: Deployment, after: Deployment, verb: str
    ) -> Deployment:
        if after == before:
            return before
        row = await locked(conn, deployments, before.id, DEPLOYMENT_CHANGED)
        columns = deployment_columns(after)
        return to_deployment(await self._rows.change_in(conn, deployments, row, columns, DEPLOYMENT_CHANGED, verb))

    async def write_rollout(self, conn: AsyncConnection, before: Rollout, after: Rollout, verb: str) -> None:
        row = await locked(conn, rollouts, before.id, ROLLOUT_CHANGED)
        await self._rows.change_in(conn, rollouts, row, rollout_columns(after), ROLLOUT_CHANGED, verb)

    async def _serving(self, conn: AsyncConnection, model_id: str) -> list[Deployment]:
        """All of the model that have not ended, the one with most requests first."""
        query = (
            select(deployments)
            .where(deployments.c.model_id == model_id)
            .where(deployments.c.status.not_in([status.value for status in life.ENDING]))
            .order_by(deployments.c.share.desc(), deployments.c.id)
        )
        return [to_deployment(row) for row in (await conn.execute(query)).mappings()]

    async def _locked_model(self, conn: AsyncConnection, model_id: str) -> RowMapping:
        check_ref(model_id, MODEL_CHANGED)
        return await locked(conn, registered_models, model_id, MODEL_CHANGED)

    async def _locked_deployment(self, conn: AsyncConnection, deployment_id: str) -> Deployment:
        check_ref(deployment_id, DEPLOYMENT_CHANGED)
        return to_deployment(await locked(conn, deployments, deployment_id, DEPLOYMENT_CHANGED))


def _old_of(others: Sequence[Deployment], old: str | None) -> DeploymentId:
    if old is None:
        return others[0].id if others else UNDEPLOYED
    for deployment in others:
        if deployment.id == old:
            return deployment.id
    raise InvalidRequest("this deployment does not serve the model at present", param="old")


def _checked(model: RegisteredModel) -> RegisteredModel:
    for name, value in (("id", model.id), ("version", model.version), ("name", model.name)):
        if not 0 < len(value) <= _MAX_NAME_CHARS or not value.isprintable():
            raise InvalidRequest(f"{name} is of 1 to {_MAX_NAME_CHARS} printable characters", param=name)
    if model.checksum is not None and not model.checksum.startswith("sha256:"):
        raise InvalidRequest("a checksum is written as sha256:…", param="checksum")
    return model


def _checked_rules(rules: RolloutRules) -> RolloutRules:
    steps = rules.steps
    if not steps or any(not 0 < step <= WHOLE for step in steps) or sorted(set(steps)) != list(steps):
        raise InvalidRequest(f"steps are rising shares, in thousandths, from 1 to {WHOLE}", param="steps")
    if rules.step_s < 0 or rules.min_requests < 0 or rules.worse_latency_factor < 1 or rules.worse_error_ratio < 0:
        raise InvalidRequest("the rules of a rollout must not be negative, nor a latency factor below 1", param="rules")
    return rules


def _check_replicas(replicas: int) -> None:
    if not 1 <= replicas <= _MAX_REPLICAS:
        raise InvalidRequest(f"replicas are 1 to {_MAX_REPLICAS}", param="replicas")


def _page(query: Select[Any], column: Any, after: str | None) -> Select[Any]:
    return query.order_by(column) if after is None else query.where(column > after).order_by(column)
