"""The benchmark table, on PostgreSQL and SQLite. Point by point the document's schema, by exact traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.compass.capacity.rows import MeasuredRow, distinct
from crosslogic.compass.knowledge.model import Benchmark, Setup, checked, measured_row
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import benchmarks as table
from crosslogic.tenancy.audit_sql import AuditTrail

_MOST_ROWS = 20_000
_AT_ONCE = 200


class KnowledgeBase:
    """Writes are in the audit log in the same transaction, one entry for an import."""

    def __init__(self, engine: AsyncEngine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    async def add(self, points: Sequence[Benchmark], trail: AuditTrail) -> int:
        """Store those that are not there yet; returns how many. Raises InvalidRequest for impossible figures."""
        now = self._clock.now()
        wanted = {point.digest: checked(point) for point in points}
        added = 0
        async with self._engine.begin() as conn:
            digests = list(wanted)
            known: set[str] = set()
            for start in range(0, len(digests), _AT_ONCE):
                query = select(table.c.digest).where(table.c.digest.in_(digests[start : start + _AT_ONCE]))
                known.update((await conn.execute(query)).scalars())
            rows = [{**_columns(wanted[each]), "imported_at": now} for each in digests if each not in known]
            if rows:
                # Of two imports of one file at once the second finds the digests taken, and is refused whole.
                await conn.execute(insert(table), rows)
                added = len(rows)
                source = rows[0]["source"]
                after = {"rows": added, "source": source, "model": rows[0]["model_hf_repo"]}
                await trail.append(conn, "benchmarks.import", rows[0]["id"], org_id=None, before=None, after=after)
        return added

    async def benchmark(
        self, model: str, hardware: str, hardware_count: int, prompt_tokens: int, output_tokens: int
    ) -> Benchmark | None:
        """The point with p95 of exactly this traffic that carried most; None where none was measured."""
        query = (
            select(table)
            .where(
                table.c.model_hf_repo == model,
                table.c.hardware == hardware,
                table.c.hardware_count == hardware_count,
                table.c.prompt_tokens == prompt_tokens,
                table.c.output_tokens == output_tokens,
                table.c.ttft_p95.is_not(None),
                table.c.itl_p95.is_not(None),
            )
            .order_by(table.c.requests_per_second.desc(), table.c.id.desc())
            .limit(1)
        )
        async with reading(self._engine) as conn:
            row = (await conn.execute(query)).mappings().first()
        return None if row is None else to_benchmark(row)

    async def with_p95(self) -> tuple[Benchmark, ...]:
        """What recommendations may quote as measured: the newest points with 95th percentiles and a rate."""
        query = (
            select(table)
            .where(
                table.c.ttft_p95.is_not(None),
                table.c.itl_p95.is_not(None),
                table.c.requests_per_second.is_not(None),
                table.c.stale.is_(False),
            )
            .order_by(table.c.id.desc())
            .limit(_MOST_ROWS)
        )
        async with reading(self._engine) as conn:
            return tuple(to_benchmark(row) for row in (await conn.execute(query)).mappings())

    async def page(
        self, *, model: str | None, hardware: str | None, source: str | None, after: str | None, limit: int
    ) -> list[tuple[str, Benchmark]]:
        """In order of id, which is order of import; `after` is the last id of the page before."""
        query = select(table).order_by(table.c.id).limit(limit)
        for column, value in ((table.c.model_hf_repo, model), (table.c.hardware, hardware), (table.c.source, source)):
            if value is not None:
                query = query.where(column == value)
        if after is not None:
            query = query.where(table.c.id > after)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).mappings().all()
        return [(row["id"], to_benchmark(row)) for row in rows]

    async def measured_rows(self) -> tuple[MeasuredRow, ...]:
        """What the step-time model learns from beside the packaged rows: the newest points, up to a bound."""
        query = select(table).order_by(table.c.id.desc()).limit(_MOST_ROWS)
        async with reading(self._engine) as conn:
            rows = (await conn.execute(query)).mappings().all()
        found = (measured_row(to_benchmark(row)) for row in rows)
        return distinct(row for row in found if row is not None)


def to_benchmark(row: RowMapping) -> Benchmark:
    return Benchmark(
        setup=Setup(
            row["model_hf_repo"],
            row["hardware"],
            row["hardware_count"],
            row["precision"],
            row["backend"],
            row["backend_version"],
        ),
        prompt_tokens=row["prompt_tokens"],
        output_tokens=row["output_tokens"],
        ttft_p95_ms=row["ttft_p95"],
        itl_p95_ms=row["itl_p95"],
        e2e_p95_ms=row["e2e_p95"],
        ttft_mean_ms=row["ttft_mean"],
        itl_mean_ms=row["itl_mean"],
        e2e_mean_ms=row["e2e_mean"],
        requests_per_second=row["requests_per_second"],
        offered_per_second=row["offered_per_second"],
        concurrency=row["concurrency"],
        mean_input_tokens=row["mean_input_tokens"],
        mean_output_tokens=row["mean_output_tokens"],
        requests=row["requests"],
        failed=row["failed"],
        source=row["source"],
        measured_at=row["measured_at"],
        stale=row["stale"],
    )


def _columns(point: Benchmark) -> dict[str, Any]:
    setup = point.setup
    return {
        "id": new_id("bench"),
        "digest": point.digest,
        "model_hf_repo": setup.model,
        "hardware": setup.gpu,
        "hardware_count": setup.gpu_count,
        "precision": setup.precision,
        "backend": setup.backend,
        "backend_version": setup.backend_version,
        "prompt_tokens": point.prompt_tokens,
        "output_tokens": point.output_tokens,
        "ttft_p95": point.ttft_p95_ms,
        "itl_p95": point.itl_p95_ms,
        "e2e_p95": point.e2e_p95_ms,
        "ttft_mean": point.ttft_mean_ms,
        "itl_mean": point.itl_mean_ms,
        "e2e_mean": point.e2e_mean_ms,
        "requests_per_second": point.requests_per_second,
        "offered_per_second": point.offered_per_second,
        "concurrency": point.concurrency,
        "mean_input_tokens": point.mean_input_tokens,
        "mean_output_tokens": point.mean_output_tokens,
        "requests": point.requests,
        "failed": point.failed,
        "source": point.source,
        "measured_at": point.measured_at,
        "stale": point.stale,
    }
