"""Waiting for a turn: who waits, what its caller hears meanwhile, and who is refused (`enable_queuing: true`)."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from tests.flow.clouds import LLAMA, EmbeddedCloud, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually

QUEUED = {
    "enable_queuing": True,
    "scheduling": {"max_requests_per_node": 1},
    "queue": {"max_size": 2, "max_size_per_tenant": 2, "timeout_s": 4},
}


@pytest.fixture(scope="module")
def queued(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedCloud]:
    directory = tmp_path_factory.mktemp("queued")
    config = directory / "crosslogic.yaml"
    config.write_text(yaml.safe_dump(QUEUED))
    running = start_up(directory, "--config", config, "--nodes", 2)
    yield running
    running.program.kill()


def test_a_request_waits_for_its_place_and_is_then_answered_whole(queued: EmbeddedCloud) -> None:
    with ThreadPoolExecutor(3) as callers:
        answers = list(callers.map(lambda _: queued.ask(chat(max_tokens=40)), range(3)))
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert {answer.usage["completion_tokens"] for answer in answers} == {40}


def test_a_stream_that_waits_for_more_than_a_second_is_told_so_in_comments(queued: EmbeddedCloud) -> None:
    first = queued.begin(chat(max_tokens=4000, stream=True))
    first.until(lambda data: b"data: " in data)
    second = queued.begin(chat(max_tokens=3, stream=True))
    told = second.until(lambda data: b": queued position=1" in data)
    assert b"text/event-stream" in told
    first.close()
    answer = second.rest()
    assert answer.done
    assert answer.chunks[-1]["choices"][0]["finish_reason"] == "length"


def test_more_than_may_wait_are_refused_at_once_and_told_when_to_come_back(queued: EmbeddedCloud) -> None:
    running = queued.begin(chat(max_tokens=4000, stream=True))
    running.until(lambda data: b"data: " in data)
    waiting = [queued.begin(chat(max_tokens=1)) for _ in range(2)]
    eventually(lambda: len(_waiting(queued)) == 2)
    refused = queued.ask(chat(max_tokens=1))
    assert (refused.status, refused.json["error"]["code"]) == (429, "server_busy")
    assert int(refused.headers["retry-after"]) >= 1
    running.close()
    assert [conversation.rest().status for conversation in waiting] == [200, 200]


def test_who_leaves_while_waiting_costs_nothing_and_gives_its_place_in_the_queue_to_the_next(
    queued: EmbeddedCloud,
) -> None:
    running = queued.begin(chat(max_tokens=4000, stream=True))
    running.until(lambda data: b"data: " in data)
    for number in range(4):  # twice as many as may wait at once
        waiting = queued.begin(chat(max_tokens=1), headers={"x-request-id": f"leaves-{number}"})
        eventually(lambda number=number: f"leaves-{number}" in _waiting(queued))
        waiting.close()
        eventually(lambda: not _waiting(queued))
    last = queued.begin(chat(max_tokens=1), headers={"x-request-id": "stays"})
    running.close()
    assert last.rest().status == 200
    eventually(lambda: "stays" in _callers_ids(queued))
    assert not any(str(given).startswith("leaves") for given in _callers_ids(queued))


def _waiting(queued: EmbeddedCloud) -> list[str]:
    """The callers' names of the requests that wait."""
    return [row["client_request_id"] for row in queued.admin.get("/admin/queue/requests").json()["data"]]


def _callers_ids(queued: EmbeddedCloud) -> set[object]:
    return {row["client_request_id"] for row in queued.rows()}


def test_no_turn_within_the_longest_wait_is_a_refusal_and_never_silence(queued: EmbeddedCloud) -> None:
    running = queued.begin(chat(max_tokens=4000, stream=True))
    running.until(lambda data: b"data: " in data)
    began_s = time.monotonic()
    plain, streamed = queued.begin(chat(max_tokens=1)), queued.begin(chat(max_tokens=1, stream=True))
    refused = plain.rest()
    assert (refused.status, refused.json["error"]["code"]) == (429, "server_busy")
    cut = streamed.rest()
    assert not cut.done
    assert cut.chunks[-1]["error"]["code"] == "server_busy"
    assert 3.5 < time.monotonic() - began_s < 20
    running.close()
    eventually(lambda: queued.running(LLAMA) == 0)
