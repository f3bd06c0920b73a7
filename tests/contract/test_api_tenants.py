"""What an org does for itself under /api/v1, on both databases; the life of its keys; plans as operators see them."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.cache.model import NO_CACHE, CachePolicy, Use
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.changes import Following
from crosslogic.tenancy import keys
from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.model import Principal, Role
from crosslogic.tenancy.sync import DirectorySync
from tests.contract.test_api_admin import HASH, HEADERS, client_of, error_of
from tests.contract.test_api_authorization import services_with_tokens, web_token


@pytest_asyncio.fixture
async def operator(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services_with_tokens(engine), **HEADERS) as client:
        yield client


@pytest_asyncio.fixture
async def org(engine: AsyncEngine, operator: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """An org's own admin, whose key was made by the operator."""
    await operator.post("/admin/orgs", json={"name": "acme", "limits": {"concurrency": 9}})
    await operator.post("/admin/orgs/acme/environments", json={"name": "prod"})
    body = {"org": "acme", "environment": "prod", "name": "boss", "role": "admin"}
    token = (await operator.post("/admin/keys", json=body)).json()["key"]
    async with client_of(services_with_tokens(engine), Authorization=f"Bearer {token}") as client:
        yield client


async def new_key(client: httpx.AsyncClient, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/api/v1/keys", json={"environment": "prod", "name": "ci", **fields})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


class Gateway:
    """What a gateway worker knows."""

    def __init__(self, engine: AsyncEngine, cache: CachePolicy | None = None) -> None:
        self.directory = Directory(HASH, cache=cache)
        self.sync = Following(engine, [DirectorySync(engine, self.directory)])

    async def sees(self, token: str) -> Principal:
        await self.sync.poll()
        principal = self.directory.resolve(token.encode())
        assert principal is not None
        return principal


@pytest_asyncio.fixture
async def gateway(engine: AsyncEngine) -> Gateway:
    gateway = Gateway(engine)
    await gateway.sync.start()
    return gateway


# an org for itself


async def test_an_org_looks_at_itself_and_changes_what_is_its_own(org: httpx.AsyncClient) -> None:
    seen = (await org.get("/api/v1/org")).json()
    assert (seen["name"], seen["billing_plan"], seen["limits"]["concurrency"]) == ("acme", "free", 9)
    change = {"region_preferences": ["in", "eu"], "key_limits": {"requests_per_minute": 5}}
    changed = (await org.patch("/api/v1/org", json=change)).json()
    assert (changed["region_preferences"], changed["key_limits"]["requests_per_minute"]) == (["in", "eu"], 5)
    assert (changed["limits"], changed["billing_plan"]) == (seen["limits"], "free")


async def test_an_org_runs_its_environments(org: httpx.AsyncClient, gateway: Gateway) -> None:
    body = {"name": "dev", "region": "eu", "allowed_models": ["m"], "limits": {"tokens_per_day": 10}}
    made = await org.post("/api/v1/environments", json=body)
    assert (made.status_code, made.json()["region"]) == (201, "eu")
    token = (await new_key(org, environment="dev"))["key"]
    principal = await gateway.sees(token)
    assert (principal.env_name, principal.region, principal.allowed_models) == ("dev", "eu", {"m"})
    await org.patch("/api/v1/environments/dev", json={"status": "suspended"})
    assert (await gateway.sees(token)).refusal == "tenant_suspended"
    changed = await org.patch("/api/v1/environments/dev", json={"status": "active", "region": "us"})
    assert changed.json()["region"] == "us"
    assert (await gateway.sees(token)).refusal is None
    listed = (await org.get("/api/v1/environments", params={"region": "us"})).json()["data"]
    assert [env["name"] for env in listed] == ["dev"]
    assert (await org.get("/api/v1/environments", params={"limit": 1})).json()["next_cursor"] is not None


async def test_an_org_has_people_with_roles(org: httpx.AsyncClient) -> None:
    made = await org.post("/api/v1/users", json={"email": "Ann@Acme.example", "name": "Ann", "role": "admin"})
    assert (made.status_code, made.json()["email"], made.json()["status"]) == (201, "ann@acme.example", "active")
    taken = await org.post("/api/v1/users", json={"email": "ann@acme.EXAMPLE", "name": "Ann"})
    assert error_of(taken)[::2] == (409, "conflict")
    await org.post("/api/v1/users", json={"email": "bob@acme.example", "name": "Bob"})
    for ref in (made.json()["id"], "ann@acme.example", "ANN@acme.example"):
        assert (await org.get(f"/api/v1/users/{ref}")).json() == made.json()
    changed = await org.patch(
        "/api/v1/users/bob@acme.example", json={"role": "read-only", "limits": {"concurrency": 1}}
    )
    assert (changed.json()["role"], changed.json()["limits"]["concurrency"]) == ("read-only", 1)

    async def emails(**params: Any) -> list[str]:
        return [user["email"] for user in (await org.get("/api/v1/users", params=params)).json()["data"]]

    assert await emails() == ["ann@acme.example", "bob@acme.example"]
    assert await emails(role="admin") == ["ann@acme.example"]
    assert await emails(prefix="B") == ["bob@acme.example"]
    assert await emails(limit=1) == ["ann@acme.example"]
    assert (await org.delete("/api/v1/users/bob@acme.example")).json()["status"] == "revoked"
    assert await emails(status="active") == ["ann@acme.example"]


@pytest.mark.parametrize(
    "email", ["", "ann", "@x", "a@", "a b@x.example", "a@b@c", "a@x.example\x00", "é" * 300 + "@x", "<a@x>"]
)
async def test_what_is_no_address_is_refused(org: httpx.AsyncClient, email: str) -> None:
    answer = await org.post("/api/v1/users", json={"email": email, "name": "x"})
    assert error_of(answer)[::3] == (400, "email")


async def test_a_user_s_token_manages_and_makes_keys_in_the_user_s_name(
    engine: AsyncEngine, org: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    user = (await org.post("/api/v1/users", json={"email": "ann@acme.example", "name": "Ann", "role": "admin"})).json()
    token = web_token("acme", email="ann@acme.example")  # the token says no role: the user's counts
    async with client_of(services_with_tokens(engine), Authorization=f"Bearer {token}") as ann:
        assert (await new_key(ann))["created_by"] == user["id"]
        (entry,) = (await operator.get("/admin/audit", params={"actor": user["id"]})).json()["data"]
        assert (entry["actor_kind"], entry["action"]) == ("user", "key.create")
        await org.patch(f"/api/v1/users/{user['id']}", json={"status": "suspended"})
        assert error_of(await ann.get("/api/v1/org"))[::2] == (403, "user_suspended")


async def test_an_org_sees_its_own_actions_and_those_done_to_it(
    org: httpx.AsyncClient, operator: httpx.AsyncClient
) -> None:
    await operator.post("/admin/orgs", json={"name": "other"})
    made = await org.post("/api/v1/environments", json={"name": "dev"}, headers={"X-Request-Id": "mine-7"})
    listed = (await org.get("/api/v1/audit", params={"limit": 2})).json()
    assert [entry["action"] for entry in listed["data"]] == ["environment.create", "key.create"]
    newest = listed["data"][0]
    assert (newest["entity_id"], newest["request_id"]) == (made.json()["id"], "mine-7")
    assert newest["after"]["name"] == "dev"
    older = (await org.get("/api/v1/audit", params={"cursor": listed["next_cursor"]})).json()
    assert [entry["action"] for entry in older["data"]] == ["environment.create", "org.create"]
    assert (await operator.get("/admin/audit/verify")).json()["entries"] == 5
    for cursor in ("x", "-1", "9" * 30, "1.0"):
        assert error_of(await org.get("/api/v1/audit", params={"cursor": cursor}))[::3] == (400, "cursor")


async def test_usage_is_one_s_own(org: httpx.AsyncClient) -> None:
    seen = (await org.get("/api/v1/usage", params={"group_by": "model"})).json()
    assert (seen["totals"]["requests"], seen["org_id"]) == (0, (await org.get("/api/v1/org")).json()["id"])


# the life of a key


async def test_a_key_is_good_for_what_it_was_made_for(org: httpx.AsyncClient, gateway: Gateway) -> None:
    scoping = {
        "models": ["m"],
        "endpoints": ["/v1/chat/completions", "embeddings"],
        "regions": ["us"],
        "networks": ["10.0.0.7/8", "2001:db8::/32"],
    }
    made = await new_key(org, region="eu", scoping=scoping)
    assert made["scoping"]["endpoints"] == ["chat/completions", "embeddings"]
    assert made["scoping"]["networks"] == ["10.0.0.0/8", "2001:db8::/32"]
    principal = await gateway.sees(made["key"])
    assert principal.restricted
    assert principal.allowed_models == {"m"}
    assert principal.allowed_endpoints == {"chat/completions", "embeddings"}
    assert principal.allowed_regions == {"eu", "us"}
    assert principal.networks is not None
    assert principal.networks.contain("10.9.9.9")
    changed = await org.patch(f"/api/v1/keys/{made['id']}", json={"scoping": {}, "name": "renamed"})
    assert (changed.json()["name"], changed.json()["scoping"]["models"]) == ("renamed", [])
    assert (await gateway.sees(made["key"])).networks is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scoping": {"networks": ["10.0.0.0/99"]}}, "networks"),
        ({"scoping": {"networks": ["x"] * 101}}, "networks"),
        ({"scoping": {"endpoints": ["/v1/../admin"]}}, "endpoints"),
        ({"scoping": {"regions": ["Eu West"]}}, "regions"),
        ({"region": "Eu West"}, "region"),
        ({"scoping": {"paths": []}}, "scoping.paths"),
        ({"role": "king"}, "role"),
        ({"expires_at": "2020-01-01T00:00:00Z"}, "expires_at"),
        ({"environment": "x", "org": "other"}, "org"),
    ],
)
async def test_a_wrong_scope_is_one_clear_400(org: httpx.AsyncClient, fields: dict[str, Any], param: str) -> None:
    answer = await org.post("/api/v1/keys", json={"environment": "prod", "name": "ci", **fields})
    assert error_of(answer)[::3] == (400, param)


