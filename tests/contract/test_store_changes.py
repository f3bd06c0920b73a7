"""The change feed delivers every committed change, once its transaction is committed, in order, across outages."""

import asyncio
import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store import changes as feed
from crosslogic.store.changes import Change, ChangeFeed, append_change, prune
from crosslogic.store.engine import create_engine, reading
from crosslogic.store.tables import changes


class Seen:
    def __init__(self) -> None:
        self.ids: list[str] = []
        self.seqs: list[int] = []
        self.gaps = 0
        self.arrived = asyncio.Event()

    async def changes(self, changes: Sequence[Change]) -> None:
        self.ids += [change.entity_id for change in changes]
        self.seqs += [change.seq for change in changes]
        self.arrived.set()

    async def gap(self) -> None:
        self.gaps += 1


async def announce(engine: AsyncEngine, *ids: str) -> None:
    async with engine.begin() as conn:
        for entity_id in ids:
            await append_change(conn, "key", entity_id)


async def test_what_is_committed_after_the_start_is_delivered_once(engine: AsyncEngine) -> None:
    await announce(engine, "before")
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    await announce(engine, "a", "b")
    assert await reader.poll(seen.changes) == 2
    assert await reader.poll(seen.changes) == 0
    assert seen.ids == ["a", "b"]


