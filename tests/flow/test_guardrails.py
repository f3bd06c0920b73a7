"""Every ceiling at every layer through the real edge: who is refused, by whose limit, with which code, until when."""

import asyncio
import math
import secrets
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from tests.flow import wire
from tests.flow.clouds import CHAT, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually
from tests.flow.scripted import ScriptedNodes, Turn, answer_well

MODEL = "guarded"
INPUT_PUSD, OUTPUT_PUSD = 10**6, 10**7  # a token, at 1 and 10 USD a million
REAL_PUSD = 7 * INPUT_PUSD + 2 * OUTPUT_PUSD  # of each scripted answer
CONFIG = {
    "enable_caching": True,
    "fleet": {"probe_interval_s": 1.0},
    "models": [{"id": MODEL, "context_window": 4000, "max_output_tokens": 1000}],
    "prices": {MODEL: {"input_usd_per_million": 1, "output_usd_per_million": 10}},
}
LAYERS = ("org", "env", "key")
# What stands in `limits`, the dimension that refuses, and with which status.
CEILINGS: tuple[tuple[dict[str, Any], str, int], ...] = (
    ({"requests_per_second": 1}, "requests_per_second", 429),
    ({"requests_per_minute": 1}, "requests_per_minute", 429),
    ({"requests_per_day": 1}, "requests_per_day", 403),
    ({"tokens_per_second": 25}, "tokens_per_second", 429),
    ({"tokens_per_minute": 25}, "tokens_per_minute", 429),
    ({"tokens_per_hour": 25}, "tokens_per_hour", 429),
    ({"tokens_per_day": 25}, "tokens_per_day", 403),
    ({"input_tokens_per_second": 15}, "input_tokens_per_second", 429),
    ({"output_tokens_per_second": 12}, "output_tokens_per_second", 429),
    ({"input_tokens_per_minute": 15}, "input_tokens_per_minute", 429),
    ({"output_tokens_per_minute": 12}, "output_tokens_per_minute", 429),
    ({"input_tokens_per_hour": 15}, "input_tokens_per_hour", 429),
    ({"output_tokens_per_hour": 12}, "output_tokens_per_hour", 429),
    ({"input_tokens_per_day": 15}, "input_tokens_per_day", 403),
    ({"output_tokens_per_day": 12}, "output_tokens_per_day", 403),
    ({"spend_per_hour_usd": "0.00022"}, "spend_per_hour", 429),
    ({"spend_per_day_usd": "0.00022"}, "spend_per_day", 403),
    ({"spend_per_month_usd": "0.00022"}, "spend_per_month", 403),
    ({"concurrency": 1}, "concurrency", 429),
    ({"max_input_tokens": 3}, "max_input_tokens", 403),
    ({"max_output_tokens": 9}, "max_output_tokens", 403),
    ({"max_total_tokens": 9}, "max_total_tokens", 403),
)


@pytest.fixture(scope="module")
def nodes() -> Iterator[ScriptedNodes]:
    with ScriptedNodes(MODEL, 1) as running:
        yield running


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory, nodes: ScriptedNodes) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("guarded")
    write_config(directory, nodes)
    running = start_up(directory, "--config", directory / "crosslogic.yaml")
    yield running
    running.program.kill()


@pytest.fixture(autouse=True)
def _well_behaved(nodes: ScriptedNodes) -> None:
    nodes.forget()


def write_config(directory: Path, nodes: ScriptedNodes, **more: Any) -> None:
    static = [{"endpoint": url, "type": "vllm", "models": [MODEL]} for url in nodes.urls]
    draft = directory / "draft"
    draft.write_text(yaml.safe_dump(CONFIG | {"nodes": static} | more))
    draft.replace(directory / "crosslogic.yaml")


