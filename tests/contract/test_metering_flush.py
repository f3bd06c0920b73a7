"""Journals move to the ledger: once, whatever dies on the way, and nothing is deleted too early."""

import asyncio
from collections.abc import Iterable
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.frames import write_frame
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_sums import LedgerSums
from crosslogic.metering.model import Checkpoint, UsageRecord, Withdrawal
from crosslogic.metering.reader import list_segments
from crosslogic.metering.segment import LifeLock, Segment, SegmentName, life_name
from crosslogic.pricing.book import PriceBook
from crosslogic.pricing.defaults import default_price_list
from crosslogic.store.tables import usage_records
from tests.metering_samples import JANUARY_1_2026_US, intent, usage

SMALL = 16 << 10
PRICES = PriceBook(default_price_list())


class AwayLedger(Ledger):
    """The real ledger, behind a connection that can be cut: before a statement, or before its answer."""

    def __init__(self, engine: AsyncEngine) -> None:
        super().__init__(engine)
        self.inserts = 0
        self.fail_before: set[int] = set()
        self.fail_after: set[int] = set()

    async def insert(self, records: Iterable[UsageRecord], prices: PriceBook) -> int:
        self.inserts += 1
        if self.inserts in self.fail_before:
            raise OperationalError("INSERT", {}, ConnectionResetError())
        added = await super().insert(records, prices)
        if self.inserts in self.fail_after:
            raise OperationalError("COMMIT", {}, ConnectionResetError())
        return added


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    path = tmp_path / "journal"
    path.mkdir()
    return path


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def ledger(engine: AsyncEngine) -> AwayLedger:
    return AwayLedger(engine)


def flusher(directory: Path, ledger: Ledger, clock: ManualClock | None = None) -> JournalFlusher:
    return JournalFlusher(directory, ledger, lambda: PRICES, clock or ManualClock())


def dead_writer(directory: Path, *segments: list[object], start_us: int = 1) -> None:
    """What a writer leaves that was killed: segments with a zero tail, a lock file that nobody holds."""
    directory.mkdir(exist_ok=True)
    life = life_name("dead", start_us)
    LifeLock.take(directory, life).release(remove=False)
    for number, entries in enumerate(segments):
        segment = Segment.create(directory, SegmentName(life, number), start_us, SMALL)
        frame = bytearray()
        for entry in entries:
            write_frame([entry], segment.seed, frame)  # type: ignore[list-item]
            segment.write(frame)
            segment.mark_synced()
        if number < len(segments) - 1:
            segment.finish()


async def rows(engine: AsyncEngine) -> dict[str, str]:
    async with engine.connect() as conn:
        found = await conn.execute(select(usage_records.c.request_id, usage_records.c.outcome))
        return {row.request_id: row.outcome for row in found}


def outcome(*numbers: int, of: str = "completed") -> dict[str, str]:
    return {usage(number).request_id: of for number in numbers}


