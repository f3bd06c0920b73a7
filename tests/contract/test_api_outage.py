"""What the management API answers while something that it depends on is away."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import pytest

from crosslogic.store.engine import create_engine, ping
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on


async def test_without_a_database_the_api_says_503_and_when_to_come_back() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/absent")
    async with client_of(services_on(engine), **HEADERS) as client:
        for answer in (
            await client.get("/admin/orgs"),
            await client.post("/admin/orgs", json={"name": "acme"}),
            await client.get("/admin/usage/acme"),
        ):
            assert error_of(answer) == (503, "server_error", "unavailable", None)
            assert answer.headers["retry-after"] == "2"
            assert "127.0.0.1" not in answer.text
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (503, {"status": "unavailable", "failing": ["database"]})
        assert (await client.get("/health")).status_code == 200
    await engine.dispose()


async def test_a_database_that_was_never_migrated_gives_away_no_details(tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'empty.db'}")
    async with client_of(services_on(engine), **HEADERS) as client:
        answer = await client.get("/admin/orgs")
    assert error_of(answer)[:3] == (500, "server_error", "internal_error")
    assert "orgs" not in answer.text
    await engine.dispose()


async def test_readiness_names_who_fails_and_waits_a_second_for_each(
    sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def silent() -> None:
        await asyncio.sleep(60)

    async def broken() -> None:
        raise ConnectionError("redis://:hunter2@10.0.0.5 refused")

    engine = create_engine(sqlite_url)
    checks = {"database": lambda: ping(engine), "redis": broken, "nodes": silent, "journal": silent}
    checks |= {f"more-{number}": silent for number in range(8)}
    async with client_of(replace(services_on(engine), checks=checks)) as client:
        started = time.monotonic()
        answer = await client.get("/ready")
        assert time.monotonic() - started < 8.0  # one after the other they would take ten
    assert answer.status_code == 503
    assert answer.json() == {
        "status": "unavailable",
        "failing": ["redis", "nodes", "journal", *(f"more-{number}" for number in range(8))],
    }
    assert "hunter2" not in answer.text + caplog.text
    await engine.dispose()


async def test_the_services_show_no_secret() -> None:
    engine = create_engine("postgresql://someone:hunter2@127.0.0.1:1/absent")
    services = services_on(engine)
    assert "hunter2" not in repr(services)
    assert repr(services.admin_key_hash) not in repr(services)
    await engine.dispose()