class Caller:
    """An org with one environment and one key, with ceilings at one layer."""

    def __init__(self, cloud: EmbeddedCloud, layer: str = "key", limits: dict[str, Any] | None = None, **org: Any):
        self.cloud = cloud
        self.org = f"org-{secrets.token_hex(4)}"
        at = {layer: {"limits": limits}} if limits else {}
        self._post("/admin/orgs", name=self.org, **at.get("org", {}), **org)
        self.env = self._post(f"/admin/orgs/{self.org}/environments", name="prod", **at.get("env", {}))
        made = self._post("/admin/keys", org=self.org, environment="prod", name="k", **at.get("key", {}))
        self.headers = {"authorization": f"Bearer {made['key']}"}

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.cloud.admin.post(path, json=body).raise_for_status().json()
        return made

    def ask(self, **more: Any) -> wire.Reply:
        return wire.ask(self.cloud.url, CHAT, chat(**{"model": MODEL, "max_tokens": 10} | more), self.headers)

    def ask_at_once(self, count: int, **more: Any) -> list[wire.Reply]:
        with ThreadPoolExecutor(count) as threads:
            return list(threads.map(lambda _: self.ask(**more), range(count)))

    def known(self) -> "Caller":
        eventually(lambda: self._lists().status == 200, 5)
        return self

    def _lists(self) -> wire.Reply:
        return wire.ask(self.cloud.url, "/v1/models", None, self.headers, method="GET")

    def change(self, limits: dict[str, Any], **more: Any) -> None:
        """Other ceilings for the org; when this returns, the gateway obeys them."""
        a_day = secrets.randbelow(10**6) + 10**6
        values = more | {"limits": limits | {"requests_per_day": a_day}}
        self.cloud.admin.patch(f"/admin/orgs/{self.org}", json=values).raise_for_status()
        eventually(lambda: self._lists().headers.get("x-ratelimit-limit-requests") == str(a_day))


@pytest.fixture(scope="module")
def callers(guarded: EmbeddedCloud) -> dict[tuple[str, str], Caller]:
    """One for each ceiling and layer, made together so that one wait is enough for all."""
    made = {(dimension, layer): Caller(guarded, layer, limits) for limits, dimension, _ in CEILINGS for layer in LAYERS}
    list(made.values())[-1].known()
    return made


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize(("dimension", "status"), [(dimension, status) for _, dimension, status in CEILINGS])
def test_each_ceiling_at_each_layer_refuses_and_says_whose_and_which(
    callers: dict[tuple[str, str], Caller], nodes: ScriptedNodes, dimension: str, layer: str, status: int
) -> None:
    caller = callers[dimension, layer]
    if dimension == "concurrency":
        nodes.script = slowly
    refused = eventually(lambda: [reply for reply in caller.ask_at_once(4) if reply.status != 200], 10)[0]
    error = refused.json["error"]
    assert (refused.status, error["layer"], error["dimension"]) == (status, layer, dimension)
    assert error["code"] == ("rate_limit_exceeded" if status == 429 else "quota_exceeded")
    assert f"the {layer} limit" in error["message"]
    if dimension.startswith("max_"):
        assert "retry-after" not in refused.headers
        assert nodes.turns == [], "no node has seen it"
    else:
        assert int(refused.headers["retry-after"]) >= 1
        assert math.ceil(int(refused.headers["retry-after-ms"]) / 1000) == int(refused.headers["retry-after"])


async def slowly(turn: Turn) -> None:
    await asyncio.sleep(0.3)
    await answer_well(turn)


@pytest.mark.parametrize(
    "limits",
    [
        {"requests_per_minute": 60, "burst_share": 0.02},
        {"tokens_per_minute": 1200, "burst_share": 0.02},
        {"spend_per_hour_usd": "0.72", "burst_share": 0.0003},
    ],
    ids=["requests", "tokens", "money"],
)
def test_who_is_alone_and_waits_as_long_as_told_is_admitted(guarded: EmbeddedCloud, limits: dict[str, Any]) -> None:
    caller = Caller(guarded, "env", limits).known()
    refused = eventually(lambda: [reply for reply in caller.ask_at_once(4) if reply.status != 200], 10)[-1]
    while True:  # the last of those that came at once has the last word
        refused = caller.ask()
        if refused.status != 200:
            break
    assert refused.status == 429
    time.sleep(int(refused.headers["retry-after-ms"]) / 1000)
    assert caller.ask().status == 200


