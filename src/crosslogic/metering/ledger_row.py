"""The rows of the ledger and the chain of hashes that holds them together, log by log: one log for each org. Pure.

Invariant: a row's hash covers all of it and the hash of the row before it; positions have no holes, and the head says
which row is the last. So a changed, added, removed or moved row is noticed, unless all that follow it and the head are
forged as well: who keeps a head elsewhere notices that too. Anybody can check it, no secret is needed.
The hash is over JSON of the fields that are not null, in the order of their names; so fields that come later, and are
null before, change no hash that was written.
"""

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec

_DOMAIN = b"crosslogic usage 1\n"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class LedgerRow(msgspec.Struct, frozen=True):
    """One row. An original (`n` 0) is a dispatched request; a correction holds what to add to it, which may be less
    than nothing, with the original's time, tenant, model and place."""

    request_id: str
    n: int
    seq: int  # in the log of its org
    timestamp_us: int  # arrival of the request, microseconds since 1970
    org_id: str
    env_id: str
    key_id: str
    endpoint: str
    model: str
    region: str
    node_id: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    evidence: str
    outcome: str
    finish_reason: str | None
    http_status: int
    streamed: bool
    attempts: int
    latency_ms: int
    first_token_ms: int | None
    client_request_id: str | None
    cost_pusd: int
    cost_microdollars: int
    price_version: str | None
    failed_nodes: str | None
    region_asked: str | None
    failover: bool
    reason: str | None = None  # of a correction
    actor: str | None = None  # of a correction
    recorded_us: int | None = None  # when it came into the ledger
    once: str | None = None  # hex; equal for runs of one request under one idempotency key (`once.py`)
    repeat_of: str | None = None  # the request that is charged in the place of this one, which costs nothing
    hash: bytes = b""


class LedgerHead(msgspec.Struct, frozen=True):
    """The end of an org's log; an empty one has position 0 and no hash."""

    org_id: str
    seq: int = 0
    hash: bytes = b""


class LogStart(msgspec.Struct, frozen=True):
    """Where an org's log begins: rows up to `seq` were dropped, and this is what is known of them."""

    org_id: str
    seq: int = 0
    hash: bytes = b""  # of the last of them: the chain goes on from here
    cutoff: datetime = _EPOCH  # they had arrived before it
    total_tokens: int = 0
    cost_pusd: int = 0
    rating_state: str | None = None  # what rating remembered behind them, in its own words


class LogVerdict(msgspec.Struct, frozen=True):
    """Rows behind `dropped` up to `rows` were found in order, up to the first that is not, if there is one."""

    org_id: str
    rows: int
    head: str  # hex; keep it elsewhere, and nobody can rewrite the log unnoticed
    wrong_seq: int | None = None
    problem: str | None = None
    dropped: int = 0  # rows before the beginning of the log

    @property
    def intact(self) -> bool:
        return self.problem is None


# Names of the database where ours differ.
_STORED = {"timestamp_us": "timestamp", "recorded_us": "recorded_at"}
_HASHED = tuple(sorted((_STORED.get(name, name), name) for name in LedgerRow.__struct_fields__ if name != "hash"))


def canonical(row: LedgerRow) -> bytes:
    """What is hashed: times in whole microseconds, money as text."""
    fields = {stored: value for stored, name in _HASHED if (value := getattr(row, name)) is not None}
    fields["cost_pusd"] = str(row.cost_pusd)
    return msgspec.json.encode(fields)


def chained_hash(previous: bytes, row: LedgerRow) -> bytes:
    return hashlib.sha256(_DOMAIN + previous.hex().encode() + b"\n" + canonical(row)).digest()


def append(head: LedgerHead, rows: Iterable[LedgerRow]) -> tuple[LedgerHead, list[LedgerRow]]:
    """The rows as they follow `head`, and the new head."""
    appended = []
    for row in rows:
        placed = msgspec.structs.replace(row, seq=head.seq + 1)
        placed = msgspec.structs.replace(placed, hash=chained_hash(head.hash, placed))
        appended.append(placed)
        head = LedgerHead(head.org_id, placed.seq, placed.hash)
    return head, appended


def follow(head: LedgerHead, rows: Iterable[LedgerRow]) -> tuple[LedgerHead, LogVerdict | None]:
    """Check that `rows` go on from `head`: the new head, and what is wrong if something is."""
    for row in rows:
        expected = head.seq + 1
        if row.seq != expected:
            problem = f"row {expected} is missing: {row.seq} comes next"
            if row.seq < expected:
                problem = f"there are two rows {row.seq}"
            return head, _wrong(head, expected, problem)
        if chained_hash(head.hash, row) != row.hash:
            return head, _wrong(head, expected, f"row {expected} is not what was written")
        head = LedgerHead(head.org_id, row.seq, row.hash)
    return head, None


def ended(reached: LedgerHead, recorded: LedgerHead, last_seq: int) -> LogVerdict:
    """Judge the end: all rows were followed to `reached`, the database says `recorded` and `last_seq`."""
    if last_seq > recorded.seq:
        return _wrong(reached, recorded.seq + 1, f"row {recorded.seq + 1} was added past the end of the log")
    if reached.seq < recorded.seq:
        return _wrong(reached, reached.seq + 1, f"the log ends at row {reached.seq}, it had {recorded.seq}")
    if reached.hash != recorded.hash:
        return _wrong(reached, reached.seq, "the end of the log is not what was written")
    return LogVerdict(reached.org_id, reached.seq, reached.hash.hex())


def microseconds(at: datetime) -> int:
    """Exact, unlike `timestamp()`."""
    past = at - _EPOCH
    return (past.days * 86_400 + past.seconds) * 1_000_000 + past.microseconds


def is_before(row: LedgerRow, cutoff: datetime) -> bool:
    """Whether a row is of the time before `cutoff`: by its arrival, or by its id, which begins with it."""
    return row.timestamp_us < microseconds(cutoff) or row.request_id < first_id(cutoff)


def first_id(at: datetime) -> str:
    """What request ids of this time and later are not below."""
    return f"req_{microseconds(at) // 1000:012x}"


def _wrong(head: LedgerHead, seq: int, problem: str) -> LogVerdict:
    return LogVerdict(head.org_id, head.seq, head.hash.hex(), seq, problem)
