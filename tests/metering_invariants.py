"""The invariants of metering, checked on one eventful life of journal, flusher, ledger and roll-ups; for tests.

`violations` plays the same story each time: requests that end well, are cached, have no id, come twice, are written
while the gateway closes; a database that fails before and after its commit; a gateway that is killed; rows that come
late. What should be there is worked out here, from the records alone and with whole numbers.
"""

import asyncio
import shutil
from collections.abc import Callable, Iterable
from decimal import Decimal
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.gateway import evidence
from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.request import Call
from crosslogic.gateway.stream import stream_reader
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import RequestId
from crosslogic.metering import flush
from crosslogic.metering.frames import write_frame
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Checkpoint, UsageRecord
from crosslogic.metering.rollup import Rollups
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.metering.segment import LifeLock, Segment, SegmentName, life_name
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store.engine import create_engine
from crosslogic.store.tables import usage_records
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, intent, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.000003"), Decimal("0.000007"), Decimal("0.000001")),)))
INPUT_PUSD, OUTPUT_PUSD, CACHED_PUSD = 3, 7, 1
RECORDS = [
    usage(
        n, prompt_tokens=100 + n, cached_tokens=n, completion_tokens=10 + n, reasoning_tokens=n % 10, model=f"m{n % 2}"
    )
    for n in range(30)
]
NAMELESS = [usage(100 + n, request_id=RequestId("")) for n in range(2)]
UNTOLD = [usage(200 + n) for n in range(3)]  # recorded while nobody waits, just before the gateway closes
LATE = [usage(300 + n, timestamp_us=JANUARY_1_2026_US - n * DAY_US) for n in range(3)]
DEAD = range(400, 404)  # announced by a gateway that is killed; the even ones have marks


class FailingLedger(Ledger):
    """Fails once before its transaction and once after its commit."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.calls = 0

    async def insert(self, records: Iterable[UsageRecord], prices: PriceBook) -> int:
        self.calls += 1
        if self.calls == 1:
            raise OperationalError("INSERT", {}, ConnectionResetError())
        added = await super().insert(records, prices)
        if self.calls == 2:
            raise OperationalError("COMMIT", {}, ConnectionResetError())
        return added


class RefusingSync:
    """A disk that takes writes and refuses to make them durable."""

    def __init__(self, _loop: object, done: Callable[[int], None]) -> None:
        self._done = done

    def start(self, _fd: int) -> None:
        asyncio.get_running_loop().call_soon(self._done, 5)

    def close(self) -> None:
        return None


async def violations(template: Path, directory: Path, call: Call) -> set[str]:
    """The names of the invariants that do not hold."""
    database = directory / "ledger.db"
    shutil.copy(template, database)
    engine = create_engine(f"sqlite:///{database}")
    found: set[str] = set()
    try:
        await _live(directory / "journal", engine, found)
        await _judge(engine, found)
    finally:
        await engine.dispose()
    await _disk_refuses(directory / "refusing", found)
    _cut_stream(call, found)
    return found


async def _live(journal_dir: Path, engine: AsyncEngine, found: set[str]) -> None:
    clock = ManualClock()
    journal = await FileJournal.open(journal_dir, "w", clock=clock, segment_bytes=16 << 10)
    for record in [*RECORDS, *RECORDS[:5], *NAMELESS]:
        await journal.record(record)
    saved = journal_dir.with_name("saved")
    shutil.copytree(journal_dir, saved)
    ledger = FailingLedger(engine)
    mover = flush.JournalFlusher(journal_dir, ledger, lambda: PRICES, clock)
    for record in UNTOLD:
        journal.record(record)
    await journal.close()
    await _flush(mover)
    # Whoever starts anew reads what was there from the beginning.
    await _flush(flush.JournalFlusher(saved, ledger, lambda: PRICES, clock))
    await Rollups(engine).advance()
    await ledger.insert(LATE, PRICES)
    _dead_writer(journal_dir)
    await _flush(mover)
    await Rollups(engine, page_rows=3).advance()
    await Rollups(engine).advance()
    if any(journal_dir.iterdir()):
        found.add("journals are worked off")


async def _flush(mover: flush.JournalFlusher) -> None:
    """As the job does it: again and again."""
    for _ in range(4):
        try:
            await mover.flush()
        except OperationalError:
            continue


def _dead_writer(journal_dir: Path) -> None:
    life = life_name("dead", 1)
    LifeLock.take(journal_dir, life).release(remove=False)
    segment = Segment.create(journal_dir, SegmentName(life, 0), 1, 16 << 10)
    marks = [Checkpoint(intent(n).request_id, 0, n - 390) for n in DEAD if n % 2 == 0]
    frame = bytearray()
    write_frame([*map(intent, DEAD), *marks], segment.seed, frame)
    segment.write(frame)
    segment.mark_synced()


async def _judge(engine: AsyncEngine, found: set[str]) -> None:
    async with engine.connect() as conn:
        rows = (await conn.execute(select(usage_records).where(usage_records.c.n == 0))).mappings().all()
    by_id = {row["request_id"]: row for row in rows}
    named = [*RECORDS, *UNTOLD, *LATE]
    interrupted = {intent(n).request_id: (n - 390 if n % 2 == 0 else 0) for n in DEAD}
    if any(record.request_id not in by_id for record in named):
        found.add("every durable record is in the ledger")
    if len(rows) > len(named) + len(NAMELESS) + len(interrupted):
        found.add("no record is in the ledger twice")
    others = by_id.keys() - {record.request_id for record in named} - interrupted.keys()
    if len(others) < len(NAMELESS):
        found.add("requests without an id are not taken for each other")
    for record in named:
        row = by_id.get(record.request_id)
        if row is not None and row["cost_pusd"] != _cost(record):
            found.add("each request costs what its tokens cost")
    for request_id, tokens in interrupted.items():
        row = by_id.get(request_id)
        if row is None:
            found.add("every announced request is closed")
        elif row["total_tokens"] > tokens:
            found.add("nothing is billed above the evidence")
        elif row["total_tokens"] < tokens:
            found.add("what is proven is billed")
    asked = {"start": None, "end": None, "group_by": ["day", "model"]}
    rolled = await RollupSums(engine).summary("org_1", **asked)  # type: ignore[arg-type]
    if rolled != await LedgerSums(engine).summary("org_1", **asked):  # type: ignore[arg-type]
        found.add("roll-ups are the sums of the rows")
    if not (await LedgerReader(engine).verify("org_1")).intact:
        found.add("the log is whole")


def _cost(record: UsageRecord) -> int:
    uncached = record.prompt_tokens - record.cached_tokens
    return uncached * INPUT_PUSD + record.cached_tokens * CACHED_PUSD + record.completion_tokens * OUTPUT_PUSD


async def _disk_refuses(directory: Path, found: set[str]) -> None:
    journal = await FileJournal.open(directory, "w", clock=ManualClock(), open_sync=RefusingSync)  # type: ignore[arg-type]
    try:
        await journal.record(usage(1))
        found.add("nobody is told of a record that is not on the disk")
    except Unavailable:
        pass
    journal._closing.set()
    journal._sync.close()


def _cut_stream(call: Call, found: set[str]) -> None:
    reader = stream_reader(Dialect.OPENAI, asked_for_usage=False)
    for _ in range(10):
        reader.feed(b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n')
    used, _ = evidence.of_stream(call, reader)
    if used.completion_tokens != 10:
        found.add("what a caller got before it left is billed")
