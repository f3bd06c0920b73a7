"""Who may call no longer is refused by every gateway worker within a second, with Redis, without it, and while it is
frozen; and whoever may call again is served as quickly (docs/keys.md).

One cloud for all of it: control and two workers over PostgreSQL and Redis.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from crosslogic.kernel.clock import SystemClock
from crosslogic.kernel.ids import KeyId
from crosslogic.store.engine import create_engine
from crosslogic.tenancy.keys import key_hasher
from crosslogic.tenancy.model import Status
from crosslogic.tenancy.service import TenancyService
from crosslogic.tenancy.sql import TenancySql
from tests.conftest import _scratch
from tests.flow.clouds import CHAT, chat
from tests.flow.processes import eventually, prompt
from tests.flow.production import Production

SECRET = secrets.token_hex(32)
WITHIN_S = 1.0
SERVED, REVOKED, UNKNOWN = "200", "401 invalid_api_key", "503 tenants_unknown"
USER = "ann@acme.example"
GRACE_S = 1.5
STALE_AFTER_S = 3.0


@pytest.fixture(scope="module")
def cloud(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    for database_url in _scratch(_postgres):
        production = Production(tmp_path_factory.mktemp("suspension"), database_url, nodes=1)
        production.config["auth"] = {"type": "jwt", "secret": SECRET, "stale_after_s": STALE_AFTER_S}
        with production:
            yield production


@pytest.fixture(params=["there", "stopped", "frozen"])
def redis(request: pytest.FixtureRequest, cloud: Production) -> Iterator[str]:
    if request.param == "stopped":
        cloud.redis.stop()
    elif request.param == "frozen":
        cloud.redis.pause()
    yield request.param
    if request.param == "stopped":
        cloud.redis.start()
    elif request.param == "frozen":
        cloud.redis.resume()


@pytest.fixture(scope="module")
def said(cloud: Production) -> Iterator[Callable[[str], list[str]]]:
    """What each worker says to a chat request with this token: its status, and the code of its refusal."""
    connections = [cloud.dial(pid) for pid in cloud.workers()]

    def ask(token: str) -> list[str]:
        found = []
        for connection in connections:
            connection.received = b""
            connection.send(CHAT, chat(max_tokens=1), {"authorization": f"Bearer {token}"})
            reply = connection.rest()
            found.append(SERVED if reply.status == 200 else f"{reply.status} {reply.json['error']['code']}")
        return found

    yield ask
    for connection in connections:
        connection.close()


Said = Callable[[str], list[str]]


def _call(cloud: Production, method: str, path: str, body: object = None) -> dict[str, Any]:
    answer: dict[str, Any] = cloud.cloud.admin.request(method, path, json=body).raise_for_status().json()
    return answer


def _tenant(cloud: Production) -> tuple[str, dict[str, Any]]:
    """An org of one's own, and a key of its environment `prod`."""
    org = f"org-{secrets.token_hex(4)}"
    _call(cloud, "POST", "/admin/orgs", {"name": org})
    _call(cloud, "POST", f"/admin/orgs/{org}/environments", {"name": "prod"})
    return org, _key(cloud, org)


def _key(cloud: Production, org: str) -> dict[str, Any]:
    return _call(cloud, "POST", "/admin/keys", {"org": org, "environment": "prod", "name": "k"})


def _comes_and_goes(
    cloud: Production, said: Said, path: str, token: str, refusal: str, beside: str | None = None
) -> None:
    """What stands at `path` is suspended and taken up again, and both workers follow each time.

    What is `beside` it is served all the time.
    """

    def put(status: str, sooner: str) -> Callable[[], None]:
        def change() -> None:
            _call(cloud, "PATCH", path, {"status": sooner})
            eventually(lambda: said(token) == [_told(sooner, refusal)] * 2, WITHIN_S * 10)
            _call(cloud, "PATCH", path, {"status": status})

        return change

    for status, sooner in (("suspended", "active"), ("active", "suspended")):
        prompt(put(status, sooner), lambda status=status: said(token) == [_told(status, refusal)] * 2, WITHIN_S)
        if beside is not None:
            assert said(beside) == [SERVED] * 2


def _told(status: str, refusal: str) -> str:
    return SERVED if status == "active" else refusal


def test_an_org(cloud: Production, redis: str, said: Said) -> None:
    org, key = _tenant(cloud)
    _comes_and_goes(cloud, said, f"/admin/orgs/{org}", key["key"], "403 tenant_suspended")


def test_an_environment_and_not_its_neighbour(cloud: Production, redis: str, said: Said) -> None:
    org, key = _tenant(cloud)
    _call(cloud, "POST", f"/admin/orgs/{org}/environments", {"name": "dev"})
    other = _call(cloud, "POST", "/admin/keys", {"org": org, "environment": "dev", "name": "k"})
    path = f"/admin/orgs/{org}/environments/prod"
    _comes_and_goes(cloud, said, path, key["key"], "403 tenant_suspended", other["key"])


def test_a_key_and_not_its_neighbour(cloud: Production, redis: str, said: Said) -> None:
    org, key = _tenant(cloud)
    other = _key(cloud, org)
    _comes_and_goes(cloud, said, f"/admin/keys/{key['id']}", key["key"], "403 key_suspended", other["key"])


