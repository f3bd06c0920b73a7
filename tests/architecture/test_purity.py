"""Files that decide are pure: a snapshot and `now` in, a value out. The list is what the design promises."""

import pytest

from tests.architecture.sources import PACKAGE, imported

# asyncio and friends make a decision wait; time and random make it unrepeatable; the rest is I/O.
FORBIDDEN = {
    "asyncio", "concurrent", "threading", "multiprocessing", "subprocess", "signal",
    "time", "random", "secrets",
    "os", "io", "socket", "ssl", "select", "mmap", "tempfile", "shutil", "logging",
    "httpx", "httptools", "redis", "sqlalchemy", "asyncpg", "aiosqlite", "fastapi", "uvloop",
}  # fmt: skip

PURE = (
    "cache/codec.py",
    "cache/idempotency/slot.py",
    "cache/key.py",
    "cache/model.py",
    "cache/policy.py",
    "cache/salt.py",
    "cache/tap.py",
    "fleet/backends/answers.py",
    "fleet/lifecycle.py",
    "fleet/model.py",
    "gateway/answer.py",
    "gateway/endpoints.py",
    "gateway/errors.py",
    "gateway/evidence.py",
    "gateway/models.py",
    "gateway/request.py",
    "gateway/stream.py",
    "kernel/errors.py",
    "kernel/money.py",
    "limits/bucket.py",
    "limits/headers.py",
    "limits/model.py",
    "limits/plan.py",
    "limits/scopes.py",
    "metering/frames.py",
    "metering/model.py",
    "pricing/book.py",
    "pricing/rate.py",
    "scheduling/affinity.py",
    "scheduling/model.py",
    "scheduling/pool.py",
    "scheduling/registry.py",
    "scheduling/scheduler.py",
    "scheduling/strategies.py",
    "settings/effects.py",
    "settings/environment.py",
    "settings/mistakes.py",
    "settings/model.py",
    "settings/phases.py",
    "settings/reload.py",
    "settings/values.py",
    "simulator/engine.py",
    "simulator/prefix.py",
    "telemetry/metrics.py",
    "telemetry/redaction.py",
    "tenancy/audit.py",
    "tenancy/claims.py",
    "tenancy/directory.py",
    "tenancy/inherit.py",
    "tenancy/model.py",
    "tenancy/networks.py",
    "tenancy/rules.py",
    "tenancy/scope_check.py",
)


@pytest.mark.parametrize("name", PURE)
def test_a_deciding_file_neither_waits_nor_guesses_nor_does_io(name: str) -> None:
    top_level = {module.split(".")[0] for module in imported(PACKAGE / name)}
    assert not top_level & FORBIDDEN
