"""Control and two gateway workers over PostgreSQL and Redis: what must hold although nobody shares any memory."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, QWEN, Row, chat
from tests.flow.processes import eventually, in_time, prompt, run
from tests.flow.production import Production

TOKENS = 2000  # of a stream that lasts some seconds
SOON_S = 4.0  # a second, and patience with a busy machine


@pytest.fixture
def workers(production: Production) -> list[int]:
    return production.workers()


def _key(production: Production, **more: Any) -> dict[str, Any]:
    body = {"org": "acme", "environment": "prod", "name": f"key-{time.monotonic_ns()}"} | more
    made: dict[str, Any] = production.cloud.admin.post("/admin/keys", json=body).raise_for_status().json()
    return made


def _bearer(key: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {key['key']}"}


class TestTwoWorkers:
    @pytest.fixture
    def status(self, production: Production) -> Iterator[Callable[..., list[int]]]:
        """Asks each worker for the models; gives their statuses."""
        with production.asking_each() as ask:
            yield lambda path="", key=None: ask(f"/v1/models{path}", None, key)

    def test_a_key_works_and_is_revoked_within_a_second(
        self, production: Production, status: Callable[..., list[int]]
    ) -> None:
        keys: list[dict[str, Any]] = []
        prompt(lambda: keys.append(_key(production)), lambda: status(key=_bearer(keys[-1])) == [200, 200], 1.0)

        def revoke() -> None:
            keys.append(_key(production))
            eventually(lambda: status(key=_bearer(keys[-1])) == [200, 200], SOON_S)
            production.cloud.admin.post(f"/admin/keys/{keys[-1]['id']}/revoke").raise_for_status()

        prompt(revoke, lambda: status(key=_bearer(keys[-1])) == [401, 401], 1.0)
        time.sleep(0.3)
        assert status(key=_bearer(keys[-1])) == [401, 401]

    def test_a_node_comes_and_goes_within_a_second(
        self, production: Production, status: Callable[..., list[int]]
    ) -> None:
        """It is QWEN's node under a second name, registered over HTTP as an agent does."""
        cloud = production.cloud
        url = cloud.nodes(QWEN)[0]["endpoint_url"].replace("127.0.0.1", "localhost")
        nodes: list[str] = []

        def register() -> None:
            body = {"endpoint_url": url, "model_list": [f"agent-{len(nodes)}"], "backend": "vllm"}
            nodes.append(cloud.admin.post("/admin/nodes/register", json=body).raise_for_status().json()["node_id"])

        prompt(register, lambda: status(f"/agent-{len(nodes) - 1}") == [200, 200], 1.0)

        def drain() -> None:
            register()
            eventually(lambda: status(f"/agent-{len(nodes) - 1}") == [200, 200], SOON_S)
            cloud.admin.post(f"/admin/nodes/{nodes[-1]}/drain").raise_for_status()

        with production.asking_each() as ask:

            def gone() -> bool:
                body = chat(model=f"agent-{len(nodes) - 1}", max_tokens=1)
                return bool(ask(CHAT, body, method="POST") == [503, 503])

            prompt(drain, gone, 1.0)
        for node in dict.fromkeys(nodes):
            cloud.admin.delete(f"/admin/nodes/{node}").raise_for_status()
        eventually(lambda: status(f"/agent-{len(nodes) - 1}") == [404, 404], SOON_S)

    def test_a_limit_holds_over_both(self, production: Production, workers: list[int]) -> None:
        key = _key(production, limits={"requests_per_minute": 12})
        production.until_known(_bearer(key))

        def ask(number: int) -> int:
            return production.ask_worker(workers[number % 2], chat(max_tokens=1), CHAT, headers=_bearer(key)).status

        began_s = time.monotonic()
        with ThreadPoolExecutor(6) as pool:
            statuses = list(pool.map(ask, range(30)))
        came_back = int((time.monotonic() - began_s) * 12 / 60)
        assert 12 <= statuses.count(200) <= 12 + came_back
        assert statuses.count(200) + statuses.count(429) == 30

    def test_metrics_of_both_are_one_answer(self, production: Production, workers: list[int]) -> None:
        def finished(pid: int) -> float:
            text = production.ask_worker(pid, path="/metrics", method="GET").body.decode()
            samples = re.findall(r'^control_plane_requests_total{endpoint="embeddings".*} (\S+)$', text, re.MULTILINE)
            return sum(map(float, samples))

        before = [finished(pid) for pid in workers]
        for pid in workers:
            assert production.ask_worker(pid, {"model": LLAMA, "input": "x"}, "/v1/embeddings").status == 200
        assert [finished(pid) for pid in workers] == [count + 2 for count in before]

    def test_keys_are_made_listed_and_revoked_from_the_shell(self, production: Production) -> None:
        cloud = production.cloud
        env = {
            "CROSSLOGIC_URL": str(cloud.admin.base_url),
            "CROSSLOGIC_ADMIN_KEY": production.env["CROSSLOGIC_AUTH__ADMIN_KEY"],
        }
        where = ["--org", "acme", "--env", "prod"]
        made = json.loads(run("keys", "create", "from-the-shell", *where, "--json", env=env).stdout)
        eventually(lambda: wire.ask(cloud.url, "/v1/models", None, _bearer(made), method="GET").status == 200, SOON_S)
        assert "from-the-shell" in run("keys", "list", "--org", "acme", env=env).stdout
        assert run("keys", "revoke", made["id"], env=env).returncode == 0
        eventually(lambda: wire.ask(cloud.url, "/v1/models", None, _bearer(made), method="GET").status == 401, SOON_S)


