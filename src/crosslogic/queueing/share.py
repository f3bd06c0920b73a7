"""What one report to Redis carries, and how its answer is taken in: the messages of `share.lua`. Pure.

Invariant: a change of a counter is in exactly one place, still to be told (`SharedCounters.changes`) or in one
report under way; a report that did not arrive is put back.
"""

from collections.abc import Iterator
from importlib.resources import files

import msgspec

from crosslogic.queueing.counters import Change, SharedCounters
from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.policies import ByPolicy
from crosslogic.queueing.weighted_fair import WeightedFair

SCRIPT = files("crosslogic.queueing").joinpath("share.lua").read_text(encoding="utf-8")
MAX_CHANGES = 500  # of one lane in one report; the rest follows in the next
MAX_QUESTIONS = 64  # tenants of one lane that wait here and did not change: asked about in rotation

_encode = msgspec.msgpack.Encoder().encode
_UNCHANGED = Change()


class _LaneReport(msgspec.Struct):
    key: str
    order: WeightedFair
    counters: SharedCounters
    changes: dict[str, Change]
    names: list[str]  # those changed, and those who wait and want to know


class Report(msgspec.Struct):
    """One message, kept until its answer is known."""

    lanes: list[_LaneReport]
    keys: list[str]
    payload: bytes
    sent_s: float


class Answer(msgspec.Struct, array_like=True):
    """What `share.lua` returns."""

    epoch: float
    workers: int
    elsewhere: int
    elsewhere_by_tenant: list[str | int] | bool  # False: was not asked for
    lanes: list[list[float]]


_decode = msgspec.msgpack.Decoder(Answer, strict=False).decode


def has_news(queue: FairQueue) -> bool:
    """Whether the other workers do not know something yet."""
    return any(counters.changes for _, _, counters in _shared_lanes(queue))


def write(
    queue: FairQueue,
    prefix: str,
    session: str,
    number: int,
    dead_after_s: float,
    now_s: float,
    *,
    lengths: bool,
    idle: bool,
) -> Report:
    """The next report. Takes the changes out of the counters.

    `lengths`: with what waits of each tenant. `idle`: also about lanes without news, to learn where their present is.
    """
    lanes: list[_LaneReport] = []
    for name, order, counters in _shared_lanes(queue):
        if not (idle or counters.changes or len(order)):
            continue
        changes = counters.take_changes()
        if len(changes) > MAX_CHANGES:
            names = list(changes)
            counters.put_back({tenant: changes.pop(tenant) for tenant in names[MAX_CHANGES:]})
        asked = [tenant for tenant in _in_rotation(order.tenants, number) if tenant not in changes]
        lanes.append(_LaneReport(f"{prefix}{name}", order, counters, changes, [*changes, *asked]))
    tenants: list[str | int] | bool = False
    if lengths:
        tenants = [part for pair in queue.waiting_by_tenant().items() for part in pair]
    rows = [[lane.counters.virtual, *_flat(lane)] for lane in lanes]
    payload = _encode((session, dead_after_s * 1e6, len(queue), tenants, rows))
    return Report(lanes, [*_heads(prefix), *(lane.key for lane in lanes)], payload, now_s)


def write_farewell(prefix: str, session: str) -> Report:
    """The last report: this worker counts no more."""
    return Report([], _heads(prefix), _encode((session, 60e6, -1, [], [])), 0.0)


def read(reply: bytes) -> Answer:
    """Decode the script's answer. Raises msgspec.MsgspecError when it is none."""
    return _decode(reply)


def learn(queue: FairQueue, report: Report, answer: Answer, *, forgotten: bool) -> None:
    """Take in what all workers together know. `forgotten`: Redis has lost its memory, and is to be told all again."""
    if forgotten:
        for _, _, counters in _shared_lanes(queue):
            counters.tell_all()
    flat = answer.elsewhere_by_tenant
    queue.elsewhere = answer.elsewhere
    if isinstance(flat, list):
        queue.elsewhere_by_tenant = {str(flat[i]): int(flat[i + 1]) for i in range(0, len(flat), 2)}
    for lane, (virtual, *values) in zip(report.lanes, answer.lanes, strict=True):
        lane.counters.virtual = max(lane.counters.virtual, virtual)
        for tenant, value in zip(lane.names, values, strict=True):
            lane.counters.learn(tenant, value)
            lane.order.moved(tenant)


def put_back(report: Report) -> None:
    """The report did not arrive: its changes are to be told again."""
    for lane in report.lanes:
        lane.counters.put_back(lane.changes)


def _shared_lanes(queue: FairQueue) -> Iterator[tuple[str, WeightedFair, SharedCounters]]:
    for name, line in queue.lines.items():
        for lane, kind in ((line.shared, "shared"), (line.reserved, "reserved")):
            if isinstance(lane.order, ByPolicy):
                for order in lane.order.fair():
                    if isinstance(order.counters, SharedCounters):
                        yield f"{kind}:{name}", order, order.counters


def _heads(prefix: str) -> list[str]:
    return [f"{prefix}workers", f"{prefix}waiting"]


def _in_rotation(tenants: list[str], number: int) -> list[str]:
    """Another few with each report, until all have been asked about."""
    if len(tenants) <= MAX_QUESTIONS:
        return tenants
    start = number * MAX_QUESTIONS % len(tenants)
    return (tenants[start:] + tenants[:start])[:MAX_QUESTIONS]


def _flat(lane: _LaneReport) -> Iterator[str | float]:
    for name in lane.names:
        change = lane.changes.get(name, _UNCHANGED)
        yield name
        yield change.floor
        yield change.amount
