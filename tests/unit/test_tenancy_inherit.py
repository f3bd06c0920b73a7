"""Plan → org → environment → key: in each dimension the nearest that is set holds."""

from datetime import UTC, datetime

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crosslogic.kernel.ids import EnvId, KeyId, OrgId, UserId
from crosslogic.limits.model import NO_LIMITS, Dimension, Layer, Limits
from crosslogic.tenancy.directory import Directory, KeyEntry, LayerLimits
from crosslogic.tenancy.inherit import nearest
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Environment, Feature, Org, Plan, Principal, Role, Scoping, Status, User
from crosslogic.tenancy.plans import PlanSource, in_force, shipped_plans

THEN = datetime(2026, 1, 1, tzinfo=UTC)
HASH = key_hasher()
ceilings = st.one_of(st.none(), st.integers(0, 9))
limits = st.builds(
    Limits,
    **{dimension.field: ceilings for dimension in Dimension},
    burst_share=st.sampled_from([1.0, 0.5, 0.25]),
)


@given(st.lists(limits, max_size=5))
def test_each_field_comes_from_the_first_level_that_sets_it(levels: list[Limits]) -> None:
    found = nearest(*levels)
    for name in Limits.__struct_fields__:
        default = getattr(NO_LIMITS, name)
        said = [value for level in levels if (value := getattr(level, name)) != default]
        assert getattr(found, name) == (said[0] if said else default)


def test_zero_is_set_and_lets_nothing_through() -> None:
    assert nearest(Limits(concurrency=0), Limits(concurrency=5)).concurrency == 0


ORG = Org(OrgId("org_1"), "acme", Status.ACTIVE, THEN, billing_plan="pro")
ENV = Environment(EnvId("env_1"), OrgId("org_1"), "prod", THEN)
KEY = KeyEntry(KeyId("key_1"), HASH(b"token"), EnvId("env_1"), Role.DEVELOPER, Status.ACTIVE)


def principal_of(
    *,
    plan: Plan | None = None,
    org: dict[str, object] | None = None,
    env: dict[str, object] | None = None,
    key: dict[str, object] | None = None,
    config: LayerLimits | None = None,
) -> Principal:
    directory = Directory(HASH, config, [plan] if plan is not None else [])
    directory.replace(
        [msgspec.structs.replace(ORG, **org or {})],
        [msgspec.structs.replace(ENV, **env or {})],
        [msgspec.structs.replace(KEY, **key or {})],
    )
    principal = directory.resolve(b"token")
    assert principal is not None
    return principal


def layers(principal: Principal) -> dict[Layer, Limits]:
    return {scope.layer: scope.limits for scope in principal.scopes}


def test_every_source_reaches_every_layer_below_it() -> None:
    at = [Limits(requests_per_minute=n) for n in range(10)]
    plan = Plan("pro", "Pro", limits=at[1], env_limits=at[2], key_limits=at[3])
    config = LayerLimits(org=at[9], env=at[9], key=at[9])
    assert layers(principal_of(config=config)) == {Layer.ORG: at[9], Layer.ENV: at[9], Layer.KEY: at[9]}
    assert layers(principal_of(plan=plan, config=config)) == {Layer.ORG: at[1], Layer.ENV: at[2], Layer.KEY: at[3]}
    org = {"limits": at[4], "env_limits": at[5], "key_limits": at[6]}
    assert layers(principal_of(plan=plan, org=org)) == {Layer.ORG: at[4], Layer.ENV: at[5], Layer.KEY: at[6]}
    env = {"limits": at[7], "key_limits": at[8]}
    assert layers(principal_of(plan=plan, org=org, env=env)) == {Layer.ORG: at[4], Layer.ENV: at[7], Layer.KEY: at[8]}
    key = {"limits": at[0]}
    assert layers(principal_of(plan=plan, org=org, env=env, key=key))[Layer.KEY] == at[0]


def test_dimensions_are_inherited_apart() -> None:
    plan = Plan("pro", "Pro", limits=Limits(concurrency=5, requests_per_minute=600))
    found = principal_of(plan=plan, org={"limits": Limits(requests_per_minute=10, tokens_per_day=7)})
    assert layers(found)[Layer.ORG] == Limits(concurrency=5, requests_per_minute=10, tokens_per_day=7)


def test_a_plan_gives_priority_queue_and_features_and_an_unknown_one_denies_nothing() -> None:
    plan = Plan("pro", "Pro", features=(Feature.PRIORITY_QUEUE,), max_queue_depth=7, priority=4)
    known = principal_of(plan=plan)
    assert (known.plan_id, known.priority, known.max_queue_depth) == ("pro", 4, 7)
    assert known.features == {Feature.PRIORITY_QUEUE}
    assert known.restricted  # there is no api_access
    unknown = principal_of()
    assert (unknown.plan_id, unknown.priority, unknown.features, unknown.restricted) == ("pro", 1, None, False)


def test_a_stored_plan_comes_before_a_configured_one_until_it_is_gone() -> None:
    directory = Directory(HASH, None, [Plan("pro", "Pro", limits=Limits(concurrency=5))])
    directory.replace([ORG], [ENV], [msgspec.structs.replace(KEY)])

    def concurrency() -> int | None:
        principal = directory.resolve(b"token")
        assert principal is not None
        return layers(principal)[Layer.ORG].concurrency

    assert concurrency() == 5
    directory.store_plans([Plan("pro", "Pro", limits=Limits(concurrency=9))])
    assert concurrency() == 9
    directory.store_plans([])
    assert concurrency() == 5
    directory.configure_plans([Plan("pro", "Pro", limits=Limits(concurrency=3))])
    assert concurrency() == 3


