"""What a queue holds, for those who look at it: by line and tenant, and each waiting request. Pure.

Invariant: a board is bounded (`MAX_LISTED` requests, `MAX_LISTED_OF_TENANT` of each tenant, its first ones); its
counts are not: they are of everything that waits and runs.
"""

from collections.abc import Iterable

import msgspec

from crosslogic.queueing.fair_queue import FairQueue
from crosslogic.queueing.model import TurnAsk

MAX_LISTED = 500
MAX_LISTED_OF_TENANT = 100


class Waiting(msgspec.Struct, frozen=True, array_like=True):
    """One request that waits. Its position and estimate are those of the worker that holds it."""

    request_id: str
    client_request_id: str  # what its caller gave as X-Request-Id; else ours again
    line: str
    tenant: str
    traffic: int  # `TrafficClass`
    priority: int
    position: int
    waited_s: float
    estimated_wait_s: float | None


class TenantLine(msgspec.Struct, frozen=True, array_like=True):
    """What one tenant has on one line. The estimate is that of its last waiting request."""

    line: str
    tenant: str
    waiting: int
    running: int
    oldest_wait_s: float = 0.0
    estimated_wait_s: float | None = None


class Board(msgspec.Struct, frozen=True, array_like=True):
    tenants: list[TenantLine] = []
    requests: list[Waiting] = []


def look(queue: FairQueue, now_s: float) -> Board:
    """The board of one process. O(waiting + running tenants)."""
    waiting: dict[tuple[str, str], list[TurnAsk]] = {}
    listed: list[Waiting] = []
    for asks in queue.by_tenant():
        for number, ask in enumerate(asks):
            waiting.setdefault((ask.line, ask.tenant), []).append(ask)
            if number < MAX_LISTED_OF_TENANT and len(listed) < MAX_LISTED:
                listed.append(_listed(queue, ask, now_s))
    pairs = dict.fromkeys(waiting)
    running = {(name, tenant): count for name, line in queue.lines.items() for tenant, count in line.running.items()}
    pairs.update(dict.fromkeys(running))
    return Board(
        [
            _tenant_line(queue, line, tenant, waiting.get((line, tenant), []), running.get((line, tenant), 0), now_s)
            for line, tenant in pairs
        ],
        listed,
    )


def together(boards: Iterable[Board]) -> Board:
    """Several workers' boards as one: counts are summed, of waits the longest is told."""
    found: dict[tuple[str, str], TenantLine] = {}
    requests: list[Waiting] = []
    for board in boards:
        requests += board.requests
        for here in board.tenants:
            key = (here.line, here.tenant)
            known = found.get(key)
            found[key] = here if known is None else _sum(known, here)
    return Board(list(found.values()), requests)


def _listed(queue: FairQueue, ask: TurnAsk, now_s: float) -> Waiting:
    line = queue.line(ask.line)
    return Waiting(
        ask.id,
        ask.shown_id.decode("latin-1") or ask.id,
        ask.line,
        ask.tenant,
        int(ask.traffic),
        ask.priority,
        line.position(ask),
        now_s - (ask.enqueued_s or now_s),
        line.wait_s(ask),
    )


def _tenant_line(
    queue: FairQueue, line: str, tenant: str, asks: list[TurnAsk], running: int, now_s: float
) -> TenantLine:
    if not asks:
        return TenantLine(line, tenant, 0, running)
    oldest_s = min(ask.enqueued_s or now_s for ask in asks)
    return TenantLine(line, tenant, len(asks), running, now_s - oldest_s, queue.line(line).wait_s(asks[-1]))


def _sum(one: TenantLine, other: TenantLine) -> TenantLine:
    estimates = [each.estimated_wait_s for each in (one, other) if each.estimated_wait_s is not None]
    return TenantLine(
        one.line,
        one.tenant,
        one.waiting + other.waiting,
        one.running + other.running,
        max(one.oldest_wait_s, other.oldest_wait_s),
        max(estimates, default=None),
    )
