"""Reserved capacity over the management API, on both databases: promised, refused, changed, cancelled, seen by orgs."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.store.tables import usage_records
from tests.contract.test_api_admin import HEADERS, client, client_of, error_of, services_on
from tests.contract.test_store_tables import usage_row

__all__ = ["client"]  # a fixture

PATH = "/admin/capacity/reservations"
MODEL = "llama-3-8b"
NOW = ManualClock().now()
LATER = (NOW + timedelta(days=30)).isoformat()


@pytest_asyncio.fixture
async def admin(client: httpx.AsyncClient) -> httpx.AsyncClient:
    """Two orgs, and two nodes of 1000 tokens/s each, one of them in another region."""
    for org in ("acme", "bolt"):
        await client.post("/admin/orgs", json={"name": org})
    for name, region in (("n1", "in"), ("n2", "eu")):
        node = {
            "node_id": name,
            "endpoint_url": f"http://10.1.2.3:80{name[1]}",
            "model_list": [MODEL],
            "region": region,
            "throughput_tokens_per_sec": 1000,
        }
        (await client.post("/admin/nodes/register", json=node)).raise_for_status()
    return client


async def reserve(admin: httpx.AsyncClient, units: int = 15, org: str = "acme", **fields: Any) -> httpx.Response:
    headers = fields.pop("headers", {})
    body = {"org": org, "model": MODEL, "units": units, "expires_at": LATER, **fields}
    return await admin.post(PATH, json=body, headers=headers)


async def test_capacity_is_reserved_listed_changed_and_cancelled(admin: httpx.AsyncClient) -> None:
    made = await reserve(admin, region="in", price_usd_per_month="120.5")
    assert made.status_code == 201
    row = made.json()
    assert (row["units"], row["region"], row["state"], row["shared_fallback"]) == (15, "in", "active", True)
    assert row["price_usd_per_month"] == "120.500000000000"
    assert (await admin.get(f"{PATH}/{row['id']}")).json() == row
    changed = (await admin.patch(f"{PATH}/{row['id']}", json={"units": 20, "price_usd_per_month": 0})).json()
    assert (changed["units"], changed["price_usd_per_month"]) == (20, "0.000000000000")
    for answer in (await admin.delete(f"{PATH}/{row['id']}"), await admin.post(f"{PATH}/{row['id']}/cancel")):
        assert (answer.status_code, answer.json()["state"]) == (200, "cancelled")
    assert error_of(await admin.patch(f"{PATH}/{row['id']}", json={"units": 1}))[0] == 409
    entries = (await admin.get("/admin/audit", params={"action": "reservation"})).json()["data"]
    assert [entry["action"] for entry in entries] == ["reservation.cancel", "reservation.change", "reservation.create"]
    assert entries[1]["before"]["units"] == 15


async def test_lists_are_filtered_and_paged(admin: httpx.AsyncClient) -> None:
    first = (await reserve(admin)).json()["id"]
    second = (await reserve(admin, org="bolt", region="eu")).json()["id"]
    third = (await reserve(admin, starts_at=(NOW + timedelta(days=2)).isoformat())).json()["id"]
    await admin.delete(f"{PATH}/{first}")

    async def ids(**params: Any) -> list[str]:
        return [row["id"] for row in (await admin.get(PATH, params=params)).json()["data"]]

    assert await ids() == [first, second, third]
    assert await ids(org="bolt") == await ids(region="eu") == await ids(state="active") == [second]
    assert await ids(state="scheduled") == [third]
    assert await ids(state="cancelled") == [first]
    assert await ids(state="expired") == await ids(model="other") == []
    page = (await admin.get(PATH, params={"limit": 2})).json()
    assert page["next_cursor"] == second
    assert await ids(cursor=second) == [third]


async def test_no_more_is_promised_than_the_nodes_can_carry_unless_it_is_forced(admin: httpx.AsyncClient) -> None:
    assert (await reserve(admin, 1500)).status_code == 201
    refused = await reserve(admin, 501, org="bolt")
    assert error_of(refused)[::2] == (409, "conflict")
    assert "only 500 of 501 units are free" in refused.json()["error"]["message"]
    assert error_of(await reserve(admin, 1, org="bolt", model="unknown"))[0] == 409
    assert error_of(await reserve(admin, 1001, org="bolt", region="in"))[0] == 409
    assert (await reserve(admin, 5000, org="bolt", force=True)).status_code == 201


async def test_two_promises_at_once_are_not_both_made_of_the_same_room(admin: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(reserve(admin, 900, org) for org in ("acme", "bolt", "acme", "bolt")))
    assert sorted(answer.status_code for answer in answers) == [201, 201, 409, 409]


async def test_a_repeat_under_the_same_key_makes_no_second_reservation(admin: httpx.AsyncClient) -> None:
    again = {"headers": {"Idempotency-Key": "order-7"}}
    answers = await asyncio.gather(*(reserve(admin, **dict(again)) for _ in range(3)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert error_of(await reserve(admin, 16, **dict(again)))[::2] == (409, "conflict")
    assert error_of(await reserve(admin, headers={"Idempotency-Key": "no spaces"}))[0] == 400


@pytest.mark.parametrize(
    ("fields", "status", "param"),
    [
        ({"units": 0}, 400, "units"),
        ({"units": True}, 400, "units"),
        ({"units": 10**12}, 400, "units"),
        ({"expires_at": NOW.isoformat()}, 400, "expires_at"),
        ({"lasts_s": 60}, 400, "expires_at"),
        ({"expires_at": None}, 400, "expires_at"),
        ({"expires_at": None, "lasts_s": 1e300}, 400, "lasts_s"),
        ({"expires_at": None, "lasts_s": -5}, 400, "lasts_s"),
        ({"expires_at": "9999-01-01T00:00:00Z"}, 400, "expires_at"),
        ({"region": "Not A Region"}, 400, "region"),
        ({"dedicated_nodes": ["absent"]}, 400, "dedicated_nodes"),
        ({"dedicated_nodes": ["n1", "n1"]}, 400, "dedicated_nodes"),
        ({"dedicated_nodes": ["n1"], "region": "eu"}, 400, "dedicated_nodes"),
        ({"shared_fallback": False}, 400, "shared_fallback"),
        ({"org": "absent"}, 404, None),
    ],
)
async def test_what_makes_no_sense_is_refused(
    admin: httpx.AsyncClient, fields: dict[str, Any], status: int, param: str | None
) -> None:
    answer = await admin.post(PATH, json={"org": "acme", "model": MODEL, "units": 5, "expires_at": LATER, **fields})
    assert error_of(answer)[::3] == (status, param)


async def test_each_request_has_one_guarantee(admin: httpx.AsyncClient) -> None:
    regional = (await reserve(admin, region="in")).json()
    assert error_of(await reserve(admin))[0] == 409  # would leave two for requests in that region
    assert (await reserve(admin, region="eu")).status_code == 201
    assert (await reserve(admin, org="bolt")).status_code == 201
    after = {"starts_at": LATER, "expires_at": (NOW + timedelta(days=60)).isoformat()}
    assert (await reserve(admin, **after)).status_code == 201
    assert error_of(await admin.patch(f"{PATH}/{regional['id']}", json={"expires_at": after["expires_at"]}))[0] == 409


async def test_a_node_is_dedicated_to_one_org_at_a_time(admin: httpx.AsyncClient) -> None:
    made = await reserve(admin, 1000, dedicated_nodes=["n1"], shared_fallback=False)
    assert made.status_code == 201, made.text
    assert error_of(await reserve(admin, org="bolt", dedicated_nodes=["n1"]))[0] == 409
    assert "only 1000" in (await reserve(admin, 1001, org="bolt")).json()["error"]["message"]
    taking = await admin.patch(f"{PATH}/{made.json()['id']}", json={"dedicated_nodes": ["n1", "n2"]})
    assert taking.status_code == 200
    assert error_of(await reserve(admin, 1, org="bolt"))[0] == 409


async def test_a_change_that_takes_nothing_more_is_never_refused_for_want_of_room(admin: httpx.AsyncClient) -> None:
    made = (await reserve(admin, 2000)).json()
    await admin.delete("/admin/nodes/n1")
    assert error_of(await admin.patch(f"{PATH}/{made['id']}", json={"units": 2001}))[0] == 409
    assert (await admin.patch(f"{PATH}/{made['id']}", json={"units": 1500})).status_code == 200
    assert (await admin.patch(f"{PATH}/{made['id']}", json={"units": 3000, "force": True})).status_code == 200


async def test_an_org_sees_what_it_has_and_uses_but_no_nodes(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    mine = (await reserve(admin, region="in", dedicated_nodes=["n1"])).json()
    await reserve(admin, org="bolt", region="eu")
    await admin.post("/admin/orgs/acme/environments", json={"name": "prod"})
    body = {"org": "acme", "environment": "prod", "name": "boss", "role": "admin"}
    token = (await admin.post("/admin/keys", json=body)).json()["key"]
    async with engine.begin() as conn:
        for number, (age_s, region) in enumerate(((1, "in"), (30, "in"), (30, "eu"), (90, "in"))):
            row = usage_row(f"req_{number}", org_id=mine["org_id"], model=MODEL, region=region)
            row |= {"prompt_tokens": 200, "completion_tokens": 100, "total_tokens": 300}
            await conn.execute(insert(usage_records).values(row | {"timestamp": NOW - timedelta(seconds=age_s)}))
    async with client_of(services_on(engine), Authorization=f"Bearer {token}") as org:
        (seen,) = (await org.get("/api/v1/capacity")).json()["data"]
    assert seen["id"] == mine["id"]
    assert (seen["units"], seen["used_tokens_per_s"], seen["dedicated_nodes"]) == (15, 10.0, 1)
    assert "n1" not in str(seen)


async def test_a_reading_operator_promises_nothing(admin: httpx.AsyncClient, engine: AsyncEngine) -> None:
    eve = (await admin.post("/admin/operators", json={"name": "eve", "role": "read-only"})).json()
    async with client_of(services_on(engine), **HEADERS | {"Authorization": f"Bearer {eve['key']}"}) as reader:
        assert error_of(await reserve(reader))[0] == 403
        assert (await reader.get(PATH)).status_code == 200


async def test_resources_are_set_aside_allocated_listed_and_released(admin: httpx.AsyncClient) -> None:
    assert (await admin.put("/admin/capacity/resources/acme", json={"concurrency": 500})).json() == {
        "reserved": {"gpu_memory_mb": 0, "cpu_cores": 0.0, "concurrency": 500},
        "allocated": {"gpu_memory_mb": 0, "cpu_cores": 0.0, "concurrency": 0},
        "available": {"gpu_memory_mb": 0, "cpu_cores": None, "concurrency": 512},  # of two nodes
    }
    path = "/admin/capacity/allocations"
    refused = await admin.post(path, json={"org": "bolt", "concurrency": 13, "lasts_s": 60})
    assert error_of(refused)[::2] == (409, "conflict")
    made = await admin.post(path, json={"org": "bolt", "concurrency": 12, "cpu_cores": 0.5, "lasts_s": 60})
    assert made.status_code == 201
    assert made.json()["resources"] == {"gpu_memory_mb": 0, "cpu_cores": 0.5, "concurrency": 12}
    for params, count in (({}, 1), ({"org": "acme"}, 0), ({"cursor": made.json()["id"]}, 0)):
        assert len((await admin.get(path, params=params)).json()["data"]) == count
    assert (await admin.delete(f"{path}/{made.json()['id']}")).json() == made.json()
    assert error_of(await admin.post(f"{path}/{made.json()['id']}/release"))[0] == 404
    for wrong in ({"concurrency": True}, {"cpu_cores": "NaN"}, {"gpu_memory_mb": 1.5}, {}):
        assert error_of(await admin.post(path, json={"org": "bolt", "lasts_s": 60, **wrong}))[0] == 400
    entries = (await admin.get("/admin/audit", params={"org": "bolt", "action": "allocation"})).json()["data"]
    assert [entry["action"] for entry in entries] == ["allocation.release", "allocation.create"]