async def test_a_key_from_elsewhere_or_for_other_things_does_not_manage(
    engine: AsyncEngine, org: httpx.AsyncClient
) -> None:
    for scoping, code in (
        ({"networks": ["192.0.2.0/24"]}, "invalid_api_key"),  # as a key that never was
        ({"endpoints": ["chat/completions"]}, "endpoint_not_allowed"),
        ({"endpoints": ["management"], "networks": ["127.0.0.1"]}, None),
    ):
        token = (await new_key(org, role="admin", scoping=scoping))["key"]
        async with client_of(services_with_tokens(engine), Authorization=f"Bearer {token}") as client:
            answer = await client.get("/api/v1/org")
            assert answer.status_code == {None: 200, "invalid_api_key": 401}.get(code, 403)
            assert code is None or error_of(answer)[2] == code


async def test_a_rotated_key_works_until_the_end_of_its_grace(
    engine: AsyncEngine, org: httpx.AsyncClient, gateway: Gateway
) -> None:
    old = await new_key(org, scoping={"models": ["m"]}, limits={"concurrency": 2})
    answer = await org.post(f"/api/v1/keys/{old['id']}/rotate", json={"grace_s": 3600})
    new = answer.json()
    assert answer.status_code == 201
    assert keys.looks_valid(new["key"])
    assert (new["scoping"], new["limits"], new["expires_at"]) == (old["scoping"], old["limits"], None)
    both = [await gateway.sees(token) for token in (old["key"], new["key"])]
    assert [principal.refusal for principal in both] == [None, None]
    assert both[0].expires_at_s == (ManualClock().now() + timedelta(hours=1)).timestamp()
    assert both[1].expires_at_s is None
    seen = (await org.get(f"/api/v1/keys/{old['id']}")).json()
    assert (seen["status"], seen["replaced_by"]) == ("active", new["id"])


