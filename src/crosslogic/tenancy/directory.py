"""All tenants in memory, and the one look-up that every request makes: key → Principal.

Pure: `sync.py` fills it and keeps it fresh. Invariant: a principal always agrees with the key, environment, org,
plan and configured limits that were put in last; changing one drops the principals made from it, and the next
look-up makes them again. Environments and orgs must be put before the keys inside them are looked up; until then
such a key resolves to None.
"""

from collections.abc import Iterable

import msgspec

from crosslogic.cache.model import NO_CACHE, CachePolicy, in_force
from crosslogic.catalog.regions import Regions
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Limits, Unit
from crosslogic.limits.scopes import reservable_tokens, scopes_of
from crosslogic.tenancy.bounds import bounds_of
from crosslogic.tenancy.inherit import nearest
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.model import (
    UNSCOPED,
    Environment,
    Feature,
    Org,
    Plan,
    Principal,
    Role,
    Scoping,
    Status,
    User,
)
from crosslogic.tenancy.networks import compiled
from crosslogic.tenancy.places import meets


class LayerLimits(msgspec.Struct, frozen=True):
    """What the configuration says of each layer. `org`, `env` and `key` hold where nothing nearer says otherwise."""

    global_: Limits = NO_LIMITS
    org: Limits = NO_LIMITS
    env: Limits = NO_LIMITS
    key: Limits = NO_LIMITS
    region: Limits = NO_LIMITS
    regions: dict[str, Limits] = {}

    def of_region(self, name: str) -> Limits:
        """Ceilings of all requests that are for this region."""
        own = self.regions.get(name)
        return self.region if own is None else nearest(own, self.region)

    def of_org(self, org: Org, plan: Plan) -> Limits:
        """Ceilings of all requests of the org."""
        return nearest(org.limits, plan.limits, self.org)

    def of_env(self, env: Environment, org: Org, plan: Plan) -> Limits:
        """Ceilings of all requests of the environment."""
        return nearest(env.limits, org.env_limits, plan.env_limits, self.env)


class KeyEntry(msgspec.Struct, gc=False):
    """What the directory holds of a key: less than `ApiKey`, for there may be very many."""

    id: KeyId
    key_hash: bytes
    env_id: EnvId
    role: Role
    status: Status
    region: str | None = None
    limits: Limits = NO_LIMITS
    expires_at_s: float | None = None  # seconds since 1970
    principal: Principal | None = None  # made at the first look-up
    scoping: Scoping = UNSCOPED
    user_id: UserId | None = None  # who made it


