"""What administrators may do with orgs, environments and keys.

The rules on names and numbers are in `rules.py`; users, operators and plans in `accounts.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from crosslogic.cache.model import NO_CHOICE, CacheChoice
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import InvalidRequest
from crosslogic.kernel.ids import KeyId, OrgId, UserId, new_env_id, new_key_id, new_org_id
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.tenancy import keys, rows, rules
from crosslogic.tenancy.accounts import AuditService, OperatorService, PlanService, UserService
from crosslogic.tenancy.accounts_sql import UsersSql
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.members import Members
from crosslogic.tenancy.model import (
    UNSCOPED,
    ApiKey,
    AtCap,
    Environment,
    Org,
    Plan,
    Role,
    Scoping,
    Status,
    SuspendedFor,
)
from crosslogic.tenancy.sql import TenancySql
from crosslogic.tenancy.writing import Writer, not_found

DEFAULT_PLAN = "free"


class CreatedKey(msgspec.Struct, frozen=True):
    """A new key with its plain text, which is shown once and kept nowhere."""

    key: ApiKey
    token: str

    def __repr__(self) -> str:
        return f"CreatedKey({self.key.id}, {self.key.prefix}…)"


class RotatedKey(msgspec.Struct, frozen=True):
    """The key that is in the place of another one; `token` is None where the rotation had been done before."""

    key: ApiKey
    token: str | None

    def __repr__(self) -> str:
        return f"RotatedKey({self.key.id}, {self.key.prefix}…)"


class TenancyService:
    """Checks, then acts through `TenancySql`, whose errors it passes on. Orgs and environments are named by id or
    name. Raises InvalidRequest for input against the rules."""

    def __init__(
        self,
        sql: TenancySql,
        hash_key: keys.KeyHasher,
        clock: Clock,
        configured_plans: Callable[[], Iterable[Plan]] = tuple,
        actor: Actor = SYSTEM,
        default_plan: str = DEFAULT_PLAN,
    ) -> None:
        """`default_plan` is what an org is on that names none."""
        trail = AuditTrail(actor, hash_key, clock)
        writer = Writer(sql.engine, trail)
        self._sql = sql.recording(trail)
        self._hash_key = hash_key
        self._clock = clock
        self._configured_plans = configured_plans
        self._default_plan = default_plan
        self.users = UserService(writer, clock)
        self.operators = OperatorService(writer, hash_key, clock)
        self.plans = PlanService(writer, configured_plans, clock)
        self.audit = AuditService(writer)
        self.members = Members(self._sql, UsersSql(writer), hash_key, clock)

    def acting_as(self, actor: Actor) -> "TenancyService":
        """The same service; what it changes is written down as done by `actor`."""
        return TenancyService(self._sql, self._hash_key, self._clock, self._configured_plans, actor, self._default_plan)

    # orgs

    async def create_org(
        self,
        name: str,
        *,
        billing_plan: str | None = None,
        limits: Limits = NO_LIMITS,
        allowed_models: Sequence[str] = (),
        env_limits: Limits = NO_LIMITS,
        key_limits: Limits = NO_LIMITS,
        region_preferences: Sequence[str] = (),
        billing_enabled: bool = True,
        data_residency: bool = False,
        cache: CacheChoice = NO_CHOICE,
        at_cap: AtCap = AtCap.REJECT,
    ) -> Org:
        rules.check_name(name)
        billing_plan = billing_plan or self._default_plan
        await self.plans.check_known(billing_plan)
        org = Org(
            id=new_org_id(),
            name=name,
            status=Status.ACTIVE,
            created_at=self._clock.now(),
            billing_plan=billing_plan,
            limits=rules.checked(limits),
            allowed_models=rules.models(allowed_models),
            env_limits=rules.checked(env_limits, "env_limits"),
            key_limits=rules.checked(key_limits, "key_limits"),
            region_preferences=rules.regions(region_preferences),
            billing_enabled=billing_enabled,
            data_residency=data_residency,
            cache=rules.cache_choice(cache),
            at_cap=at_cap,
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
        billing_plan: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Org]:
        return await self._sql.orgs(
            name_prefix=name_prefix,
            status=status,
            billing_plan=billing_plan,
            after=after,
            limit=rules.page_limit(limit),
        )

    async def change_org(
        self,
        org: str,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
        billing_plan: str | None = None,
        env_limits: Limits | None = None,
        key_limits: Limits | None = None,
        region_preferences: Sequence[str] | None = None,
        billing_enabled: bool | None = None,
        data_residency: bool | None = None,
        cache: CacheChoice | None = None,
        at_cap: AtCap | None = None,
        suspended_for: SuspendedFor | None = None,
    ) -> Org:
        """Change what is given; None leaves as it is. `suspended_for` goes with the status SUSPENDED, and says that
        the system may take the org up again; without it, that is for people."""
        values = _changed(status, limits, allowed_models, cache, env_limits=env_limits, key_limits=key_limits)
        if status is not None:
            values["suspended_for"] = None if suspended_for is None else suspended_for.value
        if at_cap is not None:
            values["at_cap"] = at_cap.value
        if region_preferences is not None:
            values["region_preferences"] = list(rules.regions(region_preferences))
        if billing_enabled is not None:
            values["billing_enabled"] = billing_enabled
        if data_residency is not None:
            values["data_residency"] = data_residency
        if billing_plan is not None:
            await self.plans.check_known(billing_plan)
            values["billing_plan"] = billing_plan
        return await self._sql.change_org((await self._sql.org(org)).id, values)

    async def take_up(self, org_id: OrgId, suspended_for: SuspendedFor) -> bool:
        """Make an org active that was suspended for this; False where it is not so any more."""
        return await self._sql.take_up(org_id, suspended_for)

    async def suspended(self, suspended_for: SuspendedFor) -> list[OrgId]:
        """Orgs that the system suspended for this."""
        return await self._sql.suspended(suspended_for)

    # environments

    async def create_environment(
        self,
        org: str,
        name: str,
        *,
        region: str | None = None,
        data_residency: bool = False,
        limits: Limits = NO_LIMITS,
        allowed_models: Sequence[str] = (),
        key_limits: Limits = NO_LIMITS,
        cache: CacheChoice = NO_CHOICE,
        at_cap: AtCap = AtCap.REJECT,
    ) -> Environment:
        rules.check_name(name)
        env = Environment(
            id=new_env_id(),
            org_id=(await self._sql.org(org)).id,
            name=name,
            created_at=self._clock.now(),
            region=None if region is None else rules.region(region),
            data_residency=data_residency,
            limits=rules.checked(limits),
            allowed_models=rules.models(allowed_models),
            key_limits=rules.checked(key_limits, "key_limits"),
            cache=rules.cache_choice(cache),
            at_cap=at_cap,
        )
        await self._sql.add_environment(env)
        return env

    async def environment(self, org: str, env: str) -> Environment:
        return await self._sql.environment((await self._sql.org(org)).id, env)

    async def environment_of_id(self, env_id: str) -> Environment:
        """Whichever org it is of. Raises NotFound."""
        found = await self._sql.all_environments([env_id])
        if not found:
            raise not_found("environment")
        return found[0]

    async def environments(
        self,
        org: str,
        *,
        name_prefix: str = "",
        status: Status | None = None,
        region: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> list[Environment]:
        return await self._sql.environments(
            (await self._sql.org(org)).id,
            name_prefix=name_prefix,
            status=status,
            region=region,
            after=after,
            limit=rules.page_limit(limit),
        )

    async def change_environment(
        self,
        org: str,
        env: str,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        allowed_models: Sequence[str] | None = None,
        key_limits: Limits | None = None,
        region: str | None = None,
        unpin: bool = False,
        data_residency: bool | None = None,
        cache: CacheChoice | None = None,
        at_cap: AtCap | None = None,
    ) -> Environment:
        """Change what is given; None leaves as it is. `unpin` takes the region away."""
        values = _changed(status, limits, allowed_models, cache, key_limits=key_limits)
        if at_cap is not None:
            values["at_cap"] = at_cap.value
        if region is not None:
            values["region"] = rules.region(region)
        elif unpin:
            values["region"] = None
        if data_residency is not None:
            values["data_residency"] = data_residency
        return await self._sql.change_environment((await self.environment(org, env)).id, values)

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
        scoping: Scoping = UNSCOPED,
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
            name=rules.shown_name(name),
            key_hash=self._hash_key(token.encode()),
            prefix=keys.shown_prefix(token),
            role=role,
            status=Status.ACTIVE,
            created_at=now,
            created_by=created_by,
            region=None if region is None else rules.region(region),
            limits=rules.checked(limits),
            expires_at=rules.expiry(expires_at, now),
            scoping=rules.scoping(scoping),
        )
        await self._sql.add_key(key)
        return CreatedKey(key, token)

    async def rotate_key(
        self, key_id: KeyId, *, grace_s: float = 0.0, ref: str | None = None, org_id: OrgId | None = None
    ) -> RotatedKey:
        """A new key with all settings of this one, which works on for `grace_s` seconds (document §19).

        Idempotent: repeated under the same `ref` (an Idempotency-Key), or without one within the grace, it makes no
        second key and returns the first again, without its plain text: that is shown once. Whoever lost it rotates
        the new key. Raises Conflict for a key that is revoked, expired or was rotated otherwise.
        """
        now = self._clock.now()
        ends_at = rules.end_of_grace(grace_s, now)
        old = await self._sql.key(key_id, org_id)
        token = keys.generate(keys.KeyKind(old.prefix.split("_")[1]))
        new = msgspec.structs.replace(
            old,
            id=new_key_id(),
            key_hash=self._hash_key(token.encode()),
            prefix=keys.shown_prefix(token),
            created_at=now,
            last_used_at=None,
            replaced_by=None,
            rotation_ref=None,
        )
        earlier = await self._sql.rotate_key(old.id, new, now=now, ends_at=ends_at, ref=rules.reference(ref))
        return RotatedKey(new, token) if earlier is None else RotatedKey(earlier, None)

    async def key(self, key_id: KeyId, org_id: OrgId | None = None) -> ApiKey:
        """Raises NotFound, also for a key of another org than `org_id`."""
        return await self._sql.key(key_id, org_id)

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
        role: Role | None = None,
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
            role=role,
            after=after,
            limit=rules.page_limit(limit),
        )

    async def change_key(
        self,
        key_id: KeyId,
        *,
        status: Status | None = None,
        limits: Limits | None = None,
        name: str | None = None,
        scoping: Scoping | None = None,
        org_id: OrgId | None = None,
    ) -> ApiKey:
        """Suspend, take up again, revoke (for good), limit, rename or scope anew. What a key is (its org, environment
        and role) never changes. Raises Conflict for a revoked key, NotFound for one of another org than `org_id`."""
        values = _changed(status, limits, None)
        if name is not None:
            values["name"] = rules.shown_name(name)
        if scoping is not None:
            values["scoping"] = rows.scoping_document(rules.scoping(scoping))
        if not key_id.isascii() or not key_id.isprintable():
            raise not_found("key")
        if org_id is not None:
            await self._sql.key(key_id, org_id)  # a key never moves to another org, so this stays true
        return await self._sql.change_key(key_id, values)


def _changed(
    status: Status | None,
    limits: Limits | None,
    allowed_models: Sequence[str] | None,
    cache: CacheChoice | None = None,
    **more_limits: Limits | None,
) -> dict[str, Any]:
    """The columns of what is given."""
    values: dict[str, Any] = {}
    if status is not None:
        values["status"] = status.value
    if allowed_models is not None:
        values["allowed_models"] = list(rules.models(allowed_models))
    if cache is not None:
        values["cache"] = rows.cache_document(rules.cache_choice(cache))
    for name, each in {"limits": limits, **more_limits}.items():
        if each is not None:
            values[name] = rows.limits_document(rules.checked(each, name))
    return values