async def test_without_a_grace_the_old_key_ends_at_once(org: httpx.AsyncClient, gateway: Gateway) -> None:
    old = await new_key(org)
    await org.post(f"/api/v1/keys/{old['id']}/rotate")
    assert (await gateway.sees(old["key"])).refusal == "key_revoked"


async def test_a_repeated_rotation_makes_no_second_key_and_shows_none(org: httpx.AsyncClient) -> None:
    path = f"/api/v1/keys/{(await new_key(org))['id']}/rotate"
    first = await org.post(path, json={"grace_s": 60})
    again = await org.post(path, json={"grace_s": 60})
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json() | {"key": None}
    other = await org.post(path, json={"grace_s": 60}, headers={"Idempotency-Key": "another"})
    assert error_of(other)[::2] == (409, "conflict")
    assert len((await org.get("/api/v1/keys", params={"prefix": "ci"})).json()["data"]) == 2


async def test_under_one_idempotency_key_a_rotation_is_repeated_even_without_a_grace(org: httpx.AsyncClient) -> None:
    path = f"/api/v1/keys/{(await new_key(org))['id']}/rotate"
    named = {"Idempotency-Key": "rotate-1"}
    answers = await asyncio.gather(*(org.post(path, headers=named) for _ in range(5)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum(answer.json()["key"] is not None for answer in answers) == 1
    assert error_of(await org.post(path))[::2] == (409, "conflict")
    assert error_of(await org.post(path, headers={b"Idempotency-Key": b"\xc3\xa9"}))[0] == 400


@pytest.mark.parametrize("grace", [-1, 10**9, "x", None])
async def test_a_grace_out_of_range_is_refused(org: httpx.AsyncClient, grace: object) -> None:
    answer = await org.post(f"/api/v1/keys/{(await new_key(org))['id']}/rotate", json={"grace_s": grace})
    assert error_of(answer)[::3] == (400, "grace_s")


async def test_a_key_is_suspended_taken_up_and_revoked(org: httpx.AsyncClient, gateway: Gateway) -> None:
    made = await new_key(org)
    path = f"/api/v1/keys/{made['id']}"
    for status, refusal in (("suspended", "key_suspended"), ("active", None), ("revoked", "key_revoked")):
        assert (await org.patch(path, json={"status": status})).json()["status"] == status
        assert (await gateway.sees(made["key"])).refusal == refusal
    assert error_of(await org.patch(path, json={"name": "x"}))[::2] == (409, "conflict")
    assert error_of(await org.post(f"{path}/rotate"))[::2] == (409, "conflict")


# plans


async def test_the_shipped_plans_are_in_force_until_operators_say_otherwise(
    operator: httpx.AsyncClient, org: httpx.AsyncClient, gateway: Gateway
) -> None:
    listed = (await operator.get("/admin/plans")).json()["data"]
    assert [plan["id"] for plan in listed] == ["business", "developer", "enterprise", "free", "pro", "starter"]
    assert {plan["source"] for plan in listed} == {"shipped"}
    developer = (await operator.get("/admin/plans/developer")).json()
    assert (developer["price_usd_per_month"], developer["included_tokens_per_month"]) == ("49.000000000000", 10_000_000)
    token = (await new_key(org))["key"]
    body = {"name": "Free", "limits": {"tokens_per_minute": 7}, "priority": 5, "price_usd_per_month": "0.5"}
    put = (await operator.put("/admin/plans/free", json=body)).json()
    assert (put["source"], put["price_usd_per_month"]) == ("database", "0.500000000000")
    principal = await gateway.sees(token)
    assert (principal.plan_id, principal.priority) == ("free", 5)
    assert [scope.limits.tokens_per_minute for scope in principal.scopes] == [7]
    assert (await operator.delete("/admin/plans/free")).status_code == 204
    assert (await operator.get("/admin/plans/free")).json()["source"] == "shipped"
    assert error_of(await operator.delete("/admin/plans/free"))[0] == 404


async def test_an_org_is_on_a_plan_that_there_is(operator: httpx.AsyncClient) -> None:
    wrong = await operator.post("/admin/orgs", json={"name": "acme", "billing_plan": "plutinum"})
    assert error_of(wrong)[::3] == (400, "billing_plan")
    await operator.put("/admin/plans/gold", json={"name": "Gold"})
    assert (await operator.post("/admin/orgs", json={"name": "acme", "billing_plan": "gold"})).status_code == 201
    assert error_of(await operator.delete("/admin/plans/gold"))[0] == 409  # it would be left without one
    assert error_of(await operator.patch("/admin/orgs/acme", json={"billing_plan": "none"}))[0] == 400
    await operator.patch("/admin/orgs/acme", json={"billing_plan": "pro"})
    assert (await operator.delete("/admin/plans/gold")).status_code == 204
    listed = (await operator.get("/admin/orgs", params={"billing_plan": "pro"})).json()["data"]
    assert [each["name"] for each in listed] == ["acme"]


async def test_what_was_agreed_with_one_is_not_shown_to_others(
    operator: httpx.AsyncClient, org: httpx.AsyncClient
) -> None:
    for plan in ("for-acme", "for-other"):
        await operator.put(f"/admin/plans/{plan}", json={"name": plan, "price_usd_per_month": "9"})
    await operator.patch("/admin/orgs/acme", json={"billing_plan": "for-acme"})
    seen = {plan["id"] for plan in (await org.get("/api/v1/plans")).json()["data"]}
    assert "for-acme" in seen
    assert "for-other" not in seen
    assert (await org.get("/api/v1/plans/for-other")).json() == (await org.get("/api/v1/plans/absent")).json()


async def test_plans_come_in_pages_too(operator: httpx.AsyncClient) -> None:
    seen, cursor = [], None
    while True:
        params = {"limit": 4} | ({} if cursor is None else {"cursor": cursor})
        page = (await operator.get("/admin/plans", params=params)).json()
        seen += [plan["id"] for plan in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 6


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": "x", "features": ["flying"]}, "features.0"),
        ({"name": "x", "price_usd_per_month": "-1"}, "price_usd_per_month"),
        ({"name": "x", "price_usd_per_month": "0.0000000000001"}, "price_usd_per_month"),
        ({"name": "x", "price_usd_per_month": "NaN"}, "price_usd_per_month"),
        ({"name": "x", "price_usd_per_month": "1e400"}, "price_usd_per_month"),
        ({"name": "x", "priority": -1}, "priority"),
        ({"name": "x", "included_tokens_per_month": -1}, "included_tokens_per_month"),
        ({"name": "x", "limits": {"concurrency": -1}}, "limits.concurrency"),
        ({"name": "x", "key_limits": {"concurrency": 10**17}}, "key_limits.concurrency"),
    ],
)
async def test_a_wrong_plan_is_one_clear_400(operator: httpx.AsyncClient, body: dict[str, Any], param: str) -> None:
    assert error_of(await operator.put("/admin/plans/gold", json=body))[::3] == (400, param)


async def test_a_user_is_resolved_by_every_gateway_within_a_change(
    operator: httpx.AsyncClient, org: httpx.AsyncClient, gateway: Gateway
) -> None:
    await operator.post(
        "/admin/orgs/acme/users", json={"email": "ann@acme.example", "name": "Ann", "role": "read-only"}
    )
    await gateway.sync.poll()

    def member() -> Principal | None:
        return gateway.directory.member(
            "acme", "prod", caller_id="jwt_1", role=None, default_role=Role.DEVELOPER, email="ann@acme.example"
        )

    found = member()
    assert found is not None
    assert (found.role, found.refusal) == (Role.READ_ONLY, None)
    await operator.patch("/admin/orgs/acme/users/ann@acme.example", json={"status": "suspended"})
    await gateway.sync.poll()
    found = member()
    assert found is not None
    assert found.refusal == "user_suspended"


# what is cached for whom


async def test_an_org_and_its_environments_choose_what_is_cached_and_every_gateway_follows(
    engine: AsyncEngine, org: httpx.AsyncClient
) -> None:
    token = (await new_key(org))["key"]
    caching, without = Gateway(engine, CachePolicy()), Gateway(engine)
    await caching.sync.start()
    await without.sync.start()
    assert (await caching.sees(token)).cache == CachePolicy()

    made = (await org.patch("/api/v1/org", json={"cache": {"use": "on", "ttl_s": 60}})).json()
    assert made["cache"] == {"use": "on", "sampled": None, "ttl_s": 60.0}
    assert (await caching.sees(token)).cache == CachePolicy(Use.ON, sampled=False, ttl_s=60.0)

    choice = {"cache": {"use": "opt_in", "sampled": True}}
    changed = (await org.patch("/api/v1/environments/prod", json=choice)).json()
    assert changed["cache"] == {"use": "opt_in", "sampled": True, "ttl_s": None}
    assert (await caching.sees(token)).cache == CachePolicy(Use.OPT_IN, sampled=True, ttl_s=60.0)
    assert (await without.sees(token)).cache == NO_CACHE  # where there is no cache, nobody can choose one

    await org.patch("/api/v1/environments/prod", json={"cache": {}})
    assert (await caching.sees(token)).cache == CachePolicy(Use.ON, sampled=False, ttl_s=60.0)


@pytest.mark.parametrize("choice", [{"use": "maybe"}, {"ttl_s": 0}, {"ttl_s": 1e9}, {"ttl_s": "NaN"}, {"mode": "on"}])
async def test_a_choice_that_is_none_is_refused(org: httpx.AsyncClient, choice: dict[str, Any]) -> None:
    answer = await org.patch("/api/v1/environments/prod", json={"cache": choice})
    assert error_of(answer)[::2] == (400, "invalid_request")
