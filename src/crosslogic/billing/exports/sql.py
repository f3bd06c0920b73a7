"""Windows and modes in the database."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, RowMapping, case, exists, func, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.exports.model import Counted, Mode, OrgExport, Window, WindowStatus
from crosslogic.kernel.errors import NotFound
from crosslogic.kernel.ids import OrgId
from crosslogic.metering.model import Evidence
from crosslogic.store.engine import reading
from crosslogic.store.tables import charges, export_modes, export_windows, orgs, usage_records

table = export_windows
_TOKENS = ("prompt_tokens", "cached_tokens", "completion_tokens")
UNRESOLVED = tuple(
    each.value for each in (WindowStatus.SEALED, WindowStatus.SENDING, WindowStatus.DOUBTFUL, WindowStatus.REJECTED)
)


async def give_modes(engine: AsyncEngine, mode: Mode, now: datetime) -> None:
    """Orgs that have chosen nothing get this mode, and everything that was used before."""
    dialect = postgresql if engine.dialect.name == "postgresql" else sqlite
    without = select(orgs.c.id).outerjoin(export_modes, export_modes.c.org_id == orgs.c.id)
    async with reading(engine) as conn:
        new = list((await conn.execute(without.where(export_modes.c.org_id.is_(None)))).scalars())
    if not new:
        return
    rows = [{"org_id": org_id, "mode": mode.value, "since": now, "sealed_seq": 0} for org_id in new]
    async with engine.begin() as conn:
        await conn.execute(dialect.insert(export_modes).on_conflict_do_nothing(), rows)


async def of_mode(engine: AsyncEngine, mode: Mode) -> list[OrgExport]:
    query = select(export_modes).where(export_modes.c.mode == mode.value).order_by(export_modes.c.org_id)
    async with reading(engine) as conn:
        return [_export(row) for row in (await conn.execute(query)).mappings()]


async def locked_mode(conn: AsyncConnection, org_id: str) -> OrgExport | None:
    """The org's mode, which nobody else changes or seals for until the transaction ends."""
    query = select(export_modes).where(export_modes.c.org_id == org_id).with_for_update()
    row = (await conn.execute(query)).mappings().first()
    return None if row is None else _export(row)


async def put_mode(conn: AsyncConnection, export: OrgExport) -> None:
    dialect = postgresql if conn.dialect.name == "postgresql" else sqlite
    values = {**msgspec.structs.asdict(export), "mode": export.mode.value}
    changed = {name: values[name] for name in ("mode", "since", "sealed_seq")}
    statement = dialect.insert(export_modes).values(**values)
    await conn.execute(statement.on_conflict_do_update(index_elements=["org_id"], set_=changed))


async def advance(conn: AsyncConnection, org_id: str, seq: int) -> None:
    await conn.execute(update(export_modes).where(export_modes.c.org_id == org_id).values(sealed_seq=seq))


async def last_seq(conn: AsyncConnection, org_id: str) -> int:
    return int(await conn.scalar(select(func.max(charges.c.seq)).where(charges.c.org_id == org_id)) or 0)


async def charges_behind(conn: AsyncConnection, org_id: str, seq: int, limit: int) -> list[Counted]:
    c = charges.c
    query = (
        select(c.seq, c.at, c.model, *(case((free_of_charge(), 0), else_=c[name]) for name in _TOKENS))
        .where(c.org_id == org_id, c.seq > seq)
        .order_by(c.seq)
        .limit(limit)
    )
    return [Counted(*row) for row in (await conn.execute(query)).all()]


def free_of_charge() -> ColumnElement[bool]:
    """Whether a charge is of a request that costs nothing from the first: a provider that rates tokens by itself must
    not hear of it."""
    c, u = charges.c, usage_records.c
    free = or_(u.evidence == Evidence.CACHED.value, u.repeat_of.is_not(None))
    return exists().where(c.n == 0, u.request_id == c.request_id, u.n == 0, u.org_id == c.org_id, free)


async def next_n(conn: AsyncConnection, org_id: str, meter: str, hour: datetime) -> int:
    here = (table.c.org_id == org_id) & (table.c.meter == meter) & (table.c.hour == hour)
    return 1 + int(await conn.scalar(select(func.max(table.c.n)).where(here)) or 0)


async def add(conn: AsyncConnection, window: Window) -> None:
    await conn.execute(insert(table).values(**_columns(window)))


async def locked(conn: AsyncConnection, window_id: str) -> Window:
    row = (await conn.execute(select(table).where(table.c.id == window_id).with_for_update())).mappings().first()
    if row is None:
        raise NotFound("there is no such export window")
    return _window(row)


async def change(conn: AsyncConnection, window_id: str, **values: Any) -> Window:
    plain = {name: value.value if isinstance(value, WindowStatus) else value for name, value in values.items()}
    await conn.execute(update(table).where(table.c.id == window_id).values(**plain))
    return _window((await conn.execute(select(table).where(table.c.id == window_id))).mappings().one())


async def waiting(engine: AsyncEngine, mode: Mode) -> list[Window]:
    """All that is not resolved, oldest first."""
    return await find(engine, table.c.mode == mode.value, table.c.status.in_(UNRESOLVED))


async def find(engine: AsyncEngine, *here: ColumnElement[bool], limit: int = 10_000) -> list[Window]:
    query = select(table).where(*here).order_by(table.c.hour, table.c.org_id, table.c.meter, table.c.n).limit(limit)
    async with reading(engine) as conn:
        return [_window(row) for row in (await conn.execute(query)).mappings()]


async def page(
    engine: AsyncEngine,
    *,
    org_id: str | None = None,
    status: WindowStatus | None = None,
    failed: bool = False,
    after: str | None = None,
    limit: int = 100,
) -> Sequence[Window]:
    """In order of their identifiers."""
    here: list[ColumnElement[bool]] = []
    if org_id is not None:
        here.append(table.c.org_id == org_id)
    if status is not None:
        here.append(table.c.status == status.value)
    if failed:
        here.append(table.c.billing_failed)
    if after is not None:
        here.append(table.c.id > after)
    query = select(table).where(*here).order_by(table.c.id).limit(limit)
    async with reading(engine) as conn:
        return [_window(row) for row in (await conn.execute(query)).mappings()]


def _columns(window: Window) -> dict[str, Any]:
    fields = msgspec.structs.asdict(window)
    return {**fields, "mode": window.mode.value, "status": window.status.value}


def _window(row: RowMapping) -> Window:
    return Window(
        **{**row, "org_id": OrgId(row["org_id"]), "mode": Mode(row["mode"]), "status": WindowStatus(row["status"])}
    )


def _export(row: RowMapping) -> OrgExport:
    return OrgExport(**{**row, "org_id": OrgId(row["org_id"]), "mode": Mode(row["mode"])})
