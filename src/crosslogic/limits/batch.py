"""What one call to Redis carries: pure writing and reading of the messages of `admit.lua`.

Invariants: a counter stands in a batch at most once; its running requests are sent as an absolute number and only
by a worker that has no other batch under way, so sending them again is harmless; a batch is numbered, so what it
gives back is applied once however often it is sent.
"""

from collections import deque
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import msgspec

from crosslogic.limits.bucket import Reservation
from crosslogic.limits.model import RATES, Admitted, Dimension, Headroom, Rejected, Scope, Unit
from crosslogic.limits.plan import Counter, Plan, unit_and_capacity_s

SCRIPT = files("crosslogic.limits").joinpath("admit.lua").read_text(encoding="utf-8")
MAX_ROWS = 500
MAX_ASKS = 500

_US = 1e6
_encode = msgspec.msgpack.Encoder().encode


class RemoteCounter(Counter):
    """A scope whose truth is in Redis: here is what Redis has to be told next.

    Its own buckets (`full_at_s`) are in use only while this worker is alone.
    """

    __slots__ = (
        "alone_us",
        "back_requests",
        "back_tokens",
        "batch",
        "has_slots",
        "has_tokens",
        "key",
        "rates",
        "row",
        "told",
    )

    def __init__(self, scope: Scope, prefix: str) -> None:
        super().__init__(scope)
        self.key = f"{prefix}{scope.layer.value}:{scope.id}".encode()
        self.back_requests = 0
        self.back_tokens = 0
        self.alone_us: dict[int, float] | None = None
        self.told = True  # False: it waits in the limiter's list of counters to tell Redis about
        self.batch: object = None  # the batch being written that has it, at place `row`
        self.row = 0

    def governed_by(self, scope: Scope) -> None:
        limits = scope.limits
        flat: list[float] = [-1 if limits.concurrency is None else limits.concurrency]
        self.has_slots = limits.concurrency is not None
        self.has_tokens = False
        for place, rate in enumerate(RATES):
            limit = limits.ceiling(rate.dimension)
            if limit is not None:
                unit_s, capacity_s = unit_and_capacity_s(rate, limit, limits.burst_share)
                tokens = rate.unit is Unit.TOKENS
                self.has_tokens |= tokens
                flat += [place + 1, int(tokens), unit_s * _US, capacity_s * _US, limit]
        self.rates = msgspec.Raw(_encode(flat))

    def idle(self, now_s: float) -> bool:
        return self.told and super().idle(now_s)


class News:
    """The counters that Redis must be told about, each once, oldest first."""

    def __init__(self) -> None:
        self._untold: deque[RemoteCounter] = deque()

    def __len__(self) -> int:
        return len(self._untold)

    def add(self, counter: RemoteCounter) -> None:
        if counter.told:
            counter.told = False
            self._untold.append(counter)

    def take(self) -> list[RemoteCounter]:
        """As many as fit into one batch."""
        taken = [self._untold.popleft() for _ in range(min(MAX_ROWS, len(self._untold)))]
        for counter in taken:
            counter.told = True
        return taken


class Ask(msgspec.Struct):
    """One request that waits for its answer."""

    plan: Plan[RemoteCounter]
    tokens: int
    answered: Any  # asyncio.Future[Admitted | Rejected]; this file does not touch it


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
    keys: list[bytes]
    payload: bytes
    retires: bool
    asked_s: float  # when its first ask came
    sent_s: float = 0.0
    abandoned: bool = False  # its asks have been answered here
    lost: bool = False  # it must be sent again to know what became of it

    @property
    def scopes(self) -> int:
        return len(self.keys) - 2


class Answer(msgspec.Struct, array_like=True):
    """What `admit.lua` returns."""

    epoch: float
    workers: int
    rank: int
    verdicts: list[tuple[int, int, int, float, int, int, float, int, int, float]]


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
    keys = [f"{prefix}workers".encode(), f"{prefix}answer:{session.name}".encode()]
    rows: list[object] = []
    for counter in counters:
        if counter.batch is not mark:
            _add_row(counter, mark, keys, rows)
    asked: list[list[int]] = []
    for ask in asks:
        numbers = [ask.tokens]
        for counter in ask.plan.counters:
            if counter.batch is not mark:
                _add_row(counter, mark, keys, rows)
            numbers.append(counter.row)
        asked.append(numbers)
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
        )
    )
    return Batch(asks, keys, payload, retires, asked_s)


def _add_row(counter: RemoteCounter, mark: object, keys: list[bytes], rows: list[object]) -> None:
    counter.batch = mark
    keys.append(counter.key)
    if counter.alone_us is None:
        rows.append((counter.rates, counter.in_flight, counter.back_requests, counter.back_tokens))
    else:
        rows.append((counter.rates, counter.in_flight, counter.back_requests, counter.back_tokens, counter.alone_us))
        counter.alone_us = None
    counter.row = len(rows)
    counter.back_requests = 0
    counter.back_tokens = 0


def read(reply: bytes) -> Answer:
    """Decode the script's answer. Raises msgspec.MsgspecError when it is none."""
    return _decode_answer(reply)


def failed_for_good(error: str) -> bool:
    """Sending the same batch again would fail again: the script itself failed, not the state of this Redis.

    Redis 6 wraps a passing state (no memory left, a replica) in the words of a failed script.
    """
    passing = ("OOM", "READONLY", "MISCONF", "NOREPLICAS", "LOADING", "BUSY")
    return error.startswith("ERR") and not any(word in error for word in passing)


def outcome(ask: Ask, verdict: tuple[int, int, int, float, int, int, float, int, int, float]) -> Admitted | Rejected:
    """One verdict in the words of the port."""
    whose, which, never, wait_us, r_limit, r_left, r_reset_us, t_limit, t_left, t_reset_us = verdict
    requests = Headroom(r_limit, r_left, r_reset_us / _US) if r_limit >= 0 else None
    tokens = Headroom(t_limit, t_left, t_reset_us / _US) if t_limit >= 0 else None
    plan = ask.plan
    if whose == 0:
        return Admitted(plan.scopes, ask.tokens, requests, tokens, Reservation(plan, local=False))
    dimension = RATES[which - 1].dimension if which else Dimension.CONCURRENCY
    layer = plan.scopes[whose - 1].layer
    return Rejected(layer, dimension, wait_us / _US, requests, tokens, too_large=never == 1)