class TestServersThatAreAway:
    def _ready(self, production: Production) -> tuple[int, list[str]]:
        reply = wire.ask(production.cloud.url, "/ready", method="GET")
        return reply.status, reply.json["failing"]

    def test_all_is_ready(self, production: Production) -> None:
        assert self._ready(production) == (200, [])
        control = httpx.get(f"{str(production.cloud.admin.base_url).rstrip('/')}/ready", trust_env=False)
        assert control.status_code == 200

    @pytest.mark.parametrize("how", ["stopped", "frozen"])
    def test_redis(self, production: Production, how: str) -> None:
        """Each worker limits by itself meanwhile; nobody is refused or kept waiting because of it."""
        cloud = production.cloud
        if how == "stopped":
            production.redis.stop()
        else:
            production.redis.pause()
        try:
            eventually(lambda: self._ready(production) == (503, ["redis"]), 5)

            def ask() -> wire.Reply:
                reply = cloud.ask(chat(max_tokens=1))
                assert reply.status == 200
                return reply

            for _ in range(6):
                in_time(ask, 1.0)
        finally:
            if how == "stopped":
                production.redis.start()
            else:
                production.redis.resume()
        eventually(lambda: all(self._ready(production) == (200, []) for _ in range(6)), 10)
        key = _key(production, limits={"requests_per_minute": 3})
        production.until_known(_bearer(key))
        began_s = time.monotonic()
        statuses = [wire.ask(cloud.url, CHAT, chat(max_tokens=1), _bearer(key)).status for _ in range(8)]
        came_back = int((time.monotonic() - began_s) * 3 / 60)
        assert 3 <= statuses.count(200) <= 3 + came_back, "the limits are shared again"

    def test_the_database(self, production: Production) -> None:
        """Requests need it at no moment; their records wait in the journal."""
        cloud = production.cloud
        production.database.shut()
        try:
            eventually(lambda: self._ready(production) == (503, ["database"]), 5)
            replies = [cloud.ask(chat(max_tokens=2)) for _ in range(4)]
            assert {reply.status for reply in replies} == {200}
            time.sleep(1.5)
            known = {row["request_id"] for row in cloud.rows()}
            assert not known & {reply.headers["x-request-id"] for reply in replies}
        finally:
            production.database.open()
        for reply in replies:
            assert eventually(
                lambda reply=reply: [r for r in cloud.rows() if r["request_id"] == reply.headers["x-request-id"]], 30
            )
        eventually(lambda: self._ready(production) == (200, []), 10)
        key = eventually(lambda: _key(production), 10)
        eventually(lambda: wire.ask(cloud.url, "/v1/models", None, _bearer(key), method="GET").status == 200, 10)


