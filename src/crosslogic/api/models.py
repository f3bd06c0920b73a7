"""Bodies of the management API. Unknown fields are refused, so that nobody sets what is not theirs to set."""

from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from crosslogic.kernel.money import PUSD_PER_USD, microdollars
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.metering.model import UsageSum
from crosslogic.tenancy.model import ApiKey, Environment, Org, Role, Status

# No control characters: PostgreSQL stores no NUL, and lists go to terminals.
Word = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")]
Instant = Annotated[datetime, Field(description="with time zone; without one it is taken for UTC")]
Suspension = Literal[Status.ACTIVE, Status.SUSPENDED]
T = TypeVar("T")


def in_utc(instant: datetime) -> datetime:
    return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=False)


class View(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """One page of a list; `next_cursor` is what `cursor` takes to get the next one, null on the last."""

    data: list[T]
    next_cursor: str | None = None


def _whole(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError("a ceiling is a whole number")
    return value


Ceiling = Annotated[int | None, BeforeValidator(_whole)]


class LimitsBody(Body):
    """Ceilings; null or left out is none of its own, 0 lets nothing through.

    Where limits are changed, all are replaced together.
    """

    requests_per_second: Ceiling = None
    requests_per_minute: Ceiling = None
    requests_per_day: Ceiling = None
    tokens_per_second: Ceiling = None
    tokens_per_minute: Ceiling = None
    tokens_per_hour: Ceiling = None
    tokens_per_day: Ceiling = None
    concurrency: Ceiling = None
    burst_share: float = Field(default=1.0, description="how much of a period's limit may be spent at once")

    def value(self) -> Limits:
        return Limits(**self.model_dump())


class LimitsView(View):
    requests_per_second: int | None
    requests_per_minute: int | None
    requests_per_day: int | None
    tokens_per_second: int | None
    tokens_per_minute: int | None
    tokens_per_hour: int | None
    tokens_per_day: int | None
    concurrency: int | None
    burst_share: float


def limits_or_none(body: LimitsBody | None) -> Limits:
    return NO_LIMITS if body is None else body.value()


class OrgCreate(Body):
    name: Word
    billing_plan: Word = "free"
    limits: LimitsBody | None = None
    allowed_models: list[Word] = Field(default=[], description="empty: all")


class OrgChange(Body):
    """What is left out stays as it is."""

    status: Suspension | None = None
    billing_plan: Word | None = None
    limits: LimitsBody | None = None
    allowed_models: list[Word] | None = None


class OrgView(View):
    id: str
    name: str
    status: Status
    billing_plan: str
    limits: LimitsView
    allowed_models: tuple[str, ...]
    created_at: datetime

    @classmethod
    def of(cls, org: Org) -> "OrgView":
        return cls.model_validate(org)


class EnvironmentCreate(Body):
    name: Word
    region: Word | None = None
    limits: LimitsBody | None = None
    allowed_models: list[Word] = Field(default=[], description="empty: all that the org may use")


class EnvironmentChange(Body):
    """What is left out stays as it is."""

    status: Suspension | None = None
    limits: LimitsBody | None = None
    allowed_models: list[Word] | None = None


class EnvironmentView(View):
    id: str
    org_id: str
    name: str
    status: Status
    region: str | None
    limits: LimitsView
    allowed_models: tuple[str, ...]
    created_at: datetime

    @classmethod
    def of(cls, env: Environment) -> "EnvironmentView":
        return cls.model_validate(env)


class KeyCreate(Body):
    org: Word = Field(description="id or name")
    environment: Word = Field(description="id, or name within the org")
    name: Word
    role: Role = Role.DEVELOPER
    region: Word | None = None
    limits: LimitsBody | None = None
    expires_at: Instant | None = None


class KeyChange(Body):
    """What is left out stays as it is. Revoking is final."""

    status: Status | None = None
    limits: LimitsBody | None = None


class KeyView(View):
    id: str
    org_id: str
    env_id: str
    name: str
    prefix: str
    role: Role
    status: Status
    region: str | None
    limits: LimitsView
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None

    @classmethod
    def of(cls, key: ApiKey) -> "KeyView":
        return cls.model_validate(key)


class CreatedKeyView(KeyView):
    key: str = Field(description="the API key itself: shown this once, stored nowhere")


def _exact_usd(amount: int) -> str:
    dollars, rest = divmod(abs(amount), PUSD_PER_USD)
    return f"{'-' if amount < 0 else ''}{dollars}.{rest:012d}"


class UsageSumView(BaseModel):
    group: dict[str, str] = Field(description="the values of group_by that this row sums")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    total_tokens: int
    cost_usd: str = Field(description="exact decimal, never rounded")
    cost_microdollars: int = Field(description="rounded half-even to millionths of a dollar")

    @classmethod
    def of(cls, usage: UsageSum) -> "UsageSumView":
        return cls(
            group=usage.group,
            requests=usage.requests,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            total_tokens=usage.total_tokens,
            cost_usd=_exact_usd(usage.cost_pusd),
            cost_microdollars=microdollars(usage.cost_pusd),
        )


class UsageView(BaseModel):
    org_id: str
    start: datetime | None
    end: datetime | None
    data: list[UsageSumView]
    totals: UsageSumView
