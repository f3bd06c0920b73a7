"""Org → environment → key, and the Principal that a request carries once its key is resolved."""

from datetime import datetime
from enum import StrEnum

import msgspec

from crosslogic.kernel.ids import EnvId, KeyId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Limits, Scope


class Status(StrEnum):
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REVOKED = "revoked"


class Role(StrEnum):
    ADMIN = "admin"
    DEVELOPER = "developer"
    READ_ONLY = "read-only"


class Org(msgspec.Struct, frozen=True):
    """Architecture document §10.2."""

    id: OrgId
    name: str
    status: Status
    created_at: datetime
    billing_plan: str = "free"
    limits: Limits = NO_LIMITS
    allowed_models: tuple[str, ...] = ()  # empty: all


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


class ApiKey(msgspec.Struct, frozen=True):
    """Architecture document §9.2. The key itself is not here: only its hash and a prefix to recognise it by."""

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
    refusal: str | None = None  # "tenant_suspended" | "key_suspended" | "key_revoked"
