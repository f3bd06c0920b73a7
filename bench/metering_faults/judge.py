"""Holds the ledger against what callers saw and what nodes did: by SQL, over tables of theirs beside the product's.

The oracle is independent: the callers' lines, the nodes' books and three prices. Each promise is one query that
counts the requests which break it. What a mark, an intent or an estimate may lack by design has its own figures.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg

from bench.metering_faults import witness
from bench.metering_faults.site import CACHED_USD, INPUT_USD, NODES, OUTPUT_USD, Site
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.store.engine import create_engine

SETTLE_S = 120.0
STILL_ROUNDS = 3  # of two seconds each, in which nothing comes
MARK_TOKENS = 64  # and what came within `callers.FRESH_S`: as much may lack where the gateway was killed
EXAMPLES = 5

TABLES = """
CREATE TABLE seen (tag text PRIMARY KEY, request_id text, streamed bool, behaviour text, status int, whole bool,
    prompt bigint, completion bigint, cached bigint, tokens bigint, old_tokens bigint, most bigint);
CREATE TABLE work (node int, serial bigint, request_id text, tag text, prompt bigint, cached bigint, made bigint,
    ended bool);
"""
# One line for each request: the sum of its rows, as it stands now. `known`: what its nodes did, together; the prompt is
# the shortest, for a node that goes on with an answer is given what there is of it.
VIEWS = """
UPDATE seen SET request_id = work.request_id FROM work WHERE seen.request_id = '' AND work.tag = seen.tag;
CREATE INDEX ON seen (request_id);
CREATE TABLE billed AS SELECT request_id, count(*) FILTER (WHERE n = 0) AS originals, max(n) AS corrections,
    sum(prompt_tokens) AS prompt, sum(completion_tokens) AS completion, sum(cached_tokens) AS cached,
    sum(cost_pusd) AS cost, (array_agg(outcome ORDER BY n DESC))[1] AS outcome,
    (array_agg(evidence ORDER BY n DESC))[1] AS evidence, max(attempts) AS attempts,
    count(*) FILTER (WHERE price_version IS NULL) AS unpriced
    FROM usage_records GROUP BY request_id;
CREATE UNIQUE INDEX ON billed (request_id);
CREATE TABLE known AS SELECT request_id, max(tag) AS tag, sum(made) AS made, min(prompt) AS prompt,
    max(cached) AS cached, count(*) AS nodes, bool_and(ended) AS ended FROM work GROUP BY request_id;
CREATE UNIQUE INDEX ON known (request_id);
CREATE TABLE paid AS SELECT request_id, count(*) AS charges, sum(list_amount) AS listed, sum(amount) AS amount
    FROM charges GROUP BY request_id;
