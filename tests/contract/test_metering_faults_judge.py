"""The judge of `bench.metering_faults` names each kind of discrepancy that is planted, and none where there is none."""

from collections.abc import AsyncIterator
from decimal import Decimal

import asyncpg
import pytest
import pytest_asyncio
from bench.metering_faults.judge import PROMISES, TABLES, Verdict, weigh
from bench.metering_faults.site import CACHED_USD, INPUT_USD, OUTPUT_USD

from crosslogic.billing.charges.service import RatingService
from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.model import Evidence, Outcome, UsageRecord
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store.engine import create_engine
from tests.metering_samples import usage

LISTED = PriceList((PriceEntry("*", Decimal(INPUT_USD), Decimal(OUTPUT_USD), Decimal(CACHED_USD)),))
WHOLE = [usage(n, prompt_tokens=100 + n, cached_tokens=n, completion_tokens=10 + n) for n in range(6)]
LEFT = usage(6, outcome=Outcome.CLIENT_CLOSED, evidence=Evidence.COUNTED, completion_tokens=5, cached_tokens=0)
KILLED = usage(
    7, outcome=Outcome.INTERRUPTED, evidence=Evidence.CHECKPOINT, completion_tokens=64, prompt_tokens=0, cached_tokens=0
)


@pytest_asyncio.fixture
async def conn(postgres_database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database whose ledger, charges, callers and nodes agree, and in which rows may be changed."""
    engine = create_engine(postgres_database_url)
    book = PriceBook(LISTED)
    await Ledger(engine).insert([*WHOLE, LEFT, KILLED], book)
    await RatingService(engine, SystemClock(), price_list=lambda: (book.version, LISTED)).round()
    await engine.dispose()
    found = await asyncpg.connect(postgres_database_url)
    await found.execute(TABLES)
    for record in (*WHOLE, LEFT, KILLED):
        whole = record.outcome is Outcome.COMPLETED
        tokens = 100 if record is KILLED else record.completion_tokens
        told = (record.prompt_tokens, record.completion_tokens, record.cached_tokens) if whole else (0, 0, 0)
        seen = (record.request_id, record.request_id, True, "normal", 200, whole, *told, tokens, tokens, 200)
        await found.copy_records_to_table("seen", records=[seen])
        await found.copy_records_to_table("work", records=[_work(record, tokens + 2 * (not whole))])
    await found.execute("ALTER TABLE usage_records DISABLE TRIGGER USER; ALTER TABLE charges DISABLE TRIGGER USER")
    yield found
    await found.close()


def _work(record: UsageRecord, made: int) -> tuple[object, ...]:
    prompt = record.prompt_tokens or 10
    return (
        1,
        int(record.request_id[-6:]),
        record.request_id,
        record.request_id,
        prompt,
        record.cached_tokens,
        made,
        True,
    )


async def _with(conn: asyncpg.Connection, planted: str) -> Verdict:
    transaction = conn.transaction()
    await transaction.start()
    try:
        await conn.execute(planted)
        return await weigh(conn)
    finally:
        await transaction.rollback()


async def test_where_all_agree_there_is_no_discrepancy(conn: asyncpg.Connection) -> None:
    verdict = await _with(conn, "SELECT 1")
    assert verdict.total == 0, verdict.problems
    assert verdict.figures["rows of the ledger"] == 8
    assert verdict.figures["generated and not billed, of requests with a row"] == 2 + 38


FIRST, SECOND = WHOLE[0].request_id, WHOLE[1].request_id
PLANTED = [
    ("lost", f"DELETE FROM usage_records WHERE request_id = '{FIRST}'", "seen whole, and is not"),
    ("lost", f"DELETE FROM usage_records WHERE request_id = '{LEFT.request_id}'", "text of an answer"),
    ("lost", "INSERT INTO work VALUES (1, 99, 'req_99', 'tag_99', 10, 0, 1, true)", "a node generated for a request"),
    ("lost", f"UPDATE seen SET tokens = 6 WHERE request_id = '{LEFT.request_id}'", "broken stream"),
    ("lost", f"UPDATE seen SET old_tokens = 129 WHERE request_id = '{KILLED.request_id}'", "64 tokens"),
    ("duplicate", f"UPDATE work SET tag = '{FIRST}' WHERE request_id = '{SECOND}'", "one call"),
    ("duplicate", f"DELETE FROM charges WHERE request_id = '{FIRST}'", "more or less often"),
    ("mis-counted", f"UPDATE seen SET completion = 9, tokens = 9 WHERE request_id = '{FIRST}'", "other tokens"),
    ("mis-counted", f"UPDATE seen SET cached = 9 WHERE request_id = '{FIRST}'", "other tokens"),
    ("mis-counted", f"UPDATE usage_records SET outcome = 'truncated' WHERE request_id = '{FIRST}'", "another outcome"),
    ("mis-counted", f"UPDATE work SET made = made + 1 WHERE request_id = '{FIRST}'", "one node counted"),
    ("mis-counted", f"UPDATE seen SET tokens = tokens - 1 WHERE request_id = '{FIRST}'", "number of pieces"),
    ("mis-counted", f"UPDATE work SET made = 3 WHERE request_id = '{LEFT.request_id}'", "more is billed"),
    ("mis-counted", f"DELETE FROM work WHERE request_id = '{LEFT.request_id}'", "more is billed"),
    ("mis-counted", f"UPDATE usage_records SET prompt_tokens = 11 WHERE request_id = '{KILLED.request_id}'", "prompt"),
    ("mis-priced", f"UPDATE usage_records SET cost_pusd = cost_pusd + 1 WHERE request_id = '{FIRST}'", "ledger's cost"),
    ("mis-priced", f"UPDATE charges SET amount = amount - 1 WHERE request_id = '{FIRST}'", "what is charged"),
]


@pytest.mark.parametrize(("kind", "planted", "words"), PLANTED, ids=range(len(PLANTED)))
async def test_what_is_planted_is_named(conn: asyncpg.Connection, kind: str, planted: str, words: str) -> None:
    verdict = await _with(conn, planted)
    assert verdict.discrepancies[kind] > 0, verdict.problems
    assert any(problem.startswith(kind) and words in problem for problem in verdict.problems), verdict.problems


def test_every_promise_but_the_primary_keys_was_broken_once() -> None:
    words = [word for _, _, word in PLANTED]
    unbroken = [text for found in PROMISES.values() for text, _ in found if not any(word in text for word in words)]
    assert unbroken == ["a request has more than one original"]  # the primary key forbids to plant it