def test_a_platforms_ceiling_is_not_told_apart_and_takes_effect_without_a_restart(
    guarded: EmbeddedCloud, nodes: ScriptedNodes
) -> None:
    directory, caller = guarded.data_dir.parent, Caller(guarded).known()
    assert caller.ask().status == 200
    for layers in ({"global": {"max_output_tokens": 5}}, {"regions": {"local": {"max_output_tokens": 5}}}):
        write_config(directory, nodes, limits=layers)
        refused = eventually(lambda: reply if (reply := caller.ask()).status == 403 else None)
        assert refused.json["error"]["layer"] == "platform"
        write_config(directory, nodes, limits={"region": {"requests_per_minute": 10**6}})
        admitted = eventually(lambda: reply if (reply := caller.ask()).status == 200 else None)
    assert admitted.headers["x-ratelimit-limit-requests"] == "1000000"
    write_config(directory, nodes)
    eventually(lambda: "x-ratelimit-limit-requests" not in caller.ask().headers)


def test_a_request_that_names_no_maximum_gets_what_remains_beside_its_prompt(
    guarded: EmbeddedCloud, nodes: ScriptedNodes
) -> None:
    caller = Caller(guarded, "org", {"max_output_tokens": 300, "max_total_tokens": 200}).known()
    assert caller.ask(max_tokens=None).status == 200
    body = msgspec.json.decode(nodes.turns[-1].body)
    assert 150 < body["max_tokens"] < 200
    assert caller.ask(max_tokens=None, n=2).status == 200
    assert msgspec.json.decode(nodes.turns[-1].body)["max_tokens"] == body["max_tokens"] // 2
    assert caller.ask(max_tokens=50).status == 200
    assert msgspec.json.decode(nodes.turns[-1].body)["max_tokens"] == 50
    assert caller.ask(max_tokens=50, n=7).json["error"]["dimension"] == "max_output_tokens"


def test_an_answer_that_one_key_may_not_have_longer_is_not_given_to_another_from_the_cache(
    guarded: EmbeddedCloud, nodes: ScriptedNodes
) -> None:
    caller = Caller(guarded, "org", {"max_output_tokens": 900}).known()
    short = caller.headers
    made = guarded.admin.post(
        "/admin/keys", json={"org": caller.org, "environment": "prod", "name": "s", "limits": {"max_output_tokens": 5}}
    ).raise_for_status()
    caller.headers = {"authorization": f"Bearer {made.json()['key']}"}
    caller.known()
    bodies = []
    for headers in (caller.headers, short, caller.headers):
        caller.headers = headers | {"x-cache": "use"}
        assert caller.ask(max_tokens=None, temperature=0).status == 200
        bodies.append(msgspec.json.decode(nodes.turns[-1].body)["max_tokens"])
    assert bodies == [5, 900, 900], "the third was answered from the cache: no node has seen it"
    assert len(nodes.turns) == 2


def test_a_layer_in_shadow_admits_counts_and_shows_no_header(guarded: EmbeddedCloud) -> None:
    caller = Caller(guarded, "org", {"requests_per_day": 1, "max_output_tokens": 5, "shadow": True}).known()

    def shadowed(dimension: str) -> float:
        text = wire.ask(guarded.url, "/metrics", method="GET").body.decode()
        lines = [line for line in text.splitlines() if line.startswith("limits_shadowed_total{")]
        ours = [line for line in lines if 'layer="org"' in line and f'dimension="{dimension}"' in line]
        return sum(float(line.split()[-1]) for line in ours)

    before = {dimension: shadowed(dimension) for dimension in ("requests_per_day", "max_output_tokens")}
    replies = [caller.ask() for _ in range(3)]
    assert [reply.status for reply in replies] == [200] * 3
    assert not any(name.startswith("x-ratelimit") for reply in replies for name in reply.headers)
    assert shadowed("requests_per_day") - before["requests_per_day"] == 2
    assert shadowed("max_output_tokens") - before["max_output_tokens"] == 3


def usd(pusd: int) -> str:
    return f"{pusd // 10**12}.{pusd % 10**12:012d}"


def worst_pusd(caller: Caller, nodes: ScriptedNodes) -> int:
    """What is reserved for `caller.ask()`: found by asking under a cap, for the numbers are the product's own."""
    prompt = msgspec.json.decode(nodes.turns[-1].body, type=dict[str, msgspec.Raw])["messages"]
    return (len(bytes(prompt)) + 64) * INPUT_PUSD + 10 * OUTPUT_PUSD


