"""Who may do what, for every route that our own OpenAPI description tells of: role by role, and across orgs."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import OctKey
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.app import create_app
from crosslogic.api.services import ApiServices
from crosslogic.kernel.clock import ManualClock
from crosslogic.store.engine import create_engine
from crosslogic.tenancy import keys
from crosslogic.tenancy.claims import ClaimRules
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.tenancy.model import Role, Status
from tests.contract.test_api_admin import ADMIN_KEY, HEADERS, client_of, error_of, services_on

SECRET = b"thirty-two bytes are the minimum"
DESCRIPTION = create_app(services_on(engine=None)).openapi()  # type: ignore[arg-type] - builds routes only
OPERATIONS = [
    (method.upper(), path)
    for path, methods in DESCRIPTION["paths"].items()
    for method in methods
    if path.startswith(("/admin", "/api/v1"))
]
OWN = [(method, path) for method, path in OPERATIONS if path.startswith("/api/v1")]
ADMIN = [(method, path) for method, path in OPERATIONS if path.startswith("/admin")]
WRITES = [(method, path) for method, path in OPERATIONS if method in ("POST", "PUT", "PATCH")]
# What decides about power or money: nobody sets it through a body that is not there for it.
PRIVILEGED = {
    "id": "x",
    "org_id": "org_other",
    "org": "other",
    "env_id": "env_other",
    "price": 0,
    "price_usd_per_month": "0",
    "balance": 10**9,
    "credits": 10**9,
    "billing_plan": "enterprise",
    "plan": "enterprise",
    "billing_enabled": False,
    "billed": True,
    "created_by": "user_other",
    "created_at": "2020-01-01T00:00:00Z",
    "key_hash": "00",
    "token": "clsk_live_x",
    "key": "clsk_live_x",
    "prefix": "clsk_live_x",
    "replaced_by": "key_other",
    "actor_id": "root",
    "is_admin": True,
    "permissions": ["*"],
}


def web_token(org: str, **claims: Any) -> str:
    body = {"sub": "ann", "exp": ManualClock().now().timestamp() + 3600, "org": org, **claims}
    return jwt.encode({"alg": "HS256"}, body, OctKey.import_key(SECRET))


def services_with_tokens(engine: AsyncEngine) -> ApiServices:
    services = services_on(engine)
    verifier = JwtVerifier(ClaimRules(), ManualClock(), secret=SECRET)
    return ApiServices(**{**vars(services), "jwt": verifier})


class World:
    """Two orgs, each with an environment, a user and a key of each role."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
        self.tokens: dict[tuple[str, str], str] = {}
        self.ids: dict[str, dict[str, str]] = {}

    async def build(self) -> None:
        tenancy = self.services.tenancy
        for org in ("mine", "other"):
            made = await tenancy.create_org(org)
            env = await tenancy.create_environment(org, "prod")
            user = await tenancy.users.create(made.id, f"ann@{org}.example", name="Ann")
            for role in ("admin", "developer", "read-only"):
                created = await tenancy.create_key(org, "prod", name=role, role=Role(role))
                self.tokens[org, role] = created.token
            spare = await tenancy.create_key(org, "prod", name="spare")
            self.ids[org] = {"org": made.id, "env": env.id, "user": user.id, "key_id": spare.key.id, "plan": "pro"}

    def client(self, token: str | None) -> httpx.AsyncClient:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return client_of(self.services, **headers)

    def at(self, path: str, org: str) -> str:
        return path.format(**self.ids[org], node_id="node_1", operator_id="op_1")


@pytest_asyncio.fixture
async def world(sqlite_url: str) -> AsyncIterator[World]:
    engine = create_engine(sqlite_url)
    world = World(services_with_tokens(engine))
    await world.build()
    yield world
    await engine.dispose()


def test_the_matrix_covers_what_there_is() -> None:
    assert len(OWN) >= 20
    assert len(ADMIN) >= 35
    assert {method for method, _ in OPERATIONS} == {"GET", "POST", "PUT", "PATCH", "DELETE"}


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
async def test_no_route_answers_to_nobody(world: World, method: str, path: str) -> None:
    for token in (None, "x", "", keys.generate(keys.KeyKind.LIVE)[:-1], web_token("mine")[:-4] + "AAAA", "a.b.c"):
        async with world.client(token) as client:
            answer = await client.request(method, world.at(path, "mine"), json={})
        assert error_of(answer)[:3] == (401, "authentication_error", "invalid_api_key"), token


