"""No node works for a request that is not announced on the disk: whatever is killed, what was generated is known."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from bench.micro.pipeline import Caller, build

from crosslogic.kernel.clock import SystemClock
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.model import Intent, UsageRecord
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile
from tests.contract.test_journal_files import Held, Refusing, entries_in, until

SETTLE_S = 0.1


@pytest_asyncio.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    async with SimulatedNode(find_profile("m"), NodeOptions(speedup=100)) as running:
        yield running


async def test_a_node_is_asked_once_the_intent_is_durable(node: SimulatedNode, tmp_path: Path) -> None:
    disk, over = Held(), asyncio.Event()
    journal = await FileJournal.open(tmp_path, "w", clock=SystemClock(), open_sync=disk)
    Caller(build(journal, [node.url]), [1], over).ask()
    await disk.synced()
    await asyncio.sleep(SETTLE_S)
    assert (node.metrics.prefix_queries, node.metrics.generation_tokens) == (0, 0)
    (announced,) = entries_in(tmp_path)
    assert isinstance(announced, Intent)
    disk.tell()
    await until(lambda: node.metrics.generation_tokens == 16)
    await disk.synced()
    assert not over.is_set()
    disk.tell()
    await over.wait()
    record = entries_in(tmp_path)[-1]
    assert isinstance(record, UsageRecord)
    assert (record.request_id, record.completion_tokens) == (announced.request_id, 16)
    await journal.close()


async def test_where_it_cannot_be_announced_no_node_is_asked(node: SimulatedNode, tmp_path: Path) -> None:
    disk, over = Refusing(), asyncio.Event()
    journal = await FileJournal.open(tmp_path, "w", clock=SystemClock(), open_sync=disk)
    disk.code = 5
    Caller(build(journal, [node.url]), [1], over).ask()
    await over.wait()
    disk.code = 0
    assert node.metrics.prefix_queries == 0
    await journal.close()
    recorded = [entry for entry in entries_in(tmp_path) if isinstance(entry, UsageRecord)]
    assert sum(record.total_tokens for record in recorded) == 0
