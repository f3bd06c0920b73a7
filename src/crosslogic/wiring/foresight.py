"""Whether, and how, the settings have the forecast looked at and anomalies looked for. No file of the gateway."""

from math import ceil

from crosslogic.insight.anomalies.model import Watching
from crosslogic.insight.notices.model import ChannelKind
from crosslogic.jobs.forecast import Looking
from crosslogic.settings.commerce import AnomalyDetectionSettings, CapacityPlanningSettings


def looking(planning: CapacityPlanningSettings) -> Looking | None:
    if not planning.enabled:
        return None
    return Looking(max(1, ceil(planning.forecast_horizon_s / 86_400)), planning.auto_scaling_enabled)


def watching(detection: AnomalyDetectionSettings) -> Watching | None:
    if not detection.enabled:
        return None
    return Watching(detection.sensitivity_level, tuple(map(ChannelKind, detection.alert_channels)))
