"""What the settings of forecast and anomalies mean to their jobs."""

from pathlib import Path

import pytest

from crosslogic.insight.anomalies.model import Watching
from crosslogic.insight.notices.model import ChannelKind
from crosslogic.jobs.forecast import Looking
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.effects import warnings
from crosslogic.settings.model import Settings
from crosslogic.wiring.foresight import looking, watching
from tests.unit.settings_files import settings_of


def test_both_are_off_unless_told() -> None:
    assert looking(Settings().capacity_planning) is None
    assert watching(Settings().anomaly_detection) is None


def test_what_is_set_is_what_they_do(tmp_path: Path) -> None:
    settings = settings_of(
        tmp_path,
        "capacity_planning: {enabled: true, forecast_horizon: 36h, auto_scaling_enabled: true}\n"
        "anomaly_detection: {enabled: true, sensitivity_level: 2, alert_channels: [slack, pagerduty]}",
    )
    assert looking(settings.capacity_planning) == Looking(2, scale=True)
    assert watching(settings.anomaly_detection) == Watching(2.0, (ChannelKind.SLACK, ChannelKind.PAGERDUTY))
    assert not [each for each in warnings(settings) if "capacity_planning" in each or "anomaly" in each]


@pytest.mark.parametrize(
    "text",
    [
        "capacity_planning: {forecast_horizon: 15d}",
        "capacity_planning: {prediction_model: crystal}",
        "anomaly_detection: {sensitivity_level: 0}",
        "anomaly_detection: {alert_channels: [pigeon]}",
    ],
)
def test_nonsense_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigurationError):
        settings_of(tmp_path, text)
