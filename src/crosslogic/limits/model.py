"""Values of the layered limits (architecture document §14-17): what may be limited, what is asked, what is answered.

A new rate dimension is one line in `Limits`, `Dimension` and `RATES`; the adapters read only that table.
"""

from enum import StrEnum

import msgspec

PUSD_PER_NUSD = 1000


class Layer(StrEnum):
    """Where a limit stands, outermost first: the order in which the scopes of a request are given."""

    GLOBAL = "global"
    REGION = "region"
    RESERVED = "reserved"  # reserved capacity: a guarantee, see `Scope.guarantee`
    ORG = "org"
    ENV = "env"
    KEY = "key"

    @property
    def shared(self) -> bool:
        """Ceilings of the platform, which reserved traffic passes by; the others are the caller's own."""
        return self in _SHARED


_SHARED = frozenset((Layer.GLOBAL, Layer.REGION))


class Dimension(StrEnum):
    REQUESTS_PER_SECOND = "requests_per_second"
    REQUESTS_PER_MINUTE = "requests_per_minute"
    REQUESTS_PER_DAY = "requests_per_day"
    TOKENS_PER_SECOND = "tokens_per_second"
    TOKENS_PER_MINUTE = "tokens_per_minute"
    TOKENS_PER_HOUR = "tokens_per_hour"
    TOKENS_PER_DAY = "tokens_per_day"
    CONCURRENCY = "concurrency"
    INPUT_TOKENS_PER_MINUTE = "input_tokens_per_minute"
    OUTPUT_TOKENS_PER_MINUTE = "output_tokens_per_minute"
    INPUT_TOKENS_PER_DAY = "input_tokens_per_day"
    OUTPUT_TOKENS_PER_DAY = "output_tokens_per_day"
    INPUT_TOKENS_PER_SECOND = "input_tokens_per_second"
    OUTPUT_TOKENS_PER_SECOND = "output_tokens_per_second"
    INPUT_TOKENS_PER_HOUR = "input_tokens_per_hour"
    OUTPUT_TOKENS_PER_HOUR = "output_tokens_per_hour"
    SPEND_PER_HOUR = "spend_per_hour"
    SPEND_PER_DAY = "spend_per_day"
    SPEND_PER_MONTH = "spend_per_month"
    MAX_INPUT_TOKENS = "max_input_tokens"
    MAX_OUTPUT_TOKENS = "max_output_tokens"
    MAX_TOTAL_TOKENS = "max_total_tokens"

    @property
    def field(self) -> str:
        """The name of its ceiling in `Limits`; money says its unit there."""
        return f"{self.value}_pusd" if self in _OF_MONEY else self.value

    @property
    def of_money(self) -> bool:
        """Its ceiling is in pico-USD."""
        return self in _OF_MONEY

    @property
    def quota(self) -> bool:
        """Worth a day or a month: a caller is not told to slow down but that it has had its share (403, not 429)."""
        return self in _QUOTAS


_OF_MONEY = frozenset((Dimension.SPEND_PER_HOUR, Dimension.SPEND_PER_DAY, Dimension.SPEND_PER_MONTH))
_QUOTAS = frozenset(
    (
        Dimension.REQUESTS_PER_DAY,
        Dimension.TOKENS_PER_DAY,
        Dimension.INPUT_TOKENS_PER_DAY,
        Dimension.OUTPUT_TOKENS_PER_DAY,
        Dimension.SPEND_PER_DAY,
        Dimension.SPEND_PER_MONTH,
    )
)
_MAXIMA = (Dimension.MAX_INPUT_TOKENS, Dimension.MAX_OUTPUT_TOKENS, Dimension.MAX_TOTAL_TOKENS)
_COUNTED = tuple(dimension for dimension in Dimension if dimension not in _MAXIMA)


class Unit(StrEnum):
    """What a rate counts. `MONEY` is counted in nano-USD, rounded up for each request and down for each ceiling."""

    REQUESTS = "requests"
    TOKENS = "tokens"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    MONEY = "money"


class Rate(msgspec.Struct, frozen=True):
    """One dimension that refills with time."""

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
    Rate(Dimension.INPUT_TOKENS_PER_MINUTE, Unit.INPUT_TOKENS, 60.0),
    Rate(Dimension.OUTPUT_TOKENS_PER_MINUTE, Unit.OUTPUT_TOKENS, 60.0),
    Rate(Dimension.INPUT_TOKENS_PER_DAY, Unit.INPUT_TOKENS, 86_400.0),
    Rate(Dimension.OUTPUT_TOKENS_PER_DAY, Unit.OUTPUT_TOKENS, 86_400.0),
    Rate(Dimension.SPEND_PER_HOUR, Unit.MONEY, 3_600.0),
    Rate(Dimension.SPEND_PER_DAY, Unit.MONEY, 86_400.0),
    Rate(Dimension.INPUT_TOKENS_PER_SECOND, Unit.INPUT_TOKENS, 1.0),
    Rate(Dimension.OUTPUT_TOKENS_PER_SECOND, Unit.OUTPUT_TOKENS, 1.0),
    Rate(Dimension.INPUT_TOKENS_PER_HOUR, Unit.INPUT_TOKENS, 3_600.0),
    Rate(Dimension.OUTPUT_TOKENS_PER_HOUR, Unit.OUTPUT_TOKENS, 3_600.0),
)


