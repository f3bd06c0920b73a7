"""The management API on both databases: what administrators do, what others may not, and how errors look."""

import dataclasses
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import cache
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from crosslogic.api.app import create_app
from crosslogic.api.limit_models import LimitsView
from crosslogic.api.services import ApiServices, Deployed, MoneyServices
from crosslogic.billing.charges.accounts import AccountsService
from crosslogic.billing.charges.inquiries import Inquiries
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.charges.shadow import ShadowRating
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.invoices.invoicing import Invoicing
from crosslogic.billing.retention.service import RetentionService
from crosslogic.cache.memory import MemoryCache
from crosslogic.capacity.allocations.model import Totals
from crosslogic.capacity.allocations.sql import SqlAllocator
from crosslogic.capacity.service import CapacityService
from crosslogic.catalog.store import CatalogStore
from crosslogic.compass.conversation.service import CompassService
from crosslogic.compass.deployments.ports import Cluster
from crosslogic.compass.deployments.service import DeploymentService
from crosslogic.compass.deployments.sql import DeploymentsSql
from crosslogic.compass.outcomes.service import OutcomeService
from crosslogic.compass.outcomes.sql import OutcomesSql
from crosslogic.compass.ranking.service import PlanningService
from crosslogic.fleet.registry import Registry
from crosslogic.insight.anomalies.sql import AnomaliesSql
from crosslogic.insight.finops.sql import FinopsSql
from crosslogic.insight.notices.channels import ChannelService
from crosslogic.kernel.clock import Clock, ManualClock
from crosslogic.limits.model import Limits
from crosslogic.metering.costs.sql import SqlCostTracker
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.live.boards import SqlLive
from crosslogic.metering.requests import RequestFinder
from crosslogic.metering.rollup_sums import RollupSums
from crosslogic.orchestration.registry import ModelRegistry
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.pricing.service import PricesService
from crosslogic.store.engine import create_engine, ping
from crosslogic.tenancy import keys
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from crosslogic.tenancy.strangers import Strangers

ADMIN_KEY = keys.generate(keys.KeyKind.ADMIN)
NO_LIMITS = LimitsView.of(Limits()).model_dump()
HASH = keys.key_hasher(b"pepper")
HEADERS = {"Authorization": f"Bearer {ADMIN_KEY}"}


def services_on(engine: AsyncEngine) -> ApiServices:
    async def database() -> None:
        await ping(engine)

    clock = ManualClock()
    planning = PlanningService(engine, clock)
    return ApiServices(
        tenancy=TenancyService(TenancySql(engine), HASH, clock),
        usage=RollupSums(engine),
        usage_log=LedgerReader(engine),
        requests=RequestFinder(engine),
        costs=SqlCostTracker(engine, lambda: PriceBook(PriceList())),
        live=SqlLive(engine),
        retention=RetentionService(
            engine, clock, AuditTrail(digest=HASH, clock=clock), RatingService(engine, clock), months=2, billed=False
        ),
        nodes=Registry(engine, clock),
        capacity=CapacityService(engine, HASH, clock),
        invoicing=Invoicing(engine, HASH, clock),
        allocator=SqlAllocator(engine, HASH, clock, Totals(), 256),
        planning=planning,
        deployed=deployed_on(engine, clock, planning),
        models=ModelRegistry(engine, HASH, clock),
        channels=ChannelService(engine, HASH, clock),
        anomalies=AnomaliesSql(engine),
        finops=FinopsSql(engine),
        admin_key_hash=HASH(ADMIN_KEY.encode()),
        hash_key=HASH,
        cache=MemoryCache(clock),
        compass=CompassService(engine, HASH, clock),
        catalog=CatalogStore(engine, clock),
        checks={"database": database},
        money=money_on(engine, clock),
    )


def deployed_on(
    engine: AsyncEngine, clock: Clock, planning: PlanningService, cluster: Cluster | None = None
) -> Deployed:
    store = DeploymentsSql(engine, clock)
    service = DeploymentService(store, cluster, AuditTrail(digest=HASH, clock=clock))
    return Deployed(service, OutcomeService(engine, OutcomesSql(engine, clock), store, planning))


