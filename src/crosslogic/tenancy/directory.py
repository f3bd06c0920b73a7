"""All keys in memory, and the one look-up that every request makes: key → Principal.

Pure: `sync.py` fills it and keeps it fresh. Invariant: a principal always agrees with the key, environment, org
and global limits that were put in last; changing one drops the principals made from it, and the next look-up
makes them again. Environments and orgs must be put before the keys inside them are looked up; until then such a
key resolves to None.
"""

from collections.abc import Iterable

import msgspec

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.limits.model import NO_LIMITS, Limits
from crosslogic.limits.scopes import reservable_tokens, scopes_of
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.model import Environment, Org, Principal, Role, Status


class LayerLimits(msgspec.Struct, frozen=True):
    """What the configuration says of each layer. `org`, `env` and `key` hold where one has no own ceiling."""

    global_: Limits = NO_LIMITS
    org: Limits = NO_LIMITS
    env: Limits = NO_LIMITS
    key: Limits = NO_LIMITS


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


class Directory:
    def __init__(self, hash_key: KeyHasher, limits: LayerLimits | None = None) -> None:
        self._hash_key = hash_key
        self._limits = limits or LayerLimits()
        self._orgs: dict[OrgId, Org] = {}
        self._environments: dict[EnvId, Environment] = {}
        self._by_hash: dict[bytes, KeyEntry] = {}
        self._by_id: dict[KeyId, KeyEntry] = {}

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

    def put_org(self, org: Org) -> None:
        self._orgs[org.id] = org
        self._forget({env.id for env in self._environments.values() if env.org_id == org.id})

    def put_environment(self, env: Environment) -> None:
        self._environments[env.id] = env
        self._forget({env.id})

    def put_key(self, entry: KeyEntry) -> None:
        self.remove_key(entry.id)
        known = self._environments.get(entry.env_id)
        if known is not None:
            entry.env_id = known.id  # one string for all keys of the environment
        self._by_id[entry.id] = entry
        self._by_hash[entry.key_hash] = entry

    def remove_key(self, key_id: KeyId) -> None:
        gone = self._by_id.pop(key_id, None)
        if gone is not None:
            del self._by_hash[gone.key_hash]

    def set_limits(self, limits: LayerLimits) -> None:
        self._limits = limits
        self._forget(self._environments.keys())

    def replace(self, orgs: Iterable[Org], environments: Iterable[Environment], keys: Iterable[KeyEntry]) -> None:
        """Put everything anew; what is not in the arguments is gone."""
        self._orgs = {org.id: org for org in orgs}
        self._environments = {env.id: env for env in environments}
        self._by_hash, self._by_id = {}, {}
        for entry in keys:
            self.put_key(entry)

    def _forget(self, env_ids: Iterable[EnvId]) -> None:
        touched = frozenset(env_ids)
        for entry in self._by_id.values():
            if entry.env_id in touched:
                entry.principal = None

    def _identify(self, entry: KeyEntry) -> Principal | None:
        env = self._environments.get(entry.env_id)
        org = self._orgs.get(env.org_id) if env is not None else None
        if env is None or org is None:
            return None
        scopes = scopes_of(
            self._limits.global_,
            org_id=org.id,
            org_limits=_inherited(org.limits, self._limits.org),
            env_id=env.id,
            env_limits=_inherited(env.limits, self._limits.env),
            key_id=entry.id,
            key_limits=_inherited(entry.limits, self._limits.key),
        )
        entry.principal = Principal(
            org_id=org.id,
            org_name=org.name,
            env_id=env.id,
            env_name=env.name,
            key_id=entry.id,
            role=entry.role,
            region=entry.region or env.region,
            allowed_models=_allowed_models(org, env),
            scopes=scopes,
            reservable_tokens=reservable_tokens(scopes),
            expires_at_s=entry.expires_at_s,
            refusal=_refusal(org, env, entry),
        )
        return entry.principal


def _inherited(own: Limits, defaults: Limits) -> Limits:
    """`own`, with the ceilings that it leaves open taken from `defaults`."""
    if defaults is NO_LIMITS or defaults == NO_LIMITS:
        return own
    fields = msgspec.structs.asdict(own)
    return Limits(**{name: getattr(defaults, name) if value is None else value for name, value in fields.items()})


def _allowed_models(org: Org, env: Environment) -> frozenset[str] | None:
    """What both allow; None: everything. An empty set is possible and means nothing."""
    if org.allowed_models and env.allowed_models:
        return frozenset(org.allowed_models) & frozenset(env.allowed_models)
    return frozenset(org.allowed_models or env.allowed_models) or None


def _refusal(org: Org, env: Environment, entry: KeyEntry) -> str | None:
    if entry.status is Status.REVOKED:  # for good, so it is said first
        return "key_revoked"
    if org.status is not Status.ACTIVE or env.status is not Status.ACTIVE:
        return "tenant_suspended"
    return None if entry.status is Status.ACTIVE else "key_suspended"