class Directory:
    """`version` rises with every change that may concern a principal other than through its key."""

    def __init__(
        self,
        hash_key: KeyHasher,
        limits: LayerLimits | None = None,
        plans: Iterable[Plan] = (),
        cache: CachePolicy | None = None,
        home_region: str = "local",
        regions: Regions | None = None,
    ) -> None:
        """`cache` holds for those who choose nothing; None: there is no cache here, whatever they choose.

        `home_region` is where requests belong that neither key nor environment nor org places anywhere; `regions`
        says which names lie in which (None: each is a place of its own).
        """
        self.version = 0
        self._home_region = home_region
        self._regions = regions or Regions()
        self._cache = cache
        self._hash_key = hash_key
        self._limits = limits or LayerLimits()
        self._configured_plans = {plan.id: plan for plan in plans}
        self._stored_plans: dict[str, Plan] = {}
        self._clear()

    def __len__(self) -> int:
        return len(self._by_id)

    def resolve(self, token: bytes) -> Principal | None:
        """Who presents this key; None when there is no such key. Costs about a microsecond.

        The caller looks at `refusal`, and compares `expires_at_s` with its clock.
        """
        entry = self._by_hash.get(self._hash_key(token))
        if entry is None:
            return None
        return entry.principal or self._identify(entry)

    def member(
        self,
        org: str,
        env: str | None,
        *,
        caller_id: str,
        role: Role | None,
        default_role: Role,
        email: str | None = None,
        expires_at_s: float | None = None,
    ) -> Principal | None:
        """Somebody without a key, of this org and environment (by id or name), as a JSON web token says it.

        A user with this `email` in the org lends id and limits, is refused unless active, and has a role where
        the token gives none. An org's only environment need not be named. None when there is no such org or
        environment.
        """
        found_org = self._orgs.get(self._org_ids.get(org, OrgId(org)))
        found_env = self._environment_in(found_org, env) if found_org is not None else None
        if found_org is None or found_env is None:
            return None
        user = self._users.get((found_org.id, email.lower())) if email else None
        refusal = _refusal_of_tenant(found_org, found_env)
        if refusal is None and user is not None and user.status is not Status.ACTIVE:
            refusal = "user_suspended"
        return self._principal(
            found_org,
            found_env,
            key_id=KeyId(caller_id if user is None else user.id),
            role=role or (default_role if user is None else user.role),
            region=None,
            limits=NO_LIMITS if user is None else user.limits,
            scoping=UNSCOPED,
            expires_at_s=expires_at_s,
            refusal=refusal,
            user_id=None if user is None else user.id,
        )

    def budgeted_orgs(self) -> set[OrgId]:
        """Orgs under which a month's spend may be capped. Some may be among them whose cap is gone."""
        plans = {**self._configured_plans, **self._stored_plans}
        capped_plans = {id for id, plan in plans.items() if _caps(plan.limits, plan.env_limits, plan.key_limits)}
        everybody = _caps(self._limits.org, self._limits.env, self._limits.key)
        found = set(self._budgeted)
        if everybody or capped_plans:
            found |= {org.id for org in self._orgs.values() if everybody or org.billing_plan in capped_plans}
        return found & self._orgs.keys()

    # what changes

    def put_org(self, org: Org) -> None:
        self._orgs[org.id] = org
        if _caps(org.limits, org.env_limits, org.key_limits):
            self._budgeted.add(org.id)
        self._org_ids[org.name] = org.id
        self._forget(self._envs_of.get(org.id, ()))

    def put_environment(self, env: Environment) -> None:
        self._environments[env.id] = env
        if _caps(env.limits, env.key_limits):
            self._budgeted.add(env.org_id)
        self._env_ids[env.org_id, env.name] = env.id
        self._envs_of.setdefault(env.org_id, set()).add(env.id)
        self._forget((env.id,))

    def put_user(self, user: User) -> None:
        self._users[user.org_id, user.email] = user
        self.version += 1

    def put_key(self, entry: KeyEntry) -> None:
        self.remove_key(entry.id)
        known = self._environments.get(entry.env_id)
        if known is not None:
            entry.env_id = known.id  # one string for all keys of the environment
            if entry.limits.spend_per_month_pusd is not None:
                self._budgeted.add(known.org_id)
                self.version += 1  # whoever asks for `budgeted_orgs` must ask again
        self._by_id[entry.id] = entry
        self._by_hash[entry.key_hash] = entry
        self._keys_of.setdefault(entry.env_id, {})[entry.id] = entry

    def remove_key(self, key_id: KeyId) -> None:
        gone = self._by_id.pop(key_id, None)
        if gone is not None:
            del self._by_hash[gone.key_hash]
            del self._keys_of[gone.env_id][key_id]

    def set_limits(self, limits: LayerLimits) -> None:
        self._limits = limits
        self._forget(self._environments)

    def configure_plans(self, plans: Iterable[Plan]) -> None:
        """Plans of the configuration, and the shipped ones behind them."""
        self._configured_plans = {plan.id: plan for plan in plans}
        self._forget(self._environments)

    def store_plans(self, plans: Iterable[Plan]) -> None:
        """Plans of the database, which come before those of the configuration."""
        self._stored_plans = {plan.id: plan for plan in plans}
        self._forget(self._environments)

    def replace(
        self,
        orgs: Iterable[Org],
        environments: Iterable[Environment],
        keys: Iterable[KeyEntry],
        users: Iterable[User] = (),
    ) -> None:
        """Put everything anew but plans; what is not in the arguments is gone."""
        self._clear()
        for org in orgs:
            self.put_org(org)
        for env in environments:
            self.put_environment(env)
        for user in users:
            self.put_user(user)
        for entry in keys:
            self.put_key(entry)

    def _clear(self) -> None:
        self._orgs: dict[OrgId, Org] = {}
        self._budgeted: set[OrgId] = set()
        self._org_ids: dict[str, OrgId] = {}
        self._environments: dict[EnvId, Environment] = {}
        self._env_ids: dict[tuple[OrgId, str], EnvId] = {}
        self._envs_of: dict[OrgId, set[EnvId]] = {}
        self._users: dict[tuple[OrgId, str], User] = {}
        self._by_hash: dict[bytes, KeyEntry] = {}
        self._by_id: dict[KeyId, KeyEntry] = {}
        self._keys_of: dict[EnvId, dict[KeyId, KeyEntry]] = {}
        self.version += 1

    def _forget(self, env_ids: Iterable[EnvId]) -> None:
        self.version += 1
        for env_id in env_ids:
            for entry in self._keys_of.get(env_id, {}).values():
                entry.principal = None

    # who somebody is

    def _environment_in(self, org: Org, ref: str | None) -> Environment | None:
        if ref is None:
            envs = self._envs_of.get(org.id, set())
            return self._environments[next(iter(envs))] if len(envs) == 1 else None
        env = self._environments.get(self._env_ids.get((org.id, ref), EnvId(ref)))
        return env if env is not None and env.org_id == org.id else None

    def _identify(self, entry: KeyEntry) -> Principal | None:
        env = self._environments.get(entry.env_id)
        org = self._orgs.get(env.org_id) if env is not None else None
        if env is None or org is None:
            return None
        entry.principal = self._principal(
            org,
            env,
            key_id=entry.id,
            role=entry.role,
            region=entry.region,
            limits=entry.limits,
            scoping=entry.scoping,
            expires_at_s=entry.expires_at_s,
            refusal=_refusal(org, env, entry),
            user_id=entry.user_id,
        )
        return entry.principal

    def _principal(
        self,
        org: Org,
        env: Environment,
        *,
        key_id: KeyId,
        role: Role,
        region: str | None,
        limits: Limits,
        scoping: Scoping,
        expires_at_s: float | None,
        refusal: str | None,
        user_id: UserId | None,
    ) -> Principal:
        known = self._stored_plans.get(org.billing_plan) or self._configured_plans.get(org.billing_plan)
        plan = known or _UNKNOWN_PLAN
        preferred = region or env.region or next(iter(org.region_preferences), None)
        scopes = scopes_of(
            self._limits.global_,
            region=preferred or self._home_region,
            region_limits=self._limits.of_region(preferred or self._home_region),
            org_id=org.id,
            org_limits=self._limits.of_org(org, plan),
            env_id=env.id,
            env_limits=self._limits.of_env(env, org, plan),
            key_id=key_id,
            key_limits=nearest(limits, env.key_limits, org.key_limits, plan.key_limits, self._limits.key),
        )
        allowed_models = _common(org.allowed_models, env.allowed_models, scoping.models)
        allowed_regions = frozenset((*([region] if region else ()), *scoping.regions)) or None
        features = None if known is None else frozenset(plan.features)
        return Principal(
            org_id=org.id,
            org_name=org.name,
            env_id=env.id,
            env_name=env.name,
            key_id=key_id,
            role=role,
            region=preferred,
            allowed_models=allowed_models,
            scopes=scopes,
            expires_at_s=expires_at_s,
            reservable_tokens=reservable_tokens(scopes),
            reservable_output_tokens=reservable_tokens(scopes, Unit.OUTPUT_TOKENS),
            bounds=bounds_of(scopes),
            price_per_token_pusd=plan.price_per_token_pusd if org.billing_enabled else 0,
            refusal=refusal,
            restricted=bool(scoping.endpoints or allowed_regions or allowed_models is not None)
            or (features is not None and Feature.API_ACCESS not in features),
            allowed_endpoints=frozenset(scoping.endpoints) or None,
            allowed_regions=allowed_regions,
            region_allowed=preferred is None or meets(preferred, allowed_regions, self._regions),
            networks=compiled(scoping.networks) if scoping.networks else None,
            region_fallbacks=tuple(
                other
                for other in org.region_preferences
                if other != preferred and meets(other, allowed_regions, self._regions)
            ),
            plan_id=org.billing_plan,
            features=features,
            priority=plan.priority,
            weight=plan.weight,
            max_queue_depth=plan.max_queue_depth,
            policy=plan.policy,
            data_residency=org.data_residency or env.data_residency,
            user_id=user_id,
            cache=NO_CACHE if self._cache is None else in_force(self._cache, env.cache, org.cache),
        )


_UNKNOWN_PLAN = Plan("", "")


def _caps(*levels: Limits) -> bool:
    return any(level.spend_per_month_pusd is not None for level in levels)


def _common(*lists: tuple[str, ...]) -> frozenset[str] | None:
    """What all allow, an empty list allowing everything; None: everything. An empty set means nothing at all."""
    said = [frozenset(allowed) for allowed in lists if allowed]
    return frozenset.intersection(*said) if said else None


def _refusal(org: Org, env: Environment, entry: KeyEntry) -> str | None:
    if entry.status is Status.REVOKED:  # for good, so it is said first
        return "key_revoked"
    return _refusal_of_tenant(org, env) or (None if entry.status is Status.ACTIVE else "key_suspended")


def _refusal_of_tenant(org: Org, env: Environment) -> str | None:
    return None if org.status is Status.ACTIVE and env.status is Status.ACTIVE else "tenant_suspended"
