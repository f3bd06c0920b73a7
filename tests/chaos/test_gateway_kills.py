"""Workers are killed under load, and the ledger is right all the same: request to row, once, with the right counts.

The callers work on bare sockets, so that they know whether they saw an answer whole. They are the truth; the ledger is
held against it.
"""

import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from crosslogic.gateway.relay import MARK_TOKENS
from tests.conftest import _scratch
from tests.flow import wire
from tests.flow.clouds import CHAT, Row, chat
from tests.flow.processes import START_TIMEOUT_S, eventually
from tests.flow.production import Production

pytestmark = pytest.mark.chaos

KILLS = 20
TOKENS_A_SECOND = 400  # of one stream of the simulated node, at most
CALLERS = 8


@pytest.fixture(scope="module")
def production(_postgres: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Production]:
    for database_url in _scratch(_postgres):
        with Production(tmp_path_factory.mktemp("kills"), database_url, speedup=2.0) as running:
            yield running


@dataclass
class Seen:
    """What a caller knows of one request."""

    request_id: str | None  # None: not even a head came
    whole: bool
    usage: dict[str, Any] | None
    began: bool  # at least one token was seen


@dataclass
class Load:
    """Callers that ask one thing after the other until they are stopped."""

    production: Production
    seen: list[Seen] = field(default_factory=list)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(CALLERS)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(30)
            assert not thread.is_alive(), "a caller waits for ever"

    def _run(self, number: int) -> None:
        rng = random.Random(number)
        while not self._stopping.is_set():
            stream = rng.random() < 0.6
            body = chat(f"caller {number}: {rng.random()}", max_tokens=rng.randint(5, 60))
            if stream:
                body |= {"stream": True, "stream_options": {"include_usage": True}}
            try:
                reply = self.production.cloud.ask(body, timeout_s=20)
            except OSError:
                continue  # the connection was not made, or broke before the request was out
            self.seen.append(_judge(reply, stream))


def _judge(reply: wire.Reply, stream: bool) -> Seen:
    request_id = reply.headers.get("x-request-id")
    if not reply.status:
        return Seen(None, False, None, False)
    assert reply.status == 200, reply
    if not stream:
        return Seen(request_id, reply.whole, reply.usage if reply.whole else None, False)
    began = b'"content":"' in reply.body
    whole = reply.whole and reply.body.endswith(b"data: [DONE]\n\n")
    if whole:
        assert reply.done, reply
    return Seen(request_id, whole, reply.usage if whole else None, began)


class Killer:
    """Kills one worker after the other, each once it serves and has work, and lets the other serve meanwhile."""

    def __init__(self, production: Production) -> None:
        self._production = production
        self._rng = random.Random(1)
        self.killed: list[int] = []

    def run(self) -> None:
        for _ in range(KILLS):
            victim = eventually(self._victim, START_TIMEOUT_S, 0.05)  # both may have to start anew
            time.sleep(self._rng.uniform(0.1, 0.9))
            os.kill(victim, signal.SIGKILL)
            self.killed.append(victim)

    def _victim(self) -> int | None:
        workers = [pid for pid in self._production.workers() if pid not in self.killed]
        self._rng.shuffle(workers)
        return next((pid for pid in workers if _has_callers(pid)), None)


def _has_callers(worker: int) -> bool:
    """Whether it holds more than its few connections to database, Redis and nodes: it has begun to serve."""
    try:
        descriptors = list(os.scandir(f"/proc/{worker}/fd"))
        return sum("socket" in os.readlink(entry.path) for entry in descriptors) >= 9
    except OSError:
        return False


def _by_id(rows: list[Row]) -> dict[str, Row]:
    counted = Counter(row["request_id"] for row in rows)
    assert max(counted.values()) == 1, "no request is billed twice"
    return {row["request_id"]: row for row in rows}