@pytest.mark.parametrize(("method", "path"), ADMIN)
async def test_no_tenant_of_any_role_administers_the_platform(world: World, method: str, path: str) -> None:
    for role in ("admin", "developer", "read-only"):
        async with world.client(world.tokens["mine", role]) as client:
            answer = await client.request(method, world.at(path, "mine"), json={})
        assert error_of(answer)[:3] == (403, "permission_error", "forbidden")
    async with world.client(web_token("mine", role="admin")) as client:
        assert (await client.request(method, world.at(path, "mine"), json={})).status_code == 401


@pytest.mark.parametrize(("method", "path"), OWN)
async def test_an_org_is_managed_by_its_admins_only(world: World, method: str, path: str) -> None:
    below = [world.tokens["mine", role] for role in ("developer", "read-only")]
    below += [web_token("mine", role="developer"), web_token("mine"), ADMIN_KEY]
    for token in below:
        async with world.client(token) as client:
            answer = await client.request(method, world.at(path, "mine"), json={})
        assert error_of(answer)[:3] == (403, "permission_error", "forbidden")
    for token in (world.tokens["mine", "admin"], web_token("mine", role="admin")):
        async with world.client(token) as client:
            answer = await client.request(method, world.at(path, "mine"), json={})
        assert answer.status_code not in (401, 403, 404, 405), answer.text  # the empty body may well be refused


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in OWN if "{" in p and "{plan}" not in p])
async def test_a_foreign_resource_is_the_same_404_as_an_unknown_one(world: World, method: str, path: str) -> None:
    unknown = path.format(env="env_absent", user="user_absent", key_id="key_absent")
    body = {} if method == "POST" else None
    if method == "PATCH":
        body = {"status": "suspended"}
    for token in (world.tokens["mine", "admin"], web_token("mine", role="admin")):
        async with world.client(token) as client:
            foreign = await client.request(method, world.at(path, "other"), json=body)
            absent = await client.request(method, unknown, json=body)
        assert foreign.status_code == absent.status_code == 404
        assert foreign.json() == absent.json()
    # and nothing happened to it
    assert (await world.services.tenancy.key(world.ids["other"]["key_id"])).status == "active"  # type: ignore[arg-type]
    assert len(await world.services.tenancy.audit.entries(org_id=world.ids["other"]["org"])) == 7


@pytest.mark.parametrize(("method", "path"), [(m, p) for m, p in OWN if m == "GET" and "{" not in p])
async def test_no_list_shows_anything_of_another_org(world: World, method: str, path: str) -> None:
    async with world.client(world.tokens["mine", "admin"]) as client:
        answer = await client.get(path)
        assert answer.status_code == 200
        for foreign in world.ids["other"].values():
            assert foreign == "pro" or foreign not in answer.text
        for other in ("org", "org_id"):  # parameters of the operators' routes are none here
            named = await client.get(path, params={other: world.ids["other"]["org"]})
            assert named.json() == answer.json()


@pytest.mark.parametrize(("method", "path"), WRITES)
async def test_no_body_sets_what_is_not_its_to_set(world: World, method: str, path: str) -> None:
    if path.startswith("/admin/nodes"):
        pytest.skip("nodes say what they like, so that newer agents can register; only operators reach them")
    allowed = properties(method, path)
    async with world.client(world.tokens["mine", "admin"] if path.startswith("/api/v1") else ADMIN_KEY) as client:
        for field, value in PRIVILEGED.items():
            if field in allowed:
                assert path.startswith("/admin"), f"{field} can be set by tenants at {path}"
                continue
            if allowed:  # else there is no body that anybody reads
                answer = await client.request(method, world.at(path, "mine"), json={field: value})
                assert error_of(answer)[:3] == (400, "invalid_request_error", "invalid_request"), field


