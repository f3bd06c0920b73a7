"""The usage record: one row for each dispatched request (architecture document §34)."""

from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import EnvId, KeyId, NodeId, OrgId, RequestId


class Outcome(StrEnum):
    """How the request ended, seen from the caller."""

    COMPLETED = "completed"
    CLIENT_CLOSED = "client_closed"  # the caller left; what was generated is billed
    UPSTREAM_ERROR = "upstream_error"  # the node failed and no other could serve
    TRUNCATED = "truncated"  # cut after the first byte; the caller got an error event
    TIMEOUT = "timeout"
    REFUSED = "refused"  # the engine answered 4xx
    INTERRUPTED = "interrupted"  # this gateway died in between; written by recovery


NODES_FAULT = frozenset({Outcome.UPSTREAM_ERROR, Outcome.TRUNCATED, Outcome.TIMEOUT})


class Evidence(StrEnum):
    """Where the token numbers come from."""

    ENGINE = "engine"  # the engine's own usage
    CACHED = "cached"  # no node ran: the tokens that the engine told when the answer was made
    COUNTED = "counted"  # the engine gave none; counted from what passed through
    ESTIMATED = "estimated"  # nothing passed; by the node's pace (no longer written, for it may be too high)
    CHECKPOINT = "checkpoint"  # our process died: what its last mark of the stream says, rather too little
    NONE = "none"  # nothing was generated


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Once(msgspec.Struct, frozen=True, array_like=True):
    """The idempotency key that a request runs under: all its runs are charged once (`metering/once.py`)."""

    digest: bytes  # SHA-256 of org, endpoint, key and body
    ttl_s: int  # for so long after a run's end another one is its repeat


class Intent(msgspec.Struct, frozen=True, tag="intent", array_like=True):
    """Written before dispatch, so that a request whose gateway dies is still known. Append fields at the end only."""

    request_id: RequestId
    timestamp_us: int  # microseconds since 1970
    org_id: OrgId
    env_id: EnvId
    key_id: KeyId
    endpoint: str
    model: str
    region: str
    node_id: NodeId
    prompt_tokens_estimate: int
    plan_price_pusd: int | None = None  # as in `UsageRecord`
    streamed: bool = False
    once: Once | None = None


class Checkpoint(msgspec.Struct, frozen=True, tag="mark", array_like=True):
    """How far an announced request has come: at least so much was generated. The last one of a request counts."""

    request_id: RequestId
    prompt_tokens: int  # as the engine told them; 0: it has not
    completion_tokens: int
    cached_tokens: int = 0
    from_engine: bool = False  # the engine's own usage, not our count


class Withdrawal(msgspec.Struct, frozen=True, tag="withdrawal", array_like=True):
    """What was announced by an intent did not run to an end, and nothing of it is billed: it was put back."""

    request_id: RequestId


class UsageRecord(msgspec.Struct, frozen=True, tag="usage", array_like=True):
    """Append fields at the end only: old journals must stay readable."""

    request_id: RequestId
    timestamp_us: int  # arrival, microseconds since 1970
    org_id: OrgId
    env_id: EnvId
    key_id: KeyId
    endpoint: str
    model: str
    region: str
    node_id: NodeId
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    evidence: Evidence
    outcome: Outcome
    finish_reason: str | None
    http_status: int
    streamed: bool
    attempts: int
    latency_ms: int
    first_token_ms: int | None
    client_request_id: str | None = None  # what the caller sent as X-Request-Id
    failed_nodes: tuple[NodeId, ...] = ()  # tried before `node_id`, and not billed
    region_asked: str | None = None  # pinned by key, environment or org, or chosen for it; None: anywhere would do
    failover: bool = False  # served outside of `region_asked`
    plan_price_pusd: int | None = None  # a token's price by the plan in force on arrival; None: the price book decides
    once: Once | None = None  # None: it came without an idempotency key, or a cache answered it

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class UsageSum(msgspec.Struct, frozen=True):
    """Usage of one group of ledger rows. `group` has one value for each name that was grouped by."""

    group: dict[str, str]
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_pusd: int
