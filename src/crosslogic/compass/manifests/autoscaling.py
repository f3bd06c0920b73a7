"""When another replica has to be started: thresholds that follow from how long a start takes.

Pure. While a replica starts, load goes on growing; so it is started as much earlier as load may grow in that time
(one ten-minute rise in a hundred exceeds three quarters). A fixed threshold is too late for large models, and
wasteful for small ones.
"""

from __future__ import annotations

from math import ceil

import msgspec

from crosslogic.compass.manifests.model import DeploymentPlan

JUMP = 0.75  # a rise within ten minutes that one in a hundred exceeds
FULL_CACHE = 0.9  # of the KV cache: above it the engine begins to preempt


class Thresholds(msgspec.Struct, frozen=True):
    """For one replica."""

    running: int  # requests that it works on
    waiting: int  # requests that wait for it: none, unless they may for some of the TTFT target
    kv_cache: float  # used share of its KV cache
    rate: float | None  # requests a second
    polling_s: int
    scale_down_after_s: int
    startup_deadline_s: int
    drain_s: int


def thresholds(plan: DeploymentPlan) -> Thresholds:
    room = 1 / (1 + JUMP * min(1.0, plan.startup_s / 600))
    at_peak = plan.running_at_peak or plan.max_num_seqs
    rate = plan.scale_out_at
    if rate is None and plan.rate_per_replica is not None:
        rate = plan.rate_per_replica * room
    # Half of the time to the first token may be spent in the queue.
    may_wait_s = (plan.slo.ttft_p95_ms or 1000.0) / 2000
    waiting = min(plan.max_num_seqs, (rate or 1.0) * may_wait_s)
    longest_s = (plan.slo.e2e_p95_ms or 60_000.0) / 1000
    return Thresholds(
        running=max(1, int(min(at_peak, plan.max_num_seqs) * room)),
        waiting=max(1, int(waiting)),
        kv_cache=round(FULL_CACHE * room, 2),
        rate=None if rate is None or rate <= 0 else float(f"{rate:.4g}"),
        polling_s=max(5, min(30, int(plan.startup_s / 12))),
        scale_down_after_s=max(300, ceil(3 * plan.startup_s)),
        startup_deadline_s=max(120, ceil(3 * plan.startup_s)),
        drain_s=max(30, ceil(2 * longest_s)),
    )