def test_models_must_be_allowed_at_every_level() -> None:
    def allowed(of_org: tuple[str, ...], of_env: tuple[str, ...], of_key: tuple[str, ...]) -> object:
        return principal_of(
            org={"allowed_models": of_org}, env={"allowed_models": of_env}, key={"scoping": Scoping(models=of_key)}
        ).allowed_models

    assert allowed((), (), ()) is None
    assert allowed(("a", "b"), (), ("b", "c")) == {"b"}
    assert allowed((), ("a",), ("c",)) == set()
    assert allowed((), (), ("c",)) == {"c"}


@pytest.mark.parametrize(
    ("of_org", "of_env", "of_key", "more", "region", "allowed", "fallbacks"),
    [
        ((), None, None, (), None, None, ()),
        (("in", "us"), None, None, (), "in", None, ("us",)),
        (("in", "us"), "eu", None, (), "eu", None, ("in", "us")),
        (("in", "us"), "eu", "us", (), "us", {"us"}, ()),  # a key with a region stays in it (document §9.3)
        (("in", "us"), "eu", "us", ("in",), "us", {"us", "in"}, ("in",)),
    ],
)
def test_the_nearest_region_comes_first(
    of_org: tuple[str, ...],
    of_env: str | None,
    of_key: str | None,
    more: tuple[str, ...],
    region: str | None,
    allowed: set[str] | None,
    fallbacks: tuple[str, ...],
) -> None:
    found = principal_of(
        org={"region_preferences": of_org},
        env={"region": of_env},
        key={"region": of_key, "scoping": Scoping(regions=more)},
    )
    assert (found.region, found.allowed_regions, found.region_fallbacks) == (region, allowed, fallbacks)


def test_a_member_has_the_user_s_limits_and_role_where_the_token_says_none() -> None:
    directory = Directory(HASH)
    user = User(UserId("user_1"), ORG.id, "ann@acme.example", "Ann", Role.READ_ONLY, THEN, limits=Limits(concurrency=2))
    directory.replace([ORG], [ENV], [], [user])

    def member(**asked: object) -> Principal | None:
        base = {"caller_id": "jwt_1", "role": None, "default_role": Role.DEVELOPER, "email": None}
        return directory.member("acme", "prod", **{**base, **asked})  # type: ignore[arg-type]

    known, stranger = member(email="Ann@acme.example"), member(email="bob@acme.example")
    assert known is not None
    assert stranger is not None
    assert (known.key_id, known.user_id, known.role) == ("user_1", "user_1", Role.READ_ONLY)
    assert layers(known) == {Layer.KEY: Limits(concurrency=2)}
    assert (stranger.key_id, stranger.user_id, stranger.role) == ("jwt_1", None, Role.DEVELOPER)
    directory.put_user(msgspec.structs.replace(user, status=Status.SUSPENDED))
    refused = member(email="ann@acme.example")
    assert refused is not None
    assert refused.refusal == "user_suspended"


def test_an_only_environment_need_not_be_named_and_a_foreign_one_is_nobody_s() -> None:
    directory = Directory(HASH)
    other = Org(OrgId("org_2"), "other", Status.ACTIVE, THEN)
    foreign = Environment(EnvId("env_2"), OrgId("org_2"), "prod", THEN)
    directory.replace([ORG, other], [ENV, foreign], [])

    def env_of(org: str, env: str | None) -> str | None:
        found = directory.member(org, env, caller_id="c", role=None, default_role=Role.DEVELOPER)
        return None if found is None else found.env_id

    assert env_of("acme", None) == "env_1"
    assert env_of("org_1", "env_1") == "env_1"
    assert env_of("acme", "env_2") is None
    assert env_of("nobody", None) is None
    directory.put_environment(Environment(EnvId("env_3"), ORG.id, "dev", THEN))
    assert env_of("acme", None) is None  # two: it has to be said which
    assert env_of("acme", "dev") == "env_3"


# plans as data


def test_the_shipped_plans_are_those_of_the_documents() -> None:
    plans = {plan.id: plan for plan in shipped_plans()}
    assert list(plans) == ["free", "pro", "enterprise", "starter", "developer", "business"]
    assert [plans[name].limits.concurrency for name in ("free", "pro", "enterprise")] == [1, 5, None]
    assert [plans[name].priority for name in ("free", "pro", "enterprise")] == [1, 2, 3]
    price = {name: plans[name].price_per_month_pusd // 10**12 for name in ("starter", "developer", "business")}
    assert price == {"starter": 0, "developer": 49, "business": 499}
    included = [plans[name].included_tokens_per_month for name in ("starter", "developer", "business")]
    assert included == [100_000, 10_000_000, 100_000_000]
    assert Feature.DEDICATED_CAPACITY in plans["business"].features
    assert all(Feature.API_ACCESS in plan.features for plan in plans.values())


def test_the_nearest_definition_of_a_plan_is_in_force() -> None:
    stored, configured = Plan("pro", "stored"), Plan("pro", "configured")
    mine = Plan("mine", "Mine")
    found = in_force([stored], [configured, mine], [Plan("pro", "shipped"), Plan("free", "Free")])
    assert {name: (each.plan.name, each.source) for name, each in found.items()} == {
        "pro": ("stored", PlanSource.DATABASE),
        "mine": ("Mine", PlanSource.CONFIGURATION),
        "free": ("Free", PlanSource.SHIPPED),
    }
