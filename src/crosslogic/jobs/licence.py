"""Tells operators how their site stands at the bounds of its licence, each step once: of its term, or of a month."""

from datetime import datetime

from crosslogic.billing.exports.licence import Bound, Stage
from crosslogic.billing.exports.licensed import LicensedSite
from crosslogic.insight.notices.model import Notice, NoticeKind, Severity
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.kernel.clock import Clock

_SAID = {
    Stage.WARNED: ("is nearly used up", Severity.WARNING),
    Stage.IN_GRACE: ("is used up: nothing is refused yet", Severity.ERROR),
    Stage.EXCEEDED: ("is exceeded: no new organisations and nodes", Severity.CRITICAL),
}


class LicenceJob:
    def __init__(self, site: LicensedSite, outbox: Outbox, clock: Clock) -> None:
        self._site = site
        self._outbox = outbox
        self._clock = clock

    async def round(self) -> int:
        """Returns how many notices were new."""
        now, licence = self._clock.now(), self._site.licence
        found = [each for each in await self._site.look() if each.stage in _SAID]
        return await self._outbox.raise_all(_notice(licence.id, each, now) for each in found)


def _notice(licence_id: str, bound: Bound, now: datetime) -> Notice:
    said, severity = _SAID[bound.stage]
    period = bound.allowed if bound.name == "term" else f"{now:%Y-%m}"
    name = bound.name.replace("_", " ")
    return Notice(
        org_id=None,
        kind=NoticeKind.LICENCE,
        severity=severity,
        once=f"licence:{licence_id}:{bound.name}:{bound.stage}:{period}",
        title=f"Licence: {name} {said}",
        text=f"{name}: {bound.used} of {bound.allowed}.",
        facts={"bound": bound.name, "stage": bound.stage.value, "used": bound.used, "allowed": bound.allowed},
        at=now,
    )
