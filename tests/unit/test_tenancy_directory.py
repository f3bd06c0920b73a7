"""The directory: who a key is, whatever changes around it and in whatever order."""

import timeit
from dataclasses import dataclass, field
from datetime import UTC, datetime

import msgspec
import pytest

from crosslogic.kernel.ids import EnvId, KeyId, OrgId
from crosslogic.limits.model import NO_LIMITS, Layer, Limits, Scope
from crosslogic.tenancy.directory import Directory, KeyEntry, LayerLimits
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Org, Role, Status

THEN = datetime(2026, 1, 1, tzinfo=UTC)
HASH = key_hasher()
TOKEN = b"token of key_1"
ORG = Org(OrgId("org_1"), "acme", Status.ACTIVE, THEN)
ENV = Environment(EnvId("env_1"), OrgId("org_1"), "prod", THEN)


@dataclass
class House:
    """An org with one environment and one key, as one directory sees it."""

    directory: Directory = field(default_factory=lambda: Directory(HASH))
    org: Org = ORG
    env: Environment = ENV

    def __post_init__(self) -> None:
        self.put(org=self.org, env=self.env, key=entry())

    def put(self, org: Org | None = None, env: Environment | None = None, key: KeyEntry | None = None) -> None:
        if org is not None:
            self.directory.put_org(org)
        if env is not None:
            self.directory.put_environment(env)
        if key is not None:
            self.directory.put_key(key)

    def refusal(self) -> str | None:
        principal = self.directory.resolve(TOKEN)
        assert principal is not None
        return principal.refusal


def entry(
    key_id: str = "key_1",
    token: bytes = TOKEN,
    env_id: str = "env_1",
    status: Status = Status.ACTIVE,
    region: str | None = None,
    limits: Limits = NO_LIMITS,
    expires_at_s: float | None = None,
) -> KeyEntry:
    return KeyEntry(KeyId(key_id), HASH(token), EnvId(env_id), Role.DEVELOPER, status, region, limits, expires_at_s)


def test_a_key_resolves_to_all_that_is_above_it() -> None:
    principal = House().directory.resolve(TOKEN)
    assert principal is not None
    assert (principal.org_id, principal.org_name) == ("org_1", "acme")
    assert (principal.env_id, principal.env_name) == ("env_1", "prod")
    assert (principal.key_id, principal.role) == ("key_1", Role.DEVELOPER)
    assert principal.scopes == ()
    assert principal.allowed_models is None
    assert principal.refusal is None


@pytest.mark.parametrize("token", [b"", b"token of key_", TOKEN + b" ", b"\xff" * 10_000])
def test_an_unknown_key_is_nobody(token: bytes) -> None:
    assert House().directory.resolve(token) is None


def test_the_same_principal_is_handed_out_each_time() -> None:
    house = House()
    assert house.directory.resolve(TOKEN) is house.directory.resolve(TOKEN)


def test_scopes_are_in_order_and_without_the_unlimited() -> None:
    house = House(Directory(HASH, LayerLimits(global_=Limits(requests_per_minute=9))))
    house.put(
        env=msgspec.structs.replace(house.env, limits=Limits(concurrency=3)),
        key=entry(limits=Limits(tokens_per_minute=7)),
    )
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert principal.scopes == (
        Scope(Layer.GLOBAL, "global", Limits(requests_per_minute=9)),
        Scope(Layer.ENV, "env_1", Limits(concurrency=3)),
        Scope(Layer.KEY, "key_1", Limits(tokens_per_minute=7)),
    )
    house.put(org=msgspec.structs.replace(house.org, limits=Limits(concurrency=1)))
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert [scope.layer for scope in principal.scopes] == [Layer.GLOBAL, Layer.ORG, Layer.ENV, Layer.KEY]


def test_a_change_of_the_global_limits_reaches_every_key() -> None:
    house = House()
    house.directory.resolve(TOKEN)
    house.directory.set_limits(LayerLimits(global_=Limits(concurrency=5)))
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert principal.scopes == (Scope(Layer.GLOBAL, "global", Limits(concurrency=5)),)


