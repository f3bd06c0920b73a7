"""Whose is what a node cost in an hour. Pure.

An hour's cost is shared out by the work that was done in it: a generated token counts as many times a prompt's token
as the fair queue counts it. Invariant: the parts of an hour are exactly the hour's cost, to the last pico-USD; what
nobody used is the platform's own, under the name `IDLE`, and so is an hour without any work.
"""

from collections.abc import Sequence

from crosslogic.insight.finops.model import IDLE, Attribution, NodeHour, Work
from crosslogic.kernel.money import PUSD_PER_USD

OUTPUT_WEIGHT = 2  # VTC, as in `queueing`
_SECONDS_AN_HOUR = 3600.0


def attributed(hour: NodeHour, done: Sequence[Work]) -> list[Attribution]:
    """The parts of one node's hour, in the order of `done`."""
    cost_pusd = round((hour.usd_per_hour or 0.0) * hour.up_s / _SECONDS_AN_HOUR * PUSD_PER_USD)
    gpu_s = hour.up_s * hour.gpu_count
    weights = [work.prompt_tokens + OUTPUT_WEIGHT * work.completion_tokens for work in done]
    total = sum(weights)
    if total == 0:
        idle = Work(hour.node_id, IDLE, IDLE, 0, 0, 0)
        return [_part(hour, idle, cost_pusd, gpu_s)] + [_part(hour, work, 0, 0.0) for work in done]
    parts, given, taken = [], 0, 0
    for work, weight in zip(done, weights, strict=True):
        taken += weight
        upto = cost_pusd * taken // total  # of all up to here, so that nothing is lost to rounding
        parts.append(_part(hour, work, upto - given, gpu_s * weight / total))
        given = upto
    return parts


def _part(hour: NodeHour, work: Work, cost_pusd: int, gpu_s: float) -> Attribution:
    return Attribution(
        hour=hour.hour,
        node_id=hour.node_id,
        org_id=work.org_id,
        model=work.model,
        region=hour.region,
        spot=hour.spot,
        prompt_tokens=work.prompt_tokens,
        completion_tokens=work.completion_tokens,
        revenue_pusd=work.revenue_pusd,
        cost_pusd=cost_pusd,
        gpu_s=gpu_s,
    )
