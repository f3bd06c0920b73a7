"""Which store answers for costs, and what is done again and again for usage, by the settings."""

from pathlib import Path

import pytest

from crosslogic.api.services import MoneyServices
from crosslogic.kernel.clock import ManualClock
from crosslogic.metering.costs.clickhouse import ClickHouseCostTracker
from crosslogic.metering.costs.sql import SqlCostTracker
from crosslogic.settings.commerce import CostTrackingSettings
from crosslogic.settings.effects import warnings
from crosslogic.settings.model import Settings
from crosslogic.store.engine import create_engine
from crosslogic.tenancy.keys import key_hasher
from crosslogic.wiring.money import new_money
from crosslogic.wiring.usage import UsageRooms


@pytest.mark.parametrize(
    ("backend", "store", "copies"),
    [("postgres", SqlCostTracker, []), ("clickhouse", ClickHouseCostTracker, [60.0])],
)
async def test_the_setting_chooses_the_store_and_whether_it_is_fed(
    tmp_path: Path, backend: str, store: type, copies: list[float]
) -> None:
    tracking = CostTrackingSettings.model_validate(
        {"storage_backend": backend, "aggregation_interval_s": 60, "retention_months": 13}
    )
    settings = Settings(cost_tracking=tracking)
    engine = create_engine(f"sqlite:///{tmp_path / 'x.db'}")
    money: MoneyServices = new_money(settings, engine, key_hasher(), ManualClock(), tuple)
    rooms = UsageRooms(settings, engine, key_hasher(), ManualClock(), money)
    assert type(rooms.costs) is store
    jobs = {job.name: job for job in rooms.jobs}
    assert [job.interval_s for name, job in jobs.items() if name == "usage copy"] == copies
    assert jobs["usage retention"].leased
    assert rooms.retention.months == 13
    assert str(rooms.retention.cutoff()) == "2024-12-01 00:00:00+00:00"
    await rooms.close()
    await engine.dispose()


def test_what_is_for_clickhouse_alone_is_said_to_have_no_effect_without_it() -> None:
    tracking = CostTrackingSettings.model_validate({"aggregation_interval_s": 60, "clickhouse": {"user": "u"}})
    told = warnings(Settings(cost_tracking=tracking))
    assert [line for line in told if "cost_tracking" in line] == [
        "cost_tracking.aggregation_interval_s has no effect without cost_tracking.storage_backend: clickhouse",
        "cost_tracking.clickhouse has no effect without cost_tracking.storage_backend: clickhouse",
    ]
    chosen = CostTrackingSettings.model_validate({"storage_backend": "clickhouse", "clickhouse": {"user": "u"}})
    assert not [line for line in warnings(Settings(cost_tracking=chosen)) if "cost_tracking" in line]
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        CostTrackingSettings(retention_months=1)