CREATE UNIQUE INDEX ON paid (request_id);
ANALYZE;
"""
# kind of discrepancy → (what it is, a query for the requests that break it)
PROMISES: dict[str, list[tuple[str, str]]] = {
    "lost": [
        ("an answer was seen whole, and is not in the ledger",
         "SELECT request_id FROM seen LEFT JOIN billed USING (request_id) WHERE whole AND originals IS NULL"),
        ("text of an answer was seen, and the request is not in the ledger",
         "SELECT request_id FROM seen LEFT JOIN billed USING (request_id) "
         "WHERE NOT whole AND tokens > 0 AND originals IS NULL"),
        ("a node generated for a request of which the ledger knows nothing",
         "SELECT request_id FROM known LEFT JOIN billed USING (request_id) WHERE made > 0 AND originals IS NULL"),
        ("a broken stream is billed below what its caller had of it, though its gateway lived",
         "SELECT request_id FROM seen JOIN billed USING (request_id) "
         "WHERE NOT whole AND streamed AND outcome <> 'interrupted' AND billed.completion < tokens"),
        ("a stream whose gateway died is billed more than 64 tokens and a second below what its caller had",
         "SELECT request_id FROM seen JOIN billed USING (request_id) WHERE NOT whole AND streamed AND "
         f"outcome = 'interrupted' AND billed.completion < old_tokens - {MARK_TOKENS}"),
    ],
    "duplicate": [
        ("a request has more than one original",
         "SELECT request_id FROM billed WHERE originals <> 1"),
        ("one call of a caller is billed under several requests",
         "SELECT max(request_id) FROM known JOIN billed USING (request_id) WHERE billed.completion > 0 "
         "GROUP BY tag HAVING count(*) > 1"),
        ("a request is charged more or less often than the ledger has rows of it",
         "SELECT request_id FROM (SELECT request_id, count(*) AS rows FROM usage_records GROUP BY request_id) AS r "
         "FULL JOIN paid USING (request_id) WHERE rows IS DISTINCT FROM charges"),
    ],
    "mis-counted": [
        ("an answer was seen whole, and the ledger has other tokens or another outcome",
         "SELECT request_id FROM seen JOIN billed USING (request_id) WHERE whole AND "
         "(seen.prompt, seen.completion, seen.cached, 'completed') "
         "IS DISTINCT FROM (billed.prompt, billed.completion, billed.cached, billed.outcome)"),
        ("an answer was seen whole, and its one node counted otherwise",
         "SELECT request_id FROM seen JOIN known USING (request_id) WHERE whole AND nodes = 1 AND ended AND "
         "(seen.prompt, seen.completion, seen.cached) IS DISTINCT FROM (known.prompt, known.made, known.cached)"),
        # A stream that began anew on another node may have shown white space before, which nobody pays.
        ("a whole stream had another number of pieces than its usage says",
         "SELECT request_id FROM seen JOIN known USING (request_id) WHERE whole AND streamed AND "
         "(tokens < completion OR (tokens > completion AND nodes = 1))"),
        ("more is billed than the nodes generated for the request",
         "SELECT request_id FROM billed LEFT JOIN known USING (request_id) "
         "WHERE completion > coalesce(made, 0)"),
        ("more of the prompt is billed than the node had, where the engine or its tokenizer told it",
         "SELECT request_id FROM billed JOIN known USING (request_id) "
         "WHERE evidence IN ('engine', 'checkpoint') AND billed.prompt NOT IN (0, known.prompt)"),
    ],
    "mis-priced": [
        ("the ledger's cost is not tokens times price",
         "SELECT request_id FROM billed WHERE unpriced > 0 OR "
         "cost <> (prompt - cached) * {input} + cached * {cached} + completion * {output}"),
        ("what is charged is not tokens times price",
         "SELECT request_id FROM billed LEFT JOIN paid USING (request_id) WHERE amount IS DISTINCT FROM listed OR "
         "amount IS DISTINCT FROM (prompt - cached) * {input} + cached * {cached} + completion * {output}"),
    ],
}  # fmt: skip
FIGURES = {
    # Who found nobody listening has asked nothing.
    "judged": "SELECT count(*) FROM seen LEFT JOIN known USING (tag) WHERE status <> 0 OR known.tag IS NOT NULL",
    "rows of the ledger": "SELECT count(*) FROM usage_records",
    "of them corrections": "SELECT count(*) FROM usage_records WHERE n > 0",
    "requests that the nodes know": "SELECT count(*) FROM known",
    "of them worked on by several nodes": "SELECT count(*) FROM known WHERE nodes > 1",
    "streams broken under their callers": "SELECT count(*) FROM seen WHERE NOT whole AND streamed AND tokens > 0",
    "completion tokens billed": "SELECT coalesce(sum(completion), 0) FROM billed",
    "completion tokens generated": "SELECT coalesce(sum(made), 0) FROM known",
    "pico-dollars billed": "SELECT coalesce(sum(cost), 0)::text FROM billed",
    # Where a stream was cut before its usage, or a gateway died: evidence says less than the truth.
    "generated and not billed, of requests with a row": (
        "SELECT coalesce(sum(made - completion), 0) FROM known JOIN billed USING (request_id)"
    ),
    "prompts that were estimated and are billed otherwise than the node counted": (
        "SELECT count(*) FROM billed JOIN known USING (request_id) "
        "WHERE evidence IN ('counted', 'estimated') AND billed.prompt <> known.prompt"
    ),
}


@dataclass
class Verdict:
    discrepancies: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    outcomes: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.discrepancies.values())


def judge(site: Site, seen: Path) -> Verdict:
    """Call it when all runs again and nobody calls; nodes are ended first, for their books are to be closed."""
    site.close_nodes()
    return asyncio.run(_judge(site, seen))


async def _judge(site: Site, seen: Path) -> Verdict:
    conn = await asyncpg.connect(site.postgres.url, command_timeout=300)
    try:
        await conn.execute(TABLES)
        with seen.open("rb") as file:
            await conn.copy_to_table("seen", source=file, format="text", null="NULL")
        for node in range(NODES):
            await conn.copy_records_to_table("work", records=_works(site, node))
        await conn.execute("CREATE INDEX ON work (request_id)")
        await _settled(conn)
        verdict = await weigh(conn)
    finally:
        await conn.close()
    await _look_at_the_log(site.postgres.url, verdict)
    return verdict


async def weigh(conn: asyncpg.Connection) -> Verdict:
    """`seen` and `work` (see `TABLES`) against the product's tables. Once for a database."""
    await conn.execute(VIEWS)
    verdict = Verdict()
    for kind, promises in PROMISES.items():
        verdict.discrepancies[kind] = 0
        for words, query in promises:
            await _look(conn, verdict, kind, words, query.format(**prices()))
    for name, query in FIGURES.items():
        verdict.figures[name] = int(await conn.fetchval(query))
    rows = await conn.fetch("SELECT outcome || ', ' || evidence AS how, count(*) FROM billed GROUP BY 1 ORDER BY 2")
    verdict.outcomes = {row["how"]: row["count"] for row in reversed(rows)}
    return verdict