def money_on(engine: AsyncEngine, clock: Clock) -> MoneyServices:
    return MoneyServices(
        prices=PricesService(engine, HASH, clock),
        credits=CreditsService(engine, HASH, clock),
        accounts=AccountsService(engine, HASH, clock),
        rating=RatingService(engine, clock),
        inquiries=Inquiries(engine, clock),
        shadow=ShadowRating(engine),
        referral_amount=5 * 10**12,
    )


@cache
def _routes() -> FastAPI:
    """The routes of all applications: to make them takes as long as many requests to them."""
    return create_app(services_on(engine=None))  # type: ignore[arg-type] - whose services is said at each request


def app_of(services: ApiServices) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        _routes().state.services = services
        await _routes()(scope, receive, send)

    return app


def client_of(services: ApiServices, **headers: str) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app_of(services), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://control", headers=headers)


@pytest_asyncio.fixture
async def client(engine: AsyncEngine) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(services_on(engine), **HEADERS) as client:
        yield client


async def house(client: httpx.AsyncClient, org: str = "acme", env: str = "prod") -> dict[str, str]:
    """Ids of a new org, its environment and a key, and the key itself."""
    made_org = (await client.post("/admin/orgs", json={"name": org})).json()
    made_env = (await client.post(f"/admin/orgs/{org}/environments", json={"name": env})).json()
    body = {"org": org, "environment": env, "name": "first"}
    made_key = (await client.post("/admin/keys", json=body)).json()
    return {"org": made_org["id"], "env": made_env["id"], "key": made_key["id"], "token": made_key["key"]}


def error_of(answer: httpx.Response) -> tuple[int, str, str, str | None]:
    body = answer.json()
    assert list(body) == ["error"]
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert body["error"]["message"]
    return answer.status_code, body["error"]["type"], body["error"]["code"], body["error"]["param"]


# who may


def admin_operations() -> list[tuple[str, str]]:
    """Every operation below /admin that our own OpenAPI description tells of."""
    paths = create_app(services_on(engine=None)).openapi()["paths"]  # type: ignore[arg-type] - builds routes only
    return [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        if path.startswith("/admin")
        for method in methods
    ]


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        (None, (401, "authentication_error", "invalid_api_key", None)),
        ("Bearer ", (401, "authentication_error", "invalid_api_key", None)),
        (f"Basic {ADMIN_KEY}", (401, "authentication_error", "invalid_api_key", None)),
        (f"Bearer {ADMIN_KEY}x", (401, "authentication_error", "invalid_api_key", None)),
        (
            f"Bearer {keys.generate(keys.KeyKind.ADMIN)}",
            (401, "authentication_error", "invalid_api_key", None),
        ),
        (f"Bearer {keys.generate(keys.KeyKind.LIVE)}", (403, "permission_error", "forbidden", None)),
    ],
    ids=["none", "empty", "basic", "longer", "another admin key", "a tenant's key"],
)
async def test_no_operation_answers_without_the_admin_key(
    sqlite_services: ApiServices, authorization: str | None, expected: tuple[int, str, str, str | None]
) -> None:
    headers = {} if authorization is None else {"Authorization": authorization}
    async with client_of(sqlite_services, **headers) as nobody:
        for method, path in admin_operations():
            answer = await nobody.request(method, path, json={})
            assert error_of(answer) == expected, (method, path)
            assert ("www-authenticate" in answer.headers) is (expected[0] == 401)


@pytest_asyncio.fixture
async def sqlite_services(sqlite_url: str) -> AsyncIterator[ApiServices]:
    engine = create_engine(sqlite_url)
    yield services_on(engine)
    await engine.dispose()


def test_every_route_is_in_the_openapi_description() -> None:
    app = create_app(services_on(engine=None))  # type: ignore[arg-type] - builds routes only
    described = {(path, method.upper()) for path, of in app.openapi()["paths"].items() for method in of}
    routed = {(r.path, m) for r in app.routes if isinstance(r, APIRoute) for m in r.methods}
    assert routed <= described


# orgs, environments, keys


async def test_an_org_is_created_found_changed_and_suspended(client: httpx.AsyncClient) -> None:
    body = {"name": "acme", "limits": {"tokens_per_minute": 5000}, "allowed_models": ["m"]}
    answer = await client.post("/admin/orgs", json=body)
    created = answer.json()
    assert answer.status_code == 201
    assert created["id"].startswith("org_")
    assert (created["name"], created["status"]) == ("acme", "active")
    assert created["limits"] == NO_LIMITS | {"tokens_per_minute": 5000}
    assert datetime.fromisoformat(created["created_at"]) == ManualClock().now()
    for ref in (created["id"], "acme"):
        assert (await client.get(f"/admin/orgs/{ref}")).json() == created
    change = {"status": "suspended", "limits": {"concurrency": 2}}
    changed = (await client.patch("/admin/orgs/acme", json=change)).json()
    assert changed == created | {"status": "suspended", "limits": NO_LIMITS | {"concurrency": 2}}