@pytest.mark.parametrize(
    ("org", "env", "key", "refusal"),
    [
        ("active", "active", "active", None),
        ("suspended", "active", "active", "tenant_suspended"),
        ("active", "suspended", "active", "tenant_suspended"),
        ("active", "active", "suspended", "key_suspended"),
        ("suspended", "active", "suspended", "tenant_suspended"),
        ("active", "active", "revoked", "key_revoked"),
        ("suspended", "suspended", "revoked", "key_revoked"),
    ],
)
def test_why_a_key_is_refused(org: str, env: str, key: str, refusal: str | None) -> None:
    house = House()
    assert house.refusal() is None  # made before the change, so that the change has something to undo
    house.put(
        org=msgspec.structs.replace(house.org, status=Status(org)),
        env=msgspec.structs.replace(house.env, status=Status(env)),
        key=entry(status=Status(key)),
    )
    assert house.refusal() == refusal


def test_a_suspension_is_taken_back() -> None:
    house = House()
    house.put(org=msgspec.structs.replace(house.org, status=Status.SUSPENDED))
    assert house.refusal() == "tenant_suspended"
    house.put(org=house.org)
    assert house.refusal() is None


@pytest.mark.parametrize(
    ("of_org", "of_env", "allowed"),
    [
        ((), (), None),
        (("a", "b"), (), {"a", "b"}),
        ((), ("b",), {"b"}),
        (("a", "b"), ("b", "c"), {"b"}),
        (("a",), ("c",), set()),  # nothing: not to be confused with everything
    ],
)
def test_models_must_be_allowed_by_org_and_environment(
    of_org: tuple[str, ...], of_env: tuple[str, ...], allowed: set[str] | None
) -> None:
    house = House()
    house.put(
        org=msgspec.structs.replace(house.org, allowed_models=of_org),
        env=msgspec.structs.replace(house.env, allowed_models=of_env),
    )
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert principal.allowed_models == allowed
    assert (principal.allowed_models is None) is (allowed is None)


def test_the_key_s_region_comes_before_its_environment_s() -> None:
    house = House()
    house.put(env=msgspec.structs.replace(house.env, region="eu"))
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert principal.region == "eu"
    house.put(key=entry(region="in", expires_at_s=17.0))
    principal = house.directory.resolve(TOKEN)
    assert principal is not None
    assert (principal.region, principal.expires_at_s) == ("in", 17.0)


def test_a_removed_key_is_nobody_and_leaves_nothing() -> None:
    house = House()
    house.directory.remove_key(KeyId("key_1"))
    house.directory.remove_key(KeyId("key_1"))
    assert house.directory.resolve(TOKEN) is None
    assert len(house.directory) == 0


def test_a_key_whose_hash_changed_is_found_under_the_new_one_only() -> None:
    house = House()
    house.put(key=entry(token=b"new"))
    assert house.directory.resolve(TOKEN) is None
    assert house.directory.resolve(b"new") is not None
    assert len(house.directory) == 1


def test_a_key_that_arrives_before_its_environment_is_nobody_until_then() -> None:
    house = House()
    house.put(key=entry("key_2", b"early", "env_2"))
    assert house.directory.resolve(b"early") is None
    house.put(env=Environment(EnvId("env_2"), OrgId("org_2"), "dev", THEN))
    assert house.directory.resolve(b"early") is None
    house.put(org=Org(OrgId("org_2"), "late", Status.ACTIVE, THEN))
    principal = house.directory.resolve(b"early")
    assert principal is not None
    assert principal.org_name == "late"


def test_replacing_everything_forgets_what_is_not_named() -> None:
    house = House()
    house.put(key=entry("key_2", b"second"))
    house.directory.replace([house.org], [house.env], [entry("key_2", b"second")])
    assert house.directory.resolve(TOKEN) is None
    assert house.directory.resolve(b"second") is not None
    assert len(house.directory) == 1


def test_a_look_up_costs_little_more_than_the_digest_it_needs() -> None:
    """Measured 0.4 µs on one core of 2025; as a ratio, so that a busy machine does not decide."""
    directory = House().directory
    directory.resolve(TOKEN)
    digest_s = min(timeit.repeat(lambda: HASH(TOKEN), number=5_000, repeat=7))
    resolve_s = min(timeit.repeat(lambda: directory.resolve(TOKEN), number=5_000, repeat=7))
    assert resolve_s < 4 * digest_s