class Demand(msgspec.Struct, frozen=True):
    """What one request asks for, or has used. One request and one running slot go with it."""

    input_tokens: int
    output_tokens: int
    cost_pusd: int = 0

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens

    @property
    def cost_nusd(self) -> int:
        """The cost in nano-USD, rounded up: what the money ceilings count."""
        return -(-self.cost_pusd // PUSD_PER_NUSD)

    @property
    def units(self) -> tuple[int, int, int, int, int]:
        """How much it takes of each `Unit`, in the order of `Unit`."""
        given, made = self.input_tokens, self.output_tokens
        return 1, given + made, given, made, -(-self.cost_pusd // PUSD_PER_NUSD)


NO_DEMAND = Demand(0, 0)


class Limits(msgspec.Struct, frozen=True):
    """Ceilings of one scope; None is no ceiling, 0 lets nothing through.

    `burst_share` is how much of one period's limit may be spent at once (see `bucket.py` for the bound that
    follows). It holds for every rate of the scope, and never means less than one request or token.
    `spend_per_month_pusd` is no rate but the budget of a calendar month (UTC). The `max_…` fields hold for each
    request by itself. With `shadow` the scope counts and tells, but refuses nobody.
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
    input_tokens_per_minute: int | None = None
    output_tokens_per_minute: int | None = None
    input_tokens_per_day: int | None = None
    output_tokens_per_day: int | None = None
    spend_per_hour_pusd: int | None = None
    spend_per_day_pusd: int | None = None
    spend_per_month_pusd: int | None = None
    max_input_tokens: int | None = None
    max_output_tokens: int | None = None
    max_total_tokens: int | None = None
    shadow: bool = False
    input_tokens_per_second: int | None = None
    output_tokens_per_second: int | None = None
    input_tokens_per_hour: int | None = None
    output_tokens_per_hour: int | None = None

    def ceiling(self, dimension: Dimension) -> int | None:
        """The ceiling of one dimension in its own unit (money: pico-USD), or None."""
        value: int | None = getattr(self, dimension.field)
        return value

    def units(self, rate: Rate) -> int | None:
        """The ceiling of a rate in what the rate counts (money: nano-USD), or None."""
        ceiling = self.ceiling(rate.dimension)
        return ceiling // PUSD_PER_NUSD if ceiling is not None and rate.unit is Unit.MONEY else ceiling

    @property
    def budget_nusd(self) -> int | None:
        """The month's budget in nano-USD, or None."""
        budget = self.spend_per_month_pusd
        return None if budget is None else budget // PUSD_PER_NUSD

    @property
    def unlimited(self) -> bool:
        """No ceiling in any dimension."""
        return all(self.ceiling(dimension) is None for dimension in Dimension)

    @property
    def counted(self) -> bool:
        """Something here must be counted: there is more than ceilings for each request by itself."""
        return any(self.ceiling(dimension) is not None for dimension in _COUNTED)


NO_LIMITS = Limits()


class Scope(msgspec.Struct, frozen=True):
    """One counter owner: a layer and the id of its region, org, environment or key (`global` for the global one).

    With `guarantee` its `tokens_per_second` is not a ceiling but capacity that was promised (`Layer.RESERVED`): a
    request that finds something in that bucket is *covered*. It is charged to it, may overdraw it once, and passes
    by the shared layers. A request that finds it empty is not charged to it, and asks all layers.
    """

    layer: Layer
    id: str
    limits: Limits
    guarantee: bool = False


class Headroom(msgspec.Struct, frozen=True):
    """What the binding (tightest) ceiling leaves, for the `x-ratelimit-*` headers; None where nothing limits.

    `reset_s` is the time until that bucket is full again, as in OpenAI's headers.
    """

    limit: int
    remaining: int
    reset_s: float


class Room(msgspec.Struct, frozen=True):
    """What the binding ceilings leave at present, where nothing was asked for."""

    requests: Headroom | None
    tokens: Headroom | None


NO_CEILING = Room(None, None)


class Admitted(msgspec.Struct, frozen=True):
    """A reservation in all scopes. It must be settled or released exactly once; concurrency is held until then.

    `shadowed` are the ceilings in shadow that would have refused it.
    """

    scopes: tuple[Scope, ...]
    reserved: Demand
    requests: Headroom | None
    tokens: Headroom | None
    reservation: object = None  # what the adapter needs to settle; nobody else looks inside
    covered: bool = False  # within reserved capacity
    shadowed: tuple[tuple[Layer, Dimension], ...] = ()


class Rejected(msgspec.Struct, frozen=True):
    """Nothing was reserved in any scope. A caller that is alone and waits `retry_after_s` will be admitted.

    With `too_large` waiting does not help: this request alone costs more than the bucket ever holds (or the
    ceiling is 0), so the caller must ask for less; `retry_after_s` is then only a polite pause. A full
    concurrency ceiling has no clock of its own: `retry_after_s` is then an estimate (`turnover.py`). A spent month's
    budget is refused until the next month, though requests that still run may use less than they reserved.
    """

    layer: Layer
    dimension: Dimension
    retry_after_s: float
    requests: Headroom | None = None
    tokens: Headroom | None = None
    too_large: bool = False

    @property
    def quota(self) -> bool:
        """What is used up is a quota (403 `quota_exceeded`), not the pace (429 `rate_limit_exceeded`)."""
        return self.too_large or self.dimension.quota
