"""A month's cap over two gateway workers and Redis: never passed, and nothing is given back by a Redis that forgot."""

import secrets
import socket
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from urllib.parse import urlsplit

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, chat
from tests.flow.processes import eventually
from tests.flow.production import Production

CAP_USD = "0.0001"


def test_control_suspends_who_chose_it_at_the_cap(production: Production) -> None:
    cloud, name = production.cloud, f"org-{secrets.token_hex(4)}"
    org = {"name": name, "limits": {"spend_per_month_usd": "0.00003"}, "at_cap": "suspend"}
    made_org = cloud.admin.post("/admin/orgs", json=org).raise_for_status().json()
    cloud.admin.post(f"/admin/orgs/{name}/environments", json={"name": "prod"}).raise_for_status()
    made = cloud.admin.post("/admin/keys", json={"org": name, "environment": "prod", "name": "k"}).raise_for_status()
    headers = {"authorization": f"Bearer {made.json()['key']}"}

    def code() -> str | None:
        reply = wire.ask(cloud.url, CHAT, chat(model=LLAMA, max_tokens=100), headers)
        return reply.json["error"]["code"] if reply.status != 200 else None

    eventually(lambda: code() == "tenant_suspended", 20)
    entries = cloud.admin.get("/admin/audit", params={"entity": made_org["id"], "action": "org.suspend"}).json()
    assert [entry["actor_kind"] for entry in entries["data"]] == ["system"]


def test_a_cap_holds_over_all_workers_and_through_the_loss_of_redis_memory(production: Production) -> None:
    cloud, name = production.cloud, f"org-{secrets.token_hex(4)}"
    cloud.admin.post("/admin/orgs", json={"name": name, "limits": {"spend_per_month_usd": CAP_USD}}).raise_for_status()
    cloud.admin.post(f"/admin/orgs/{name}/environments", json={"name": "prod"}).raise_for_status()
    made = cloud.admin.post("/admin/keys", json={"org": name, "environment": "prod", "name": "k"}).raise_for_status()
    headers = {"authorization": f"Bearer {made.json()['key']}"}

    def ask(_: object = None) -> wire.Reply:
        return wire.ask(cloud.url, CHAT, chat(model=LLAMA, max_tokens=100), headers)

    production.until_known(headers)
    with ThreadPoolExecutor(8) as threads:
        statuses: list[int] = []
        while 403 not in statuses[-8:] or 200 in statuses[-8:]:
            statuses += [reply.status for reply in threads.map(ask, range(8))]
            assert set(statuses) <= {200, 403}
            assert len(statuses) < 800
    admitted = statuses.count(200)
    assert admitted > 0

    def totals() -> dict[str, object]:
        found: dict[str, object] = cloud.admin.get(f"/admin/usage/{name}").json()["totals"]
        return found

    eventually(lambda: totals()["requests"] == admitted)
    spent = Decimal(str(totals()["cost_usd"]))
    assert Decimal(CAP_USD) / 2 < spent <= Decimal(CAP_USD)
    parts = urlsplit(production.redis.url)
    with socket.create_connection((parts.hostname or "", parts.port or 0)) as redis:
        redis.sendall(b"FLUSHALL\r\n")
        assert redis.recv(64).startswith(b"+OK")
    assert {ask().status for _ in range(20)} == {403}