@pytest.mark.timeout(900)  # twenty starts of a worker, one after the other
def test_every_answer_that_was_seen_whole_is_in_the_ledger_once(production: Production) -> None:
    load = Load(production)
    load.start()
    killer = Killer(production)
    try:
        killer.run()
    finally:
        load.stop()
    assert len(set(killer.killed)) == KILLS
    whole = [seen for seen in load.seen if seen.whole]
    broken = [seen for seen in load.seen if not seen.whole and seen.request_id]
    assert len(whole) > 100
    assert len(broken) > KILLS / 4, "the kills hit running answers"

    expected = {seen.request_id for seen in whole} | {seen.request_id for seen in broken if seen.began}
    eventually(lambda: expected <= {row["request_id"] for row in production.cloud.rows()}, 20, 0.5)
    rows = _by_id(production.cloud.rows())
    for seen in whole:
        row = rows[seen.request_id or ""]
        usage = seen.usage or {}
        assert (row["outcome"], row["evidence"], row["http_status"]) == ("completed", "engine", 200)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (usage["prompt_tokens"], usage["completion_tokens"])
    outcomes = Counter(rows[seen.request_id or ""]["outcome"] for seen in broken if seen.began)
    # A record may have become durable just before the kill, and its caller not have seen the end.
    assert set(outcomes) <= {"interrupted", "completed"}
    assert outcomes["interrupted"] > 0
    for row in rows.values():
        if row["outcome"] == "interrupted":
            # Answers of at most 60 tokens in under a second: most have no mark yet.
            assert row["evidence"] in ("none", "checkpoint")
            assert (row["total_tokens"] > 0) == (row["evidence"] == "checkpoint")
            assert row["total_tokens"] <= 60
    # Rows of which no caller knows the id are those of callers that got nothing, each by a kill.
    unknown = len(rows) - len({seen.request_id for seen in load.seen} & rows.keys())
    assert unknown <= KILLS * CALLERS


def test_journals_of_dead_workers_are_cleared_away(production: Production) -> None:
    """Two live workers: a lock and at most two segments each."""
    journal = production.directory / "data" / "journal"
    eventually(lambda: len(list(journal.iterdir())) <= 6, 10)
    assert not list(journal.glob("*.torn"))


def test_what_a_killed_worker_held_of_a_limit_is_given_back(production: Production) -> None:
    cloud = production.cloud
    body = {"org": "acme", "environment": "prod", "name": "two-at-once", "limits": {"concurrency": 2}}
    key = cloud.admin.post("/admin/keys", json=body).raise_for_status().json()
    headers = {"authorization": f"Bearer {key['key']}"}
    victim, other = eventually(lambda: pids if len(pids := production.workers()) == 2 else None, 10)
    production.until_known(headers)
    streams = []
    for _ in range(2):
        stream = production.dial(victim)
        stream.send(CHAT, chat(max_tokens=5000, stream=True), headers)
        stream.until(lambda data: data.count(b"\n\n") > 3)
        streams.append(stream)
    assert production.ask_worker(other, chat(max_tokens=1), CHAT, headers=headers).status == 429
    os.kill(victim, signal.SIGKILL)
    assert not any(stream.rest().whole for stream in streams)
    began_s = time.monotonic()
    eventually(lambda: wire.ask(cloud.url, CHAT, chat(max_tokens=1), headers).status == 200, 25, 0.2)
    assert time.monotonic() - began_s < 25
    # The node, too, is free again: its connection broke.
    eventually(lambda: cloud.running() == 0, 15)


def test_a_killed_parent_takes_its_workers_along_and_a_new_one_tidies_up(production: Production) -> None:
    cloud = production.cloud
    workers = production.workers()
    streams = [cloud.begin(chat(max_tokens=3000, stream=True)) for _ in range(2)]
    for stream in streams:
        stream.until(lambda data: data.count(b"\n\n") > 300)
    cloud.program.kill()
    for pid in workers:  # and they, too, by force: nobody is left to write anything
        os.kill(pid, signal.SIGKILL)
    production.restart_gateway()
    for stream in streams:
        reply = stream.rest()
        assert not reply.whole
        row = cloud.row(reply.headers["x-request-id"])
        seen = reply.body.count(b'"content":"')
        assert row["outcome"] == "interrupted"
        # What was marked: the prompt is left out, since the engine had not told its tokens yet.
        assert (row["evidence"], row["prompt_tokens"]) == ("checkpoint", 0)
        assert seen - MARK_TOKENS - TOKENS_A_SECOND <= row["completion_tokens"] <= seen
        assert row["completion_tokens"] >= MARK_TOKENS
    usage = json.loads(cloud.admin.get("/admin/usage/acme").text)
    assert usage["totals"]["requests"] == len(cloud.rows())
