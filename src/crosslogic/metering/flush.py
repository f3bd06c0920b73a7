"""Moving journals into the ledger, and closing the accounts of gateways that died.

It keeps no position on disk: the ledger ignores what it has, so after any crash it simply reads again. Hence:

- A segment is deleted only when it is finished (or its writer is gone), all its records are in the ledger, and so
  are those of every request that was announced in it or has its last checkpoint there.
- A request that was announced, whose writer is dead, and that has no record in any of the writer's segments, gets
  one: INTERRUPTED, with what its last checkpoint proves. Without one it has no tokens and evidence NONE: the journal
  proves a dispatch, not that the engine did anything, and a crash of ours is not billed on a guess.
- What cannot be read is never deleted: a torn segment of a dead writer is set aside as `….torn` (a torn frame was
  never acknowledged, unless the disk is damaged), entries of a later version wait where they are for one.
"""

import asyncio
import contextlib
import logging
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.crash_points import reach
from crosslogic.kernel.ids import RequestId
from crosslogic.metering.frames import Tail
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.live.model import LiveUsage, running
from crosslogic.metering.model import Checkpoint, Evidence, Intent, Outcome, UsageRecord
from crosslogic.metering.reader import Slice, list_segments, read_slice
from crosslogic.metering.segment import SegmentName, is_alive, lives_of_locks
from crosslogic.pricing.book import PriceBook

SLICES_PER_TURN = 64  # of one writer, before the next one has its turn

_log = logging.getLogger(__name__)


class FlushReport(msgspec.Struct):
    """What one pass did, and what is left to do."""

    read: int = 0  # records
    inserted: int = 0  # of these, new to the ledger
    interrupted: int = 0  # rows written for requests whose gateway died
    deleted_segments: int = 0
    torn_segments: int = 0
    unknown: int = 0  # entries of a later version, waiting
    waiting: int = 0  # records that the ledger did not take yet; after a failure counted by reading ahead
    lag_s: float = 0.0  # age of the oldest of them
    partial: bool = False  # there is more than one turn's worth of some writer


class _Open(msgspec.Struct):
    """One segment as far as it has been read."""

    name: SegmentName
    offset: int = 0
    tail: Tail = Tail.FRAME
    finished: bool = False
    unknown: int = 0


class _Life(msgspec.Struct):
    """One writer's life: its segments, its announced requests that have no record yet, and how far those came."""

    segments: dict[int, _Open] = {}
    intents: dict[RequestId, tuple[Intent, int]] = {}  # with the number of the segment that holds it
    marks: dict[RequestId, tuple[Checkpoint, int]] = {}  # the last one of each, likewise


