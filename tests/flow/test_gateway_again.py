"""Answers that are given again: the response cache, and a repeat with the same Idempotency-Key."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.flow.clouds import EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually


@pytest.fixture(scope="module")
def caching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("caching")
    config = directory / "crosslogic.yaml"
    config.write_text(yaml.safe_dump({"enable_caching": True}))
    running = start_up(directory, "--config", config, "--nodes", 1)
    yield running
    running.program.kill()


def _row(cloud: EmbeddedCloud, given_id: str) -> dict[str, object]:
    return eventually(lambda: next((row for row in cloud.rows() if row["client_request_id"] == given_id), None))


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_is_answered_from_the_cache_and_costs_nothing(caching: EmbeddedCloud, stream: bool) -> None:
    model = caching.nodes()[0]["model_list"][0]
    body = chat("cache me", model, max_tokens=20, temperature=0, stream=stream)
    first = caching.ask(body, headers={"x-cache": "use", "x-request-id": f"first-{stream}"})
    again = caching.ask(body, headers={"x-cache": "use", "x-request-id": f"again-{stream}"})
    assert (first.headers["x-cache"], again.headers["x-cache"]) == ("miss", "hit")
    assert again.body == first.body
    made, given = _row(caching, f"first-{stream}"), _row(caching, f"again-{stream}")
    assert (made["evidence"], given["evidence"]) == ("engine", "cached")
    assert given["completion_tokens"] == made["completion_tokens"] == 20
    assert (int(str(made["cost_pusd"])) > 0, int(str(given["cost_pusd"]))) == (True, 0)
    assert given["node_id"] == ""


def test_without_asking_nothing_is_cached(caching: EmbeddedCloud) -> None:
    model = caching.nodes()[0]["model_list"][0]
    body = chat("do not cache me", model, max_tokens=2, temperature=0)
    assert "x-cache" not in caching.ask(body).headers
    assert caching.ask(body, headers={"x-cache": "use"}).headers["x-cache"] == "miss"


def test_repeats_with_one_idempotency_key_run_once_and_are_all_answered(cloud: EmbeddedCloud) -> None:
    body = chat("once only", max_tokens=60, stream=True)
    headers = {"idempotency-key": "once-1"}
    with ThreadPoolExecutor(6) as callers:
        answers = list(callers.map(lambda _: cloud.ask(body, headers=headers), range(6)))
    assert len({answer.body for answer in answers}) == 1
    assert all(answer.done for answer in answers)
    replays = [answer for answer in answers if "idempotent-replayed" in answer.headers]
    assert len(replays) == 5
    (original,) = {answer.headers["x-original-request-id"] for answer in replays}
    eventually(lambda: any(row["request_id"] == original for row in cloud.rows()))
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert [row["request_id"] for row in cloud.rows() if row["request_id"] in ids] == [original]


def test_another_request_under_the_same_key_is_a_conflict(cloud: EmbeddedCloud) -> None:
    headers = {"idempotency-key": "once-2"}
    assert cloud.ask(chat("one", max_tokens=1), headers=headers).status == 200
    refused = cloud.ask(chat("two", max_tokens=1), headers=headers)
    assert (refused.status, refused.json["error"]["code"]) == (409, "idempotency_key_reused")


def test_a_key_whose_request_failed_may_be_used_again(cloud: EmbeddedCloud) -> None:
    headers = {"idempotency-key": "once-3"}
    body = chat("fails first", max_tokens=1)
    failed = cloud.ask(body, headers=headers | {"x-simulate-fault": "error=500"})
    assert failed.status >= 500
    assert cloud.ask(body, headers=headers).status == 200
