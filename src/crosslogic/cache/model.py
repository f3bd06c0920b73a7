"""Values of the room: a recorded answer, the key it is kept under, and what a tenant wants cached.

Invariant: a recording is a whole answer that a caller was shown to its end, byte for byte; nothing partial and no
error is ever made into one (`Tap` gives None instead).
"""

from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import EnvId, OrgId, RequestId

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
    env_id: EnvId = EnvId("")
    endpoint: str = ""

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


class Selection(msgspec.Struct, frozen=True):
    """Some of an org's answers; None is any."""

    env_id: EnvId | None = None
    model: str | None = None

    def includes(self, env_id: str, model: str) -> bool:
        return self.env_id in (None, env_id) and self.model in (None, model)


EVERYTHING = Selection()


def selections_of(env_id: EnvId, model: str) -> tuple[Selection, ...]:
    """All that an answer of this environment and model is in: clearing any of them takes the answer."""
    return EVERYTHING, Selection(env_id), Selection(None, model), Selection(env_id, model)


class Entry(msgspec.Struct, frozen=True):
    """A kept answer as it is listed: all about it, nothing of what it says."""

    key: CacheKey
    request_id: RequestId
    env_id: EnvId
    endpoint: str
    model: str
    streamed: bool
    size_bytes: int  # that it takes where it is kept
    hit_count: int
    cached_at_s: float  # seconds since 1970
    ttl_s: float  # left


class EntryPage(msgspec.Struct, frozen=True):
    """Some entries in order of their end. A page may be short although more follow: None says that nothing does."""

    entries: tuple[Entry, ...]
    next_cursor: str | None = None


class CachedAnswer(msgspec.Struct, frozen=True):
    """A hit (`CachedResponse` of the interface document)."""

    recording: Recording
    cached_at_s: float  # seconds since 1970
    hit_count: int  # this hit included


class Use(StrEnum):
    """When the cache is used at all."""

    OFF = "off"
    OPT_IN = "opt_in"  # for requests that ask for it by `x-cache`
    ON = "on"  # for all, but those whose `x-cache` declines


class CachePolicy(msgspec.Struct, frozen=True):
    """What holds for an environment. The default caches nothing until a request asks for it."""

    use: Use = Use.OPT_IN
    sampled: bool = False  # also answers that an engine would not give alike again: every repeat gets the first one
    ttl_s: float = 3600.0


NO_CACHE = CachePolicy(Use.OFF)


class CacheChoice(msgspec.Struct, frozen=True):
    """What an environment or org says for itself; None is inherited, from the org and then from the configuration."""

    use: Use | None = None
    sampled: bool | None = None
    ttl_s: float | None = None


NO_CHOICE = CacheChoice()


def in_force(configured: CachePolicy, *choices: CacheChoice) -> CachePolicy:
    """The policy that the choices, nearest first, come to."""
    said: dict[str, object] = {}
    for choice in reversed(choices):
        said |= {name: value for name, value in msgspec.structs.asdict(choice).items() if value is not None}
    return msgspec.structs.replace(configured, **said) if said else configured


class Question(msgspec.Struct, frozen=True):
    """What this room needs to know of a request."""

    org_id: OrgId
    request_id: RequestId
    endpoint: str
    model: str  # canonical id
    generates: bool  # False for embeddings, rerank and score: only the prompt is read
    form: Form
    body: bytes  # as the caller sent it
    env_id: EnvId
