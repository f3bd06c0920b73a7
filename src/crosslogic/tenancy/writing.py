"""How every management change is written: the row, its entry in the audit log and in the change feed, in one go.

Invariant: a change commits together with both, or not at all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import RowMapping, Select, Table, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.store.changes import append_change
from crosslogic.store.engine import reading
from crosslogic.tenancy.audit import difference
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.model import Status

_VERBS = {Status.ACTIVE.value: "activate", Status.SUSPENDED.value: "suspend", Status.REVOKED.value: "revoke"}


class Writer:
    """Reads and writes rows with an `id`. `word` names the kind of row: in errors, in the change feed, in the log."""

    def __init__(self, engine: AsyncEngine, trail: AuditTrail) -> None:
        self.engine = engine
        self.trail = trail

    async def add(self, table: Table, values: Mapping[str, Any], word: str, taken: str) -> None:
        """Raises Conflict, saying `taken`."""
        try:
            async with self.engine.begin() as conn:
                await self.add_in(conn, table, values, word)
        except IntegrityError:
            raise Conflict(taken) from None

    async def add_in(self, conn: AsyncConnection, table: Table, values: Mapping[str, Any], word: str) -> None:
        await conn.execute(insert(table).values(values))
        await self.announce(conn, f"{word}.create", word, before=None, after=values)

    async def change(self, table: Table, entity_id: str, values: dict[str, Any], word: str) -> RowMapping:
        """The row after the change; without `values` nothing is written. Raises NotFound."""
        async with self.engine.begin() as conn:
            before = await locked(conn, table, entity_id, word)
            return await self.change_in(conn, table, before, values, word) if values else before

    async def change_in(
        self,
        conn: AsyncConnection,
        table: Table,
        before: RowMapping,
        values: Mapping[str, Any],
        word: str,
        verb: str | None = None,
    ) -> RowMapping:
        """Change a row that this transaction holds already."""
        here = table.c.id == before["id"]
        await conn.execute(update(table).where(here).values(values))
        after = (await conn.execute(select(table).where(here))).mappings().one()
        verb = verb or (_VERBS[values["status"]] if set(values) - {"suspended_for"} == {"status"} else "change")
        await self.announce(conn, f"{word}.{verb}", word, before=dict(before), after=dict(after))
        return after

    async def announce(
        self,
        conn: AsyncConnection,
        action: str,
        word: str,
        *,
        before: Mapping[str, Any] | None,
        after: Mapping[str, Any] | None,
    ) -> None:
        """One entry in the audit log and one in the change feed."""
        row = after if after is not None else before
        assert row is not None
        entity_id = row["id"]
        org_id = entity_id if word == "org" else row.get("org_id")
        if before is not None and after is not None:
            before, after = difference(before, after)
        await self.trail.append(conn, action, entity_id, org_id=org_id, before=before, after=after)
        await append_change(conn, word, entity_id)

    async def order(
        self, action: str, entity_id: str, *, org_id: str, details: Mapping[str, Any], kind: str, message: str
    ) -> None:
        """Write down an order about what is no row here, and announce it to who obeys changes of this kind."""
        async with self.engine.begin() as conn:
            await self.trail.append(conn, action, entity_id, org_id=org_id, before=None, after=details)
            await append_change(conn, kind, message)

    async def one(self, query: Select[Any], word: str) -> RowMapping:
        """Raises NotFound."""
        found = await self.all(query)
        if not found:
            raise not_found(word)
        return found[0]

    async def all(self, query: Select[Any]) -> Sequence[RowMapping]:
        async with reading(self.engine) as conn:
            found: Sequence[RowMapping] = (await conn.execute(query)).mappings().all()
            return found


async def locked(conn: AsyncConnection, table: Table, entity_id: str, word: str) -> RowMapping:
    """The row, which nobody else changes until the transaction ends. Raises NotFound."""
    query = select(table).where(table.c.id == entity_id).with_for_update()
    row = (await conn.execute(query)).mappings().first()
    if row is None:
        raise not_found(word)
    return row


def not_found(word: str) -> NotFound:
    return NotFound(f"there is no such {word}")


def check_ref(ref: str, word: str) -> None:
    """Ids and names are ASCII; other text may not even be encodable for the database (NUL, lone surrogates)."""
    if not (ref.isascii() and ref.isprintable()):
        raise not_found(word)


def page_of(query: Select[Any], table: Table, *, status: Status | None, after: str | None, limit: int) -> Select[Any]:
    """In order of id, which is order of creation; `after` is the last id of the page before."""
    if status is not None:
        query = query.where(table.c.status == status.value)
    if after is not None:
        query = query.where(table.c.id > after)
    return query.order_by(table.c.id).limit(limit)
