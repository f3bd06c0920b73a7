"""Notices and channels over REST, on both databases: for operators and for orgs."""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import ApiServices
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on

OWN = "/api/v1/notification-channels"
ADMIN = "/admin/notification-channels"


class World:
    """Two orgs with an admin's key each, and an operator."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
        self.operator = client_of(services, **HEADERS)
        self.orgs: dict[str, httpx.AsyncClient] = {}

    async def build(self) -> None:
        for org in ("acme", "bolt"):
            await self.operator.post("/admin/orgs", json={"name": org})
            await self.operator.post(f"/admin/orgs/{org}/environments", json={"name": "prod"})
            body = {"org": org, "environment": "prod", "name": "boss", "role": "admin"}
            token = (await self.operator.post("/admin/keys", json=body)).json()["key"]
            self.orgs[org] = client_of(self.services, Authorization=f"Bearer {token}")


@pytest_asyncio.fixture
async def world(engine: AsyncEngine) -> AsyncIterator[World]:
    world = World(services_on(engine))
    await world.build()
    yield world
    for client in (world.operator, *world.orgs.values()):
        await client.aclose()


async def add(client: httpx.AsyncClient, path: str = OWN, **fields: Any) -> httpx.Response:
    body = {"name": "hook", "kind": "webhook", "target": "https://hooks.example.com/x"} | fields
    return await client.post(path, json=body)


@pytest.mark.parametrize("path", [OWN, ADMIN])
async def test_a_secret_is_shown_once(world: World, path: str) -> None:
    client = world.orgs["acme"] if path == OWN else world.operator
    made = await add(client, path)
    assert made.status_code == 201
    secret = made.json()["secret"]
    assert secret.startswith("whsec_")
    where = f"{path}/{made.json()['id']}"
    later = [await client.get(where), await client.get(path), await client.patch(where, json={"name": "other"})]
    audit = await world.operator.get("/admin/audit", params={"action": "channel"})
    assert all(answer.status_code == 200 and secret not in answer.text for answer in (*later, audit))
    rotated = (await client.post(f"{where}/rotate")).json()["secret"]
    assert rotated not in (None, secret)


async def test_channels_are_listed_page_by_page(world: World) -> None:
    acme = world.orgs["acme"]
    made = [(await add(acme, name=f"hook {number}")).json()["id"] for number in range(3)]
    first = (await acme.get(OWN, params={"limit": 2})).json()
    second = (await acme.get(OWN, params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert [row["id"] for row in first["data"] + second["data"]] == made
    assert second["next_cursor"] is None


async def test_a_test_notice_is_among_the_notices_and_the_deliveries(world: World) -> None:
    acme = world.orgs["acme"]
    channel = (await add(acme)).json()["id"]
    sent = await acme.post(f"{OWN}/{channel}/test")
    assert sent.status_code == 202
    (delivery,) = (await acme.get(f"{OWN}/{channel}/deliveries")).json()["data"]
    assert (delivery["status"], delivery["attempts"], delivery["notice_id"]) == ("pending", 0, sent.json()["id"])
    for client, path, seen in ((acme, "/api/v1", 1), (world.orgs["bolt"], "/api/v1", 0), (world.operator, "/admin", 1)):
        for params, count in (({}, seen), ({"kind": "test"}, seen), ({"kind": "budget"}, 0)):
            assert len((await client.get(f"{path}/notices", params=params)).json()["data"]) == count


async def test_what_operators_have_is_not_for_orgs_and_the_other_way_round(world: World) -> None:
    theirs, mine = (await add(world.operator, ADMIN)).json()["id"], (await add(world.orgs["acme"])).json()["id"]
    assert error_of(await world.orgs["acme"].get(f"{OWN}/{theirs}"))[::2] == (404, "not_found")
    assert error_of(await world.operator.get(f"{ADMIN}/{mine}"))[::2] == (404, "not_found")
    assert error_of(await world.orgs["bolt"].delete(f"{OWN}/{mine}"))[::2] == (404, "not_found")
    assert (await world.orgs["acme"].delete(f"{OWN}/{mine}")).status_code == 204
    assert (await world.orgs["acme"].delete(f"{OWN}/{mine}")).status_code == 404


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "http://hooks.example.com/"},
        {"target": "https://127.0.0.1/"},
        {"target": "https://[::ffff:169.254.169.254]/"},
        {"kind": "slack", "target": "https://10.0.0.1/"},
        {"kind": "email", "target": "https://hooks.example.com/"},
        {"kind": "pager"},
        {"notices": ["everything"]},
        {"secret": "whsec_mine"},
        {"org_id": "org_other"},
    ],
)
async def test_what_makes_no_sense_or_leads_inside_is_refused(world: World, fields: dict[str, Any]) -> None:
    assert error_of(await add(world.orgs["acme"], **fields))[0] == 400


async def test_who_changed_what_is_in_the_audit_log(world: World) -> None:
    acme = world.orgs["acme"]
    channel = (await add(acme)).json()["id"]
    await acme.patch(f"{OWN}/{channel}", json={"status": "suspended", "notices": ["invoice"]})
    await acme.delete(f"{OWN}/{channel}")
    rows = (await world.operator.get("/admin/audit", params={"action": "channel"})).json()["data"]
    assert sorted(row["action"] for row in rows) == ["channel.change", "channel.create", "channel.remove"]
    assert {row["actor_kind"] for row in rows} == {"key"}