def properties(method: str, path: str) -> set[str]:
    """The fields of an operation's body, as its description says."""
    body = DESCRIPTION["paths"][path][method.lower()].get("requestBody")
    if body is None:
        return set()
    schema = body["content"]["application/json"]["schema"]
    named = [schema, *schema.get("anyOf", [])]
    found: set[str] = set()
    for each in named:
        if "$ref" in each:
            resolved = DESCRIPTION["components"]["schemas"][each["$ref"].rsplit("/", 1)[1]]
            assert resolved.get("additionalProperties") is False or path.startswith("/admin/nodes")
            found |= set(resolved["properties"])
    return found


def test_an_org_cannot_lift_what_it_bought() -> None:
    assert properties("PATCH", "/api/v1/org") == {"env_limits", "key_limits", "region_preferences"}


async def test_a_reading_operator_looks_and_changes_nothing(world: World) -> None:
    created = await world.services.tenancy.operators.create("eve", role=Role.READ_ONLY)
    async with world.client(created.token) as client:
        for method, path in ADMIN:
            answer = await client.request(method, world.at(path, "mine"), json={})
            if method == "GET":
                assert answer.status_code in (200, 404), path
            else:
                assert error_of(answer)[:3] == (403, "permission_error", "forbidden"), path


async def test_an_operator_s_key_works_until_it_is_suspended_or_revoked(world: World) -> None:
    async with world.client(ADMIN_KEY) as root:
        made = (await root.post("/admin/operators", json={"name": "eve"})).json()
        async with world.client(made["key"]) as eve:
            assert (await eve.post("/admin/orgs", json={"name": "third"})).status_code == 201
            (entry,) = (await root.get("/admin/audit", params={"actor": made["id"]})).json()["data"]
            assert (entry["action"], entry["actor_kind"]) == ("org.create", "operator")
            await root.patch(f"/admin/operators/{made['id']}", json={"status": "suspended"})
            assert error_of(await eve.get("/admin/orgs"))[2] == "operator_suspended"
            await root.patch(f"/admin/operators/{made['id']}", json={"status": "active"})
            assert (await eve.get("/admin/orgs")).status_code == 200
            assert (await root.delete(f"/admin/operators/{made['id']}")).json()["status"] == "revoked"
            assert (await eve.get("/admin/orgs")).status_code == 401
        back = await root.patch(f"/admin/operators/{made['id']}", json={"status": "active"})
        assert error_of(back)[0] == 409
        listed = (await root.get("/admin/operators")).text
        assert made["key"] not in listed


async def test_a_suspended_tenant_manages_nothing(world: World) -> None:
    tenancy = world.services.tenancy
    (of_admin,) = [key.id for key in await tenancy.keys(org="mine", name_prefix="admin")]
    for suspend, code in (
        (lambda status: tenancy.change_key(of_admin, status=status), "key_suspended"),
        (lambda status: tenancy.change_environment("mine", "prod", status=status), "tenant_suspended"),
        (lambda status: tenancy.change_org("mine", status=status), "tenant_suspended"),
    ):
        async with world.client(world.tokens["mine", "admin"]) as client:
            await suspend(Status.SUSPENDED)
            assert error_of(await client.get("/api/v1/org"))[:3] == (403, "permission_error", code)
            await suspend(Status.ACTIVE)
            assert (await client.get("/api/v1/org")).status_code == 200
    await tenancy.change_org("mine", status=Status.SUSPENDED)
    async with world.client(web_token("mine", role="admin")) as client:
        assert error_of(await client.get("/api/v1/org"))[2] == "tenant_suspended"


async def test_a_fuzzed_authorization_header_is_never_a_fault_of_ours(world: World) -> None:
    pieces = [
        "Bearer ",
        "bearer\t",
        "Basic ",
        "",
        "clsk_live_",
        "clsk_admin_",
        "'; DROP TABLE api_keys; --",
        "\xff\xfe",
    ]
    pieces += ["a" * 5_000, "%00", "..", "eyJhbGciOiJub25lIn0.e30.", "\u00e9".encode().decode("latin-1"), "{}", "null"]
    async with client_of(world.services) as client:
        for first in pieces:
            for second in pieces:
                header = (first + second).encode("latin-1")
                for path in ("/api/v1/org", "/admin/orgs"):
                    answer = await client.get(path, headers={b"Authorization": header})
                    assert answer.status_code in (401, 403), header
        assert (await client.get("/admin/orgs", headers=HEADERS)).status_code == 200
