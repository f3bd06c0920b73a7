"""What engines themselves count: tokens generated, by node and hour. Reconciliation holds the ledger against it.

Invariant: growth is the difference to the counter as it stands in the database, written in the same transaction; so
a report that is written twice, by two control processes or after a kill, counts once. An engine that started anew
counts from zero; what it did between its last report and its end is in no counter.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.kernel.ids import NodeId
from crosslogic.store.tables import engine_counters, node_witness

GENERATED = ("vllm:generation_tokens_total", "sglang:generation_tokens_total", "llamacpp:tokens_predicted_total")


def generated_tokens(samples: Mapping[str, float]) -> int | None:
    """The engine's counter of generated tokens since its start; None where it has none, or nonsense in it."""
    found = next((samples[name] for name in GENERATED if name in samples), None)
    return int(found) if found is not None and 0 <= found < 2**62 else None


def grown(before: int | None, now: int) -> int:
    """What came since. Before the first look: nothing, for nobody knows in which hour it was; after a restart: all."""
    if before is None:
        return 0
    return now - before if now >= before else now


async def write_witness(conn: AsyncConnection, counters: Mapping[NodeId, int], at: datetime) -> None:
    """Take in what the nodes' counters say now."""
    if not counters:
        return
    ids = sorted(counters)
    c = engine_counters.c
    known = select(c.node_id, c.generated_tokens).where(c.node_id.in_(ids)).order_by(c.node_id).with_for_update()
    before = {row.node_id: row.generated_tokens for row in await conn.execute(known)}
    growth = {one: grown(before.get(one), counters[one]) for one in ids}
    hour = at.replace(minute=0, second=0, microsecond=0)
    news = [one for one in ids if one not in before or growth[one]]
    await _put(
        conn, engine_counters, [{"node_id": n, "generated_tokens": counters[n], "at": at} for n in ids], add=False
    )
    if news:
        rows = [{"node_id": one, "hour": hour, "generated_tokens": growth[one]} for one in news]
        await _put(conn, node_witness, rows, add=True)


async def _put(conn: AsyncConnection, table: Any, rows: list[dict[str, Any]], *, add: bool) -> None:
    dialect: Any = postgresql if conn.dialect.name == "postgresql" else sqlite
    put = dialect.insert(table)
    changed = {column.name: put.excluded[column.name] for column in table.c if not column.primary_key}
    if add:
        changed["generated_tokens"] = table.c.generated_tokens + put.excluded.generated_tokens
    await conn.execute(put.on_conflict_do_update(index_elements=list(table.primary_key.columns), set_=changed), rows)
