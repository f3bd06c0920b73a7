"""What an administrator may do with orgs, environments and keys, with every rule on names and numbers.

Invariant: a name that is stored can stand in a URL (`/{org}/{env}/{model}/v1/…`) and is never mistaken for an id
or for one of our own paths.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import KeyId, UserId, new_env_id, new_key_id, new_org_id
from crosslogic.limits.model import NO_LIMITS, Dimension, Limits
from crosslogic.tenancy import keys
from crosslogic.tenancy.model import ApiKey, Environment, Org, Role, Status
from crosslogic.tenancy.sql import TenancySql

PAGE_LIMIT = 500
MAX_MODELS = 1_000
MAX_KEY_NAME = 200
MAX_CEILING = 10**15  # far above any real rate, far below what the counters can hold
RESERVED_NAMES = frozenset({"v1", "admin", "api", "console", "docs", "health", "metrics", "ready"})
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class CreatedKey(msgspec.Struct, frozen=True):
    """A new key with its plain text, which is shown once and kept nowhere."""

    key: ApiKey
    token: str

    def __repr__(self) -> str:
        return f"CreatedKey({self.key.id}, {self.key.prefix}…)"


class TenancyService:
    """Checks, then acts through `TenancySql`, whose errors it passes on. Orgs and environments are named by id or
    name. Raises InvalidRequest for input against the rules."""

    def __init__(self, sql: TenancySql, hash_key: keys.KeyHasher, clock: Clock) -> None:
        self._sql = sql
        self._hash_key = hash_key
        self._clock = clock

    # orgs

    async def create_org(
        self,
        name: str,
        *,
        billing_plan: str = "free",
        limits: Limits = NO_LIMITS,
        allowed_models: Sequence[str] = (),
    ) -> Org:
        _check_name(name)
        org = Org(
            id=new_org_id(),
            name=name,
            status=Status.ACTIVE,
            created_at=self._clock.now(),
            billing_plan=billing_plan,
            limits=_checked(limits),
            allowed_models=_models(allowed_models),
        )
        await self._sql.add_org(org)
        return org

    async def org(self, org: str) -> Org:
        return await self._sql.org(org)

    async def orgs(
        self,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Org]:
        return await self._sql.orgs(name_prefix=name_prefix, status=status, after=after, limit=_page_limit(limit))

    async def change_org(
        self,
        org: str,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
        billing_plan: str | None = None,
    ) -> Org:
        return await self._sql.change_org(
            (await self._sql.org(org)).id,
            status=status,
            limits=None if limits is None else _checked(limits),
            allowed_models=None if allowed_models is None else _models(allowed_models),
            billing_plan=billing_plan,
        )

    # environments

    async def create_environment(
        self,
        org: str,
        name: str,
        *,
        region: str | None = None,
        limits: Limits = NO_LIMITS,
        allowed_models: Sequence[str] = (),
    ) -> Environment:
        _check_name(name)
        env = Environment(
            id=new_env_id(),
            org_id=(await self._sql.org(org)).id,
            name=name,
            created_at=self._clock.now(),
            region=region,
            limits=_checked(limits),
            allowed_models=_models(allowed_models),
        )
        await self._sql.add_environment(env)
        return env

    async def environment(self, org: str, env: str) -> Environment:
        return await self._sql.environment((await self._sql.org(org)).id, env)

    async def environments(
        self,
        org: str,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Environment]:
        return await self._sql.environments(
            (await self._sql.org(org)).id,
            name_prefix=name_prefix,
            status=status,
            after=after,
            limit=_page_limit(limit),
        )

    async def change_environment(
        self,
        org: str,
        env: str,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
    ) -> Environment:
        return await self._sql.change_environment(
            (await self.environment(org, env)).id,
            status=status,
            limits=None if limits is None else _checked(limits),
            allowed_models=None if allowed_models is None else _models(allowed_models),
        )

    # keys

    async def create_key(
        self,
        org: str,
        env: str,
        *,
        name: str,
        role: Role = Role.DEVELOPER,
        region: str | None = None,
        limits: Limits = NO_LIMITS,
        expires_at: datetime | None = None,
        created_by: UserId | None = None,
        token: str | None = None,
    ) -> CreatedKey:
        """A key of the environment: `clsk_live_…` for the one named prod, `clsk_test_…` for all others.

        `token` takes over a key that was generated elsewhere (the one that `crosslogic up` remembers).
        """
        environment = await self.environment(org, env)
        if token is None:
            kind = keys.KeyKind.LIVE if environment.name == "prod" else keys.KeyKind.TEST
            token = keys.generate(kind)
        elif keys.kind_of(token) not in (keys.KeyKind.LIVE, keys.KeyKind.TEST):
            raise InvalidRequest("this is not an API key of ours", param="token")
        now = self._clock.now()
        key = ApiKey(
            id=new_key_id(),
            org_id=environment.org_id,
            env_id=environment.id,
            name=_key_name(name),
            key_hash=self._hash_key(token.encode()),
            prefix=keys.shown_prefix(token),
            role=role,
            status=Status.ACTIVE,
            created_at=now,
            created_by=created_by,
            region=region,
            limits=_checked(limits),
            expires_at=_expiry(expires_at, now),
        )
        await self._sql.add_key(key)
        return CreatedKey(key, token)

    async def rotate_key(self, key_id: KeyId) -> CreatedKey:
        """A new key with all settings of this one, which is revoked in the same instant (document §19).

        Raises Conflict when it is revoked already.
        """
        old = await self._sql.key(key_id)
        token = keys.generate(keys.KeyKind(old.prefix.split("_")[1]))
        new = msgspec.structs.replace(
            old,
            id=new_key_id(),
            key_hash=self._hash_key(token.encode()),
            prefix=keys.shown_prefix(token),
            created_at=self._clock.now(),
            last_used_at=None,
        )
        await self._sql.add_key(new, replaces=old.id)
        return CreatedKey(new, token)

    async def key(self, key_id: KeyId) -> ApiKey:
        return await self._sql.key(key_id)

    async def key_of_token(self, token: str) -> ApiKey | None:
        """The stored key that this plain text is, if any."""
        return await self._sql.key_by_hash(self._hash_key(token.encode())) if keys.looks_valid(token) else None

    async def keys(
        self,
        *,
        org: str | None = None,
        env: str | None = None,
        name_prefix: str = "",
        status: Status | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[ApiKey]:
        if env is not None and org is None:
            raise InvalidRequest("an environment is named together with its org", param="org")
        org_id = None if org is None else (await self._sql.org(org)).id
        env_id = None if org_id is None or env is None else (await self._sql.environment(org_id, env)).id
        return await self._sql.keys(
            org_id=org_id,
            env_id=env_id,
            name_prefix=name_prefix,
            status=status,
            after=after,
            limit=_page_limit(limit),
        )

    async def change_key(self, key_id: KeyId, *, status: Status | None = None, limits: Limits | None = None) -> ApiKey:
        """Suspend, take up again, revoke (for good), or limit. Raises Conflict for a revoked key."""
        return await self._sql.change_key(key_id, status=status, limits=None if limits is None else _checked(limits))


def _check_name(name: str) -> None:
    if _NAME.fullmatch(name) is None or name in RESERVED_NAMES:
        raise InvalidRequest(
            "a name is 1 to 63 lower-case letters, digits and inner hyphens, and none of "
            + ", ".join(sorted(RESERVED_NAMES)),
            param="name",
        )


def _key_name(name: str) -> str:
    name = name.strip()
    if not 0 < len(name) <= MAX_KEY_NAME or not name.isprintable():
        raise InvalidRequest(f"a key's name is 1 to {MAX_KEY_NAME} printable characters", param="name")
    return name


def _checked(limits: Limits) -> Limits:
    for dimension in Dimension:
        ceiling = limits.ceiling(dimension)
        if ceiling is not None and not 0 <= ceiling <= MAX_CEILING:
            raise InvalidRequest(f"{dimension} is 0 to {MAX_CEILING}", param=f"limits.{dimension}")
    if not 0 < limits.burst_share <= 1:
        raise InvalidRequest("burst_share is above 0 and at most 1", param="limits.burst_share")
    return limits


def _models(models: Sequence[str]) -> tuple[str, ...]:
    if len(models) > MAX_MODELS or any(not 0 < len(model) <= MAX_KEY_NAME for model in models):
        raise InvalidRequest(
            f"at most {MAX_MODELS} models, each named in 1 to {MAX_KEY_NAME} characters", param="allowed_models"
        )
    return tuple(dict.fromkeys(models))


def _expiry(expires_at: datetime | None, now: datetime) -> datetime | None:
    if expires_at is None:
        return None
    if expires_at.tzinfo is None:
        raise InvalidRequest("give the time zone of expires_at, as in 2030-01-01T00:00:00Z", param="expires_at")
    if expires_at <= now:
        raise InvalidRequest("expires_at lies in the past", param="expires_at")
    return expires_at.astimezone(UTC)


def _page_limit(limit: int) -> int:
    if not 1 <= limit <= PAGE_LIMIT:
        raise InvalidRequest(f"limit is between 1 and {PAGE_LIMIT}", param="limit")
    return limit
