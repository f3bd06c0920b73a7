"""Plan → org → environment → key, users beside them, and the Principal that a request carries once it is known."""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.cache.model import NO_CACHE, NO_CHOICE, CacheChoice, CachePolicy
from crosslogic.kernel.ids import EnvId, KeyId, OperatorId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Limits, Scope
from crosslogic.tenancy.bounds import Bounds
from crosslogic.tenancy.networks import Networks


class Status(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Role(StrEnum):
    ADMIN = "admin"
    DEVELOPER = "developer"
    READ_ONLY = "read-only"


class AtCap(StrEnum):
    """What becomes of an org or environment whose spending cap of the month leaves no room for a request."""

    REJECT = "reject"  # requests are refused until the next month, or until the cap is raised
    SUSPEND = "suspend"  # and it is suspended, until an administrator takes it up again


class SuspendedFor(StrEnum):
    """Why the system suspended an org, which it takes up again by itself once that is over."""

    UNPAID = "unpaid"  # an invoice after its days of grace
    SPENDING_CAP = "spending_cap"  # of who pays ahead, until there are credits again


class Feature(StrEnum):
    """What a plan may include (interface document, `Feature`)."""

    API_ACCESS = "api_access"
    PRIORITY_QUEUE = "priority_queue"
    ADVANCED_MODELS = "advanced_models"
    CUSTOM_MODELS = "custom_models"
    DEDICATED_CAPACITY = "dedicated_capacity"


class QueuePolicy(StrEnum):
    """In which order requests of a plan wait (interface document, `SchedulerConfig`; product documentation §24)."""

    FIFO = "fifo"
    PRIORITY = "priority"
    WEIGHTED_FAIR = "weighted-fair"
    PREEMPTIVE = "preemptive"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an org buys: the interface document's `Tier`, and the price list of the product documentation.

    `limits` are ceilings of each org on this plan; `env_limits` and `key_limits` of each of its environments and
    keys. They hold where nothing nearer says otherwise (`inherit.py`).
    """

    id: str
    name: str
    features: tuple[Feature, ...] = (Feature.API_ACCESS,)
    limits: Limits = NO_LIMITS
    env_limits: Limits = NO_LIMITS
    key_limits: Limits = NO_LIMITS
    max_queue_depth: int | None = None  # requests that may wait; None: the queue's own bound
    priority: int = 1  # higher is served first
    weight: int = 1  # share of a full fleet: twice the weight, twice the tokens of an org on this plan
    price_per_token_pusd: int | None = None  # None: the price list decides, by model
    price_per_month_pusd: int = 0
    included_tokens_per_month: int = 0
    support: str | None = None
    sla_percent: str | None = None  # as it is sold: "99.9"
    policy: QueuePolicy | None = None  # None: `scheduling.policy`


class Org(msgspec.Struct, frozen=True):
    """Architecture document §10.2, and the interface document's `TenantSettings`.

    Its `MaxConcurrency` is `limits.concurrency`, its `CustomRateLimit` the rest of `limits`. `env_limits` and
    `key_limits` hold for each environment and key of the org that has no ceiling of its own in that dimension.
    """

    id: OrgId
    name: str
    status: Status
    created_at: datetime
    billing_plan: str = "free"
    limits: Limits = NO_LIMITS
    allowed_models: tuple[str, ...] = ()  # empty: all
    env_limits: Limits = NO_LIMITS
    key_limits: Limits = NO_LIMITS
    region_preferences: tuple[str, ...] = ()  # the first serves where neither key nor environment names a region
    billing_enabled: bool = True  # False: what it uses is recorded and costs nothing
    at_cap: AtCap = AtCap.REJECT
    cache: CacheChoice = NO_CHOICE  # holds where an environment chooses nothing
    data_residency: bool = False  # nothing of it is ever served outside of the region that it asks for
    suspended_for: SuspendedFor | None = None  # None: active, or suspended by somebody

    @property
    def may_pay(self) -> bool:
        """Whether its admins may still see to its bills."""
        return self.status is Status.ACTIVE or (self.status is Status.SUSPENDED and self.suspended_for is not None)


class Environment(msgspec.Struct, frozen=True):
    """Architecture document §11.1."""

    id: EnvId
    org_id: OrgId
    name: str
    created_at: datetime
    status: Status = Status.ACTIVE
    region: str | None = None
    limits: Limits = NO_LIMITS
    allowed_models: tuple[str, ...] = ()
    key_limits: Limits = NO_LIMITS
    at_cap: AtCap = AtCap.REJECT
    cache: CacheChoice = NO_CHOICE
    data_residency: bool = False  # as the org's; either of them is enough


class User(msgspec.Struct, frozen=True):
    """A person of an org. `limits` hold for requests that the user signs with a JSON web token."""

    id: UserId
    org_id: OrgId
    email: str  # in lower case, unique in the org
    name: str
    role: Role
    created_at: datetime
    status: Status = Status.ACTIVE
    limits: Limits = NO_LIMITS


class Operator(msgspec.Struct, frozen=True):
    """Who runs the platform: of no org, with an admin key of their own. READ_ONLY may look, ADMIN may do all."""

    id: OperatorId
    name: str
    key_hash: bytes
    prefix: str
    role: Role
    status: Status
    created_at: datetime


class Scoping(msgspec.Struct, frozen=True):
    """What a key is good for; an empty tuple restricts nothing.

    `endpoints` are paths without `/v1/` ("chat/completions"), or "management" for the management API. A key with
    a region stays in it; `regions` are others that it may be served in.
    """

    models: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()  # CIDR blocks that callers come from, IPv4 and IPv6


UNSCOPED = Scoping()


class ApiKey(msgspec.Struct, frozen=True):
    """Architecture document §9.2. The key itself is not here: only its hash and a prefix to recognise it by.

    A rotated key names its successor in `replaced_by`; until `expires_at` (the end of the grace) both work.
    """

    id: KeyId
    org_id: OrgId
    env_id: EnvId
    name: str
    key_hash: bytes
    prefix: str
    role: Role
    status: Status
    created_at: datetime
    created_by: UserId | None = None
    region: str | None = None
    limits: Limits = NO_LIMITS
    expires_at: datetime | None = None
    last_used_at: datetime | None = None  # from the usage ledger; not stored with the key
    scoping: Scoping = UNSCOPED
    replaced_by: KeyId | None = None
    rotation_ref: str | None = None  # the Idempotency-Key of the rotation that replaced it


class Principal(msgspec.Struct, frozen=True, gc=False):
    """Who sends this request, with all that the hot path asks about them, computed once per key.

    `scopes` are the layers global, org, environment, key in this order, those without any ceiling left out.
    `refusal` is why this key may not be used at present (its org is suspended, say), or None.
    """

    org_id: OrgId
    org_name: str
    env_id: EnvId
    env_name: str
    key_id: KeyId
    role: Role
    region: str | None
    allowed_models: frozenset[str] | None
    scopes: tuple[Scope, ...]
    expires_at_s: float | None = None  # seconds since 1970
    reservable_tokens: int | None = None  # the most that one request may reserve under `scopes`
    reservable_output_tokens: int | None = None  # of output alone
    bounds: Bounds | None = None  # what one request may be at most; None: anything, and no money is counted
    price_per_token_pusd: int | None = None  # the plan's own, 0 where nothing is billed; None: the price list
    refusal: str | None = None  # "tenant_suspended" | "key_suspended" | "key_revoked"
    restricted: bool = False  # `scope_check.refusal_of` has something to check
    allowed_endpoints: frozenset[str] | None = None
    allowed_regions: frozenset[str] | None = None
    region_allowed: bool = True  # `region` and `allowed_regions` have a place in common
    networks: Networks | None = None
    region_fallbacks: tuple[str, ...] = ()  # the org's preferences after `region`
    data_residency: bool = False
    plan_id: str = ""
    features: frozenset[Feature] | None = None  # None: the plan is not known here, nothing is denied
    priority: int = 1
    weight: int = 1
    max_queue_depth: int | None = None
    policy: QueuePolicy | None = None  # None: as all others
    user_id: UserId | None = None
    cache: CachePolicy = NO_CACHE
