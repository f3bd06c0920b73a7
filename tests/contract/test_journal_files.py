"""The journal on real files, with both ways of syncing, and with a disk that refuses."""

import asyncio
import errno
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import ConfigurationError, Unavailable
from crosslogic.metering.frames import Entry, Tail
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.reader import list_segments, read_slice
from crosslogic.metering.segment import is_alive
from crosslogic.metering.sync import AioSync, Done, FastestSync, OpenSync, ThreadSync
from tests.metering_samples import intent, usage

SMALL = 16 << 10


@pytest.fixture(params=[AioSync, ThreadSync, FastestSync], ids=["kernel", "thread", "fastest"])
def open_sync(request: pytest.FixtureRequest) -> OpenSync:
    if request.param is not ThreadSync:
        loop = asyncio.new_event_loop()
        try:
            AioSync(loop, lambda code: None).close()
        except OSError as error:
            pytest.skip(f"this kernel or sandbox has no asynchronous fdatasync: {error}")
        finally:
            loop.close()
    return request.param


Limit = Callable[[int | None], None]


@pytest.fixture
def file_limit() -> Iterator[Limit]:
    """Makes the kernel refuse to write beyond so many bytes of any file, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda limit: resource.setrlimit(resource.RLIMIT_FSIZE, (soft if limit is None else limit, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def entries_in(directory: Path) -> list[Entry]:
    found: list[Entry] = []
    for name in list_segments(directory):
        offset = 0
        while True:
            part = read_slice(directory / name.file_name, offset)
            found += part.entries
            offset = part.next_offset
            if part.tail is not Tail.FRAME:
                break
    return found


class Refusing:
    """A sync that really syncs, and then says what the disk of the test says."""

    def __init__(self) -> None:
        self.code = 0

    def __call__(self, loop: asyncio.AbstractEventLoop, done: Done) -> ThreadSync:
        return ThreadSync(loop, lambda code: done(self.code or code))


class Held:
    """A sync that really syncs, and tells it when the test lets it."""

    def __init__(self) -> None:
        self._done: list[Callable[[], None]] = []

    def __call__(self, loop: asyncio.AbstractEventLoop, done: Done) -> ThreadSync:
        return ThreadSync(loop, lambda code: self._done.append(lambda: done(code)))

    async def synced(self) -> None:
        await until(lambda: bool(self._done))

    def tell(self) -> None:
        self._done.pop(0)()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_was_acknowledged_can_be_read_while_the_writer_lives(tmp_path: Path, open_sync: OpenSync) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), open_sync=open_sync)
    journal.intend(intent(1))
    await journal.record(usage(1))
    assert entries_in(tmp_path) == [intent(1), usage(1)]
    assert is_alive(tmp_path, list_segments(tmp_path)[0].life)
    await journal.close()
    assert entries_in(tmp_path) == [intent(1), usage(1)]
    assert [name.number for name in list_segments(tmp_path)] == [0], "the prepared segment is not left behind"
    assert not is_alive(tmp_path, list_segments(tmp_path)[0].life)


async def test_nobody_is_told_before_the_sync_and_meanwhile_the_next_batch_gathers(tmp_path: Path) -> None:
    disk = Held()
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), open_sync=disk)
    first = journal.record(usage(1))
    await disk.synced()
    later = [journal.record(usage(number)) for number in range(2, 10)]
    assert not first.done()
    disk.tell()
    assert first.done()
    assert not any(waiter.done() for waiter in later)
    await disk.synced()
    disk.tell()
    assert all(waiter.done() for waiter in later)
    assert journal.stats.commits == 2
    await journal.close()


async def test_commits_are_told_for_metrics(tmp_path: Path) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock())
    told: list[tuple[float, int]] = []
    journal.on_commit = lambda seconds, records: told.append((seconds, records))
    journal.intend(intent(1))
    await asyncio.gather(journal.record(usage(1)), journal.record(usage(2)))
    assert [records for _, records in told] == [2]
    assert 0 < told[0][0] < 5
    await journal.close()


async def test_records_of_one_turn_share_one_commit(tmp_path: Path, open_sync: OpenSync) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), open_sync=open_sync)
    await asyncio.gather(*(journal.record(usage(number)) for number in range(100)))
    assert journal.stats.commits == 1
    await journal.close()


async def test_an_intent_alone_becomes_durable_too(tmp_path: Path, open_sync: OpenSync) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), open_sync=open_sync)
    journal.intend(intent(1))
    await until(lambda: journal.pending == 0)
    assert entries_in(tmp_path) == [intent(1)]
    await journal.close()


async def test_a_full_segment_gives_way_to_the_next_and_nothing_changes_order(
    tmp_path: Path, open_sync: OpenSync
) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), segment_bytes=SMALL, open_sync=open_sync)
    for start in range(0, 1000, 10):
        await asyncio.gather(*(journal.record(usage(number)) for number in range(start, start + 10)))
    await journal.close()
    assert entries_in(tmp_path) == [usage(number) for number in range(1000)]
    segments = list_segments(tmp_path)
    assert len(segments) > 5
    assert all(read_slice(tmp_path / name.file_name, 1 << 30).finished for name in segments)


async def test_a_batch_larger_than_a_segment_is_split(tmp_path: Path, open_sync: OpenSync) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), segment_bytes=SMALL, open_sync=open_sync)
    await asyncio.gather(*(journal.record(usage(number)) for number in range(1000)))
    await journal.close()
    assert entries_in(tmp_path) == [usage(number) for number in range(1000)]


@pytest.mark.parametrize("model", ["\ud800", "m" * SMALL], ids=["lone surrogate", "longer than a segment"])
async def test_one_record_that_cannot_be_written_fails_alone(tmp_path: Path, model: str) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), segment_bytes=SMALL)
    records = [usage(number) for number in range(20)]
    records[7] = usage(7, model=model)
    results = await asyncio.gather(*map(journal.record, records), return_exceptions=True)
    assert [number for number, result in enumerate(results) if result is not None] == [7]
    assert isinstance(results[7], Unavailable)
    await journal.close()
    assert sorted(entry.request_id for entry in entries_in(tmp_path)) == [
        usage(n).request_id for n in range(20) if n != 7
    ]
    assert journal.stats.unwritable == 1


async def test_a_cancelled_caller_disturbs_nobody(tmp_path: Path) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock())
    first, second = journal.record(usage(1)), journal.record(usage(2))
    first.cancel()
    await second
    await journal.close()
    assert entries_in(tmp_path) == [usage(1), usage(2)]


async def test_after_a_failed_sync_callers_are_told_and_the_records_move_to_a_new_segment(tmp_path: Path) -> None:
    disk = Refusing()
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), open_sync=disk)
    await journal.record(usage(1))
    disk.code = errno.EIO
    with pytest.raises(Unavailable):
        await journal.record(usage(2))
    disk.code = 0
    await until(lambda: journal.healthy and journal.pending == 0)
    await journal.record(usage(3))
    await journal.close()
    by_segment = [read_slice(tmp_path / name.file_name).entries for name in list_segments(tmp_path)]
    assert by_segment[0] == (usage(1),), "the tail that was not synced is gone from the failed segment"
    assert [entry for part in by_segment[1:] for entry in part] == [usage(2), usage(3)]
    assert journal.stats.lost == 0


async def test_while_the_disk_refuses_it_is_unhealthy_and_fails_at_once(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    disk = Refusing()
    journal = await FileJournal.open(directory, "worker1", clock=ManualClock(), open_sync=disk)
    await until(lambda: len(list_segments(directory)) == 2)
    directory.rename(tmp_path / "away")  # no new segment can be made
    disk.code = errno.ENOSPC
    with pytest.raises(Unavailable):
        await journal.record(usage(1))
    await until(lambda: not journal.healthy)
    failed = journal.record(usage(2))
    assert failed.done()
    assert isinstance(failed.exception(), Unavailable)
    (tmp_path / "away").rename(directory)
    disk.code = 0
    await until(lambda: journal.healthy and journal.pending == 0)
    await journal.record(usage(3))
    await journal.close()
    assert entries_in(directory) == [usage(1), usage(2), usage(3)]


async def test_a_full_disk_loses_nothing_that_was_acknowledged_or_recorded(file_limit: Limit, tmp_path: Path) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock(), segment_bytes=SMALL)
    acknowledged, refused = [], []
    for number in range(300):
        if number == 100:
            file_limit(4096)  # from now on the kernel refuses writes behind this offset, and new segments
        if number == 200:
            file_limit(None)
            await until(lambda: journal.healthy and journal.pending == 0)
        try:
            await journal.record(usage(number))
            acknowledged.append(number)
        except Unavailable:
            refused.append(number)
    await journal.close()
    assert len(acknowledged) >= 200
    assert len(refused) > 50
    assert {entry.request_id for entry in entries_in(tmp_path)} == {usage(n).request_id for n in range(300)}


async def test_closing_without_a_disk_says_what_was_lost(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    disk = Refusing()
    journal = await FileJournal.open(directory, "worker1", clock=ManualClock(), open_sync=disk)
    directory.rename(tmp_path / "away")
    disk.code = errno.EIO
    with pytest.raises(Unavailable):
        await journal.record(usage(1))
    with pytest.raises(Unavailable, match="1 journal entries"):
        await journal.close()


async def test_a_closed_journal_refuses(tmp_path: Path) -> None:
    journal = await FileJournal.open(tmp_path, "worker1", clock=ManualClock())
    await journal.close()
    with pytest.raises(Unavailable):
        await journal.record(usage(1))


async def test_an_unusable_directory_is_a_configuration_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="choose a writable directory"):
        await FileJournal.open(tmp_path / "file" / "journal", "worker1", clock=ManualClock())


async def test_two_lives_of_one_writer_do_not_meet(tmp_path: Path) -> None:
    clock = ManualClock()
    first = await FileJournal.open(tmp_path, "worker1", clock=clock)
    clock.advance(1)
    second = await FileJournal.open(tmp_path, "worker1", clock=clock)
    await first.record(usage(1))
    await second.record(usage(2))
    await first.close()
    lives = {name.life for name in list_segments(tmp_path)}
    assert sorted(is_alive(tmp_path, life) for life in lives) == [False, True]
    await second.close()
    assert entries_in(tmp_path) == [usage(1), usage(2)]


async def test_two_lives_may_begin_in_the_same_microsecond(tmp_path: Path) -> None:
    """As after a clock that was set back, or one that always begins in 1970."""
    for number in range(3):
        journal = await FileJournal.open(tmp_path, "w", clock=ManualClock())
        await journal.record(usage(number))
        await journal.close()
    assert len({name.life for name in list_segments(tmp_path)}) == 3
    assert entries_in(tmp_path) == [usage(number) for number in range(3)]


async def test_journals_are_readable_by_their_owner_only(tmp_path: Path) -> None:
    journal = await FileJournal.open(tmp_path / "journal", "worker1", clock=ManualClock())
    assert os.stat(tmp_path / "journal").st_mode & 0o777 == 0o700
    assert all(os.stat(p).st_mode & 0o777 == 0o600 for p in (tmp_path / "journal").iterdir())
    await journal.close()
