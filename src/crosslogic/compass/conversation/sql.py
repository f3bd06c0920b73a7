"""Conversations and specifications in the database.

Invariants: each is found by its org alone, and one of another org is as one that does not exist; a specification and
the revision that tells of its change are written together, with the audit log, or not at all.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import RowMapping, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.compass.conversation.model import Conversation, Revision, StoredSpecification
from crosslogic.compass.intent.ports import Role, Turn
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.errors import Conflict
from crosslogic.store.engine import reading
from crosslogic.store.tables.compass import (
    compass_conversations,
    compass_recommendations,
    compass_specification_revisions,
    compass_specifications,
    compass_turns,
)
from crosslogic.tenancy.writing import check_ref, not_found

CONVERSATION = "conversation"
SPECIFICATION = "specification"


def _built(value: Any) -> Any:
    return msgspec.to_builtins(value)


def _specification(document: Any) -> Specification:
    return msgspec.convert(document, type=Specification, strict=False)


def to_conversation(row: RowMapping) -> Conversation:
    return Conversation(**{name: row[name] for name in Conversation.__struct_fields__})


def to_stored(row: RowMapping) -> StoredSpecification:
    fields = {name: row[name] for name in StoredSpecification.__struct_fields__}
    return StoredSpecification(**{**fields, "specification": _specification(row["specification"])})


class CompassSql:
    """Raises NotFound and Conflict."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine

    async def conversation(self, org_id: str, conversation_id: str) -> Conversation:
        check_ref(conversation_id, CONVERSATION)
        query = select(compass_conversations).where(
            compass_conversations.c.id == conversation_id, compass_conversations.c.org_id == org_id
        )
        async with reading(self.engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise not_found(CONVERSATION)
        return to_conversation(row)

    async def conversations(
        self, org_id: str, *, containing: str | None = None, after: str | None, limit: int
    ) -> list[Conversation]:
        """`containing`: words of their titles, in any letter case."""
        table = compass_conversations
        query = select(table).where(table.c.org_id == org_id).order_by(table.c.id).limit(limit)
        if containing is not None:
            query = query.where(table.c.title.icontains(containing, autoescape=True))
        if after is not None:
            query = query.where(table.c.id > after)
        async with reading(self.engine) as conn:
            return [to_conversation(row) for row in (await conn.execute(query)).mappings()]

    async def turns(self, conversation_id: str) -> list[Turn]:
        table = compass_turns
        query = select(table).where(table.c.conversation_id == conversation_id).order_by(table.c.number)
        async with reading(self.engine) as conn:
            return [
                Turn(Role(row["role"]), row["content"], row["asked"]) for row in (await conn.execute(query)).mappings()
            ]

    async def add_conversation(self, conn: AsyncConnection, conversation: Conversation) -> None:
        await conn.execute(insert(compass_conversations).values(msgspec.structs.asdict(conversation)))

    async def add_turns(
        self,
        conn: AsyncConnection,
        conversation: Conversation,
        turns: Sequence[Turn],
        *,
        extractor: str,
        title: str,
        specification_id: str,
        at: datetime,
    ) -> None:
        """Behind those that the conversation had when it was read. Raises Conflict when it has more meanwhile."""
        table = compass_conversations
        seen = (table.c.id == conversation.id) & (table.c.turns == conversation.turns)
        values = {"turns": conversation.turns + len(turns), "updated_at": at, "title": title}
        done = await conn.execute(update(table).where(seen).values(**values, specification_id=specification_id))
        if done.rowcount != 1:
            raise Conflict("the conversation went on meanwhile; read it, and say it again")
        rows = [
            {
                "conversation_id": conversation.id,
                "number": conversation.turns + offset,
                "role": turn.role.value,
                "content": turn.content,
                "asked": turn.asked,
                "extractor": extractor if turn.role is Role.ASSISTANT else None,
                "at": at,
            }
            for offset, turn in enumerate(turns)
        ]
        await conn.execute(insert(compass_turns), rows)

    async def remove_conversation(self, conn: AsyncConnection, org_id: str, conversation_id: str) -> None:
        table = compass_conversations
        mine = (table.c.id == conversation_id) & (table.c.org_id == org_id)
        found = (await conn.execute(select(table.c.id).where(mine).with_for_update())).first()
        if found is None:
            raise not_found(CONVERSATION)
        await conn.execute(delete(compass_turns).where(compass_turns.c.conversation_id == conversation_id))
        await conn.execute(delete(table).where(mine))

    async def specification(self, org_id: str, specification_id: str) -> StoredSpecification:
        check_ref(specification_id, SPECIFICATION)
        async with reading(self.engine) as conn:
            return await self.specification_in(conn, org_id, specification_id)

    async def specification_in(
        self, conn: AsyncConnection, org_id: str, specification_id: str, *, lock: bool = False
    ) -> StoredSpecification:
        table = compass_specifications
        query = select(table).where(table.c.id == specification_id, table.c.org_id == org_id)
        row = (await conn.execute(query.with_for_update() if lock else query)).mappings().first()
        if row is None:
            raise not_found(SPECIFICATION)
        return to_stored(row)

    async def specifications(
        self, org_id: str, *, containing: str | None = None, after: str | None, limit: int
    ) -> list[StoredSpecification]:
        """`containing`: words of their names, in any letter case."""
        table = compass_specifications
        query = select(table).where(table.c.org_id == org_id).order_by(table.c.id).limit(limit)
        if containing is not None:
            query = query.where(table.c.name.icontains(containing, autoescape=True))
        if after is not None:
            query = query.where(table.c.id > after)
        async with reading(self.engine) as conn:
            return [to_stored(row) for row in (await conn.execute(query)).mappings()]

    async def add_specification(
        self, conn: AsyncConnection, stored: StoredSpecification, reason: str, actor: str
    ) -> None:
        values = msgspec.structs.asdict(stored)
        await conn.execute(
            insert(compass_specifications).values(**{**values, "specification": _built(stored.specification)})
        )
        await self._remember(conn, stored, reason, {}, actor)

    async def change_specification(
        self, conn: AsyncConnection, stored: StoredSpecification, reason: str, changes: Mapping[str, Any], actor: str
    ) -> None:
        """`stored` is as it is to be, one revision on; the row is held by this transaction."""
        table = compass_specifications
        values = {
            "name": stored.name,
            "revision": stored.revision,
            "specification": _built(stored.specification),
            "updated_at": stored.updated_at,
        }
        await conn.execute(update(table).where(table.c.id == stored.id).values(values))
        await self._remember(conn, stored, reason, changes, actor)

    async def remove_specification(self, conn: AsyncConnection, org_id: str, specification_id: str) -> None:
        await self.specification_in(conn, org_id, specification_id, lock=True)
        recommended = compass_recommendations
        await conn.execute(delete(recommended).where(recommended.c.specification_id == specification_id))
        revisions = compass_specification_revisions
        await conn.execute(delete(revisions).where(revisions.c.specification_id == specification_id))
        table = compass_conversations
        await conn.execute(
            update(table).where(table.c.specification_id == specification_id).values(specification_id=None)
        )
        await conn.execute(delete(compass_specifications).where(compass_specifications.c.id == specification_id))

    async def revisions(
        self, specification_id: str, *, reason: str | None = None, after: int | None, limit: int
    ) -> list[Revision]:
        async with reading(self.engine) as conn:
            return await self.revisions_in(conn, specification_id, reason=reason, after=after, limit=limit)

    async def revisions_in(
        self,
        conn: AsyncConnection,
        specification_id: str,
        *,
        reason: str | None = None,
        after: int | None = None,
        limit: int,
    ) -> list[Revision]:
        table = compass_specification_revisions
        query = (
            select(table).where(table.c.specification_id == specification_id).order_by(table.c.revision).limit(limit)
        )
        if reason is not None:
            query = query.where(table.c.reason == reason)
        if after is not None:
            query = query.where(table.c.revision > after)
        return [
            Revision(
                revision=row["revision"],
                reason=row["reason"],
                changes=row["changes"],
                specification=_specification(row["specification"]),
                actor=row["actor"],
                at=row["at"],
            )
            for row in (await conn.execute(query)).mappings()
        ]

    async def _remember(
        self, conn: AsyncConnection, stored: StoredSpecification, reason: str, changes: Mapping[str, Any], actor: str
    ) -> None:
        await conn.execute(
            insert(compass_specification_revisions).values(
                specification_id=stored.id,
                revision=stored.revision,
                reason=reason,
                changes=_built(dict(changes)),
                specification=_built(stored.specification),
                actor=actor,
                at=stored.updated_at,
            )
        )
