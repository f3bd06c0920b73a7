"""Values of the four-layer limits (architecture document §14-16): what may be limited, what is asked, what is answered."""

from enum import StrEnum

import msgspec


class Layer(StrEnum):
    GLOBAL = "global"
    ORG = "org"
    ENV = "env"
    KEY = "key"


class Dimension(StrEnum):
    REQUESTS_PER_MINUTE = "requests_per_minute"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    CONCURRENCY = "concurrency"


class Limits(msgspec.Struct, frozen=True):
    """Ceilings of one scope; None is no ceiling."""

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None


NO_LIMITS = Limits()


class Scope(msgspec.Struct, frozen=True):
    """One counter owner: a layer and the id of its org, environment or key (`global` for the global one)."""

    layer: Layer
    id: str
    limits: Limits


class Headroom(msgspec.Struct, frozen=True):
    """What the binding (tightest) layer leaves, for the `x-ratelimit-*` headers; None where no layer limits it."""

    limit: int
    remaining: int
    reset_s: float


class Admitted(msgspec.Struct, frozen=True):
    """A reservation in all scopes. It must be settled or released exactly once; concurrency is held until then."""

    scopes: tuple[Scope, ...]
    tokens_reserved: int
    requests: Headroom | None
    tokens: Headroom | None
    reservation: object = None  # what the adapter needs to settle; nobody else looks inside


class Rejected(msgspec.Struct, frozen=True):
    """Nothing was reserved in any scope. A caller that is alone and waits `retry_after_s` will be admitted."""

    layer: Layer
    dimension: Dimension
    retry_after_s: float
    requests: Headroom | None = None
    tokens: Headroom | None = None
