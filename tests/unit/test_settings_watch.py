"""Settings reload while the process runs; a wrong file changes nothing."""

import asyncio
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from crosslogic.settings import SettingsSource, load_settings
from crosslogic.settings.reload import Reloadable
from crosslogic.settings.watch import SettingsWatcher

BEFORE = """
limits: {key: {requests_per_minute: 60}}
models: [{id: a, fallbacks: [b]}]
prices: {a: {input_usd_per_million: 0.05, output_usd_per_million: 0.1}}
"""
AFTER = """
enable_auth: false
limits: {key: {requests_per_minute: 90}}
models: [{id: a, fallbacks: [c, b]}]
prices: {a: {input_usd_per_million: 0.06, output_usd_per_million: 0.1}}
"""


class Applied:
    """What the watcher handed over, and a way to wait for it."""

    def __init__(self) -> None:
        self.all: list[Reloadable] = []
        self.event = asyncio.Event()

    def __call__(self, fresh: Reloadable) -> None:
        self.all.append(fresh)
        self.event.set()


def watcher_on(path: Path, text: str, applied: Applied, poll_interval_s: float = 0.01) -> SettingsWatcher:
    path.write_text(text, "utf-8")
    return SettingsWatcher(load_settings(SettingsSource(path)), applied, poll_interval_s=poll_interval_s)


@asynccontextmanager
async def running(watcher: SettingsWatcher) -> AsyncIterator[None]:
    task = asyncio.create_task(watcher.run())
    await asyncio.sleep(0)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_changed_file_reaches_the_program(tmp_path: Path) -> None:
    applied = Applied()
    path = tmp_path / "config.yaml"
    async with running(watcher_on(path, BEFORE, applied)):
        replacement = tmp_path / "new.yaml"  # as editors and Kubernetes do it
        replacement.write_text(AFTER, "utf-8")
        replacement.replace(path)
        await asyncio.wait_for(applied.event.wait(), 5)
    (fresh,) = applied.all
    assert fresh.enable_auth is False
    assert fresh.limits.key.requests_per_minute == 90
    assert fresh.models[0].fallbacks == ("c", "b")
    assert str(fresh.prices["a"].input_usd_per_million) == "0.06"


async def test_sighup_reloads_at_once(tmp_path: Path) -> None:
    applied = Applied()
    path = tmp_path / "config.yaml"
    async with running(watcher_on(path, BEFORE, applied, poll_interval_s=3600)):
        path.write_text(AFTER, "utf-8")
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.wait_for(applied.event.wait(), 5)
    assert applied.all[0].limits.key.requests_per_minute == 90


async def test_a_wrong_file_keeps_what_is_and_a_right_one_is_taken_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    applied = Applied()
    path = tmp_path / "config.yaml"
    watcher = watcher_on(path, BEFORE, applied)
    path.write_text("limits: {key: {requests_per_minute: many}}", "utf-8")
    with caplog.at_level(logging.ERROR, "crosslogic.settings"):
        assert not await watcher.reload()
    assert applied.all == []
    assert watcher.settings.limits.key.requests_per_minute == 60
    assert "limits.key.requests_per_minute is 'many', but must be a whole number" in caplog.text
    path.write_text(AFTER, "utf-8")
    assert await watcher.reload()


async def test_what_needs_a_restart_is_said_and_not_applied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    applied = Applied()
    path = tmp_path / "config.yaml"
    watcher = watcher_on(path, BEFORE, applied)
    path.write_text(BEFORE + "server: {port: 9999}\nenable_caching: true\n", "utf-8")
    with caplog.at_level(logging.WARNING, "crosslogic.settings"):
        assert not await watcher.reload()
    assert "changes of enable_caching, server take effect after a restart" in caplog.text
    assert applied.all == []


async def test_an_unchanged_file_is_not_applied_again(tmp_path: Path) -> None:
    applied = Applied()
    watcher = watcher_on(tmp_path / "config.yaml", BEFORE, applied)
    assert not await watcher.reload()
    assert applied.all == []


async def test_flags_and_environment_still_win_after_a_reload(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BEFORE, "utf-8")
    source = SettingsSource(path, {"CROSSLOGIC_LIMITS__KEY__REQUESTS_PER_MINUTE": "7"})
    applied = Applied()
    watcher = SettingsWatcher(load_settings(source), applied)
    path.write_text(AFTER, "utf-8")
    assert await watcher.reload()
    assert applied.all[0].limits.key.requests_per_minute == 7


async def test_in_a_terminal_a_hangup_means_what_it_always_means(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(BEFORE, "utf-8")
    watcher = SettingsWatcher(load_settings(SettingsSource(path)), Applied(), reload_on_hangup=False)
    before = signal.getsignal(signal.SIGHUP)
    async with running(watcher):
        assert signal.getsignal(signal.SIGHUP) == before


async def test_within_a_section_that_reloads_what_does_not_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path, applied = tmp_path / "crosslogic.yaml", Applied()
    watcher = watcher_on(path, "scheduling: {retries: 1}", applied)
    path.write_text("scheduling: {retries: 1, max_requests_per_node: 9}", "utf-8")
    assert not await watcher.reload()
    assert "changes of scheduling.max_requests_per_node take effect after a restart" in caplog.text
    path.write_text("scheduling: {retries: 2, max_requests_per_node: 9}", "utf-8")
    assert await watcher.reload()
    assert applied.all[-1].scheduling.retries == 2
