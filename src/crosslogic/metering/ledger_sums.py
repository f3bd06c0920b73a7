"""Usage summed straight from the rows of the ledger, however many they are: what the roll-ups must agree with."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, case, func, literal, select, tuple_
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.errors import InvalidRequest
from crosslogic.metering.model import UsageSum
from crosslogic.store.engine import reading
from crosslogic.store.tables import usage_records
from crosslogic.store.types import exact_sum

GROUPS = {
    "model": "model",
    "env": "env_id",
    "key": "key_id",
    "hour": "at",
    "day": "at",
    "month": "at",
    "endpoint": "endpoint",
    "region": "region",
    "outcome": "outcome",
}
_ON_POSTGRESQL = {"hour": 'YYYY-MM-DD"T"HH24:00"Z"', "day": "YYYY-MM-DD", "month": "YYYY-MM"}
_ON_SQLITE = {"hour": "%Y-%m-%dT%H:00Z", "day": "%Y-%m-%d", "month": "%Y-%m"}


class LedgerSums:
    """Raises `store.engine.DATABASE_ERRORS`."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine

    async def summary(
        self,
        org_id: str,
        *,
        start: datetime | None,
        end: datetime | None,
        group_by: Sequence[str] = (),
        only: Mapping[str, str] | None = None,
        after: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> list[UsageSum]:
        """Usage of an org from `start` (included) to `end` (not included), one sum for each group.

        Groups: model, env, key, hour, day, month (UTC), endpoint, region, outcome. Without any there is one sum, of
        nothing perhaps. `only` names groups and the one value of each that counts. In order of the groups; `after`
        are the values of the last one of the page before. Raises InvalidRequest for another group.
        """
        t = usage_records.c
        columns = {**dict(t), "at": t.timestamp}
        names = list(dict.fromkeys(group_by))
        dialect = self._engine.dialect.name
        groups = [group_column(name, columns, dialect) for name in names]
        query: Select[*tuple[Any, ...]] = select(
            *groups,
            func.sum(case((t.n == 0, 1), else_=0)),
            func.sum(t.prompt_tokens),
            func.sum(t.completion_tokens),
            func.sum(t.cached_tokens),
            func.sum(t.reasoning_tokens),
            func.sum(t.total_tokens),
            exact_sum(t.cost_pusd),
        ).where(t.org_id == org_id)
        if start is not None:
            query = query.where(t.timestamp >= start)
        if end is not None:
            query = query.where(t.timestamp < end)
        for name, value in (only or {}).items():
            query = query.where(group_column(name, columns, dialect) == value)
        if groups:
            query = page(query.group_by(*groups), len(groups), after, limit)
        async with reading(self._engine) as conn:
            return sums_of(names, (await conn.execute(query)).all())


def sums_of(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[UsageSum]:
    return [
        UsageSum(dict(zip(names, row, strict=False)), *(int(value or 0) for value in row[len(names) :])) for row in rows
    ]


def page(
    query: Select[*tuple[Any, ...]], groups: int, after: Sequence[str] | None, limit: int | None
) -> Select[*tuple[Any, ...]]:
    """In order of the first `groups` columns, from behind `after` on."""
    sums = query.subquery()
    keys = list(sums.c)[:groups]
    paged = select(sums).order_by(*keys).limit(limit)
    return paged if after is None else paged.where(tuple_(*keys) > tuple_(*map(literal, after)))


def group_column(name: str, columns: Any, dialect: str) -> ColumnElement[str]:
    """A group of these columns, of which `at` is the time. Raises InvalidRequest."""
    if name not in GROUPS:
        raise InvalidRequest(f"cannot group by {name!r}; choose of {', '.join(GROUPS)}", param="group_by")
    column: ColumnElement[str] = columns[GROUPS[name]]
    if name not in _ON_SQLITE:
        return column
    if dialect == "postgresql":
        return func.to_char(func.timezone("UTC", column), _ON_POSTGRESQL[name]).label(name)
    return func.strftime(_ON_SQLITE[name], column).label(name)
