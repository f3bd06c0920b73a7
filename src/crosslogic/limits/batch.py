"""What one call to Redis carries: pure writing and reading of the messages of `admit.lua`.

Invariants: a counter stands in a batch at most once; what it holds is sent as an absolute number and only by a
worker that has no other batch under way, so sending it again is harmless; a batch is numbered, so what it gives
back is applied once however often it is sent.
"""

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from crosslogic.limits.bucket import NOTHING, Reservation
from crosslogic.limits.model import RATES, Admitted, Demand, Dimension, Headroom, Layer, Rejected, Room
from crosslogic.limits.plan import Plan
from crosslogic.limits.remote import RemoteCounter, Row

SCRIPT = files("crosslogic.limits").joinpath("admit.lua").read_text(encoding="utf-8")
MAX_ROWS = 500
MAX_ASKS = 500

_US = 1e6
_FIRST_ROW = 7  # in an ask: five units, the place of the guarantee, then the rows
_encode = msgspec.msgpack.Encoder().encode


class Ask(msgspec.Struct):
    """One request that waits for its answer, or with no demand somebody who only looks."""

    plan: Plan[RemoteCounter]
    demand: Demand | None
    answered: Any  # asyncio.Future[Admitted | Rejected | Room]; this file does not touch it


class Session(msgspec.Struct):
    """Under which name this worker holds its leases, and what it knows of the others.

    Every connection and every life of Redis' memory gets a new name; all leases are written again under it
    before the `old` ones are given up, so that none is counted by nobody.
    """

    name: str
    old: tuple[str, ...] = ()
    sequence: int = 0
    epoch: float = 0
    workers: int = 1
    rank: int = 0


class Batch(msgspec.Struct):
    """One message, kept until its answer is known."""

    asks: list[Ask]
    counters: list[RemoteCounter]
    keys: list[bytes]
    payload: bytes
    retires: bool
    asked_s: float  # when its first ask came
    sent_s: float = 0.0
    abandoned: bool = False  # its asks have been answered here
    lost: bool = False  # it must be sent again to know what became of it


class Verdict(msgspec.Struct, array_like=True):
    """What becomes of one request. Scopes are places in its plan, counted from 1; rates are places in `RATES`, too."""

    whose: int  # 0: admitted
    which: int  # a rate; 0: concurrency; -1: the month's budget
    never: int
    wait_us: float
    requests_limit: int  # -1: none
    requests_left: int
    requests_reset_us: float
    tokens_limit: int
    tokens_left: int
    tokens_reset_us: float
    covered: int = 0
    skipped: list[int] = []  # scopes that were not charged
    shadowed: list[int] = []  # a scope and a rate, and again


class Answer(msgspec.Struct, array_like=True):
    """What `admit.lua` returns."""

    epoch: float
    workers: int
    rank: int
    verdicts: list[Verdict]
    month: int = 0
    spends: list[tuple[int, int, int, int]] = []  # (row, spent, held by other workers, held by this one)


_decode_answer = msgspec.msgpack.Decoder(Answer, strict=False).decode


def write(
    session: Session,
    prefix: str,
    counters: Sequence[RemoteCounter],
    asks: list[Ask],
    *,
    careful: bool,
    dead_after_s: float,
    farewell: tuple[str, ...],
    retires: bool,
    asked_s: float,
) -> Batch:
    """The next batch of a session: these counters' news, then these asks. Takes the news out of the counters."""
    mark = object()
    named: list[RemoteCounter] = []
    rows: list[Row] = []

    def row_of(counter: RemoteCounter) -> int:
        if counter.batch is not mark:
            counter.batch = mark
            named.append(counter)
            rows.append(counter.tell())
            counter.row = len(rows)
        return counter.row

    for counter in counters:
        row_of(counter)
    asked: list[list[int]] = []
    for ask in asks:
        plan = ask.plan
        guarantee = 0 if plan.guarantee is None else _FIRST_ROW + plan.guarantee
        units = NOTHING if ask.demand is None else ask.demand.units
        asked.append([*units, guarantee, *map(row_of, plan.counters)])
    session.sequence += 1
    payload = _encode(
        (
            session.name,
            session.old,
            session.sequence,
            session.epoch,
            int(careful),
            session.workers,
            session.rank,
            dead_after_s * _US,
            farewell,
            rows,
            asked,
            int(any(counter.has_budget for counter in named)),
        )
    )
    keys = [f"{prefix}workers".encode(), f"{prefix}answer:{session.name}".encode()]
    keys += [counter.key for counter in named]
    return Batch(asks, named, keys, payload, retires, asked_s)


def read(reply: bytes) -> Answer:
    """Decode the script's answer. Raises msgspec.MsgspecError when it is none."""
    return _decode_answer(reply)


def failed_for_good(error: str) -> bool:
    """Sending the same batch again would fail again: the script itself failed, not the state of this Redis.

    Redis 6 wraps a passing state (no memory left, a replica) in the words of a failed script.
    """
    passing = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "BUSY")
    return error.startswith("ERR") and not any(word in error for word in passing)


def outcome(ask: Ask, verdict: Verdict, month: int, now_s: float) -> Admitted | Rejected | Room:
    """One verdict in the words of the port. `month` is that of Redis, 0 where no budget was asked."""
    requests = tokens = None
    if verdict.requests_limit >= 0:
        requests = Headroom(verdict.requests_limit, verdict.requests_left, verdict.requests_reset_us / _US)
    if verdict.tokens_limit >= 0:
        tokens = Headroom(verdict.tokens_limit, verdict.tokens_left, verdict.tokens_reset_us / _US)
    plan = ask.plan
    if ask.demand is None:
        return Room(requests, tokens)
    if verdict.whose:
        layer, dimension = _named(plan, verdict.whose, verdict.which)
        wait_s, part = verdict.wait_us / _US, plan.parts[verdict.whose - 1]
        if dimension is Dimension.CONCURRENCY and part.slots:
            wait_s = part.counter.slot_refused(now_s, part.slots)
        return Rejected(layer, dimension, wait_s, requests, tokens, too_large=verdict.never == 1)
    skipped = tuple(scope - 1 for scope in verdict.skipped)
    reservation = Reservation(plan, month, skipped, local=False)
    if not verdict.covered and not verdict.shadowed:
        return Admitted(plan.scopes, ask.demand, requests, tokens, reservation)
    pairs = zip(verdict.shadowed[::2], verdict.shadowed[1::2], strict=True)
    shadowed = tuple(_named(plan, scope, rate) for scope, rate in pairs)
    return Admitted(plan.scopes, ask.demand, requests, tokens, reservation, verdict.covered == 1, shadowed)


def _named(plan: Plan[RemoteCounter], scope: int, rate: int) -> tuple[Layer, Dimension]:
    layer = plan.scopes[scope - 1].layer
    if rate > 0:
        return layer, RATES[rate - 1].dimension
    return layer, Dimension.CONCURRENCY if rate == 0 else Dimension.SPEND_PER_MONTH