async def test_every_limit_that_there_is_can_be_set(client: httpx.AsyncClient) -> None:
    every = dict.fromkeys(LimitsView.model_fields, 7) | {"burst_share": 0.5, "shadow": True}
    every |= {name: "7.25" for name in every if name.startswith("spend_")}
    assert len(every) == len(Limits.__struct_fields__)
    answer = await client.post("/admin/orgs", json={"name": "acme", "limits": every})
    assert answer.json()["limits"] == every


@pytest.mark.parametrize(
    ("sent", "shown"),
    [("25.00", "25.00"), ("0.000000000001", "0.000000000001"), ("9000000", "9000000.00"), ("0", "0.00"), (2, "2.00")],
)
async def test_money_is_exact_both_ways(client: httpx.AsyncClient, sent: object, shown: str) -> None:
    limits = {"spend_per_month_usd": sent}
    answer = await client.post("/admin/orgs", json={"name": "acme", "limits": limits, "at_cap": "suspend"})
    assert (answer.json()["limits"]["spend_per_month_usd"], answer.json()["at_cap"]) == (shown, "suspend")
    assert (await client.get("/admin/orgs/acme")).json() == answer.json()


@pytest.mark.parametrize(
    "limits",
    [
        {"spend_per_month_usd": "a lot"},
        {"spend_per_month_usd": "-1"},
        {"spend_per_month_usd": "0.0000000000001"},
        {"spend_per_month_usd": "9000001"},
        {"spend_per_month_usd": "NaN"},
        {"spend_per_month_usd": True},
        {"spend_per_month_pusd": 1},
        {"requests_per_fortnight": 1},
        {"max_input_tokens": -1},
        {"shadow": "perhaps"},
    ],
    ids=str,
)
async def test_a_ceiling_that_is_none_is_refused(client: httpx.AsyncClient, limits: dict[str, object]) -> None:
    answer = await client.post("/admin/orgs", json={"name": "acme", "limits": limits})
    assert error_of(answer)[0] == 400
    assert next(iter(limits)).removesuffix("_usd") in str(answer.json()["error"])


async def test_what_is_shown_of_ceilings_can_be_sent_back(client: httpx.AsyncClient) -> None:
    created = (await client.post("/admin/orgs", json={"name": "acme", "limits": {"spend_per_day_usd": "1.5"}})).json()
    again = await client.patch("/admin/orgs/acme", json={"limits": created["limits"]})
    assert again.json() == created


async def test_environments_live_inside_their_org(client: httpx.AsyncClient) -> None:
    one, two = await house(client, "one"), await house(client, "two")
    listed = (await client.get("/admin/orgs/one/environments")).json()
    assert [env["id"] for env in listed["data"]] == [one["env"]]
    assert (await client.get(f"/admin/orgs/{one['org']}/environments/prod")).json()["id"] == one["env"]
    changed = await client.patch("/admin/orgs/one/environments/prod", json={"status": "suspended"})
    assert changed.json()["status"] == "suspended"
    foreign = await client.get(f"/admin/orgs/one/environments/{two['env']}")
    absent = await client.get("/admin/orgs/one/environments/env_absent")
    assert error_of(foreign)[0] == 404
    assert foreign.json() == absent.json()


async def test_a_key_is_shown_in_one_answer_only(client: httpx.AsyncClient) -> None:
    made = await house(client)
    assert keys.kind_of(made["token"]) is keys.KeyKind.LIVE
    answers = [
        await client.get("/admin/keys"),
        await client.get(f"/admin/keys/{made['key']}"),
        await client.patch(f"/admin/keys/{made['key']}", json={"limits": {"concurrency": 1}}),
        await client.post(f"/admin/keys/{made['key']}/revoke"),
    ]
    for answer in answers:
        assert answer.status_code == 200
        assert made["token"] not in answer.text
        assert "key_hash" not in answer.text
    (listed,) = answers[0].json()["data"]
    assert made["token"].startswith(listed["prefix"])
    assert (listed["name"], listed["role"], listed["last_used_at"]) == ("first", "developer", None)


