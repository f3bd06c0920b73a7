"""Values of the detection of anomalies (interface document, phase 4: AnomalyDetector)."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from crosslogic.insight.notices.model import ChannelKind, Severity

WINDOW = timedelta(minutes=10)


class AnomalyType(StrEnum):
    """The interface document's five."""

    LATENCY_SPIKE = "latency_spike"
    ERROR_RATE_HIGH = "error_rate_high"
    CAPACITY_LOW = "capacity_low"
    UNUSUAL_USAGE = "unusual_usage"
    QUALITY_DROP = "quality_drop"


class Watching(msgspec.Struct, frozen=True):
    """How it is looked for. `sensitivity` divides what something must differ by; no channels: all of the operators."""

    sensitivity: float = 1.0
    channels: tuple[ChannelKind, ...] = ()


class Window(msgspec.Struct, frozen=True):
    """What became of a model's requests in a region that arrived within `WINDOW` from `at` on."""

    at: datetime
    model: str
    region: str
    requests: int
    failed: int  # by the nodes' fault
    answered: int  # completed, of the endpoints that generate text
    odd: int  # of these: empty, or cut at the most tokens that were allowed
    first_token_ms: float | None  # mean, of the streamed ones
    token_ms: float | None  # mean between tokens after the first

    @property
    def end(self) -> datetime:
        return self.at + WINDOW


class Finding(msgspec.Struct, frozen=True):
    """Something unusual, as one look sees it."""

    kind: AnomalyType
    model: str
    region: str
    severity: Severity
    description: str
    suggestion: str
    facts: dict[str, Any]

    @property
    def about(self) -> tuple[AnomalyType, str, str]:
        return self.kind, self.model, self.region


class Anomaly(msgspec.Struct, frozen=True, kw_only=True):
    """An episode: the same thing, from when it was first seen until it was not seen for a while."""

    id: str
    kind: AnomalyType
    model: str
    region: str
    severity: Severity  # the worst so far
    description: str  # as it was when it began, or got worse
    suggestion: str
    facts: dict[str, Any]
    started_at: datetime
    seen_at: datetime
    ended_at: datetime | None = None

    @property
    def about(self) -> tuple[AnomalyType, str, str]:
        return self.kind, self.model, self.region
