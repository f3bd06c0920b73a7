"""Keys, tenants and their limits, as callers and operators see them: over the management API and the edge."""

import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import openai
import pytest

from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes, Turn, delta

SOON_S = 4.0  # a change is seen within a second, which test_production holds it to; here it only has to come


class Tenant:
    """An org with one environment, made for a test."""

    def __init__(self, cloud: EmbeddedCloud, **org: Any) -> None:
        self._cloud = cloud
        self.name = f"org-{secrets.token_hex(4)}"
        self.org = self._post("/admin/orgs", name=self.name, **org)
        self.environment = self._post(f"/admin/orgs/{self.name}/environments", name="prod")

    def key(self, **more: Any) -> dict[str, Any]:
        return self._post("/admin/keys", org=self.name, environment="prod", name=secrets.token_hex(4), **more)

    def change(self, path: str, **values: Any) -> None:
        self._cloud.admin.patch(f"/admin/{path}", json=values).raise_for_status()

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self._cloud.admin.post(path, json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()


@pytest.fixture
def tenant(tuned: EmbeddedCloud) -> Tenant:
    return Tenant(tuned)


def _begun(cloud: EmbeddedCloud, stream: object, headers: dict[str, str]) -> wire.Conversation | None:
    """A stream that has sent something; None where it was refused, since the one before it had not quite ended."""
    conversation = wire.Conversation(cloud.url)
    conversation.send(CHAT, stream, headers)
    if not conversation.until(lambda data: b"\r\n\r\n" in data, 10).startswith(b"HTTP/1.1 200"):
        conversation.close()
        return None
    conversation.until(lambda data: b'"x"' in data, 10)
    return conversation


def _ask(cloud: EmbeddedCloud, key: dict[str, Any], body: object = None) -> wire.Reply:
    return wire.ask(
        cloud.url, CHAT, body or chat(model="scripted", max_tokens=10), {"authorization": f"Bearer {key['key']}"}
    )


def _becomes(cloud: EmbeddedCloud, key: dict[str, Any], status: int) -> wire.Reply:
    """The first answer with this status, which must come soon."""
    return eventually(lambda: reply if (reply := _ask(cloud, key)).status == status else None, SOON_S)


class TestKeys:
    def test_a_new_one_opens_the_gateway(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        reply = _becomes(tuned, tenant.key(), 200)
        row = tuned.row(reply.headers["x-request-id"])
        assert (row["org_id"], row["env_id"]) == (tenant.org["id"], tenant.environment["id"])

    def test_a_revoked_one_does_not(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        key = tenant.key()
        _becomes(tuned, key, 200)
        tuned.admin.post(f"/admin/keys/{key['id']}/revoke").raise_for_status()
        assert _becomes(tuned, key, 401).json["error"]["code"] == "invalid_api_key"

    def test_an_expired_one_does_not(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        key = tenant.key(expires_at=(datetime.now(UTC) + timedelta(seconds=1)).isoformat())
        _becomes(tuned, key, 200)
        expired = eventually(lambda: reply if (reply := _ask(tuned, key)).status != 200 else None, 10)
        assert (expired.status, expired.json["error"]["code"]) == (401, "expired_api_key")

    def test_one_that_only_reads_lists_models_and_no_more(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        key = tenant.key(role="read-only")
        assert _becomes(tuned, key, 403).json["error"]["code"] == "read_only_key"
        listed = wire.ask(tuned.url, "/v1/models", None, {"authorization": f"Bearer {key['key']}"}, method="GET")
        assert listed.status == 200

    def test_one_for_other_endpoints_is_refused_here(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        refused = _becomes(tuned, tenant.key(scoping={"endpoints": ["embeddings"]}), 403)
        assert refused.json["error"]["code"] == "endpoint_not_allowed"

    def test_one_for_another_network_is_not_known_here(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        home = tenant.key(scoping={"networks": ["127.0.0.0/8"]})
        _becomes(tuned, home, 200)
        away = tenant.key(scoping={"networks": ["203.0.113.0/24"]})
        _becomes(tuned, tenant.key(), 200)  # the feed has brought all that was made before
        assert _ask(tuned, away).json["error"]["code"] == "invalid_api_key"

    def test_no_key_of_a_tenant_opens_the_management_api(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        for key in (tenant.key()["key"], ""):
            for path in ("/admin/orgs", "/admin/nodes", f"/admin/usage/{tenant.name}"):
                reply = wire.ask(tuned.url, path, None, {"authorization": f"Bearer {key}"}, method="GET")
                assert reply.status in (401, 403)


class TestTenants:
    def test_suspended_and_let_in_again(self, tuned: EmbeddedCloud, tenant: Tenant, scripted: ScriptedNodes) -> None:
        key = tenant.key()
        _becomes(tuned, key, 200)
        tenant.change(f"orgs/{tenant.name}", status="suspended")
        assert _becomes(tuned, key, 403).json["error"]["code"] == "tenant_suspended"
        scripted.forget()
        assert _ask(tuned, key).status == 403
        assert scripted.turns == []
        tenant.change(f"orgs/{tenant.name}", status="active")
        _becomes(tuned, key, 200)

    def test_models_that_are_not_theirs_do_not_exist(self, tuned: EmbeddedCloud) -> None:
        key = Tenant(tuned, allowed_models=["something-else"]).key()
        assert _becomes(tuned, key, 404).json["error"]["code"] == "model_not_found"
        listed = wire.ask(tuned.url, "/v1/models", None, {"authorization": f"Bearer {key['key']}"}, method="GET")
        assert listed.json["data"] == []

    def test_each_sees_its_own_usage(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        other = Tenant(tuned)
        key = tenant.key()
        ids = [_becomes(tuned, key, 200).headers["x-request-id"], _ask(tuned, key).headers["x-request-id"]]
        rows = [tuned.row(request_id) for request_id in ids]
        usage = tuned.admin.get(f"/admin/usage/{tenant.name}", params={"group_by": "model"}).json()
        assert usage["totals"]["requests"] == len(rows)
        assert usage["totals"]["total_tokens"] == sum(row["total_tokens"] for row in rows)
        assert usage["data"][0]["group"] == {"model": "scripted"}
        assert tuned.admin.get(f"/admin/usage/{other.name}").json()["totals"]["requests"] == 0


class TestLimits:
    @pytest.mark.parametrize("layer", ["organization", "environment", "key"])
    def test_requests_a_minute_at_each_layer(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes, tenant: Tenant, layer: str
    ) -> None:
        limits = {"requests_per_minute": 2}
        if layer == "organization":
            tenant.change(f"orgs/{tenant.name}", limits=limits)
        elif layer == "environment":
            tenant.change(f"orgs/{tenant.name}/environments/prod", limits=limits)
        key = tenant.key(limits=limits) if layer == "key" else tenant.key()
        first = _becomes(tuned, key, 200)
        assert first.headers["x-ratelimit-limit-requests"] == "2"
        assert first.headers["x-ratelimit-remaining-requests"] == "1"
        assert _ask(tuned, key).headers["x-ratelimit-remaining-requests"] == "0"
        scripted.forget()
        refused = _ask(tuned, key)
        assert (refused.status, refused.json["error"]["code"]) == (429, "rate_limit_exceeded")
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert scripted.turns == []
        assert tuned.access(refused.headers["x-request-id"])["reason"] == "rate_limit_exceeded"
        assert all(row["request_id"] != refused.headers["x-request-id"] for row in tuned.rows())

    def test_the_sdk_takes_it_for_a_rate_limit(self, tuned: EmbeddedCloud, tenant: Tenant) -> None:
        key = tenant.key(limits={"requests_per_minute": 1})
        _becomes(tuned, key, 200)
        client = openai.OpenAI(base_url=tuned.base_url, api_key=key["key"], max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="scripted", messages=[{"role": "user", "content": "x"}])
        assert caught.value.type == "rate_limit_error"

    def test_tokens_are_reserved_and_what_was_not_used_is_given_back(
        self, tuned: EmbeddedCloud, tenant: Tenant
    ) -> None:
        """The answers of the node take 9 tokens each; 90 and the prompt are reserved."""
        key = tenant.key(limits={"tokens_per_minute": 130})
        _becomes(tuned, key, 200)
        for _ in range(3):
            assert _ask(tuned, key, chat(model="scripted", max_tokens=80)).status == 200
        refused = _ask(tuned, key, chat(model="scripted", max_tokens=110))
        assert refused.status == 429
        assert "retry-after" in refused.headers
        too_large = _ask(tuned, key, chat(model="scripted", max_tokens=900))
        assert (too_large.status, too_large.json["error"]["code"]) == (403, "quota_exceeded")
        assert too_large.headers["x-should-retry"] == "false"

    def test_a_failed_answer_costs_no_tokens(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes, tenant: Tenant
    ) -> None:
        async def fail(turn: Turn) -> None:
            turn.exchange.respond(500, b"", b"")

        key = tenant.key(limits={"tokens_per_minute": 200})
        _becomes(tuned, key, 200)
        scripted.script = fail
        for _ in range(4):
            assert _ask(tuned, key, chat(model="scripted", max_tokens=150)).status == 502

    @pytest.fixture
    def held(self, scripted: ScriptedNodes) -> list[Turn]:
        """Streams that go on until the test takes their turns out of the list."""
        running: list[Turn] = []

        async def hold(turn: Turn) -> None:
            turn.events(delta("x"))
            running.append(turn)

        scripted.script = hold
        return running

    def test_who_leaves_before_the_first_token_has_made_a_request(
        self, tuned: EmbeddedCloud, tenant: Tenant, scripted: ScriptedNodes
    ) -> None:
        """Nothing is billed, but a node has read the prompt: that cannot be had without end."""
        key = tenant.key(limits={"requests_per_day": 3})
        headers = {"authorization": f"Bearer {key['key']}"}
        eventually(lambda: wire.ask(tuned.url, "/v1/models", None, headers, method="GET").status == 200, SOON_S)

        async def never(turn: Turn) -> None:
            await turn.drained()

        scripted.script = never
        for number in range(3):
            conversation = wire.Conversation(tuned.url)
            conversation.send(CHAT, chat(model="scripted", stream=True, max_tokens=1), headers)
            eventually(lambda number=number: len(scripted.turns) > number)
            conversation.close()
            eventually(lambda number=number: scripted.turns[number].left_s)
        time.sleep(0.1)
        scripted.forget()
        refused = _ask(tuned, key)
        assert (refused.status, refused.json["error"]["dimension"]) == (403, "requests_per_day")

    @pytest.mark.parametrize("how", ["leaves", "is cut off by the node"])
    def test_concurrency_is_freed_however_a_request_ends(
        self, tuned: EmbeddedCloud, tenant: Tenant, held: list[Turn], how: str
    ) -> None:
        key = tenant.key(limits={"concurrency": 1})
        stream = chat(model="scripted", stream=True, max_tokens=10)
        headers = {"authorization": f"Bearer {key['key']}"}
        eventually(lambda: wire.ask(tuned.url, "/v1/models", None, headers, method="GET").status == 200, SOON_S)
        for _ in range(3):
            held.clear()
            conversation = eventually(lambda: _begun(tuned, stream, headers), 5)
            refused = _ask(tuned, key)
            assert refused.status == 429
            assert "concurren" in refused.json["error"]["message"]
            if how == "leaves":
                conversation.close()
            else:
                held[0].exchange.abort()
                assert not conversation.rest().done

            def free() -> bool:
                headroom = wire.Conversation(tuned.url)
                headroom.send(CHAT, stream, headers)
                data = headroom.until(lambda data: b"\r\n\r\n" in data, 10)
                headroom.close()
                return data.startswith(b"HTTP/1.1 200")

            eventually(free, 10)
            eventually(lambda: all(turn.left_s for turn in held[1:]), 10)