async def test_records_move_while_the_writer_lives_and_its_segment_stays(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    journal = await FileJournal.open(directory, "w", clock=ManualClock())
    mover = flusher(directory, ledger)
    for number in range(3):
        journal.intend(intent(number))
        await journal.record(usage(number))
        report = await mover.flush()
        assert (report.read, report.inserted, report.deleted_segments) == (1, 1, 0)
    assert await rows(engine) == outcome(0, 1, 2)
    await journal.close()
    report = await mover.flush()
    assert (report.read, report.deleted_segments) == (0, 1)
    assert files(directory) == []


async def test_an_empty_directory_and_none_at_all_are_fine(directory: Path, ledger: AwayLedger) -> None:
    assert (await flusher(directory, ledger).flush()).read == 0
    assert (await flusher(directory / "nowhere", ledger).flush()).read == 0


async def test_a_full_segment_is_deleted_once_all_its_requests_are_settled(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    journal = await FileJournal.open(directory, "w", clock=ManualClock(), segment_bytes=SMALL)
    mover = flusher(directory, ledger)
    journal.intend(intent(0))  # a long stream
    for number in range(1, 200):
        await journal.record(usage(number))
    report = await mover.flush()
    assert report.inserted == 199
    numbers = [name.number for name in list_segments(directory)]
    assert numbers[0] == 0, "it announces a request that has no record yet"
    assert len(numbers) <= 3, "the other full ones are gone"
    await journal.record(usage(0))
    await mover.flush()
    assert 0 not in [name.number for name in list_segments(directory)]
    await journal.close()
    await mover.flush()
    assert await rows(engine) == outcome(*range(200))


async def test_requests_of_a_dead_gateway_are_closed_as_interrupted_and_cost_nothing(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    dead_writer(directory, [intent(1), intent(2)], [usage(1), intent(3)])
    report = await flusher(directory, ledger).flush()
    assert (report.inserted, report.interrupted) == (1, 2)
    assert await rows(engine) == outcome(1) | outcome(2, 3, of="interrupted")
    (total,) = await LedgerSums(engine).summary("org_1", start=None, end=None)
    assert total.total_tokens == 30
    assert files(directory) == []


async def test_requests_of_a_dead_gateway_are_billed_as_far_as_their_last_mark_proves(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    ids = [intent(number).request_id for number in range(5)]
    dead_writer(
        directory,
        [*map(intent, range(4)), Checkpoint(ids[0], 0, 64), Checkpoint(ids[1], 0, 64), Checkpoint(ids[4], 7, 7)],
        [Checkpoint(ids[0], 0, 130), usage(1), Checkpoint(ids[2], 12, 40, 3, True), Checkpoint(ids[1], 0, 99)],
    )
    await flusher(directory, ledger).flush()
    t = usage_records.c
    async with engine.connect() as conn:
        columns = (t.prompt_tokens, t.completion_tokens, t.cached_tokens, t.evidence, t.outcome)
        found = [tuple(row) for row in await conn.execute(select(*columns).order_by(t.request_id))]
    assert found == [
        (0, 130, 0, "checkpoint", "interrupted"),
        (10, 20, 4, "engine", "completed"),
        (12, 40, 3, "engine", "interrupted"),
        (0, 0, 0, "none", "interrupted"),
    ]
    assert files(directory) == []


async def test_the_last_mark_of_a_running_request_keeps_its_segment(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    """A flusher that is started anew finds it again."""
    journal = await FileJournal.open(directory, "w", clock=ManualClock(), segment_bytes=SMALL)
    mover = flusher(directory, ledger)
    journal.intend(intent(0))
    for number in range(1, 200):
        if number == 100:
            journal.mark(Checkpoint(intent(0).request_id, 0, 64))
        await journal.record(usage(number))
    await mover.flush()
    kept = [name.number for name in list_segments(directory)]
    assert len(kept) >= 3, "that of the intent, that of the mark, those that are written"
    life = list_segments(directory)[0].life
    left = {path.name: path.read_bytes() for path in directory.glob("*.journal")}
    await journal.close()
    after_death = directory.parent / "after"
    after_death.mkdir()
    for name, content in left.items():
        (after_death / name).write_bytes(content)
    LifeLock.take(after_death, life).release(remove=False)
    await flusher(after_death, ledger).flush()
    async with engine.connect() as conn:
        query = select(usage_records.c.completion_tokens).where(usage_records.c.request_id == intent(0).request_id)
        assert await conn.scalar(query) == 64


async def test_what_was_withdrawn_leaves_no_row_and_may_be_announced_again(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    withdrawals = [Withdrawal(intent(number).request_id) for number in (1, 2)]
    dead_writer(directory, [intent(1), intent(2), *withdrawals], [intent(2), usage(3), intent(4)])
    await flusher(directory, ledger).flush()
    assert await rows(engine) == outcome(3) | outcome(2, 4, of="interrupted")
    assert files(directory) == []


async def test_a_living_writers_withdrawal_lets_its_segment_go(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    journal = await FileJournal.open(directory, "w", clock=ManualClock(), segment_bytes=SMALL)
    mover = flusher(directory, ledger)
    journal.intend(intent(0))
    for number in range(1, 100):
        await journal.record(usage(number))
    journal.withdraw(intent(0).request_id)
    for number in range(100, 200):
        await journal.record(usage(number))
    await mover.flush()
    assert 0 not in [name.number for name in list_segments(directory)]
    await journal.close()
    await mover.flush()
    assert await rows(engine) == outcome(*range(1, 200))


async def test_requests_of_a_living_gateway_are_left_alone(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    journal = await FileJournal.open(directory, "w", clock=ManualClock())
    journal.intend(intent(1))
    await journal.record(usage(2))
    assert (await flusher(directory, ledger).flush()).interrupted == 0
    assert await rows(engine) == outcome(2)
    await journal.record(usage(1))
    await journal.close()
    await flusher(directory, ledger).flush()
    assert await rows(engine) == outcome(1, 2)


async def test_while_the_database_is_away_nothing_is_lost_and_the_lag_is_told(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    clock = ManualClock()
    dead_writer(directory, [usage(n) for n in range(5)], [usage(n) for n in range(5, 8)] + [intent(9)])
    mover = flusher(directory, ledger, clock)
    clock.advance(60)
    ledger.fail_before = {1, 2, 4}
    for waiting in (8, 8):
        with pytest.raises(OperationalError):
            await mover.flush()
        assert mover.report.waiting == waiting
        assert mover.report.lag_s == pytest.approx(60, abs=0.1)
    with pytest.raises(OperationalError):
        await mover.flush()
    assert mover.report.waiting == 3, "the first segment arrived before the database went away again"
    assert len(list_segments(directory)) == 2
    assert (await mover.flush()).waiting == 0
    assert await rows(engine) == outcome(*range(8)) | outcome(9, of="interrupted")


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_lost_reply_to_commit_doubles_nothing(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine, lost: int
) -> None:
    dead_writer(directory, [intent(1), usage(1)], [usage(2), intent(3)])
    ledger.fail_after = {lost}
    mover = flusher(directory, ledger)
    with pytest.raises(OperationalError):
        await mover.flush()
    report = await mover.flush()
    assert await rows(engine) == outcome(1, 2) | outcome(3, of="interrupted")
    assert report.deleted_segments == 2


async def test_killed_at_any_await_and_started_anew_it_ends_with_the_same_ledger(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    """The flusher dies by cancellation after 0, 1, 2, … turns of the loop; each time a new one begins from nothing."""
    expected: dict[str, str] = {}
    finished = 0
    for turns in range(0, 400, 7):
        first = turns * 10
        place = directory / f"{turns}"
        dead_writer(place, [intent(first), intent(first + 1)], [usage(first), usage(first + 2)], [intent(first + 3)])
        expected |= outcome(first, first + 2) | outcome(first + 1, first + 3, of="interrupted")
        task = asyncio.create_task(flusher(place, ledger).flush())
        for _ in range(turns):
            await asyncio.sleep(0)
        finished += task.done()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await flusher(place, ledger).flush()
        assert files(place) == []
    assert await rows(engine) == expected
    assert finished < 50, "otherwise nothing was ever cut short"


async def test_two_flushers_at_once_are_superfluous_but_harmless(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    for life in range(4):
        first = life * 100
        dead_writer(
            directory,
            [intent(first + n) for n in range(10)],
            [usage(first + n) for n in range(5)],
            start_us=life + 1,
        )
    await asyncio.gather(*(flusher(directory, ledger).flush() for _ in range(3)))
    await flusher(directory, ledger).flush()
    done = [life * 100 + n for life in range(4) for n in range(10)]
    assert await rows(engine) == outcome(*(n for n in done if n % 10 < 5)) | outcome(
        *(n for n in done if n % 10 >= 5), of="interrupted"
    )


async def test_a_torn_segment_is_read_up_to_the_tear_and_set_aside(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    dead_writer(directory, [usage(1), usage(2)])
    path = directory / list_segments(directory)[0].file_name
    data = bytearray(path.read_bytes())
    data[data.index(usage(2).request_id.encode())] ^= 1
    path.write_bytes(data)
    report = await flusher(directory, ledger).flush()
    assert report.torn_segments == 1
    assert await rows(engine) == outcome(1)
    assert files(directory) == [path.name + ".torn"]


async def test_entries_of_a_later_version_wait_in_their_segment(
    directory: Path, ledger: AwayLedger, engine: AsyncEngine
) -> None:
    dead_writer(directory, [usage(1), ["of tomorrow", 1], usage(2)])
    mover = flusher(directory, ledger)
    for _ in range(2):
        assert (await mover.flush()).unknown == 1
    assert await rows(engine) == outcome(1, 2)
    assert len(list_segments(directory)) == 1


async def test_a_segment_that_is_still_being_made_is_not_touched(directory: Path, ledger: AwayLedger) -> None:
    lock = LifeLock.take(directory, life_name("w", 1))
    name = SegmentName(life_name("w", 1), 0).file_name
    (directory / name).write_bytes(bytes(100))
    mover = flusher(directory, ledger)
    await mover.flush()
    assert (directory / name).exists()
    lock.release(remove=False)
    await mover.flush()
    await mover.flush()
    assert files(directory) == []


async def test_the_price_book_in_force_is_asked_for_each_time(directory: Path, ledger: AwayLedger) -> None:
    asked: list[str] = []

    def prices() -> PriceBook:
        asked.append("now")
        return PRICES

    mover = JournalFlusher(directory, ledger, prices, ManualClock())
    dead_writer(directory, [usage(1)])
    await mover.flush()
    dead_writer(directory, [usage(2)], start_us=JANUARY_1_2026_US)
    await mover.flush()
    assert len(asked) == 2