async def test_what_is_rolled_back_is_not_delivered(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    async with engine.connect() as conn:
        await append_change(conn, "key", "never")
        await conn.rollback()
    await announce(engine, "a")
    await reader.poll(seen.changes)
    assert seen.ids == ["a"]


async def test_a_slow_transaction_is_not_stepped_over(postgres_database_url: str) -> None:
    """On PostgreSQL the number is drawn before the commit; without the lock the reader loses `slow`."""
    engine = create_engine(postgres_database_url)
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    drawn = asyncio.Event()

    async def slow() -> None:
        async with engine.begin() as conn:
            await append_change(conn, "key", "slow")
            drawn.set()
            await conn.execute(text("SELECT pg_sleep(0.3)"))

    async def quick() -> None:
        await drawn.wait()
        await announce(engine, "quick")

    writers = asyncio.gather(slow(), quick())
    while not writers.done():
        await reader.poll(seen.changes)
        await asyncio.sleep(0.02)
    await writers
    await reader.poll(seen.changes)
    assert seen.ids == ["slow", "quick"]
    await engine.dispose()


async def test_many_writers_at_once_lose_nothing_and_keep_order(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    writers = asyncio.gather(*(announce(engine, f"{w}-{n}") for w in range(4) for n in range(10)))
    while not writers.done():
        await reader.poll(seen.changes)
        await asyncio.sleep(0)
    await writers
    await reader.poll(seen.changes)
    assert sorted(seen.ids) == sorted(f"{w}-{n}" for w in range(4) for n in range(10))
    assert seen.seqs == sorted(seen.seqs)


async def test_more_than_a_page_is_delivered_in_pages(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "PAGE", 10)
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    await announce(engine, *(str(n) for n in range(25)))
    assert [await reader.poll(seen.changes) for _ in range(4)] == [10, 10, 5, 0]
    assert seen.ids == [str(n) for n in range(25)]


async def test_a_change_is_delivered_again_until_it_was_taken(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    await announce(engine, "a")

    async def refuse(_changes: Sequence[Change]) -> None:
        raise OSError("the database went away while loading")

    with pytest.raises(OSError, match="went away"):
        await reader.poll(refuse)
    await reader.poll(seen.changes)
    assert seen.ids == ["a"]


async def test_pruning_keeps_the_newest_and_readers_of_it_miss_nothing(engine: AsyncEngine) -> None:
    await announce(engine, "a", "b", "c")
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    assert await prune(engine, before=datetime.now(UTC) + timedelta(seconds=1)) == 3  # genesis, a, b
    await announce(engine, "d")
    await reader.poll(seen.changes, seen.gap)
    assert (seen.ids, seen.gaps) == (["d"], 0)


async def test_a_reader_whose_position_was_pruned_is_told_of_the_gap(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    await announce(engine, "a", "b", "c")
    await prune(engine, before=datetime.now(UTC) + timedelta(seconds=1))
    await reader.poll(seen.changes, seen.gap)
    await announce(engine, "d")
    await reader.poll(seen.changes, seen.gap)
    assert (seen.ids, seen.gaps) == (["d"], 1)


async def test_a_reader_ahead_of_a_restored_database_is_told_of_the_gap(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await announce(engine, "lost by the restore")
    await reader.start()
    async with engine.begin() as conn:  # what a restore from yesterday's backup looks like from here
        newest = select(func.max(changes.c.seq)).scalar_subquery()
        await conn.execute(changes.delete().where(changes.c.seq == newest))
    await reader.poll(seen.changes, seen.gap)
    assert seen.gaps == 1


async def test_old_changes_alone_are_pruned(engine: AsyncEngine) -> None:
    await announce(engine, "old", "new", "newest")
    async with engine.begin() as conn:
        old = datetime.now(UTC) - timedelta(days=2)
        await conn.execute(update(changes).where(changes.c.entity_id.in_(["old", "0001"])).values(at=old))
    assert await prune(engine, before=datetime.now(UTC) - feed.RETENTION) == 2
    async with reading(engine) as conn:
        assert (await conn.scalars(select(changes.c.entity_id).order_by(changes.c.seq))).all() == ["new", "newest"]


async def test_a_running_reader_learns_of_a_change_within_a_second(engine: AsyncEngine) -> None:
    reader, seen = ChangeFeed(engine), Seen()
    await reader.start()
    running = asyncio.create_task(reader.run(seen.changes, seen.gap))
    await asyncio.sleep(0.3)  # somewhere in mid-interval
    await announce(engine, "a")
    committed = time.monotonic()
    async with asyncio.timeout(5):
        await seen.arrived.wait()
    assert time.monotonic() - committed < 4.0  # how soon it is on a free machine: tests/flow/test_suspension.py
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_an_outage_is_survived_told_once_and_followed_by_what_was_missed(
    engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, feed.__name__)
    reader, seen = ChangeFeed(engine, poll_interval_s=0.02), Seen()
    await reader.start()
    await _rename(engine, "changes", "changes_away")
    running = asyncio.create_task(reader.run(seen.changes, seen.gap))
    await asyncio.sleep(0.3)  # several polls fail
    await _rename(engine, "changes_away", "changes")
    await announce(engine, "a")
    async with asyncio.timeout(5):
        await seen.arrived.wait()
    await asyncio.sleep(0.1)
    assert (seen.ids, seen.gaps) == (["a"], 0)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def _rename(engine: AsyncEngine, old: str, new: str) -> None:
    async with engine.begin() as conn:
        await conn.execute(text(f"ALTER TABLE {old} RENAME TO {new}"))


async def test_a_reader_says_up_to_when_it_has_read_but_not_while_it_cannot(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "PAGE", 2)
    reader, seen, read = ChangeFeed(engine, poll_interval_s=0.02), Seen(), list[tuple[float, int]]()
    loop = asyncio.get_running_loop()
    await reader.start()
    await announce(engine, *"abcde")
    running = asyncio.create_task(
        reader.run(seen.changes, seen.gap, lambda began_s: read.append((began_s, len(seen.ids))))
    )
    async with asyncio.timeout(5):
        while not read:
            await asyncio.sleep(0.01)
    assert read[0][1] == 5, "a page in between is not the end"
    await _rename(engine, "changes", "changes_away")
    away_s = loop.time()
    await asyncio.sleep(0.3)
    assert all(began_s < away_s for began_s, _ in read)
    known = len(read)
    await _rename(engine, "changes_away", "changes")
    async with asyncio.timeout(5):
        while len(read) == known:
            await asyncio.sleep(0.01)
    assert away_s < read[-1][0] < loop.time()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
