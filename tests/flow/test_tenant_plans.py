"""Tenants beyond keys: web tokens at the edge, their own management under /api/v1, and what a plan allows."""

import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from joserfc import jwt
from joserfc.jwk import OctKey

from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

SECRET = "a secret of at least thirty-two bytes, for tests"


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("tokens")
    config = directory / "crosslogic.yaml"
    config.write_text(yaml.safe_dump({"auth": {"type": "jwt", "secret": SECRET}}))
    running = start_up(directory, "--config", config, "--nodes", 1)
    yield running
    running.program.kill()


def bearer(secret: str = SECRET, **claims: object) -> dict[str, str]:
    payload = {"sub": "someone", "org": "default", "env": "dev", "exp": int(time.time()) + 600} | claims
    return {"authorization": "Bearer " + jwt.encode({"alg": "HS256"}, payload, OctKey.import_key(secret))}


def ask(cloud: EmbeddedCloud, headers: dict[str, str], **more: object) -> wire.Reply:
    model = cloud.nodes()[0]["model_list"][0]
    return wire.ask(cloud.url, CHAT, chat(model=model, max_tokens=2, **more), headers)


def test_a_web_token_opens_the_gateway_as_a_key_does(tokens: EmbeddedCloud) -> None:
    answer = ask(tokens, bearer(), user="x")
    assert answer.status == 200
    row = eventually(
        lambda: next((r for r in tokens.rows() if r["request_id"] == answer.headers["x-request-id"]), None)
    )
    assert row["completion_tokens"] == 2


@pytest.mark.parametrize(
    "made",
    [
        lambda: bearer("another secret of thirty-two bytes and more"),
        lambda: bearer(exp=int(time.time()) - 3600),
        lambda: bearer(org="nobody"),
        lambda: {"authorization": "Bearer eyJhbGciOiJub25lIn0.eyJvcmciOiJkZWZhdWx0In0."},
    ],
    ids=["forged", "expired", "of nobody", "unsigned"],
)
def test_a_token_that_is_none_does_not(tokens: EmbeddedCloud, made: Callable[[], dict[str, str]]) -> None:
    assert ask(tokens, made()).status == 401


def test_a_tenants_admin_manages_its_own_org_on_the_gateways_port_and_a_developer_does_not(
    tokens: EmbeddedCloud,
) -> None:
    own = wire.ask(tokens.url, "/api/v1/org", None, bearer(role="admin"), method="GET")
    assert (own.status, own.json["name"]) == (200, "default")
    refused = wire.ask(tokens.url, "/api/v1/org", None, bearer(role="developer"), method="GET")
    assert refused.status == 403


def test_a_plan_holds_its_org_to_its_ceilings(tokens: EmbeddedCloud) -> None:
    tokens.admin.post("/admin/orgs", json={"name": "frugal", "billing_plan": "free"}).raise_for_status()
    tokens.admin.post("/admin/orgs/frugal/environments", json={"name": "prod"}).raise_for_status()
    made = tokens.admin.post("/admin/keys", json={"org": "frugal", "environment": "prod", "name": "k"}).json()
    key = {"authorization": f"Bearer {made['key']}"}
    eventually(lambda: ask(tokens, key).status == 200)
    model = tokens.nodes()[0]["model_list"][0]
    running = wire.Conversation(tokens.url)
    running.send(CHAT, chat(model=model, max_tokens=2000, stream=True), key)
    running.until(lambda data: b"data: " in data)
    second = ask(tokens, key)
    assert (second.status, second.json["error"]["code"]) == (429, "rate_limit_exceeded")
    assert "org limit on concurrency" in second.json["error"]["message"]
    running.close()
    eventually(lambda: ask(tokens, key).status == 200)


def test_where_nothing_is_billed_usage_is_recorded_and_costs_nothing(tokens: EmbeddedCloud) -> None:
    tokens.admin.post("/admin/orgs", json={"name": "family"}).raise_for_status()
    tokens.admin.post("/admin/orgs/family/environments", json={"name": "prod"}).raise_for_status()
    made = tokens.admin.post("/admin/keys", json={"org": "family", "environment": "prod", "name": "k"}).json()
    key = {"authorization": f"Bearer {made['key']}"}

    def costs() -> bool:
        answer = eventually(lambda: found if (found := ask(tokens, key)).status == 200 else None)
        request_id = answer.headers["x-request-id"]
        row = eventually(lambda: next((row for row in tokens.rows() if row["request_id"] == request_id), None))
        assert row["completion_tokens"] == 2
        return bool(int(row["cost_pusd"]))

    assert costs()
    tokens.admin.patch("/admin/orgs/family", json={"billing_enabled": False}).raise_for_status()
    eventually(lambda: not costs(), 5)
