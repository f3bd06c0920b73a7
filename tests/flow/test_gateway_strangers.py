"""Bad keys from one address, at a real gateway: slowed, while the good ones beside them work on."""

import secrets
import time
from collections.abc import Iterator
from itertools import count

import pytest
import yaml

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

PER_MINUTE = 4
SECRET = "a secret of at least thirty-two bytes, for tests"
NUMBERS = count(130)  # of addresses that nobody else comes from
BAD_KEYS = ("nonsense", "clsk_live_AAAAAAAAAAAAAAAAAAAAAAAA", "eyJhbGciOiJIUzI1NiJ9.eyJvcmciOiJkZWZhdWx0In0.AAAA")


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    """It trusts us as a proxy, so that each test can come from an address of its own."""
    directory = tmp_path_factory.mktemp("guarded")
    config = directory / "crosslogic.yaml"
    config.write_text(
        yaml.safe_dump({"auth": {"type": "jwt", "secret": SECRET}, "server": {"trusted_proxies": ["127.0.0.0/8"]}})
    )
    env = {"CROSSLOGIC_AUTH__BAD_KEYS_PER_MINUTE": str(PER_MINUTE)}
    running = start_up(directory, "--config", config, "--nodes", 1, env=env)
    yield running
    running.program.kill()


def ask(cloud: EmbeddedCloud, key: str, address: str) -> wire.Reply:
    headers = {"authorization": f"Bearer {key}", "x-forwarded-for": address}
    return wire.ask(cloud.url, CHAT, chat(model=LLAMA, max_tokens=1), headers)


@pytest.mark.parametrize("key", BAD_KEYS, ids=["no key at all", "a guessed one", "a forged web token"])
def test_after_some_bad_keys_the_next_are_told_to_wait_and_longer_each_time(guarded: EmbeddedCloud, key: str) -> None:
    address = f"203.0.113.{BAD_KEYS.index(key)}"
    assert [ask(guarded, key, address).status for _ in range(PER_MINUTE)] == [401] * PER_MINUTE
    slowed = ask(guarded, key, address)
    assert (slowed.status, slowed.json["error"]["code"]) == (429, "too_many_bad_keys")
    assert slowed.headers["retry-after"] == "1"
    time.sleep(1.01)
    assert ask(guarded, key, address).status == 401, "whoever waits just as long is looked at"
    again = ask(guarded, key, address)
    assert (again.status, again.headers["retry-after"]) == (429, "2")
    assert guarded.access(again.headers["x-request-id"])["reason"] == "too_many_bad_keys"


def test_a_good_key_from_the_same_address_works_on(guarded: EmbeddedCloud) -> None:
    replies = [ask(guarded, "nonsense", "203.0.113.100").status for _ in range(PER_MINUTE + 1)]
    assert replies[-1] == 429
    assert ask(guarded, guarded.api_key, "203.0.113.100").status == 200
    assert ask(guarded, "nonsense", "203.0.113.101").status == 401, "other addresses are not concerned"


def key_for_home(cloud: EmbeddedCloud, **more: object) -> dict[str, str]:
    """A key that is good in one network only, of an org of its own."""
    org = f"org-{secrets.token_hex(4)}"
    limits = {"requests_per_day": 1000}
    cloud.admin.post("/admin/orgs", json={"name": org, "limits": limits}).raise_for_status()
    cloud.admin.post(f"/admin/orgs/{org}/environments", json={"name": "dev"}).raise_for_status()
    body = {"org": org, "environment": "dev", "name": "home", "scoping": {"networks": ["198.51.100.0/24"]}, **more}
    made: dict[str, str] = cloud.admin.post("/admin/keys", json=body).raise_for_status().json()
    eventually(lambda: ask(cloud, made["key"], "198.51.100.1").status in (200, 403), 5)
    return made


def test_a_stolen_key_from_elsewhere_is_answered_as_one_that_nobody_has(guarded: EmbeddedCloud) -> None:
    key = key_for_home(guarded)["key"]
    statuses = [ask(guarded, key, "203.0.113.110").status for _ in range(PER_MINUTE + 1)]
    assert statuses == [401] * PER_MINUTE + [429]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", CHAT, "no json"),
        ("POST", CHAT, {}),
        ("POST", CHAT, chat(model="unheard-of")),
        ("POST", f"/some/body/{LLAMA}/v1/chat/completions", chat(model=LLAMA)),
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/unheard-of", None),
        ("GET", "/api/v1/org", None),
    ],
)
@pytest.mark.parametrize("state", ["good", "read-only", "suspended", "of a suspended tenant"])
def test_whatever_a_stolen_key_is_used_for_elsewhere_tells_nothing_of_it(
    guarded: EmbeddedCloud, homes: dict[str, str], state: str, method: str, path: str, body: object
) -> None:
    address = f"203.0.113.{next(NUMBERS)}"
    stolen, none = (
        wire.ask(guarded.url, path, body, {"authorization": f"Bearer {key}", "x-forwarded-for": address}, method=method)
        for key in (homes[state], BAD_KEYS[1])
    )
    assert (stolen.status, stolen.body) == (none.status, none.body)
    assert stolen.status == 401
    assert set(stolen.headers) == set(none.headers)


@pytest.fixture(scope="module")
def homes(guarded: EmbeddedCloud) -> dict[str, str]:
    """Keys in every state that their owner is told of, and nobody else."""
    made = {state: key_for_home(guarded) for state in ("good", "suspended", "of a suspended tenant")}
    made["read-only"] = key_for_home(guarded, role="read-only")
    guarded.admin.patch(f"/admin/keys/{made['suspended']['id']}", json={"status": "suspended"}).raise_for_status()
    tenant = made["of a suspended tenant"]["org_id"]
    guarded.admin.patch(f"/admin/orgs/{tenant}", json={"status": "suspended"}).raise_for_status()
    for state in ("suspended", "of a suspended tenant"):
        eventually(lambda state=state: ask(guarded, made[state]["key"], "198.51.100.1").status == 403, 5)
    return {state: key["key"] for state, key in made.items()}


def test_listing_models_with_guessed_keys_is_slowed_alike_and_counted(guarded: EmbeddedCloud) -> None:
    headers = {"authorization": "Bearer nonsense", "x-forwarded-for": "203.0.113.120"}
    statuses = [wire.ask(guarded.url, "/v1/models", None, headers, method="GET").status for _ in range(PER_MINUTE + 2)]
    assert statuses == [401] * PER_MINUTE + [429] * 2
    metrics = wire.ask(guarded.url, "/metrics", method="GET").body.decode()
    (line,) = [line for line in metrics.splitlines() if line.startswith("gateway_bad_keys_slowed_total")]
    assert float(line.split()[-1]) >= 2