class JournalFlusher:
    """One reader of a directory of journals; a second one would be superfluous but harmless."""

    def __init__(
        self,
        directory: Path,
        ledger: Ledger,
        prices: Callable[[], PriceBook],
        clock: Clock,
        on_report: Callable[[FlushReport], None] | None = None,
    ) -> None:
        """`prices` gives the price book in force, so that it may be exchanged at any time.

        `on_report` is told of each pass that knows what the ledger has not taken yet.
        """
        self._directory = directory
        self._ledger = ledger
        self._prices = prices
        self._clock = clock
        self._on_report = on_report
        self._lives: dict[str, _Life] = {}
        self.report = FlushReport()  # of the last pass, also when it failed

    async def flush(self) -> FlushReport:
        """Move what is there to the ledger, and delete what is done with.

        Raises `store.engine.DATABASE_ERRORS` and OSError; `report` then tells how far behind the ledger is, and the
        next call goes on where this one stopped.
        """
        self.report = FlushReport()
        names, alive = await asyncio.to_thread(self._list)
        for life in self._lives.keys() - {name.life for name in names}:
            del self._lives[life]
        try:
            for life, group in groupby(names, key=lambda name: name.life):
                # A life that appeared between the two looks counts as alive until the next pass.
                await self._flush_life(life, list(group), alive.get(life, True))
        except Exception:
            with contextlib.suppress(OSError):
                self.report.waiting, oldest_us = await asyncio.to_thread(self._waiting, names)
                if self.report.waiting:
                    self.report.lag_s = max(0.0, self._clock.now().timestamp() - oldest_us / 1e6)
                self._tell()
            raise
        for life in {life for life in alive if not alive[life]} - self._lives.keys():
            await asyncio.to_thread(_remove_lock, self._directory, life)
        self._tell()
        return self.report

    def _tell(self) -> None:
        if self._on_report is not None:
            self._on_report(self.report)

    def running(self) -> list[LiveUsage]:
        """What requests that have not ended had used by the last pass."""
        unmarked = (None, 0)
        return running(
            (intent, life.marks.get(request_id, unmarked)[0])
            for life in self._lives.values()
            for request_id, (intent, _) in life.intents.items()
        )

    async def _flush_life(self, life_name: str, names: list[SegmentName], alive: bool) -> None:
        life = self._lives.setdefault(life_name, _Life())
        for gone in life.segments.keys() - {name.number for name in names}:
            del life.segments[gone]
        for name in names:
            life.segments.setdefault(name.number, _Open(name))
        if not await self._read(life):
            self.report.partial = True
            return
        if not alive:
            await self._interrupt(life)
        await asyncio.to_thread(self._clean, life, alive)
        if not alive and not life.segments:
            del self._lives[life_name]

    async def _read(self, life: _Life) -> bool:
        """Take in what is new; False when there is more than one turn's worth."""
        turns = SLICES_PER_TURN
        for number in sorted(life.segments):
            segment = life.segments[number]
            path = self._directory / segment.name.file_name
            while True:
                if turns == 0:
                    return False
                turns -= 1
                try:
                    part = await asyncio.to_thread(read_slice, path, segment.offset)
                except FileNotFoundError:  # a second flusher was faster
                    del life.segments[number]
                    break
                await self._take_in(life, number, part)
                segment.offset, segment.tail, segment.finished = part.next_offset, part.tail, part.finished
                segment.unknown += part.unknown
                if part.tail is not Tail.FRAME:
                    self.report.unknown += segment.unknown
                    break
        return True

    async def _take_in(self, life: _Life, number: int, part: Slice) -> None:
        records = [entry for entry in part.entries if isinstance(entry, UsageRecord)]
        reach("flush.read")
        if records:
            self.report.read += len(records)
            self.report.inserted += await self._ledger.insert(records, self._prices())
            reach("flush.inserted")
        # Only now: what failed above is read again.
        for entry in part.entries:
            if isinstance(entry, Intent):
                life.intents[entry.request_id] = (entry, number)
            elif isinstance(entry, Checkpoint):
                if entry.request_id in life.intents:
                    life.marks[entry.request_id] = (entry, number)
            else:
                life.intents.pop(entry.request_id, None)
                life.marks.pop(entry.request_id, None)

    async def _interrupt(self, life: _Life) -> None:
        unmarked = (None, 0)
        records = [
            interrupted(intent, life.marks.get(intent.request_id, unmarked)[0]) for intent, _ in life.intents.values()
        ]
        if records:
            reach("flush.before_interrupt")
            self.report.interrupted += await self._ledger.insert(records, self._prices())
            reach("flush.interrupted")
            life.intents.clear()
            life.marks.clear()

    def _clean(self, life: _Life, alive: bool) -> None:
        awaited = {number for _, number in (*life.intents.values(), *life.marks.values())}
        for number, segment in list(life.segments.items()):
            path = self._directory / segment.name.file_name
            if number in awaited or segment.unknown:
                continue
            if segment.tail is Tail.TORN and not alive:
                _log.warning("the journal %s ends in a torn write; set aside", segment.name.file_name)
                with contextlib.suppress(FileNotFoundError):
                    path.rename(path.with_name(path.name + ".torn"))
                self.report.torn_segments += 1
                del life.segments[number]
            elif segment.finished or not alive:
                reach("flush.before_delete")
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                reach("flush.deleted")
                self.report.deleted_segments += 1
                del life.segments[number]

    def _list(self) -> tuple[list[SegmentName], dict[str, bool]]:
        """All segments, and which writers live.

        The writers are asked first: what one that is dead by then has written, the list is sure to hold.
        """
        try:
            lives = {name.life for name in list_segments(self._directory)}
            lives |= lives_of_locks(os.listdir(self._directory))
            alive = {life: is_alive(self._directory, life) for life in lives}
            return list_segments(self._directory), alive
        except FileNotFoundError:
            return [], {}  # no writer has begun yet

    def _waiting(self, names: list[SegmentName]) -> tuple[int, int]:
        """How many records are behind the positions, and the oldest one's time of arrival in µs."""
        count, oldest_us = 0, 2**63
        for name in names:
            known = self._lives.get(name.life, _Life()).segments.get(name.number, _Open(name))
            offset = known.offset
            while True:
                part = read_slice(self._directory / name.file_name, offset)
                times = [entry.timestamp_us for entry in part.entries if isinstance(entry, UsageRecord)]
                count += len(times)
                oldest_us = min(oldest_us, *times) if times else oldest_us
                offset = part.next_offset
                if part.tail is not Tail.FRAME:
                    break
        return count, oldest_us


def interrupted(intent: Intent, mark: Checkpoint | None = None) -> UsageRecord:
    """The record of a request whose gateway died before it could write one: never above the evidence."""
    evidence = Evidence.NONE
    if mark is not None:
        evidence = Evidence.ENGINE if mark.from_engine else Evidence.CHECKPOINT
    return UsageRecord(
        request_id=intent.request_id,
        timestamp_us=intent.timestamp_us,
        org_id=intent.org_id,
        env_id=intent.env_id,
        key_id=intent.key_id,
        endpoint=intent.endpoint,
        model=intent.model,
        region=intent.region,
        node_id=intent.node_id,
        prompt_tokens=0 if mark is None else mark.prompt_tokens,
        completion_tokens=0 if mark is None else mark.completion_tokens,
        cached_tokens=0 if mark is None else mark.cached_tokens,
        reasoning_tokens=0,
        evidence=evidence,
        outcome=Outcome.INTERRUPTED,
        finish_reason=None,
        http_status=0,  # nobody knows what the caller got
        streamed=intent.streamed,
        attempts=1,
        latency_ms=0,
        first_token_ms=None,
        plan_price_pusd=intent.plan_price_pusd,
        once=intent.once,
    )


def _remove_lock(directory: Path, life: str) -> None:
    """Remove the lock of a dead writer that has no segments left."""
    if not is_alive(directory, life):
        with contextlib.suppress(FileNotFoundError):
            (directory / f"{life}.lock").unlink()
