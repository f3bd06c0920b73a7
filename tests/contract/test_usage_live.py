"""Counters that move during a stream: from the journal that the gateway writes, to whoever asks."""

from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import KeyId, OrgId, RequestId
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.live import model
from crosslogic.metering.live.boards import LiveReporter, MemoryLive, SqlLive
from crosslogic.metering.live.model import LiveUsage, running, together, total
from crosslogic.metering.model import Checkpoint, Intent
from tests.contract.test_api_admin import HEADERS, client_of, house, services_on
from tests.contract.test_ledger_log import PRICES
from tests.metering_samples import intent, usage


def begun(number: int, **changed: Any) -> Intent:
    return msgspec.structs.replace(intent(number), **{"streamed": True, **changed})


async def test_a_stream_counts_as_far_as_it_has_come_and_no_more_once_it_ended(
    engine: AsyncEngine, tmp_path: Path
) -> None:
    journal = await FileJournal.open(tmp_path / "journal", "w", clock=ManualClock())
    mover = JournalFlusher(tmp_path / "journal", Ledger(engine), lambda: PRICES, ManualClock())
    shown = MemoryLive()
    assert await shown.live() == []
    shown.show(mover.running)
    for number in range(3):
        journal.intend(begun(number, key_id=KeyId(f"key_{number % 2}")))
    journal.mark(Checkpoint(intent(0).request_id, 0, 64))
    journal.mark(Checkpoint(intent(1).request_id, 12, 3))
    await journal.record(usage(9))
    await mover.flush()
    assert await shown.live() == [
        LiveUsage("org_1", "env_1", "key_0", 2, 2, 20, 64),
        LiveUsage("org_1", "env_1", "key_1", 1, 1, 12, 3),
    ]
    journal.mark(Checkpoint(intent(0).request_id, 0, 128))
    await journal.record(usage(1))
    await mover.flush()
    assert [(each.key_id, each.completion_tokens) for each in await shown.live()] == [("key_0", 128)]
    journal.withdraw(intent(2).request_id)
    await journal.record(usage(0))
    await mover.flush()
    assert await shown.live() == []
    await journal.close()


async def test_gateways_are_seen_together_and_dead_ones_not_for_long(engine: AsyncEngine) -> None:
    sums = {"a": [LiveUsage("o", "e", "k", 1, 1, 5, 7)], "b": [LiveUsage("o", "e", "k", 2, 0, 1, 1)]}
    reporters = {name: LiveReporter(engine, name, lambda name=name: sums[name]) for name in sums}
    for reporter in reporters.values():
        await reporter.report()
    board = SqlLive(engine)
    assert await board.live() == [LiveUsage("o", "e", "k", 3, 1, 6, 8)]
    sums["a"] = []
    await reporters["a"].report()
    assert await board.live() == sums["b"]
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE usage_live SET at_s = at_s - 6 WHERE session = 'b'"))
    assert await board.live() == []
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE usage_live SET at_s = at_s - 4000"))
    await reporters["a"].report()
    sums["a"] = [LiveUsage("o", "e", "k", 1, 1, 5, 7)]
    await reporters["a"].report()
    async with engine.connect() as conn:
        assert await conn.scalar(text("SELECT count(*) FROM usage_live")) == 1, "what is long dead is forgotten"


def test_what_goes_beyond_the_bound_is_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "MOST_GROUPS", 3)
    asked = [(begun(n, key_id=KeyId(f"key_{n}")), Checkpoint(RequestId("r"), 1, n)) for n in range(10)]
    found = running(asked)
    assert [each.key_id for each in found] == ["key_9", "key_8", ""]
    assert total(found) == LiveUsage("", "", "", 10, 10, 10, 45)
    assert total(together([found, found])).completion_tokens == 90


async def test_an_org_sees_its_own_and_operators_all(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine), **HEADERS) as client:
        mine = await house(client)
        asked = {"org": "acme", "environment": "prod", "name": "ann", "role": "admin"}
        token = (await client.post("/admin/keys", json=asked)).json()["key"]
        sums = [
            LiveUsage(mine["org"], mine["env"], mine["key"], 2, 1, 10, 20),
            LiveUsage(OrgId("org_other"), "env_other", "key_other", 1, 1, 3, 4),
        ]
        await LiveReporter(engine, "a", lambda: sums).report()
        async with engine.begin() as conn:  # what follows may take longer than a report counts
            await conn.execute(text("UPDATE usage_live SET at_s = at_s + 600"))
        own = await _get(client, "/api/v1/usage/live", Authorization=f"Bearer {token}")
        assert own["totals"] == {"requests": 2, "streams": 1, "prompt_tokens": 10, "completion_tokens": 20}
        assert own["by_environment"] == {mine["env"]: own["totals"]}
        assert [row["key_id"] for row in own["data"]] == [mine["key"]]
        every = await _get(client, "/admin/usage-live")
        assert every["totals"] == {"requests": 3, "streams": 2, "prompt_tokens": 13, "completion_tokens": 24}
        first = await _get(client, "/admin/usage-live?limit=1")
        rest = await _get(client, f"/admin/usage-live?limit=1&cursor={first['next_cursor']}")
        assert first["data"] + rest["data"] == every["data"]
        assert rest["totals"] == every["totals"]
        assert (await _get(client, "/admin/usage-live?org=acme"))["totals"] == own["totals"]


async def _get(client: httpx.AsyncClient, path: str, **headers: str) -> dict[str, Any]:
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told
