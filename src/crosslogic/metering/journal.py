"""The durable journal on local disk: requests become rows even when this process dies (design §4.3).

Group commit: while one fdatasync is under way the next batch gathers, and one sync answers all that waits. An idle
journal commits a single record at once. Appending costs a few microseconds in the event loop and no system call.

Invariant: a future from `intend` or `record` succeeds only after its entry was synced to a segment that never failed
a sync before. After a failed write or sync that segment takes nothing more and loses its unsynced tail; the callers
are told `Unavailable`, and what they recorded is kept in memory (up to a bound) and written to the next segment that
the disk accepts, because the tokens were generated all the same. Rows are idempotent by request id, so writing one
twice is harmless; losing one is not.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.errors import ConfigurationError, Unavailable
from crosslogic.kernel.ids import RequestId
from crosslogic.metering.frames import Entry, write_frame
from crosslogic.metering.model import Checkpoint, Intent, UsageRecord, Withdrawal
from crosslogic.metering.segment import LifeLock, Segment, SegmentName, life_name, new_life
from crosslogic.metering.sync import OpenSync, open_sync
from crosslogic.net.turns import after_turns

SEGMENT_BYTES = 8 << 20
GATHER_TURNS = 4  # of the event loop: the more there is to do, the more records share a commit
MARK_DELAY_S = 0.005  # a mark alone wakes nobody: it waits for the next intent or record, or this long
BATCH_ENTRIES = 4096
BACKLOG_ENTRIES = 200_000  # kept while the disk refuses: about 100 MB
RETRY_MIN_S = 0.05
RETRY_MAX_S = 2.0
STALL_S = 2.0  # a sync that takes longer than this makes the journal unhealthy

Waiter = asyncio.Future[None]


class JournalStats(msgspec.Struct):
    """Counters since opening, for metrics."""

    intents: int = 0
    marks: int = 0
    records: int = 0
    commits: int = 0
    committed_bytes: int = 0
    failures: int = 0  # writes, syncs and new segments that the disk refused
    unwritable: int = 0  # entries that no journal can hold (a lone surrogate in a name)
    lost: int = 0  # entries dropped because the backlog was full, or never written before closing


class FileJournal:
    """`metering.ports.Journal` over segment files. One writer to a process; open it after forking."""

    def __init__(
        self, directory: Path, life: str, lock: LifeLock, start_us: int, segment_bytes: int, open_sync: OpenSync
    ) -> None:
        self.stats = JournalStats()
        # Told the seconds of each commit and how many usage records it held.
        self.on_commit: Callable[[float, int], None] | None = None
        self._directory = directory
        self._life = life
        self._lock = lock
        self._start_us = start_us
        self._segment_bytes = segment_bytes
        self._loop = asyncio.get_running_loop()
        self._sync = open_sync(self._loop, self._synced)
        # What waits for the next commit. Both lists are aligned: None stands for an entry nobody waits for.
        self._entries: list[Entry] = []
        self._waiters: list[Waiter | None] = []
        self._awaited = False  # somebody waits for one of them
        self._flying_entries: list[Entry] = []
        self._flying_waiters: list[Waiter | None] = []
        self._flying_since_s = 0.0
        self._buffer = bytearray()
        self._segment: Segment | None = None
        self._next: Segment | None = None
        self._next_number = 0
        self._preparing: asyncio.Task[None] | None = None
        self._failed_in_a_row = 0
        self._refusing = False
        self._busy = False  # a commit is scheduled or under way, or waits for a segment
        self._mark_timer = False
        self._closing = asyncio.Event()
        self._quiet = asyncio.Event()

    @classmethod
    async def open(
        cls,
        directory: Path,
        writer: str,
        *,
        clock: Clock,
        segment_bytes: int = SEGMENT_BYTES,
        open_sync: OpenSync = open_sync,
    ) -> Self:
        """Start a new life of `writer`, with its first segment ready.

        Raises ConfigurationError when the directory cannot be used, ValueError for a name unfit for files.
        """
        start_us = round(clock.now().timestamp() * 1_000_000)
        life_name(writer, start_us)
        try:
            await asyncio.to_thread(directory.mkdir, 0o700, True, True)
            lock, life, start_us = await asyncio.to_thread(new_life, directory, writer, start_us)
        except OSError as error:
            raise _unusable(directory, error) from error
        journal = cls(directory, life, lock, start_us, segment_bytes, open_sync)
        try:
            journal._segment = await asyncio.to_thread(journal._create_segment)
        except OSError as error:
            journal._sync.close()
            lock.release(remove=True)
            raise _unusable(directory, error) from error
        journal._prepare()
        return journal

    @property
    def healthy(self) -> bool:
        if self._refusing:
            return False
        return not self._flying_entries or time.monotonic() - self._flying_since_s < STALL_S

    @property
    def pending(self) -> int:
        """Entries that are not durable yet."""
        return len(self._entries) + len(self._flying_entries)

    def intend(self, intent: Intent) -> Waiter:
        self.stats.intents += 1
        if self._refusing or self._closing.is_set():
            return self._refused_waiter()  # and it is not kept: nothing will be done
        return self._await(intent)

    def mark(self, checkpoint: Checkpoint) -> None:
        self.stats.marks += 1
        self._append(checkpoint)

    def withdraw(self, request_id: RequestId) -> None:
        self._append(Withdrawal(request_id))

    def _append(self, entry: Checkpoint | Withdrawal) -> None:
        """An entry that nobody waits for."""
        self._entries.append(entry)
        self._waiters.append(None)
        if not self._busy and not self._mark_timer:
            self._mark_timer = True
            self._loop.call_later(MARK_DELAY_S, self._marks_due)
        elif self._refusing:
            self._bound_backlog()

    def record(self, usage: UsageRecord) -> Waiter:
        self.stats.records += 1
        if self._refusing or self._closing.is_set():
            self._entries.append(usage)
            self._waiters.append(None)
            self._bound_backlog()
            return self._refused_waiter()
        return self._await(usage)

    def _refused_waiter(self) -> Waiter:
        waiter: Waiter = self._loop.create_future()
        _fail([waiter])
        return waiter

    def _await(self, entry: Intent | UsageRecord) -> Waiter:
        """An entry whose future is done once it is durable."""
        waiter: Waiter = self._loop.create_future()
        self._entries.append(entry)
        self._waiters.append(waiter)
        self._awaited = True
        if not self._busy:
            self._busy = True
            # At the end of this turn of the loop, so that everything the turn brings goes in one commit.
            after_turns(self._loop, GATHER_TURNS, self._commit)
        return waiter

    async def close(self) -> None:
        """Commit what is pending and close the segment.

        Raises Unavailable when entries could not be made durable; everything is closed all the same.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        if self._preparing is not None:
            await self._preparing
        if not self._busy and self._entries and self._segment is not None:
            self._busy = True
            self._commit()
        if self._busy:
            self._quiet.clear()
            await self._quiet.wait()
        self._sync.close()
        await asyncio.to_thread(self._close_files)
        if self._entries:
            self.stats.lost += len(self._entries)
            raise Unavailable(f"{len(self._entries)} journal entries could not be written before closing")

    def _marks_due(self) -> None:
        self._mark_timer = False
        if not self._busy and self._entries:
            self._busy = True
            self._commit()

    def _commit(self) -> None:
        """Write the next batch and start its sync. `_busy` is set already."""
        count = BATCH_ENTRIES
        while self._entries and (segment := self._segment) is not None:
            entries, waiters = self._take(count)
            try:
                write_frame(entries, segment.seed, self._buffer)
                impossible = len(self._buffer) > segment.capacity
            except (UnicodeEncodeError, OverflowError):
                impossible = True
            if not impossible and segment.fits(self._buffer):
                self._launch(segment, entries, waiters)
                return
            if impossible and len(entries) == 1:
                self.stats.unwritable += 1
                _fail(waiters)
                continue
            self._put_back(entries, waiters)
            if impossible:
                count = len(entries) // 2  # until it fits, or the culprit stands alone
            else:
                segment.finish()
                reach("journal.segment_finished")
                self._advance()
        if not self._entries:
            self._rest()

    def _launch(self, segment: Segment, entries: list[Entry], waiters: list[Waiter | None]) -> None:
        self._flying_entries, self._flying_waiters = entries, waiters
        self._flying_since_s = time.monotonic()
        try:
            reach("journal.before_write")
            segment.write(self._buffer)
            reach("journal.written")
            self._sync.start(segment.fd)
        except OSError:
            self._refused(segment)

    def _synced(self, code: int) -> None:
        segment = self._segment
        assert segment is not None
        if code != 0:
            self._refused(segment)
            return
        reach("journal.synced")
        segment.mark_synced()
        self._failed_in_a_row = 0
        self.stats.commits += 1
        self.stats.committed_bytes += len(self._buffer)
        entries, waiters = self._flying_entries, self._flying_waiters
        self._flying_entries, self._flying_waiters = [], []
        for waiter in waiters:
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        reach("journal.told")
        if self.on_commit is not None:
            records = sum(entry.__class__ is UsageRecord for entry in entries)
            self.on_commit(time.monotonic() - self._flying_since_s, records)
        if self._awaited or len(self._entries) >= BATCH_ENTRIES or self._closing.is_set():
            after_turns(self._loop, GATHER_TURNS, self._commit)
        else:
            self._rest()

    def _rest(self) -> None:
        self._busy = False
        self._quiet.set()
        if self._entries and not self._mark_timer:
            self._mark_timer = True
            self._loop.call_later(MARK_DELAY_S, self._marks_due)

    def _refused(self, segment: Segment) -> None:
        """The disk refused a write or a sync: tell the callers, keep the entries, leave the segment."""
        self.stats.failures += 1
        self._failed_in_a_row += 1
        entries, waiters = self._flying_entries, self._flying_waiters
        self._flying_entries, self._flying_waiters = [], []
        self._put_back(entries, waiters)
        self._fail_pending()
        segment.finish()
        self._advance()
        if self._segment is None:
            self._refusing = True
        else:
            after_turns(self._loop, GATHER_TURNS, self._commit)

    def _advance(self) -> None:
        """Go on with the prepared segment, or without any until one is there."""
        self._segment, self._next = self._next, None
        self._prepare()

    def _prepare(self) -> None:
        if self._preparing is None or self._preparing.done():
            self._preparing = asyncio.create_task(self._keep_one_ready())

    async def _keep_one_ready(self) -> None:
        """Make segments, in a thread, until the journal has one to write and one to go on with."""
        failures = max(0, self._failed_in_a_row - 1)
        while not (self._closing.is_set() and (self._segment is not None or not self._entries)):
            if failures and not self._closing.is_set():
                delay_s = min(RETRY_MAX_S, RETRY_MIN_S * 2 ** min(failures, 10))
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._closing.wait(), delay_s)
            try:
                segment = await asyncio.to_thread(self._create_segment)
            except OSError:
                failures += 1
                self.stats.failures += 1
                if self._segment is None:
                    self._refusing = True
                    self._fail_pending()
                    if self._closing.is_set():
                        break
                continue
            if self._segment is not None:
                self._next = segment
                return
            self._segment = segment
            self._refusing = False
            self._commit()
        if self._segment is None:
            self._rest()

    def _create_segment(self) -> Segment:
        number = self._next_number
        self._next_number += 1
        name = SegmentName(self._life, number)
        segment = Segment.create(self._directory, name, self._start_us, self._segment_bytes)
        reach("journal.segment_made")
        return segment

    def _close_files(self) -> None:
        if self._segment is not None:
            self._segment.finish()
        if self._next is not None:
            self._next.discard()
        # The segments say themselves what they hold; without a lock their writer counts as gone, which it is.
        self._lock.release(remove=True)

    def _take(self, count: int) -> tuple[list[Entry], list[Waiter | None]]:
        entries, waiters = self._entries, self._waiters
        if len(entries) <= count:
            self._entries, self._waiters = [], []
            self._awaited = False
            return entries, waiters
        self._entries, self._waiters = entries[count:], waiters[count:]
        return entries[:count], waiters[:count]

    def _put_back(self, entries: list[Entry], waiters: list[Waiter | None]) -> None:
        self._entries[:0] = entries
        self._waiters[:0] = waiters
        self._awaited = True

    def _fail_pending(self) -> None:
        waiters, self._waiters = self._waiters, [None] * len(self._entries)
        self._awaited = False
        _fail(waiters)
        self._bound_backlog()

    def _bound_backlog(self) -> None:
        excess = len(self._entries) - BACKLOG_ENTRIES
        if excess > 0:
            del self._entries[:excess], self._waiters[:excess]
            self.stats.lost += excess


def _fail(waiters: Iterable[Waiter | None]) -> None:
    for waiter in waiters:
        if waiter is not None and not waiter.done():
            waiter.set_exception(Unavailable("the usage journal cannot be written at present"))
            waiter.exception()  # marks it as seen: a caller that has left must not cause a log line


def _unusable(directory: Path, error: OSError) -> ConfigurationError:
    return ConfigurationError(
        f"the usage journal cannot be kept in {directory}: {error.strerror or error}; "
        "choose a writable directory with free space"
    )
