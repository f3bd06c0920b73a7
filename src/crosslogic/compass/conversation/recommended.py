"""What was recommended for each revision of a specification, so that one sees what a word or a number changed.

Invariant: rows are only added, and go with their specification; each is of the revision that it was made from.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.conversation.model import StoredSpecification
from crosslogic.compass.ranking.model import Recommendation
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import compass_recommendations as table

KEPT_OPTIONS, KEPT_REJECTIONS = 5, 5


class Recommended(msgspec.Struct, frozen=True):
    """`best` is the first option's id; None where nothing met all targets."""

    id: str
    specification_id: str
    revision: int
    best: str | None
    per_month_pusd: int | None
    outcome: Recommendation
    actor: str
    at: datetime


class RecommendationsSql:
    """Whose a specification is was checked by whoever asks."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def add(self, stored: StoredSpecification, found: Recommendation, actor: str) -> Recommended:
        """Keep it, with its first options and its nearest rejections."""
        best = found.best
        made = Recommended(
            id=new_id("rcm"),
            specification_id=stored.id,
            revision=stored.revision,
            best=None if best is None else best.candidate.id,
            per_month_pusd=None if best is None else best.cost.per_month_pusd,
            outcome=msgspec.structs.replace(
                found, options=found.options[:KEPT_OPTIONS], rejections=found.rejections[:KEPT_REJECTIONS]
            ),
            actor=actor,
            at=self._clock.now(),
        )
        values = msgspec.structs.asdict(made) | {"outcome": msgspec.to_builtins(made.outcome)}
        async with self._engine.begin() as conn:
            await conn.execute(insert(table).values(values))
        return made

    async def page(
        self, specification_id: str, *, revision: int | None = None, after: str | None = None, limit: int = 100
    ) -> list[Recommended]:
        """The latest first."""
        query = select(table).where(table.c.specification_id == specification_id)
        if revision is not None:
            query = query.where(table.c.revision == revision)
        if after is not None:
            query = query.where(table.c.id < after)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query.order_by(table.c.id.desc()).limit(limit))).mappings().all()
        return [_recommended(row) for row in rows]


def _recommended(row: RowMapping) -> Recommended:
    fields = {name: row[name] for name in Recommended.__struct_fields__}
    return Recommended(**{**fields, "outcome": msgspec.convert(row["outcome"], Recommendation, strict=False)})
