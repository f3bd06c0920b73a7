"""Every list of the management API: cursor pages that add up to the whole, and filters that leave out the rest."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.store.tables import usage_records
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on
from tests.contract.test_api_authorization import DESCRIPTION
from tests.contract.test_store_tables import usage_row


def _lists() -> list[tuple[str, dict[str, Any]]]:
    """Each GET whose answer has `data`, with its parameters."""
    found = []
    for path, methods in DESCRIPTION["paths"].items():
        operation = methods.get("get")
        if operation is None or not path.startswith(("/admin", "/api/v1")):
            continue
        schema = operation["responses"]["200"]["content"].get("application/json", {}).get("schema", {})
        resolved = DESCRIPTION["components"]["schemas"].get(schema.get("$ref", "").rsplit("/", 1)[-1], {})
        if "data" in resolved.get("properties", {}) and not path.endswith("/logs"):  # the last lines, not a list
            parameters = operation.get("parameters", ())
            found.append((path, {each["name"]: each for each in parameters if each["in"] == "query"}))
    return found


LISTS = _lists()
# One a day: pages are enough there.
SHORT = {"/admin/reconciliations"}
DAY = datetime(2025, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize(("path", "parameters"), LISTS, ids=[path for path, _ in LISTS])
def test_every_list_has_pages_and_filters(path: str, parameters: dict[str, Any]) -> None:
    assert {"cursor", "limit"} <= set(parameters)
    assert path in SHORT or set(parameters) - {"cursor", "limit"}, "no filter"


def test_all_lists_are_looked_at() -> None:
    tops = {path.split("/")[-1] for path, _ in LISTS}
    assert {"orgs", "environments", "users", "keys", "operators", "plans", "audit", "nodes", "usage"} <= tops


class House:
    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client

    async def build(self, engine: AsyncEngine) -> None:
        post = self._post
        org = (await post("/admin/orgs", name="acme", billing_plan="pro"))["id"]
        await post("/admin/orgs", name="beta")
        await post("/admin/orgs", name="other")
        envs = [
            (await post("/admin/orgs/acme/environments", name=name, region=region))["id"]
            for name, region in (("dev", "eu"), ("staging", "eu"), ("prod", "us"))
        ]
        for name, role in (("ann", "admin"), ("bob", "developer"), ("cyn", "developer")):
            await post("/admin/orgs/acme/users", email=f"{name}@acme.example", name=name, role=role)
            await post("/admin/keys", org="acme", environment="dev", name=name, role=role)
            await post("/admin/operators", name=name, role="admin" if name == "ann" else "read-only")
        for number, region in enumerate(("eu", "eu", "us")):
            url = f"http://10.0.0.{number + 1}:80"
            await post("/admin/nodes/register", endpoint_url=url, models=["m"], region=region, node_id=f"n{number}")
            reservation = {"org": "acme", "model": "m", "units": 1, "lasts_s": 3600, "region": region, "force": True}
            await post("/admin/capacity/reservations", **reservation)
        rows = [
            usage_row(
                f"r{n}",
                org_id=org,
                env_id=envs[n % 3],
                model=f"m{n % 2}",
                region="eu" if n % 3 else "us",
                timestamp=DAY + timedelta(hours=12 * n),
            )
            for n in range(7)
        ]
        async with engine.begin() as conn:
            await conn.execute(insert(usage_records), rows)
        self.envs = envs

    async def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = await self.client.post(path, json=body)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def pages(self, path: str, **query: Any) -> list[Any]:
        """All rows, one at a time."""
        rows, cursor = [], None
        while True:
            page = await self.client.get(path, params={**query, "limit": 1} | ({"cursor": cursor} if cursor else {}))
            assert page.status_code == 200, page.text
            assert len(page.json()["data"]) <= 1
            rows += page.json()["data"]
            cursor = page.json()["next_cursor"]
            if cursor is None:
                return rows


@pytest_asyncio.fixture
async def house(engine: AsyncEngine) -> AsyncIterator[House]:
    async with client_of(services_on(engine), **HEADERS) as client:
        house = House(client)
        await house.build(engine)
        yield house


# Those that `House` fills; the tests of the others fill these.
FILLED = {"orgs", "environments", "users", "keys", "operators", "plans", "audit", "nodes", "reservations", "regions"}
CONCRETE = [f"/admin/{path}" for path in ("usage/acme", "orgs/acme/users", "orgs/acme/environments")]
CONCRETE += [
    path for path, _ in LISTS if path.startswith("/admin") and path.split("/")[-1] in FILLED and "{" not in path
]


@pytest.mark.parametrize("path", CONCRETE)
async def test_the_pages_of_a_list_are_the_list(house: House, path: str) -> None:
    query = {"group_by": ["env", "model", "day"]} if "usage" in path else {}
    whole = (await house.client.get(path, params=query)).json()
    assert len(whole["data"]) >= 3
    assert await house.pages(path, **query) == whole["data"]


@pytest.mark.parametrize(
    ("path", "query", "expected"),
    [
        ("/admin/orgs", {"billing_plan": "pro"}, 1),
        ("/admin/orgs", {"prefix": "b"}, 1),
        ("/admin/orgs/acme/environments", {"region": "eu"}, 2),
        ("/admin/orgs/acme/users", {"role": "developer"}, 2),
        ("/admin/orgs/acme/users", {"prefix": "ann"}, 1),
        ("/admin/keys", {"org": "acme", "role": "developer"}, 2),
        ("/admin/keys", {"org": "acme", "environment": "prod"}, 0),
        ("/admin/operators", {"role": "read-only"}, 2),
        ("/admin/operators", {"prefix": "cy"}, 1),
        ("/admin/operators", {"status": "revoked"}, 0),
        ("/admin/plans", {"prefix": "pr"}, 1),
        ("/admin/nodes", {"region": "eu"}, 2),
        ("/admin/audit", {"action": "operator"}, 3),
        ("/admin/audit", {"action": "node.register"}, 3),
        ("/admin/audit", {"to": "2020-01-01"}, 0),
        ("/admin/usage/acme", {"group_by": "model", "env": "dev"}, 2),
        ("/admin/usage/acme", {"group_by": "day", "env": "prod"}, 2),
        ("/admin/usage/acme", {"group_by": "env", "region": "us"}, 1),
        ("/admin/usage/acme", {"group_by": "model", "model": "m1"}, 1),
    ],
)
async def test_a_filter_leaves_out_the_rest(house: House, path: str, query: dict[str, str], expected: int) -> None:
    assert len(await house.pages(path, **query)) == expected


async def test_usage_by_environment_adds_up(house: House) -> None:
    """ "Separate analytics" of each environment (architecture document, section 11), page by page or at once."""
    path, query = "/admin/usage/acme", {"group_by": "env"}
    whole = (await house.client.get(path, params=query)).json()
    assert {row["group"]["env"] for row in whole["data"]} == set(house.envs)
    page = (await house.client.get(path, params={**query, "limit": 2})).json()
    assert page["totals"] == whole["totals"]
    assert sum(row["total_tokens"] for row in whole["data"]) == whole["totals"]["total_tokens"]
    for name, env_id in zip(("dev", "staging", "prod"), house.envs, strict=True):
        alone = (await house.client.get(path, params={"env": name})).json()
        (in_all,) = [row for row in whole["data"] if row["group"]["env"] == env_id]
        assert alone["totals"]["requests"] == in_all["requests"]


@pytest.mark.parametrize("query", ["cursor=x", "group_by=env&cursor=bm8=", "group_by=env&cursor=W10=", "env=absent"])
async def test_a_cursor_or_environment_that_is_none_is_refused(house: House, query: str) -> None:
    assert error_of(await house.client.get(f"/admin/usage/acme?{query}"))[0] in (400, 404)


async def test_what_is_done_to_nodes_is_in_the_audit_log(house: House) -> None:
    client = house.client
    body = {"endpoint_url": "http://10.0.1.1:80", "models": ["m"], "node_id": "n9", "api_key": "node-secret"}
    for changes in ({}, {}, {"region": "eu"}):  # said twice is one registration
        await client.post("/admin/nodes/register", json=body | changes, headers={"X-Request-Id": "req-1"})
    await client.post("/admin/nodes/n9/heartbeat", json={"requests_running": 3})
    await client.post("/admin/nodes/n9/drain")
    await client.delete("/admin/nodes/n9")
    found = await client.get("/admin/audit", params={"entity": "n9"})
    assert "node-secret" not in found.text
    entries = found.json()["data"][::-1]
    assert [entry["action"] for entry in entries] == ["node.register", "node.change", "node.drain", "node.remove"]
    registered, changed, drained, removed = entries
    assert (registered["before"], registered["after"]["region"]) == (None, "local")
    assert (changed["before"], changed["after"]) == ({"region": "local"}, {"region": "eu"})
    assert (drained["before"], drained["after"]) == ({"status": "active"}, {"status": "draining"})
    assert (removed["before"]["status"], removed["after"]) == ("draining", None)
    assert {(entry["actor_kind"], entry["actor_id"]) for entry in entries} == {("operator", "root")}
    assert (registered["request_id"], changed["request_id"]) == ("req-1", "req-1")
    assert (await client.get("/admin/audit/verify")).json()["intact"]


async def test_a_filter_that_a_route_does_not_have_is_refused_and_those_it_has_are_named(house: House) -> None:
    for path, misspelt in (("/admin/usage/acme", "start"), ("/admin/nodes", "org"), ("/admin/orgs/acme", "x")):
        answer = await house.client.get(path, params={misspelt: "2025-01-01"})
        assert error_of(answer)[0] == 400
        assert answer.json()["error"]["param"] == misspelt
    assert "from, to" in (await house.client.get("/admin/usage/acme", params={"start": "x"})).json()["error"]["message"]
