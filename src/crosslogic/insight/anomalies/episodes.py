"""From what each look finds to episodes: begun, gone on, worse, over. Pure.

Invariant: the same thing has one episode at a time, and what comes and goes from look to look stays in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from crosslogic.insight.anomalies.model import Anomaly, AnomalyType, Finding
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.kernel.ids import new_id

_QUIET = timedelta(minutes=30)
_HOURLY_QUIET = timedelta(hours=2)
_HOURLY = frozenset({AnomalyType.UNUSUAL_USAGE, AnomalyType.CAPACITY_LOW})
_ORDER = tuple(Severity)
_TITLES = {
    AnomalyType.LATENCY_SPIKE: "{model} in {region} is slower than usual",
    AnomalyType.ERROR_RATE_HIGH: "Requests to {model} in {region} fail",
    AnomalyType.CAPACITY_LOW: "More is asked of {model} in {region} than its nodes carry",
    AnomalyType.UNUSUAL_USAGE: "{model} in {region} is used unlike usual",
    AnomalyType.QUALITY_DROP: "Answers of {model} in {region} are unlike usual",
}


def go_on(standing: Sequence[Anomaly], found: Iterable[Finding], at: datetime, until: datetime) -> list[Anomaly]:
    """What became of episodes by a look at the time from `at` to `until`; those that it left alone are not in it."""
    worst: dict[tuple[AnomalyType, str, str], Finding] = {}
    for finding in found:
        known = worst.get(finding.about)
        if known is None or _ORDER.index(finding.severity) > _ORDER.index(known.severity):
            worst[finding.about] = finding
    after = []
    for anomaly in standing:
        seen = worst.get(anomaly.about)
        if until - anomaly.seen_at >= _quiet(anomaly.kind):
            after.append(msgspec.structs.replace(anomaly, ended_at=anomaly.seen_at))
        elif seen is not None:
            worst.pop(anomaly.about)
            after.append(_gone_on(anomaly, seen, until))
    return after + [_begun(finding, at, until) for finding in worst.values()]


def _quiet(kind: AnomalyType) -> timedelta:
    return _HOURLY_QUIET if kind in _HOURLY else _QUIET


def _gone_on(anomaly: Anomaly, seen: Finding, until: datetime) -> Anomaly:
    if _ORDER.index(seen.severity) <= _ORDER.index(anomaly.severity):
        return msgspec.structs.replace(anomaly, seen_at=until)
    return msgspec.structs.replace(
        anomaly, seen_at=until, severity=seen.severity, description=seen.description, facts=seen.facts
    )


def _begun(finding: Finding, at: datetime, until: datetime) -> Anomaly:
    return Anomaly(
        id=new_id("anom"),
        kind=finding.kind,
        model=finding.model,
        region=finding.region,
        severity=finding.severity,
        description=finding.description,
        suggestion=finding.suggestion,
        facts=finding.facts,
        started_at=at,
        seen_at=until,
    )


def notice_of(anomaly: Anomaly, now: datetime) -> Notice:
    """Once for an episode, for operators."""
    return Notice(
        org_id=None,
        kind=NoticeKind.ANOMALY,
        severity=anomaly.severity,
        once=f"anomaly:{anomaly.kind.value}:{anomaly.model}:{anomaly.region}:{anomaly.started_at:%Y-%m-%dT%H:%M}",
        title=_TITLES[anomaly.kind].format(model=anomaly.model, region=anomaly.region),
        text=f"Since {anomaly.started_at:%Y-%m-%d %H:%M} UTC: {anomaly.description}. {anomaly.suggestion}",
        facts={
            "type": anomaly.kind.value,
            "model": anomaly.model,
            "region": anomaly.region,
            "started_at": anomaly.started_at.isoformat(),
            **anomaly.facts,
        },
        at=now,
    )
