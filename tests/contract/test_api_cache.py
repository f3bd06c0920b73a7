"""The response cache under /admin and /api/v1, on both databases: an org sees and clears its own and nothing else."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import ApiServices
from crosslogic.cache import orders
from crosslogic.cache.elsewhere import CachesElsewhere
from crosslogic.cache.memory import MemoryCache
from crosslogic.cache.model import CacheKey
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.ids import EnvId, OrgId
from crosslogic.store.changes import ChangeFeed
from tests.cache_samples import recording
from tests.contract.test_api_admin import HEADERS, client_of, error_of, services_on


class World:
    """Two orgs with two environments each; six answers are kept for the first, and the same six for the second."""

    def __init__(self, services: ApiServices) -> None:
        self.services = services
        self.cache = services.cache
        self.operator = client_of(services, **HEADERS)
        self.orgs: dict[str, httpx.AsyncClient] = {}
        self.ids: dict[str, str] = {}

    async def build(self) -> None:
        for org in ("acme", "other"):
            self.ids[org] = (await self.operator.post("/admin/orgs", json={"name": org})).json()["id"]
            for env in ("dev", "prod"):
                made = (await self.operator.post(f"/admin/orgs/{org}/environments", json={"name": env})).json()
                self.ids[f"{org}/{env}"] = made["id"]
            body = {"org": org, "environment": "prod", "name": "boss", "role": "admin"}
            token = (await self.operator.post("/admin/keys", json=body)).json()["key"]
            self.orgs[org] = client_of(self.services, Authorization=f"Bearer {token}")
            for number in range(6):
                self.keep(org, number)

    def keep(self, org: str, number: int) -> None:
        env, model = ("dev", "prod")[number % 2], ("m/1", "m/2")[number // 3]
        made = recording(b"a secret", f"req_{org}{number}", env=EnvId(self.ids[f"{org}/{env}"]), model=model)
        assert isinstance(self.cache, MemoryCache)
        self.cache.set(self.key(number, org), made, 60.0 + number)

    def key(self, number: int, org: str = "acme") -> CacheKey:
        return CacheKey(OrgId(self.ids[org]), hashlib.sha256(b"%d" % number).digest())

    async def listed(self, path: str = "/api/v1/cache", org: str = "acme", **query: Any) -> list[dict[str, Any]]:
        client = self.orgs[org] if path.startswith("/api") else self.operator
        query = query if path.startswith("/api") else query | {"org": org}
        found, cursor = list[dict[str, Any]](), None
        for _ in range(20):
            params = {name: value for name, value in (query | {"cursor": cursor}).items() if value is not None}
            answer = await client.get(path, params=params)
            assert answer.status_code == 200, answer.text
            found += answer.json()["data"]
            cursor = answer.json()["next_cursor"]
            if cursor is None:
                return found
        raise AssertionError("the list has no end")


@pytest_asyncio.fixture
async def world(engine: AsyncEngine) -> AsyncIterator[World]:
    world = World(services_on(engine))
    await world.build()
    yield world
    for client in (world.operator, *world.orgs.values()):
        await client.aclose()


async def test_a_list_tells_all_about_answers_but_what_they_say(world: World) -> None:
    await world.cache.get(world.key(2))  # type: ignore[attr-defined]
    rows = await world.listed(limit=2)
    assert [row["request_id"] for row in rows] == [f"req_acme{number}" for number in range(6)]
    third = rows[2]
    assert (third["key"], third["hit_count"], third["model"]) == (world.key(2).shown, 1, "m/1")
    assert (third["env_id"], third["endpoint"], third["ttl_s"]) == (world.ids["acme/dev"], "chat/completions", 62.0)
    assert third["size_bytes"] > len(b"a secret")
    assert "secret" not in str(rows)
    seen = await world.listed("/admin/cache", org="acme")
    assert [{**row, "age_s": 0} for row in seen] == [{**row, "age_s": 0} for row in rows]


async def test_a_list_is_filtered_by_environment_and_model(world: World) -> None:
    assert [row["request_id"][-1] for row in await world.listed(environment="dev")] == ["0", "2", "4"]
    assert [row["request_id"][-1] for row in await world.listed(model="m/2", limit=1)] == ["3", "4", "5"]
    both = await world.listed("/admin/cache", org="acme", environment=world.ids["acme/prod"], model="m/1")
    assert [row["request_id"][-1] for row in both] == ["1"]


@pytest.mark.parametrize("by", ["key", "request"])
async def test_one_answer_is_shown_and_deleted_by_key_or_request(world: World, by: str) -> None:
    ref = world.key(3).shown if by == "key" else "req_acme3"
    acme = world.orgs["acme"]
    assert (await acme.get(f"/api/v1/cache/{ref}")).json()["request_id"] == "req_acme3"
    assert (await world.operator.get(f"/admin/cache/{ref}?org=acme")).json()["key"] == world.key(3).shown
    assert (await acme.delete(f"/api/v1/cache/{ref}")).json() == {"cleared": 1}
    assert error_of(await acme.get(f"/api/v1/cache/{ref}"))[::2] == (404, "not_found")
    assert error_of(await acme.delete(f"/api/v1/cache/{ref}"))[::2] == (404, "not_found")
    assert len(await world.listed()) == 5


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ({}, ""),
        ({"environment": "dev"}, "135"),
        ({"model": "m/2"}, "012"),
        ({"environment": "prod", "model": "m/1"}, "02345"),
    ],
)
async def test_clearing_takes_what_it_names_of_this_org(world: World, body: dict[str, str], left: str) -> None:
    cleared = (await world.orgs["acme"].post("/api/v1/cache/clear", json=body)).json()
    assert cleared == {"cleared": 6 - len(left)}
    assert "".join(row["request_id"][-1] for row in await world.listed()) == left
    assert len(await world.listed(org="other")) == 6
    again = await world.operator.post("/admin/cache/clear", json={"org": "acme", **body})
    assert again.json() == {"cleared": 0}


async def test_another_orgs_answers_are_like_none(world: World) -> None:
    other = world.orgs["other"]
    await world.orgs["acme"].delete(f"/api/v1/cache/{world.key(1).shown}")
    await other.post("/api/v1/cache/clear", json={})
    world.keep("acme", 1)
    for ref in (world.key(1).shown, "req_acme1"):
        known, unknown = await other.get(f"/api/v1/cache/{ref}"), await other.get("/api/v1/cache/req_nobody")
        assert (known.status_code, known.json()) == (unknown.status_code, unknown.json())
        assert known.status_code == (await other.delete(f"/api/v1/cache/{ref}")).status_code == 404
    foreign = await other.post("/api/v1/cache/clear", json={"environment": world.ids["acme/dev"]})
    assert error_of(foreign)[::2] == (404, "not_found")
    assert (await other.get("/api/v1/cache", params={"environment": world.ids["acme/dev"]})).status_code == 404
    assert error_of(await other.get("/api/v1/cache", params={"org": "acme"})) == (
        400,
        "invalid_request_error",
        "invalid_request",
        "org",
    )
    assert (await other.get("/api/v1/cache")).json()["data"] == []
    assert (await other.post("/api/v1/cache/clear", json={"org": "acme"})).status_code == 400
    assert (await other.get("/admin/cache", params={"org": "acme"})).status_code == 403
    assert len(await world.listed()) == 6


HOSTILE = (
    "%00", "%0a", "..",
    "%2e%2e%2fclear", "*", "index", "sizes", "total", "{x}", "'%20OR%201=1--", "%F0%9F%92%A5", "%ff%fe",
    "A" * 64, "0" * 63 + "%20", "%20" + "0" * 63, "0" * 200, "0" * 5000, "req_", "req_%2a", "req_" + "a" * 100,
)  # fmt: skip


@pytest.mark.parametrize("ref", HOSTILE)
async def test_a_hostile_name_finds_nothing_breaks_nothing_and_is_not_written_down(world: World, ref: str) -> None:
    before = (await world.operator.get("/admin/audit?action=cache")).json()["data"]
    for client, query in ((world.orgs["acme"], ""), (world.operator, "?org=acme")):
        base = "/admin/cache" if query else "/api/v1/cache"
        for method in ("GET", "DELETE"):
            answer = await client.request(method, f"{base}/{ref}{query}")
            assert answer.status_code in (400, 404, 405), (method, answer.text)
    assert len(await world.listed()) == 6
    assert (await world.operator.get("/admin/audit?action=cache")).json()["data"] == before


@pytest.mark.parametrize("query", ["limit=0", "limit=501", "cursor=1", "cursor=%00", "environment=nope"])
async def test_a_list_that_makes_no_sense_is_refused(world: World, query: str) -> None:
    assert (await world.orgs["acme"].get(f"/api/v1/cache?{query}")).status_code in (400, 404)


async def test_every_order_is_in_the_audit_log(world: World) -> None:
    await world.orgs["acme"].post("/api/v1/cache/clear", json={"environment": "dev", "model": "m/1"})
    await world.operator.delete(f"/admin/cache/{world.key(1).shown}?org=acme")
    deleted, cleared = (await world.orgs["acme"].get("/api/v1/audit?action=cache")).json()["data"]
    assert (cleared["action"], cleared["actor_kind"], cleared["entity_id"]) == (
        "cache.clear",
        "key",
        world.ids["acme/dev"],
    )
    assert cleared["after"] == {"env_id": world.ids["acme/dev"], "model": "m/1"}
    assert (deleted["action"], deleted["actor_kind"], deleted["entity_id"]) == (
        "cache.delete",
        "operator",
        world.key(1).shown,
    )
    assert (await world.operator.get("/admin/audit/verify")).json()["intact"]


async def test_caches_of_other_processes_are_told_by_the_change_feed(engine: AsyncEngine, world: World) -> None:
    """Two workers that keep answers in memory, and a control process that sees neither."""
    workers = [MemoryCache(ManualClock()), MemoryCache(ManualClock())]
    for worker in workers:
        for number in range(6):
            env = EnvId(world.ids[f"acme/{('dev', 'prod')[number % 2]}"])
            worker.set(world.key(number), recording(request_id=f"req_acme{number}", env=env), 60.0)
            worker.set(world.key(number, "other"), recording(request_id=f"req_other{number}"), 60.0)
    feed = ChangeFeed(engine)
    await feed.start()
    elsewhere = ApiServices(**{**vars(world.services), "cache": CachesElsewhere()})
    async with client_of(elsewhere, **HEADERS) as control:

        async def follow(*numbers: int) -> None:
            heard: list[str] = []

            async def apply(changes: Any) -> None:
                heard.extend(change.entity_id for change in changes if change.kind == orders.CACHE_ORDERED)

            await feed.poll(apply)
            for worker in workers:
                for text in heard:
                    order = orders.read(text)
                    assert order is not None
                    await orders.obey(order, worker)
                left = (await worker.entries(OrgId(world.ids["acme"]))).entries
                assert [entry.request_id for entry in left] == [f"req_acme{number}" for number in numbers]
                assert len((await worker.entries(OrgId(world.ids["other"]))).entries) == 6

        unseen = await control.get("/admin/cache?org=acme")
        assert error_of(unseen)[::2] == (409, "conflict")
        assert "cache.backend: redis" in unseen.json()["error"]["message"]
        told = {"cleared": None}
        assert (await control.delete("/admin/cache/req_acme4?org=acme")).json() == told
        await follow(*sorted((0, 1, 2, 3, 5), key=lambda number: world.key(number).digest))
        assert (await control.delete(f"/admin/cache/{world.key(2).shown}?org=acme")).json() == told
        await follow(*sorted((0, 1, 3, 5), key=lambda number: world.key(number).digest))
        body = {"org": "acme", "environment": "prod"}
        assert (await control.post("/admin/cache/clear", json=body)).json() == told
        await follow(0)


@pytest.mark.parametrize("text", ["", "{}", "[]", '["org_1", 7]', "null", '["org_1", [1, 2, 3], "x"'])
def test_an_order_that_cannot_be_read_is_none(text: str) -> None:
    assert orders.read(text) is None
