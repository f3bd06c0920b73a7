"""Deployments and their revisions, on PostgreSQL and SQLite.

Invariant: a change and its entry in the audit log commit together.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.deployments.model import DeploymentState, PlannedDeployment, Revision
from crosslogic.compass.manifests.model import DeploymentPlan, Surroundings
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import compass_deployments as table
from crosslogic.store.tables import compass_revisions as revisions
from crosslogic.tenancy.audit_sql import AuditTrail

_UNKNOWN = "there is no such deployment"


class DeploymentsSql:
    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def now(self) -> datetime:
        return self._clock.now()

    def monotonic_s(self) -> float:
        return self._clock.monotonic_s()

    async def add(self, plan: DeploymentPlan, around: Surroundings, trail: AuditTrail) -> PlannedDeployment:
        """Raises Conflict for a name that the org has already."""
        now = self._clock.now()
        made = PlannedDeployment(
            id=new_id("plan"),
            org_id=plan.org_id,
            name=plan.name,
            state=DeploymentState.PLANNED,
            revision=1,
            applied_revision=None,
            message=None,
            created_at=now,
            updated_at=now,
        )
        try:
            async with self._engine.begin() as conn:
                await conn.execute(insert(table).values(**_columns(made)))
                await conn.execute(insert(revisions).values(**_revision_columns(made.id, 1, plan, around, now)))
                after = {"name": plan.name, "model": plan.model, "configuration": plan.configuration}
                await trail.append(
                    conn, "planned_deployment.create", made.id, org_id=made.org_id, before=None, after=after
                )
        except IntegrityError:
            raise Conflict(f"there is a deployment {plan.name!r} already; change it, or choose another name") from None
        return made

    async def revise(
        self, known: PlannedDeployment, plan: DeploymentPlan, around: Surroundings, trail: AuditTrail
    ) -> PlannedDeployment:
        """A further revision. Raises Conflict where another was made meanwhile."""
        now = self._clock.now()
        number = known.revision + 1
        async with self._engine.begin() as conn:
            changed = await conn.execute(
                update(table)
                .where(table.c.id == known.id, table.c.revision == known.revision)
                .values(revision=number, updated_at=now)
            )
            if not changed.rowcount:
                raise Conflict("somebody else changed this deployment meanwhile; look at it again")
            await conn.execute(insert(revisions).values(**_revision_columns(known.id, number, plan, around, now)))
            before, after = {"revision": known.revision}, {"revision": number, "configuration": plan.configuration}
            await trail.append(
                conn, "planned_deployment.revise", known.id, org_id=known.org_id, before=before, after=after
            )
        return msgspec.structs.replace(known, revision=number, updated_at=now)

    async def set_state(
        self,
        known: PlannedDeployment,
        state: DeploymentState,
        action: str,
        trail: AuditTrail,
        *,
        revision: int | None = None,
        message: str | None = None,
    ) -> PlannedDeployment:
        """`revision`: the cluster has taken this one whole."""
        now = self._clock.now()
        values: dict[str, Any] = {"state": state.value, "message": message, "updated_at": now}
        if revision is not None:
            values["applied_revision"] = revision
        async with self._engine.begin() as conn:
            await conn.execute(update(table).where(table.c.id == known.id).values(**values))
            if revision is not None:
                await conn.execute(
                    update(revisions)
                    .where(revisions.c.deployment_id == known.id, revisions.c.revision == revision)
                    .values(applied_at=func.coalesce(revisions.c.applied_at, now))
                )
            after = {"state": state.value, "revision": revision or known.revision, "message": message}
            await trail.append(
                conn, action, known.id, org_id=known.org_id, before={"state": known.state.value}, after=after
            )
        return msgspec.structs.replace(
            known, state=state, message=message, updated_at=now, applied_revision=revision or known.applied_revision
        )

    async def one(self, deployment_id: str, org_id: str) -> PlannedDeployment:
        """Raises NotFound, for a foreign one as for an unknown one."""
        query = select(table).where(table.c.id == deployment_id, table.c.org_id == org_id)
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise NotFound(_UNKNOWN)
        return _deployment(row)

    async def org_of(self, deployment_id: str) -> str:
        """For operators. Raises NotFound."""
        query = select(table.c.org_id).where(table.c.id == deployment_id)
        async with reading(self._engine) as conn:
            found = (await conn.execute(query)).scalar_one_or_none()
        if found is None:
            raise NotFound(_UNKNOWN)
        return str(found)

    async def page(
        self,
        org_id: str,
        *,
        state: DeploymentState | None = None,
        name: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[PlannedDeployment]:
        where: list[ColumnElement[bool]] = [table.c.org_id == org_id]
        if name is not None:
            where.append(table.c.name == name)
        if state is not None:
            where.append(table.c.state == state.value)
        if after is not None:
            where.append(table.c.id > after)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(select(table).where(*where).order_by(table.c.id).limit(limit))).mappings().all()
        return [_deployment(row) for row in rows]

    async def revision(self, deployment_id: str, number: int) -> Revision:
        query = select(revisions).where(revisions.c.deployment_id == deployment_id, revisions.c.revision == number)
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise NotFound(f"there is no revision {number}")
        return _revision(row)

    async def revisions(
        self, deployment_id: str, *, applied: bool | None = None, after: int | None = None, limit: int = 100
    ) -> list[Revision]:
        """The latest first; `after` is the last number of the page before."""
        query = select(revisions).where(revisions.c.deployment_id == deployment_id)
        if applied is not None:
            query = query.where(revisions.c.applied_at.is_not(None) if applied else revisions.c.applied_at.is_(None))
        if after is not None:
            query = query.where(revisions.c.revision < after)
        async with reading(self._engine) as conn:
            rows = await conn.execute(query.order_by(revisions.c.revision.desc()).limit(limit))
            return [_revision(row) for row in rows.mappings()]

    async def applied(self) -> list[tuple[PlannedDeployment, Revision]]:
        """All that run, of every org, with the plan that each was applied by."""
        here = (table.c.id == revisions.c.deployment_id) & (table.c.applied_revision == revisions.c.revision)
        running = table.c.state == DeploymentState.APPLIED.value
        async with reading(self._engine) as conn:
            known = (await conn.execute(select(table).where(running).order_by(table.c.id))).mappings().all()
            plans = (await conn.execute(select(revisions).join(table, here).where(running))).mappings().all()
        by_id = {row["deployment_id"]: _revision(row) for row in plans}
        return [(_deployment(row), by_id[row["id"]]) for row in known if row["id"] in by_id]

    async def applied_before(self, deployment_id: str, number: int) -> Revision | None:
        """The latest revision below `number` that a cluster has taken."""
        query = (
            select(revisions)
            .where(
                revisions.c.deployment_id == deployment_id,
                revisions.c.revision < number,
                revisions.c.applied_at.is_not(None),
            )
            .order_by(revisions.c.revision.desc())
            .limit(1)
        )
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        return None if row is None else _revision(row)

    async def latest_plans(self, org_id: str) -> list[Revision]:
        """Of all of the org's deployments that a cluster holds or may hold."""
        query = (
            select(revisions)
            .join(table, (table.c.id == revisions.c.deployment_id) & (table.c.revision == revisions.c.revision))
            .where(table.c.org_id == org_id, table.c.state.not_in(("planned", "deleted")))
        )
        async with reading(self._engine) as conn:
            return [_revision(row) for row in (await conn.execute(query)).mappings()]


def _columns(made: PlannedDeployment) -> dict[str, Any]:
    return {**msgspec.structs.asdict(made), "state": made.state.value}


def _revision_columns(
    deployment_id: str, number: int, plan: DeploymentPlan, around: Surroundings, now: datetime
) -> dict[str, Any]:
    return {
        "deployment_id": deployment_id,
        "revision": number,
        "plan": msgspec.to_builtins(plan),
        "surroundings": msgspec.to_builtins(around),
        "created_at": now,
    }


def _deployment(row: RowMapping | Mapping[str, Any]) -> PlannedDeployment:
    return PlannedDeployment(**{**dict(row), "state": DeploymentState(row["state"])})


def _revision(row: RowMapping | Mapping[str, Any]) -> Revision:
    return Revision(
        deployment_id=row["deployment_id"],
        revision=row["revision"],
        plan=msgspec.convert(row["plan"], DeploymentPlan),
        surroundings=msgspec.convert(row["surroundings"], Surroundings),
        created_at=row["created_at"],
        applied_at=row["applied_at"],
    )
