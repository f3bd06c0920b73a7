"""Values of the four-layer limits (architecture document §14-16): what may be limited, what is asked, what is answered.

A new rate dimension is one line in `Limits`, `Dimension` and `RATES`; the adapters read only that table.
"""

from enum import StrEnum

import msgspec


class Layer(StrEnum):
    GLOBAL = "global"
    ORG = "org"
    ENV = "env"
    KEY = "key"


class Dimension(StrEnum):
    REQUESTS_PER_SECOND = "requests_per_second"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"
    TOKENS_PER_SECOND = "tokens_per_second"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_HOUR = "tokens_per_hour"
    TOKENS_PER_DAY = "tokens_per_day"
    CONCURRENCY = "concurrency"


class Unit(StrEnum):
    """What a rate counts."""

    REQUESTS = "requests"
    TOKENS = "tokens"


class Rate(msgspec.Struct, frozen=True):
    """One dimension that refills with time. `Limits` has a field named like the dimension."""

    dimension: Dimension
    unit: Unit
    period_s: float


# The place in this table is stored in Redis: append, never reorder.
RATES: tuple[Rate, ...] = (
    Rate(Dimension.REQUESTS_PER_SECOND, Unit.REQUESTS, 1.0),
    Rate(Dimension.REQUESTS_PER_MINUTE, Unit.REQUESTS, 60.0),
    Rate(Dimension.REQUESTS_PER_DAY, Unit.REQUESTS, 86_400.0),
    Rate(Dimension.TOKENS_PER_SECOND, Unit.TOKENS, 1.0),
    Rate(Dimension.TOKENS_PER_MINUTE, Unit.TOKENS, 60.0),
    Rate(Dimension.TOKENS_PER_HOUR, Unit.TOKENS, 3_600.0),
    Rate(Dimension.TOKENS_PER_DAY, Unit.TOKENS, 86_400.0),
)


class Limits(msgspec.Struct, frozen=True):
    """Ceilings of one scope; None is no ceiling, 0 lets nothing through.

    `burst_share` is how much of one period's limit may be spent at once (see `bucket.py` for the bound that
    follows). It holds for every rate of the scope, and never means less than one request or token.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    concurrency: int | None = None
    requests_per_second: int | None = None
    requests_per_day: int | None = None
    tokens_per_second: int | None = None
    tokens_per_hour: int | None = None
    tokens_per_day: int | None = None
    burst_share: float = 1.0

    def ceiling(self, dimension: Dimension) -> int | None:
        """The ceiling of one dimension, or None."""
        value: int | None = getattr(self, dimension.value)
        return value

    @property
    def unlimited(self) -> bool:
        """No ceiling in any dimension."""
        return all(self.ceiling(dimension) is None for dimension in Dimension)


NO_LIMITS = Limits()


class Scope(msgspec.Struct, frozen=True):
    """One counter owner: a layer and the id of its org, environment or key (`global` for the global one)."""

    layer: Layer
    id: str
    limits: Limits


class Headroom(msgspec.Struct, frozen=True):
    """What the binding (tightest) ceiling leaves, for the `x-ratelimit-*` headers; None where nothing limits.

    `reset_s` is the time until that bucket is full again, as in OpenAI's headers.
    """

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
    """Nothing was reserved in any scope. A caller that is alone and waits `retry_after_s` will be admitted.

    With `too_large` waiting does not help: this request alone costs more than the bucket ever holds (or the
    ceiling is 0), so the caller must ask for less; `retry_after_s` is then only a polite pause. A full
    concurrency ceiling has no clock of its own: `retry_after_s` is then one second.
    """

    layer: Layer
    dimension: Dimension
    retry_after_s: float
    requests: Headroom | None = None
    tokens: Headroom | None = None
    too_large: bool = False