def test_a_user_whose_tokens_are_refused_while_keys_work(cloud: Production, redis: str, said: Said) -> None:
    org, key = _tenant(cloud)
    _call(cloud, "POST", f"/admin/orgs/{org}/users", {"email": USER, "name": "Ann", "role": "developer"})
    claims = {"sub": "ann", "org": org, "env": "prod", "email": USER, "exp": int(time.time()) + 600}
    token = jwt.encode({"alg": "HS256"}, claims, OctKey.import_key(SECRET))
    _comes_and_goes(cloud, said, f"/admin/orgs/{org}/users/{USER}", token, "403 user_suspended", key["key"])
    _call(cloud, "PATCH", f"/admin/orgs/{org}", {"status": "suspended"})
    eventually(lambda: said(token) == ["403 tenant_suspended"] * 2)


def test_a_key_is_made_and_revoked_for_good(cloud: Production, redis: str, said: Said) -> None:
    org, _ = _tenant(cloud)
    keys: list[dict[str, Any]] = []
    prompt(lambda: keys.append(_key(cloud, org)), lambda: said(keys[-1]["key"]) == [SERVED] * 2, WITHIN_S)

    def revoke() -> None:
        keys.append(_key(cloud, org))
        eventually(lambda: said(keys[-1]["key"]) == [SERVED] * 2, WITHIN_S * 10)
        _call(cloud, "POST", f"/admin/keys/{keys[-1]['id']}/revoke")

    prompt(revoke, lambda: said(keys[-1]["key"]) == [REVOKED] * 2, WITHIN_S)
    path = f"/admin/keys/{keys[-1]['id']}"
    again = cloud.cloud.admin.patch(path, json={"status": "active"})
    assert 400 <= again.status_code < 500, "a revoked key is not taken up again"
    time.sleep(0.4)
    assert said(keys[-1]["key"]) == [REVOKED] * 2


def test_a_rotated_key_works_to_the_end_of_its_grace_and_not_after(cloud: Production, said: Said) -> None:
    _, old = _tenant(cloud)
    eventually(lambda: said(old["key"]) == [SERVED] * 2, WITHIN_S * 10)
    rotations: list[dict[str, Any]] = []

    def rotate() -> None:
        made = old if not rotations else rotations[-1]
        rotations.append(_call(cloud, "POST", f"/admin/keys/{made['id']}/rotate", {"grace_s": GRACE_S}))

    prompt(rotate, lambda: said(rotations[-1]["key"]) == [SERVED] * 2, WITHIN_S)
    before = old if len(rotations) == 1 else rotations[-2]
    end = datetime.fromisoformat(_call(cloud, "GET", f"/admin/keys/{before['id']}")["expires_at"]).timestamp()
    refused_s = None
    while refused_s is None:
        asked_s = time.time()
        answers = said(before["key"])
        if time.time() < end:
            assert answers == [SERVED] * 2, "within its grace"
        elif asked_s >= end:
            refused_s = asked_s
            assert answers == ["401 expired_api_key"] * 2
    assert said(rotations[-1]["key"]) == [SERVED] * 2


def test_a_key_rotated_without_grace_ends_at_once(cloud: Production, redis: str, said: Said) -> None:
    org, _ = _tenant(cloud)
    keys: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def rotate() -> None:
        old = _key(cloud, org)
        eventually(lambda: said(old["key"]) == [SERVED] * 2, WITHIN_S * 10)
        keys.append((old, _call(cloud, "POST", f"/admin/keys/{old['id']}/rotate")))

    def replaced() -> bool:
        old, new = keys[-1]
        return said(new["key"]) == [SERVED] * 2 and all(answer.startswith("401 ") for answer in said(old["key"]))

    prompt(rotate, replaced, WITHIN_S)


def test_without_the_database_they_serve_for_so_long_and_then_nobody(cloud: Production, said: Said) -> None:
    """And a key that is revoked meanwhile is never served by a worker that has not heard of it."""
    org, key = _tenant(cloud)
    doomed = _key(cloud, org)
    for known in (key, doomed):
        eventually(lambda known=known: said(known["key"]) == [SERVED] * 2, WITHIN_S * 10)
    cloud.database.shut()
    shut_s = time.monotonic()
    try:
        first = said(key["key"])
        if time.monotonic() - shut_s < STALE_AFTER_S / 2:
            assert first == [SERVED] * 2, "an outage of the database is none of callers"
        eventually(lambda: said(key["key"]) == [UNKNOWN] * 2, STALE_AFTER_S * 5)
        assert time.monotonic() - shut_s > STALE_AFTER_S - 1.0, "they read it to the last"
        refused = cloud.cloud.ask(chat(max_tokens=1))
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json["error"]["type"] == "server_error"
        assert cloud.cloud.ask(path="/v1/models", method="GET").status == 503
        age = re.search(r"^gateway_picture_age_seconds (\S+)$", _metrics(cloud), re.MULTILINE)
        assert age is not None
        assert float(age[1]) >= STALE_AFTER_S
        asyncio.run(_revoke(cloud.cloud.database_url, KeyId(doomed["id"])))
    finally:
        cloud.database.open()
    eventually(lambda: _not_served(said(doomed["key"])) == [REVOKED] * 2)
    assert said(key["key"]) == [SERVED] * 2
    assert cloud.cloud.program.log.read_text().count("auth.stale_after_s") == 2, "once for each worker"


def _not_served(answers: list[str]) -> list[str]:
    assert SERVED not in answers
    return answers


def _metrics(cloud: Production) -> str:
    return cloud.cloud.ask(path="/metrics", method="GET").body.decode()


async def _revoke(database_url: str, key_id: KeyId) -> None:
    """By another control process, whose way to the database is open."""
    engine = create_engine(database_url)
    try:
        hasher = key_hasher(None)
        await TenancyService(TenancySql(engine), hasher, SystemClock()).change_key(key_id, status=Status.REVOKED)
    finally:
        await engine.dispose()
