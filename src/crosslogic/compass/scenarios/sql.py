"""Scenarios that were kept, by organisation. Foreign and unknown ones are the same NotFound.

Invariant: a scenario is its owner's alone, and its whole organisation's once it is shared. Each change is in the audit
log in the same transaction.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, delete, or_, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.scenarios.change import Change
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import compass_scenarios as table
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.writing import Writer, check_ref, locked, not_found

WORD = "scenario"
MOST_SCENARIOS = 1000  # of an organisation


class Scenario(msgspec.Struct, frozen=True):
    """`outcome` is what was recommended when it was made, as the API shows it."""

    id: str
    org_id: str
    name: str
    owner: str
    shared: bool
    specification: Specification
    changes: Change
    outcome: dict[str, Any]
    created_at: datetime


class ScenariosSql:
    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def add(self, scenario: Scenario, trail: AuditTrail) -> Scenario:
        """Raises Conflict for a name that its owner uses already."""
        made = msgspec.structs.replace(scenario, id=new_id("scen"))
        taken = f"you have a scenario {scenario.name!r} already; choose another name"
        await Writer(self._engine, trail).add(table, _columns(made), WORD, taken)
        return made

    async def count(self, org_id: str) -> int:
        query = select(table.c.id).where(table.c.org_id == org_id).limit(MOST_SCENARIOS)
        async with reading(self._engine) as conn:
            return len((await conn.execute(query)).all())

    async def scenario(self, scenario_id: str, org_id: str, viewer: str) -> Scenario:
        check_ref(scenario_id, WORD)
        query = select(table).where(table.c.id == scenario_id, table.c.org_id == org_id, _seen_by(viewer))
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise not_found(WORD)
        return _scenario(row)

    async def page(
        self,
        org_id: str,
        viewer: str,
        *,
        shared: bool | None = None,
        name: str | None = None,
        after: str | None,
        limit: int,
    ) -> list[Scenario]:
        """In order of id, which is order of creation."""
        query = select(table).where(table.c.org_id == org_id, _seen_by(viewer)).order_by(table.c.id).limit(limit)
        if shared is not None:
            query = query.where(table.c.shared.is_(shared))
        if name is not None:
            query = query.where(table.c.name == name)
        if after is not None:
            query = query.where(table.c.id > after)
        async with reading(self._engine) as conn:
            return [_scenario(row) for row in (await conn.execute(query)).mappings()]

    async def change(
        self, scenario_id: str, org_id: str, owner: str, trail: AuditTrail, *, name: str | None, shared: bool | None
    ) -> Scenario:
        """Raises NotFound, also for one that is not the caller's own."""
        check_ref(scenario_id, WORD)
        values = {key: value for key, value in (("name", name), ("shared", shared)) if value is not None}
        async with self._engine.begin() as conn:
            row = await locked(conn, table, scenario_id, WORD)
            if row["org_id"] != org_id or not (row["shared"] or row["owner"] == owner):
                raise not_found(WORD)
            if values:
                row = await Writer(self._engine, trail).change_in(conn, table, row, values, WORD)
            return _scenario(row)

    async def remove(self, scenario_id: str, org_id: str, owner: str, trail: AuditTrail) -> None:
        check_ref(scenario_id, WORD)
        async with self._engine.begin() as conn:
            row = await locked(conn, table, scenario_id, WORD)
            if row["org_id"] != org_id or not (row["shared"] or row["owner"] == owner):
                raise not_found(WORD)
            await conn.execute(delete(table).where(table.c.id == scenario_id))
            writer = Writer(self._engine, trail)
            before = {"id": row["id"], "org_id": org_id, "name": row["name"]}
            await writer.announce(conn, f"{WORD}.delete", WORD, before=before, after=None)


def _seen_by(viewer: str) -> Any:
    return or_(table.c.owner == viewer, table.c.shared)


def _columns(scenario: Scenario) -> dict[str, Any]:
    return {
        "id": scenario.id,
        "org_id": scenario.org_id,
        "name": scenario.name,
        "owner": scenario.owner,
        "shared": scenario.shared,
        "specification": msgspec.to_builtins(scenario.specification),
        "changes": msgspec.to_builtins(scenario.changes),
        "outcome": scenario.outcome,
        "created_at": scenario.created_at,
    }


def _scenario(row: RowMapping) -> Scenario:
    return Scenario(
        id=row["id"],
        org_id=row["org_id"],
        name=row["name"],
        owner=row["owner"],
        shared=row["shared"],
        specification=msgspec.convert(row["specification"], Specification),
        changes=msgspec.convert(row["changes"], Change),
        outcome=row["outcome"],
        created_at=row["created_at"],
    )