@pytest.mark.parametrize(("method", "suffix"), [("DELETE", ""), ("POST", "/revoke")])
async def test_revoking_is_final_and_may_be_repeated(client: httpx.AsyncClient, method: str, suffix: str) -> None:
    made = await house(client)
    for _ in range(2):
        answer = await client.request(method, f"/admin/keys/{made['key']}{suffix}")
        assert (answer.status_code, answer.json()["status"]) == (200, "revoked")
    back = await client.patch(f"/admin/keys/{made['key']}", json={"status": "active"})
    assert error_of(back) == (409, "invalid_request_error", "conflict", None)


async def test_rotation_shows_a_new_key_and_revokes_the_old(client: httpx.AsyncClient) -> None:
    made = await house(client)
    answer = await client.post(f"/admin/keys/{made['key']}/rotate")
    assert answer.status_code == 201
    assert answer.json()["key"] != made["token"]
    assert (await client.get(f"/admin/keys/{made['key']}")).json()["status"] == "revoked"
    active = (await client.get("/admin/keys", params={"org": "acme", "status": "active"})).json()["data"]
    assert [key["id"] for key in active] == [answer.json()["id"]]


async def test_lists_come_in_pages_that_together_are_everything(client: httpx.AsyncClient) -> None:
    names = [f"org-{n}" for n in range(5)]
    for name in names:
        await client.post("/admin/orgs", json={"name": name})
    seen: list[str] = []
    cursor: str | None = None
    while True:
        params = {"limit": 2, "prefix": "org-"} | ({} if cursor is None else {"cursor": cursor})
        page = (await client.get("/admin/orgs", params=params)).json()
        seen += [org["name"] for org in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == names


async def test_a_key_s_expiry_without_a_zone_is_utc(client: httpx.AsyncClient) -> None:
    await house(client)
    body = {"org": "acme", "environment": "prod", "name": "k", "expires_at": "2027-01-01T00:00:00"}
    created = (await client.post("/admin/keys", json=body)).json()
    assert datetime.fromisoformat(created["expires_at"]) == datetime(2027, 1, 1, tzinfo=UTC)


async def test_the_nodes_routes_are_part_of_it(client: httpx.AsyncClient) -> None:
    body = {"endpoint_url": "http://127.0.0.1:8000", "model_list": ["m"]}
    assert (await client.post("/admin/nodes/register", json=body)).status_code == 200
    assert len((await client.get("/admin/nodes")).json()["data"]) == 1


# what is refused


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "name"),
        ({"name": 7}, "name"),
        ({"name": "Not A Slug"}, "name"),
        ({"name": "a\x00b"}, "name"),
        ({"name": "acme", "id": "org_mine"}, "id"),
        ({"name": "acme", "status": "active"}, "status"),
        ({"name": "acme", "limits": {"concurrency": -1}}, "limits.concurrency"),
        ({"name": "acme", "limits": {"concurrency": True}}, "limits.concurrency"),
        ({"name": "acme", "limits": {"concurrency": 1.5}}, "limits.concurrency"),
        ({"name": "acme", "limits": {"tokens": 1}}, "limits.tokens"),
        ({"name": "acme", "allowed_models": "m"}, "allowed_models"),
        ({"name": "acme", "allowed_models": ["a\nb"]}, "allowed_models.0"),
        ({"name": "acme", "billing_plan": ""}, "billing_plan"),
    ],
)
async def test_a_wrong_body_is_one_clear_400(sqlite_services: ApiServices, body: dict[str, Any], param: str) -> None:
    async with client_of(sqlite_services, **HEADERS) as client:
        answer = await client.post("/admin/orgs", json=body)
        assert error_of(answer) == (400, "invalid_request_error", "invalid_request", param)
        assert (await client.get("/admin/orgs")).json()["data"] == []


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b'{"name": "\\ud800"}', b"\xff", b"[" * 100_000])
async def test_what_is_no_json_object_is_one_clear_400(sqlite_services: ApiServices, raw: bytes) -> None:
    async with client_of(sqlite_services, **HEADERS) as client:
        answer = await client.post("/admin/orgs", content=raw, headers={"Content-Type": "application/json"})
    assert error_of(answer)[:3] == (400, "invalid_request_error", "invalid_request")


