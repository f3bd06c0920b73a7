"""Values of the room: a recorded answer, the key it is kept under, and what a tenant wants cached.

Invariant: a recording is a whole answer that a caller was shown to its end, byte for byte; nothing partial and no
error is ever made into one (`Tap` gives None instead).
"""

from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import OrgId, RequestId

ENTRY_OVERHEAD_BYTES = 512  # what the bookkeeping of one kept answer costs beside its bytes


class Form(StrEnum):
    """How an answer was asked for. Part of the key: an answer is given again only in the form it was recorded in."""

    WHOLE = "whole"
    STREAM = "stream"
    STREAM_WITH_USAGE = "stream+usage"


def form_of(stream: bool, asked_for_usage: bool) -> Form:
    """The form that a request asks for."""
    if not stream:
        return Form.WHOLE
    return Form.STREAM_WITH_USAGE if asked_for_usage else Form.STREAM


class Tokens(msgspec.Struct, frozen=True, array_like=True):
    """What the engine counted when it made the answer; `metering` has the same fields, but stands above us."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0


class Recording(msgspec.Struct, frozen=True, array_like=True):
    """One whole answer. Append fields at the end only, with defaults: what Redis holds must stay readable.

    `pieces` are the body of a whole answer, or the packets of a stream as its caller got them, the end included.
    """

    request_id: RequestId  # whose usage record was written for it
    model: str
    streamed: bool
    status: int
    content_type: bytes
    pieces: tuple[bytes, ...]
    tokens: Tokens
    finish_reason: str | None = None

    @property
    def size_bytes(self) -> int:
        """Length of the answer."""
        return sum(map(len, self.pieces))


class CacheKey(msgspec.Struct, frozen=True):
    """Where an answer is kept: always below its org, so that no two orgs can meet."""

    org_id: OrgId
    digest: bytes  # SHA-256

    @property
    def shown(self) -> str:
        """As callers see it in `x-cache-key`, and name it to have the answer deleted."""
        return self.digest.hex()


class CachedAnswer(msgspec.Struct, frozen=True):
    """A hit (`CachedResponse` of the interface document)."""

    recording: Recording
    cached_at_s: float  # seconds since 1970
    hit_count: int  # this hit included


class Mode(StrEnum):
    """Which requests may be answered from the cache at all."""

    NEVER = "never"
    DETERMINISTIC = "deterministic"  # those that an engine would answer alike again
    ALWAYS = "always"  # sampled ones too: every repeat gets the first answer


class CachePolicy(msgspec.Struct, frozen=True):
    """What an environment wants. The default caches nothing until a request asks for it."""

    mode: Mode = Mode.DETERMINISTIC
    unasked: bool = False  # also requests without an `x-cache` header
    ttl_s: float = 3600.0


class Question(msgspec.Struct, frozen=True):
    """What this room needs to know of a request."""

    org_id: OrgId
    request_id: RequestId
    endpoint: str
    model: str  # canonical id
    generates: bool  # False for embeddings, rerank and score: only the prompt is read
    form: Form
    body: bytes  # as the caller sent it