def _works(site: Site, node: int) -> Iterator[tuple[Any, ...]]:
    for one in witness.read(site.book(node)):
        yield node, one.serial, one.request_id, one.tag, one.prompt_tokens, one.cached_tokens, one.made, one.over


def prices() -> dict[str, int]:
    """In pico-dollars for a token."""
    return {
        name: int(Decimal(usd) * 1_000_000)
        for name, usd in (("input", INPUT_USD), ("cached", CACHED_USD), ("output", OUTPUT_USD))
    }


async def _settled(conn: asyncpg.Connection) -> None:
    """Until all that was announced is in the ledger, and all of the ledger is rated and rolled up, or time is over."""
    missing = (
        "SELECT count(*) FROM seen LEFT JOIN usage_records USING (request_id) "
        "WHERE (whole OR tokens > 0) AND seq IS NULL"
    )
    behind = (
        "SELECT count(*) FROM usage_heads h LEFT JOIN charge_cursors c USING (org_id) "
        "LEFT JOIN usage_rollups r USING (org_id) "
        "WHERE h.seq > coalesce(c.seq, 0) OR h.seq > coalesce(r.seq, 0)"
    )
    deadline = asyncio.get_running_loop().time() + SETTLE_S
    last, still = -1, 0
    while asyncio.get_running_loop().time() < deadline:
        rows = await conn.fetchval("SELECT count(*) FROM usage_records")
        # Those that nobody saw to their end are known by their intents: they come within two rounds of the flush.
        still = still + 1 if rows == last else 0
        if still >= STILL_ROUNDS and not await conn.fetchval(missing) and not await conn.fetchval(behind):
            return
        last = rows
        await asyncio.sleep(2.0)


async def _look(conn: asyncpg.Connection, verdict: Verdict, kind: str, words: str, query: str) -> None:
    found = [row[0] for row in await conn.fetch(query)]
    if not found:
        return
    verdict.discrepancies[kind] += len(found)
    verdict.problems.append(f"{kind}, {len(found)} times: {words}")
    for request_id in found[:EXAMPLES]:
        for table in ("seen", "known", "billed", "paid"):
            for row in await conn.fetch(f"SELECT * FROM {table} WHERE request_id = $1", request_id):
                verdict.problems.append(f"    {table}: {dict(row)}")


async def _look_at_the_log(database_url: str, verdict: Verdict) -> None:
    """Chains of hashes and roll-ups."""
    verdict.discrepancies["log or roll-ups"] = 0
    engine = create_engine(database_url)
    try:
        reader = LedgerReader(engine)
        for head in await reader.heads():
            checked = await reader.verify(head.org_id)
            if checked.problem is not None:
                verdict.discrepancies["log or roll-ups"] += 1
                verdict.problems.append(checked.problem)
            groups = ["hour", "model", "outcome"]
            rolled = await RollupSums(engine).summary(head.org_id, start=None, end=None, group_by=groups)
            if rolled != await LedgerSums(engine).summary(head.org_id, start=None, end=None, group_by=groups):
                verdict.discrepancies["log or roll-ups"] += 1
                verdict.problems.append("the roll-ups are not the sums of the rows")
    finally:
        await engine.dispose()