async def test_a_secret_in_a_wrong_body_is_not_repeated(client: httpx.AsyncClient) -> None:
    answer = await client.post("/admin/orgs", json={"name": "acme", "api_key": "hunter2", "limits": "hunter2"})
    assert answer.status_code == 400
    assert "hunter2" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/admin/orgs/absent",
        "/admin/orgs/org_absent",
        "/admin/orgs/%00x",
        "/admin/orgs/absent/environments",
        "/admin/keys/key_absent",
        "/admin/keys?org=absent",
        "/admin/usage/absent",
        "/nothing/here",
    ],
)
async def test_what_is_not_there_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    status, _, code, _ = error_of(await client.get(path))
    assert (status, code) in {(404, "not_found"), (400, "invalid_request")}
    assert (status == 400) is ("%00" in path)


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "limit=x", "status=odd", "cursor=%00", "prefix=%00"])
@pytest.mark.parametrize("path", ["/admin/orgs", "/admin/keys"])
async def test_wrong_queries_are_one_clear_400(client: httpx.AsyncClient, path: str, query: str) -> None:
    answer = await client.get(f"{path}?{query}")
    expected = (400, "invalid_request_error", "invalid_request", query.split("=")[0])
    assert error_of(answer) == expected


async def test_a_wrong_method_is_405_in_the_same_shape(client: httpx.AsyncClient) -> None:
    answer = await client.put("/admin/orgs", json={})
    assert error_of(answer)[::2] == (405, "method_not_allowed")
    assert "allow" in answer.headers


async def test_a_taken_name_is_a_conflict(client: httpx.AsyncClient) -> None:
    await house(client)
    assert error_of(await client.post("/admin/orgs", json={"name": "acme"}))[::2] == (409, "conflict")


# health, ids, failures


async def test_health_and_readiness_ask_for_no_key(engine: AsyncEngine) -> None:
    async with client_of(services_on(engine)) as client:
        assert (await client.get("/health")).json() == {"status": "ok"}
        ready = await client.get("/ready")
        assert (ready.status_code, ready.json()) == (200, {"status": "ready", "failing": []})


@pytest.mark.parametrize("sent", ["req-42", "a" * 128])
async def test_a_request_id_comes_back(client: httpx.AsyncClient, sent: str) -> None:
    answer = await client.get("/health", headers={"X-Request-Id": sent})
    assert answer.headers["x-request-id"] == sent


@pytest.mark.parametrize("sent", [None, "", "a b", "a" * 129, "x\x7f", "<script>"])
async def test_a_request_id_that_is_not_fit_to_log_is_replaced(client: httpx.AsyncClient, sent: str | None) -> None:
    headers = {} if sent is None else {"X-Request-Id": sent}
    for path in ("/health", "/nothing"):
        answer = await client.get(path, headers=headers)
        assert answer.headers["x-request-id"].startswith("req_")


async def test_our_own_fault_is_told_by_its_id_and_logged(
    client: httpx.AsyncClient, engine: AsyncEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE orgs RENAME COLUMN billing_plan TO plan"))
    answer = await client.get("/admin/orgs", headers={"X-Request-Id": "req-7"})
    assert error_of(answer) == (500, "server_error", "internal_error", None)
    assert any("req-7" in record.getMessage() for record in caplog.records)
    assert "plan" not in answer.text
    assert answer.headers["x-request-id"] == "req-7"


async def test_bad_keys_from_one_address_are_slowed_and_the_right_one_is_not(engine: AsyncEngine) -> None:
    services = dataclasses.replace(services_on(engine), strangers=Strangers(3))
    async with client_of(services, Authorization=f"Bearer {keys.generate(keys.KeyKind.ADMIN)}") as guesser:
        statuses = [(await guesser.get("/admin/orgs")).status_code for _ in range(4)]
        of_a_tenant = {"Authorization": f"Bearer {keys.generate(keys.KeyKind.LIVE)}"}
        refused = await guesser.get("/api/v1/org", headers=of_a_tenant)
    assert statuses == [401, 401, 401, 429]
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_bad_keys")
    assert int(refused.headers["retry-after"]) >= 1
    async with client_of(services, **HEADERS) as operator:
        assert (await operator.get("/admin/orgs")).status_code == 200
