"""The life of a deployment, pure.

    PENDING ──first node──▶ DEPLOYING ──all nodes──▶ READY ◀──all nodes── SCALING
       │                        │                      │ └──wanted changes──▶ ▲
       └──────too late──────────┴──▶ FAILED            └ a node lost, at risk ┘
    any but RETIRED ──undeploy, roll-back──▶ DRAINING ──no node left──▶ RETIRED

Invariant: only the moves of `LEGAL_MOVES` happen; `settled` proposes no other, whatever the nodes do.
"""

from collections.abc import Mapping
from datetime import datetime

import msgspec

from crosslogic.kernel.errors import Conflict
from crosslogic.orchestration.model import Deployment, DeploymentStatus

_PENDING, _DEPLOYING, _READY, _SCALING, _FAILED, _DRAINING, _RETIRED = DeploymentStatus
LEGAL_MOVES: Mapping[DeploymentStatus, frozenset[DeploymentStatus]] = {
    _PENDING: frozenset({_DEPLOYING, _READY, _FAILED, _DRAINING, _RETIRED}),
    _DEPLOYING: frozenset({_PENDING, _READY, _FAILED, _DRAINING}),
    _READY: frozenset({_SCALING, _FAILED, _DRAINING}),
    _SCALING: frozenset({_READY, _FAILED, _DRAINING}),
    _FAILED: frozenset({_DRAINING, _RETIRED}),
    _DRAINING: frozenset({_RETIRED}),
    _RETIRED: frozenset(),
}
ENDING = frozenset({_FAILED, _DRAINING, _RETIRED})


def moved(deployment: Deployment, to: DeploymentStatus, now: datetime, reason: str | None = None) -> Deployment:
    """Raises Conflict when that is no legal move."""
    if deployment.status is to:
        return deployment
    if to not in LEGAL_MOVES[deployment.status]:
        raise Conflict(f"a deployment that is {deployment.status.value} cannot become {to.value}")
    return msgspec.structs.replace(deployment, status=to, updated_at=now, reason=reason or deployment.reason)


def settled(
    deployment: Deployment, active: int, present: int, now: datetime, ready_within_s: float, at_risk: int = 0
) -> Deployment:
    """The deployment as its nodes make it: `active` take requests, `present` are there in whatever state.

    So many of the active ones may be taken away before long: they serve on, but replacements are wanted for them.
    """
    status = deployment.status
    if status is _DRAINING or status is _FAILED:
        return moved(deployment, _RETIRED, now) if present == 0 else deployment
    if status is _RETIRED:
        return deployment
    if status in (_READY, _SCALING):
        return moved(deployment, _READY if active - at_risk >= deployment.replicas else _SCALING, now)
    if active >= deployment.replicas:
        return moved(deployment, _READY, now)
    if (now - deployment.created_at).total_seconds() > ready_within_s:
        return moved(deployment, _FAILED, now, f"{active} of {deployment.replicas} nodes were there in time")
    return moved(deployment, _DEPLOYING if active else _PENDING, now)
