"""Conversations and specifications of an org: said, understood, edited, kept with their history.

Invariant: what a message led to is written whole, the turn, the reply, the specification and its revision, or not at
all; while a language model is waited for, no transaction is open.
"""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.compass.conversation.carry import carried, changes_between
from crosslogic.compass.conversation.model import (
    MOST_SAID,
    MOST_TURNS,
    Conversation,
    Exchange,
    Revision,
    StoredSpecification,
)
from crosslogic.compass.conversation.recommended import RecommendationsSql, Recommended
from crosslogic.compass.conversation.reply import Understanding, understand
from crosslogic.compass.conversation.sql import CompassSql
from crosslogic.compass.intent.deterministic import DeterministicExtractor, extract
from crosslogic.compass.intent.ports import Extractor, Role, Turn
from crosslogic.compass.intent.text import MOST_CHARACTERS
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.compass.specification.edit import edit
from crosslogic.compass.specification.generate import specify
from crosslogic.compass.specification.model import Specification
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest
from crosslogic.kernel.ids import new_id
from crosslogic.tenancy import rules
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher

_MOST_TITLE = 80
_MOST_EDITS = 500

_log = logging.getLogger(__name__)


class CompassService:
    """Raises NotFound, also for what is of another org, InvalidRequest and Conflict."""

    def __init__(
        self,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        extractor: Extractor | None = None,
        actor: Actor = SYSTEM,
    ) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._extractor = extractor or DeterministicExtractor()
        self._trail = AuditTrail(actor, hash_key, clock)
        self._sql = CompassSql(engine)
        self._recommended = RecommendationsSql(engine, clock)

    def acting_as(self, actor: Actor) -> "CompassService":
        """The same service; what it changes is written down as done by `actor`."""
        return CompassService(self._engine, self._hash_key, self._clock, self._extractor, actor)

    async def start(self, org_id: str) -> Conversation:
        """A conversation in which nothing was said yet."""
        now = self._clock.now()
        conversation = Conversation(new_id("conv"), org_id, "", 0, None, now, now)
        async with self._engine.begin() as conn:
            await self._sql.add_conversation(conn, conversation)
            await self._log(conn, "conversation.create", conversation.id, org_id)
        return conversation

    async def say(self, org_id: str, conversation_id: str, content: str) -> Exchange:
        """Hear a message, and keep what followed from it."""
        if not content.strip():
            raise InvalidRequest(
                "nothing was said; describe what the model is to do, for whom and how fast", param="content"
            )
        if len(content) > MOST_SAID:
            raise InvalidRequest(f"a message has at most {MOST_SAID:,} characters", param="content")
        conversation = await self._sql.conversation(org_id, conversation_id)
        if conversation.turns + 2 > MOST_TURNS:
            raise Conflict("the conversation is full; start another, its specification goes on being editable")
        before = await self._sql.turns(conversation_id)
        said = Turn(Role.USER, _storable(content[:MOST_CHARACTERS]))
        turns = [*before, said]
        reading = await self._extractor.extract(turns)
        if reading.note is not None:
            _log.warning("a conversation was understood by rules: %s", reading.note)
        understanding = understand(reading.intent)
        asked = understanding.questions[0].field if understanding.questions else None
        reply = Turn(Role.ASSISTANT, understanding.text, asked)
        async with self._engine.begin() as conn:
            stored = await self._kept(conn, conversation, before, understanding.specification)
            await self._sql.add_turns(
                conn,
                conversation,
                (said, reply),
                extractor=reading.extractor,
                title=conversation.title or _title(said.content),
                specification_id=stored.id,
                at=stored.updated_at,
            )
            await self._log(conn, "conversation.say", conversation_id, org_id)
        went_on = msgspec.structs.replace(
            conversation,
            turns=conversation.turns + 2,
            title=conversation.title or _title(said.content),
            specification_id=stored.id,
            updated_at=stored.updated_at,
        )
        return Exchange(went_on, reply, understanding, stored, reading.extractor, reading.note)

    async def conversation(self, org_id: str, conversation_id: str) -> tuple[Conversation, list[Turn]]:
        return await self._sql.conversation(org_id, conversation_id), await self._sql.turns(conversation_id)

    async def conversations(
        self, org_id: str, *, containing: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[Conversation]:
        return await self._sql.conversations(org_id, containing=containing, after=after, limit=rules.page_limit(limit))

    async def forget(self, org_id: str, conversation_id: str) -> None:
        """Delete a conversation with all that was said; its specification stays."""
        await self._sql.conversation(org_id, conversation_id)
        async with self._engine.begin() as conn:
            await self._sql.remove_conversation(conn, org_id, conversation_id)
            await self._log(conn, "conversation.delete", conversation_id, org_id)

    async def specify(
        self, org_id: str, description: str, changes: Mapping[str, Any], name: str = ""
    ) -> tuple[StoredSpecification, Understanding]:
        """A specification from one description, with fields changed, without a conversation."""
        reading = await self._extractor.extract([Turn(Role.USER, _storable(description[:MOST_CHARACTERS]))])
        understanding = understand(reading.intent)
        specification = edit(understanding.specification, changes)
        now = self._clock.now()
        stored = StoredSpecification(
            new_id("spec"),
            org_id,
            name or _title(description) or specification.use_case.value,
            1,
            specification,
            now,
            now,
        )
        async with self._engine.begin() as conn:
            await self._sql.add_specification(conn, stored, "created", self._trail.actor.id)
            await self._log(conn, "specification.create", stored.id, org_id)
        return stored, understanding

    async def specification(self, org_id: str, specification_id: str) -> StoredSpecification:
        return await self._sql.specification(org_id, specification_id)

    async def specifications(
        self, org_id: str, *, containing: str | None = None, after: str | None = None, limit: int = 100
    ) -> list[StoredSpecification]:
        return await self._sql.specifications(org_id, containing=containing, after=after, limit=rules.page_limit(limit))

    async def edit(
        self,
        org_id: str,
        specification_id: str,
        changes: Mapping[str, Any],
        *,
        name: str | None = None,
        revision: int | None = None,
    ) -> StoredSpecification:
        """Change fields; `revision` is the one that the editor saw, Conflict where there is a newer one."""
        await self._sql.specification(org_id, specification_id)
        async with self._engine.begin() as conn:
            before = await self._sql.specification_in(conn, org_id, specification_id, lock=True)
            if revision is not None and revision != before.revision:
                raise Conflict(f"the specification is at revision {before.revision} by now, not {revision}; look again")
            changed = edit(before.specification, changes)
            if changed == before.specification and name in (None, before.name):
                return before
            after = msgspec.structs.replace(
                before,
                name=before.name if name is None else name,
                revision=before.revision + 1,
                specification=changed,
                updated_at=self._clock.now(),
            )
            await self._sql.change_specification(conn, after, "edited", changes, self._trail.actor.id)
            await self._log(conn, "specification.change", specification_id, org_id, dict(changes))
        return after

    async def history(
        self,
        org_id: str,
        specification_id: str,
        *,
        reason: str | None = None,
        after: int | None = None,
        limit: int = 100,
    ) -> list[Revision]:
        await self._sql.specification(org_id, specification_id)
        return await self._sql.revisions(specification_id, reason=reason, after=after, limit=rules.page_limit(limit))

    async def keep(self, stored: StoredSpecification, found: Recommendation) -> tuple[Recommended, Recommended | None]:
        """What was recommended for it, beside what was recommended before."""
        before = await self._recommended.page(stored.id, limit=1)
        made = await self._recommended.add(stored, found, self._trail.actor.id)
        return made, before[0] if before else None

    async def recommended(
        self,
        org_id: str,
        specification_id: str,
        *,
        revision: int | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Recommended]:
        """The latest first."""
        await self._sql.specification(org_id, specification_id)
        return await self._recommended.page(specification_id, revision=revision, after=after, limit=limit)

    async def discard(self, org_id: str, specification_id: str) -> None:
        """Delete a specification with its history."""
        await self._sql.specification(org_id, specification_id)
        async with self._engine.begin() as conn:
            await self._sql.remove_specification(conn, org_id, specification_id)
            await self._log(conn, "specification.delete", specification_id, org_id)

    async def _kept(
        self, conn: AsyncConnection, conversation: Conversation, before: list[Turn], specification: Specification
    ) -> StoredSpecification:
        """The conversation's specification as it is now, with what was edited by hand kept."""
        now = self._clock.now()
        if conversation.specification_id is None:
            stored = StoredSpecification(
                new_id("spec"), conversation.org_id, specification.use_case.value, 1, specification, now, now
            )
            await self._sql.add_specification(conn, stored, "conversation", self._trail.actor.id)
            return stored
        stored = await self._sql.specification_in(conn, conversation.org_id, conversation.specification_id, lock=True)
        edits = await self._edits(conn, stored.id)
        went_on = carried(specify(extract(before)), specification, edits)
        changes = changes_between(stored.specification, went_on)
        stored = msgspec.structs.replace(stored, revision=stored.revision + 1, specification=went_on, updated_at=now)
        await self._sql.change_specification(conn, stored, "conversation", changes, self._trail.actor.id)
        return stored

    async def _edits(self, conn: AsyncConnection, specification_id: str) -> dict[str, Any]:
        edits: dict[str, Any] = {}
        for revision in await self._sql.revisions_in(conn, specification_id, limit=_MOST_EDITS):
            if revision.reason == "edited":
                edits.update(revision.changes)
        return edits

    async def close(self) -> None:
        await self._extractor.close()

    async def _log(
        self, conn: AsyncConnection, action: str, entity_id: str, org_id: str, after: dict[str, Any] | None = None
    ) -> None:
        await self._trail.append(conn, action, entity_id, org_id=org_id, before=None, after=after or {})

    def now(self) -> datetime:
        return self._clock.now()


def _title(content: str) -> str:
    line = " ".join(content.split())
    return line if len(line) <= _MOST_TITLE else f"{line[: _MOST_TITLE - 1]}…"


def _storable(content: str) -> str:
    """Without what PostgreSQL stores in no text: NUL, and halves of surrogate pairs."""
    return content.replace("\x00", " ").encode("utf-8", "replace").decode("utf-8")
