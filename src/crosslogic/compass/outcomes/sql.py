"""Outcomes and what was learnt, on PostgreSQL and SQLite.

Invariant: a window teaches once: its row and the changed bias commit together, and the bias is locked meanwhile.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.compass.capacity.step_model import Evidence, StepModel
from crosslogic.compass.capacity.virtual import ReplicaLimits
from crosslogic.compass.manifests.model import Targets
from crosslogic.compass.outcomes.bias import after, factors, prior
from crosslogic.compass.outcomes.expecting import expecting
from crosslogic.compass.outcomes.model import ConfigurationBias, Judged, Observation, checked, met
from crosslogic.compass.ranking.planner import Bias
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import compass_biases, compass_outcomes


class OutcomesSql:
    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def record(
        self,
        org_id: str,
        deployment_id: str,
        configuration: str,
        seen: Observation,
        model: StepModel,
        limits: ReplicaLimits,
        targets: Targets = Targets(),  # noqa: B008 - frozen
    ) -> Judged:
        """Judge a window, keep it, and learn of it; a window that was judged before stays as it is.

        Raises Conflict for one that holds a part of another: its requests would teach twice.
        """
        checked(seen)
        try:
            async with self._engine.begin() as conn:
                bias = await self._locked(conn, org_id, configuration, model.evidence)
                await self._refuse_overlap(conn, deployment_id, seen)
                forecast = expecting(model, limits, seen, bias)
                found, judged = after(bias, seen, forecast, model.evidence)
                judged = msgspec.structs.replace(judged, met=met(seen, targets))
                await conn.execute(
                    insert(compass_outcomes).values(
                        id=new_id("out"),
                        deployment_id=deployment_id,
                        configuration=configuration,
                        window_start=seen.start,
                        window_end=seen.end,
                        judged=msgspec.to_builtins(judged),
                        drift=bool(judged.drift),
                    )
                )
                await conn.execute(
                    update(compass_biases)
                    .where(compass_biases.c.org_id == org_id, compass_biases.c.configuration == configuration)
                    .values(bias=msgspec.to_builtins(found), updated_at=self._clock.now())
                )
        except IntegrityError:
            known = await self.judged(deployment_id, seen.start)
            if known is None:
                raise
            return known
        return judged

    async def judged(self, deployment_id: str, start: datetime) -> Judged | None:
        query = select(compass_outcomes.c.judged).where(
            compass_outcomes.c.deployment_id == deployment_id, compass_outcomes.c.window_start == start
        )
        async with reading(self._engine) as conn:
            found = (await conn.execute(query)).scalar_one_or_none()
        return None if found is None else msgspec.convert(found, Judged)

    async def page(
        self, deployment_id: str, *, drift: bool | None = None, after: str | None, limit: int
    ) -> list[tuple[str, Judged]]:
        """The latest first."""
        query = (
            select(compass_outcomes.c.id, compass_outcomes.c.judged)
            .where(compass_outcomes.c.deployment_id == deployment_id)
            .order_by(compass_outcomes.c.id.desc())
            .limit(limit)
        )
        if drift is not None:
            query = query.where(compass_outcomes.c.drift.is_(drift))
        if after is not None:
            query = query.where(compass_outcomes.c.id < after)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).all()
        return [(row.id, msgspec.convert(row.judged, Judged)) for row in rows]

    async def bias(self, org_id: str, configuration: str) -> ConfigurationBias | None:
        query = select(compass_biases.c.bias).where(
            compass_biases.c.org_id == org_id, compass_biases.c.configuration == configuration
        )
        async with reading(self._engine) as conn:
            found = (await conn.execute(query)).scalar_one_or_none()
        return None if found is None else msgspec.convert(found, ConfigurationBias)

    async def factors(self, org_id: str) -> dict[str, Bias]:
        """Of all configurations that the org has outcomes of: what its next recommendation is made with."""
        query = select(compass_biases.c.configuration, compass_biases.c.bias).where(compass_biases.c.org_id == org_id)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).all()
        return {row.configuration: factors(msgspec.convert(row.bias, ConfigurationBias)) for row in rows}

    async def _refuse_overlap(self, conn: AsyncConnection, deployment_id: str, seen: Observation) -> None:
        t = compass_outcomes.c
        query = select(t.window_start).where(
            t.deployment_id == deployment_id,
            t.window_start < seen.end,
            t.window_end > seen.start,
            t.window_start != seen.start,
        )
        other = (await conn.execute(query.limit(1))).scalar_one_or_none()
        if other is not None:
            raise Conflict(f"a part of this window was judged with the one from {other.isoformat()}; choose another")

    async def _locked(
        self, conn: AsyncConnection, org_id: str, configuration: str, evidence: Evidence
    ) -> ConfigurationBias:
        values = {
            "org_id": org_id,
            "configuration": configuration,
            "bias": msgspec.to_builtins(prior(evidence)),
            "updated_at": self._clock.now(),
        }
        dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
        await conn.execute(dialect.insert(compass_biases).values(**values).on_conflict_do_nothing())
        query = (
            select(compass_biases.c.bias)
            .where(compass_biases.c.org_id == org_id, compass_biases.c.configuration == configuration)
            .with_for_update()
        )
        return msgspec.convert((await conn.execute(query)).scalar_one(), ConfigurationBias)
