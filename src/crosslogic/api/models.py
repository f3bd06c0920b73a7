"""Bodies of the management API. Unknown fields are refused, so that nobody sets what is not theirs to set."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from crosslogic.api.limit_models import LimitsBody, ViewedLimits
from crosslogic.cache.model import NO_CHOICE, CacheChoice, Use
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.tenancy.model import UNSCOPED, ApiKey, AtCap, Environment, Org, Role, Scoping, Status

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


Limit = Annotated[int, Query(ge=1, le=500)]


def page_of(views: list[T], ids: Sequence[object], limit: int) -> "Page[T]":
    """`ids` are what each row is found again by; a page that is not full is the last."""
    return Page(data=views, next_cursor=str(ids[-1]) if len(ids) == limit else None)


def after_instant(cursor: str | None) -> tuple[datetime, str] | None:
    """Of rows that are in order of an instant, then of an id: where the page before ended. Raises InvalidRequest."""
    if cursor is None:
        return None
    at, found, row_id = cursor.partition("|")
    try:
        instant = datetime.fromisoformat(at)
    except ValueError:
        raise InvalidRequest("this cursor is of no page", param="cursor") from None
    if not found or instant.tzinfo is None:
        raise InvalidRequest("this cursor is of no page", param="cursor")
    return instant, row_id


class CacheBody(Body):
    """A choice on the response cache; null or left out is inherited, from the org, then from the configuration.

    Where it is changed, all is replaced together.
    """

    use: Use | None = Field(default=None, description="`off`, `opt_in` (requests ask with x-cache) or `on`")
    sampled: bool | None = Field(default=None, description="also answers at any temperature; else deterministic ones")
    ttl_s: float | None = Field(default=None, description="how long answers are kept, 1 s to 30 days")

    def value(self) -> CacheChoice:
        return CacheChoice(self.use, self.sampled, self.ttl_s)


class CacheView(View):
    use: Use | None
    sampled: bool | None
    ttl_s: float | None


def cache_or_none(body: CacheBody | None) -> CacheChoice:
    return NO_CHOICE if body is None else body.value()


def cache_given(body: CacheBody | None) -> CacheChoice | None:
    return None if body is None else body.value()


class OrgCreate(Body):
    name: Word
    billing_plan: Word | None = Field(default=None, description="absent: the configured default, else free")
    limits: LimitsBody | None = None
    allowed_models: list[Word] = Field(default=[], description="empty: all")
    env_limits: LimitsBody | None = Field(default=None, description="of each environment that sets none of its own")
    key_limits: LimitsBody | None = Field(default=None, description="of each key that sets none of its own")
    region_preferences: list[Word] = Field(default=[], description="best first")
    billing_enabled: bool = True
    at_cap: AtCap = Field(default=AtCap.REJECT, description="when a month's spending cap is met: reject or suspend")
    data_residency: bool = Field(default=False, description="true: served in its region, or not at all")
    cache: CacheBody | None = Field(default=None, description="of each environment that chooses nothing")


class OrgChange(Body):
    """What is left out stays as it is."""

    status: Suspension | None = None
    billing_plan: Word | None = None
    limits: LimitsBody | None = None
    allowed_models: list[Word] | None = None
    env_limits: LimitsBody | None = None
    key_limits: LimitsBody | None = None
    region_preferences: list[Word] | None = None
    billing_enabled: bool | None = None
    at_cap: AtCap | None = None
    data_residency: bool | None = None
    cache: CacheBody | None = None


class OwnOrgChange(Body):
    """What an org may change of itself: what lies below the ceilings that it bought. The rest stays as it is."""

    env_limits: LimitsBody | None = None
    key_limits: LimitsBody | None = None
    region_preferences: list[Word] | None = None
    data_residency: bool | None = None
    cache: CacheBody | None = None


class OrgView(View):
    id: str
    name: str
    status: Status
    billing_plan: str
    limits: ViewedLimits
    allowed_models: tuple[str, ...]
    env_limits: ViewedLimits
    key_limits: ViewedLimits
    region_preferences: tuple[str, ...]
    billing_enabled: bool
    at_cap: AtCap
    data_residency: bool
    cache: CacheView
    created_at: datetime

    @classmethod
    def of(cls, org: Org) -> "OrgView":
        return cls.model_validate(org)


class EnvironmentCreate(Body):
    name: Word
    region: Word | None = None
    data_residency: bool = Field(default=False, description="true: served in its region, or not at all")
    limits: LimitsBody | None = None
    allowed_models: list[Word] = Field(default=[], description="empty: all that the org may use")
    key_limits: LimitsBody | None = Field(default=None, description="of each key that sets none of its own")
    at_cap: AtCap = Field(default=AtCap.REJECT, description="when a month's spending cap is met: reject or suspend")
    cache: CacheBody | None = None


class EnvironmentChange(Body):
    """What is left out stays as it is."""

    status: Suspension | None = None
    limits: LimitsBody | None = None
    allowed_models: list[Word] | None = None
    key_limits: LimitsBody | None = None
    region: Word | None = Field(default=None, description="null, when it is sent, takes the region away")
    data_residency: bool | None = None
    at_cap: AtCap | None = None
    cache: CacheBody | None = None


class EnvironmentView(View):
    id: str
    org_id: str
    name: str
    status: Status
    region: str | None
    data_residency: bool
    limits: ViewedLimits
    allowed_models: tuple[str, ...]
    key_limits: ViewedLimits
    at_cap: AtCap
    cache: CacheView
    created_at: datetime

    @classmethod
    def of(cls, env: Environment) -> "EnvironmentView":
        return cls.model_validate(env)


class ScopingBody(Body):
    """What a key is good for; an empty list restricts nothing. Where it is changed, all is replaced together."""

    models: list[Word] = []
    endpoints: list[Word] = Field(
        default=[], description="paths without /v1/, such as chat/completions; `management` is the management API"
    )
    regions: list[Word] = Field(default=[], description="regions besides the key's own that it may be served in")
    networks: list[Word] = Field(default=[], description="CIDR blocks that callers come from, IPv4 and IPv6")

    def value(self) -> Scoping:
        return Scoping(tuple(self.models), tuple(self.endpoints), tuple(self.regions), tuple(self.networks))


class ScopingView(View):
    models: tuple[str, ...]
    endpoints: tuple[str, ...]
    regions: tuple[str, ...]
    networks: tuple[str, ...]


class OwnKeyCreate(Body):
    environment: Word = Field(description="id, or name within the org")
    name: Word
    role: Role = Role.DEVELOPER
    region: Word | None = Field(default=None, description="the key stays in it")
    limits: LimitsBody | None = None
    expires_at: Instant | None = None
    scoping: ScopingBody | None = None

    def scope(self) -> Scoping:
        return UNSCOPED if self.scoping is None else self.scoping.value()


class KeyCreate(OwnKeyCreate):
    org: Word = Field(description="id or name")


class KeyChange(Body):
    """What is left out stays as it is. Revoking is final. Org, environment and role of a key never change."""

    status: Status | None = None
    limits: LimitsBody | None = None
    name: Word | None = None
    scoping: ScopingBody | None = None


class KeyRotation(Body):
    grace_s: float = Field(default=0.0, description="seconds for which the old key works on; 0: it is revoked at once")


class KeyView(View):
    id: str
    org_id: str
    env_id: str
    name: str
    prefix: str
    role: Role
    status: Status
    region: str | None
    limits: ViewedLimits
    created_by: str | None
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    scoping: ScopingView
    replaced_by: str | None = Field(description="the key that a rotation put in its place")

    @classmethod
    def of(cls, key: ApiKey) -> "KeyView":
        return cls.model_validate(key)


class CreatedKeyView(KeyView):
    key: str = Field(description="the API key itself: shown this once, stored nowhere")


class RotatedKeyView(KeyView):
    key: str | None = Field(description="the new API key, shown this once; null where the rotation is repeated")