class TestReload:
    """Saving the YAML file is enough; a worker never runs on half of it, or on a wrong one."""

    @pytest.fixture(autouse=True)
    def _restored(self, production: Production, workers: list[int]) -> Any:
        kept = json.loads(json.dumps(production.config))
        yield
        reloaded = production.config != kept
        production.config = kept
        production.write_config()
        if reloaded:
            body = chat(model="llama", max_tokens=1)
            eventually(
                lambda: [production.ask_worker(pid, body, CHAT).status for pid in workers] == [404, 404], 10, 0.3
            )

    def test_models_aliases_fallbacks_limits_and_prices(self, production: Production, workers: list[int]) -> None:
        cloud = production.cloud
        assert cloud.ask(chat(model="llama", max_tokens=1)).status == 404
        first = cloud.row(cloud.ask(chat(max_tokens=4)).headers["x-request-id"])
        production.config["models"] = [
            {"id": LLAMA, "aliases": ["llama"], "max_output_tokens": 50},
            {"id": "not-there", "fallbacks": [QWEN]},
        ]
        production.config["prices"] = {LLAMA: {"input_usd_per_million": "1000", "output_usd_per_million": "1000"}}
        production.config["limits"] = production.config["limits"] | {"key": {"requests_per_minute": 7}}
        production.write_config()

        def replies(model: str, max_tokens: int = 1) -> list[wire.Reply]:
            body = chat(model=model, max_tokens=max_tokens)
            return [production.ask_worker(pid, body, CHAT, headers=_bearer(key)) for pid in workers]

        key = _key(production)
        eventually(lambda: [r.status for r in replies("llama")] == [200, 200], 10, 0.3)
        key = _key(production)
        production.until_known(_bearer(key))
        fell_back = replies("not-there")
        assert [(reply.status, reply.json["model"]) for reply in fell_back] == [(200, QWEN)] * 2
        assert {reply.json["error"]["code"] for reply in replies(LLAMA, 51)} == {"max_tokens_exceeded"}
        assert fell_back[0].headers["x-ratelimit-limit-requests"] == "7"

        def priced_anew() -> Row | None:
            """The parent, which prices, looks at the file by itself."""
            row = cloud.row(cloud.ask(chat(max_tokens=4)).headers["x-request-id"])
            return row if row["price_version"] != first["price_version"] else None

        row = eventually(priced_anew, 10, 1.0)
        assert row["total_tokens"] == first["total_tokens"]
        assert int(row["cost_pusd"]) == row["total_tokens"] * 1000 * 10**6
        assert int(row["cost_pusd"]) > int(first["cost_pusd"])

    def test_a_wrong_file_changes_nothing_and_is_reported(self, production: Production) -> None:
        production.config["limits"] = {"key": {"requests_per_minute": "many"}}
        production.write_config()
        eventually(lambda: "the settings stay as they are" in production.cloud.program.log.read_text(), 5)
        assert production.cloud.ask(chat(max_tokens=1)).status == 200


class TestEnd:
    """Last in the file: these end the gateway that the others use."""

    @pytest.fixture(autouse=True)
    def _running(self, production: Production) -> Any:
        yield
        if len(production.workers()) < 2:  # it ends, or has ended
            production.cloud.program.kill()
            production.restart_gateway()

    @pytest.mark.parametrize("how", ["SIGTERM to the parent", "Ctrl-C in the terminal"])
    def test_running_streams_finish_and_nothing_new_begins(
        self, production: Production, workers: list[int], how: str
    ) -> None:
        cloud = production.cloud
        conversations = [production.dial(pid) for pid in workers]
        for conversation in conversations:
            conversation.send(CHAT, chat(max_tokens=TOKENS, stream=True), cloud.key)
            conversation.until(lambda data: data.count(b"\n\n") > 4)

        def refused() -> bool:
            try:
                wire.Conversation(cloud.url).close()
            except ConnectionRefusedError:
                return True
            return False

        with production.nodes_paused():
            if how == "SIGTERM to the parent":
                cloud.program.process.send_signal(signal.SIGTERM)
            else:
                os.killpg(cloud.program.pid, signal.SIGINT)
            eventually(refused, 10)
            assert production.workers() == workers, "they still run"
        replies = [conversation.rest() for conversation in conversations]
        assert [reply.done for reply in replies] == [True, True]
        assert cloud.program.process.wait(10) == 0
        for reply in replies:
            assert cloud.row(reply.headers["x-request-id"])["completion_tokens"] == TOKENS

    def test_a_second_gateway_on_the_port_is_refused(self, production: Production) -> None:
        done = run("gateway", env=production.env)
        assert done.returncode == 2
        assert "is in use" in done.stderr
        assert production.cloud.ask(chat(max_tokens=1)).status == 200

    def test_workers_end_with_a_killed_parent_and_a_new_one_starts(
        self, production: Production, workers: list[int]
    ) -> None:
        cloud = production.cloud
        request_id = cloud.ask(chat(max_tokens=2)).headers["x-request-id"]
        cloud.program.kill()
        eventually(lambda: not any(_exists(pid) for pid in workers), 10)
        production.restart_gateway()
        assert cloud.row(request_id)["completion_tokens"] == 2
        assert cloud.ask(chat(max_tokens=2)).status == 200


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
