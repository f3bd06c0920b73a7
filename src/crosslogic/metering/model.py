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


class Evidence(StrEnum):
    """Where the token numbers come from."""

    ENGINE = "engine"  # the engine's own usage
    CACHED = "cached"  # no node ran: the tokens that the engine told when the answer was made
    COUNTED = "counted"  # the engine gave none; counted from what passed through
    ESTIMATED = "estimated"  # nothing passed; from the length of the prompt
    NONE = "none"  # nothing was generated


class Usage(msgspec.Struct, frozen=True):
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = 0
    reasoning_tokens: int = 0


class Intent(msgspec.Struct, frozen=True, tag="intent", array_like=True):
    """Written before dispatch, so that a request whose gateway dies is still known."""

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
    total_tokens: int
    cost_pusd: int