def test_a_months_cap_admits_exactly_what_fits_however_many_ask_at_once(
    guarded: EmbeddedCloud, nodes: ScriptedNodes
) -> None:
    probe = Caller(guarded).known()
    assert probe.ask().status == 200
    worst = worst_pusd(probe, nodes)
    room = 6
    caller = Caller(guarded, "org", {"spend_per_month_usd": usd(room * worst + worst // 2)}).known()
    go_on = asyncio.Event()

    async def held(turn: Turn) -> None:
        await go_on.wait()
        await answer_well(turn)

    nodes.script = held  # what is admitted runs until all others have been refused
    with ThreadPoolExecutor(20) as threads:
        asking = [threads.submit(caller.ask) for _ in range(20)]
        try:
            eventually(lambda: sum(each.done() for each in asking) == 20 - room)
        finally:
            nodes.run(go_on.set)
        replies = [each.result() for each in asking]
    assert sorted(reply.status for reply in replies) == [200] * room + [403] * (20 - room)
    refused = next(reply for reply in replies if reply.status == 403)
    assert refused.json["error"]["dimension"] == "spend_per_month"
    nodes.script = answer_well
    left = (room * worst + worst // 2) - room * REAL_PUSD
    admitted = 0
    while caller.ask().status == 200:
        admitted += 1
    assert admitted == (left - worst) // REAL_PUSD + 1, "settled to the real cost, to the last request that fits"


def test_a_raised_cap_counts_within_a_second_and_a_restart_forgets_nothing(
    tmp_path: Path, nodes: ScriptedNodes
) -> None:
    write_config(tmp_path, nodes)
    cloud = start_up(tmp_path, "--config", tmp_path / "crosslogic.yaml")
    try:
        caller = Caller(cloud).known()
        assert caller.ask().status == 200
        cap = worst_pusd(caller, nodes) + 3 * REAL_PUSD
        eventually(lambda: len(cloud.rows()) == 1)
        caller.change(limits={"spend_per_month_usd": usd(cap)})
        eventually(lambda: caller.ask().status == 403, 10)
        spent = len(cloud.rows())
        assert spent <= 5, "what was spent before the cap was set counts too, once it is known"
        caller.change(limits={"spend_per_month_usd": usd(cap + REAL_PUSD)})
        assert caller.ask().status == 200
        assert caller.ask().status == 403
        eventually(lambda: sum(row["http_status"] == 200 for row in cloud.rows()) == spent_by(cloud, caller))
        assert cloud.program.stop() == 0
        cloud = start_up(tmp_path, "--config", tmp_path / "crosslogic.yaml")
        refused = caller_on(cloud, caller).ask()
        assert (refused.status, refused.json["error"]["dimension"]) == (403, "spend_per_month")
    finally:
        cloud.program.kill()


def spent_by(cloud: EmbeddedCloud, caller: Caller) -> int:
    usage = cloud.admin.get(f"/admin/usage/{caller.org}").json()["totals"]
    return int(usage["requests"])


def caller_on(cloud: EmbeddedCloud, caller: Caller) -> Caller:
    caller.cloud = cloud
    return caller


def test_an_org_that_chose_so_is_suspended_at_its_cap_by_the_system_and_only_an_administrator_takes_it_up(
    guarded: EmbeddedCloud, nodes: ScriptedNodes
) -> None:
    probe = Caller(guarded).known()
    probe.ask()
    cap = worst_pusd(probe, nodes) * 2
    limits = {"spend_per_month_usd": usd(cap)}
    caller = Caller(guarded, "org", limits, at_cap="suspend").known()
    rejecting = Caller(guarded, "org", limits).known()
    for one in (caller, rejecting):
        eventually(lambda one=one: one.ask().status == 403, 10)
    suspended = eventually(
        lambda: reply if (reply := caller.ask()).json.get("error", {}).get("code") == "tenant_suspended" else None
    )
    assert suspended.status == 403
    org = guarded.admin.get(f"/admin/orgs/{caller.org}").json()
    entries = guarded.admin.get("/admin/audit", params={"entity": org["id"], "action": "org.suspend"}).json()["data"]
    assert [entry["actor_kind"] for entry in entries] == ["system"]
    assert rejecting.ask().json["error"]["code"] == "quota_exceeded"
    assert guarded.admin.get(f"/admin/orgs/{rejecting.org}").json()["status"] == "active"
    caller.change(status="active", limits={"spend_per_month_usd": usd(cap * 10)})
    eventually(lambda: caller.ask().status == 200)
