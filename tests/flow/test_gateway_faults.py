"""What a caller sees when a node fails, and what the ledger says of it. One row of the table for each fault.

The rule behind it: nothing that is not whole looks whole, what was generated is accounted for, and what the caller was
told and what the ledger says is the same.
"""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from tests.flow.clouds import LLAMA, QWEN, EmbeddedCloud, Row, chat, fail_next
from tests.flow.conftest import start_up
from tests.flow.processes import eventually, in_time
from tests.flow.scripted import USAGE, ScriptedNodes, Turn, answer_well, delta
from tests.flow.wire import Reply

TOKENS = 6


@dataclass(frozen=True)
class Case:
    """A fault, what the caller sees of it, and the row that it leaves."""

    fault: str
    status: int  # of the HTTP answer
    code: str | None  # of the error in the answer or in the stream; None: the answer is whole
    outcome: str
    evidence: str
    tokens: int | None = None  # generated, by the ledger
    retry_after: bool = False
    attempts: int = 1


# With two nodes of the model, what can be repeated is tried on both.
STREAMED = (
    # Each node that goes on breaks after two more tokens, until there are six.
    Case("cut=2", 200, None, "completed", "counted", TOKENS, attempts=3),
    Case("reset_after=2", 200, None, "completed", "counted", TOKENS, attempts=3),
    Case("malformed=2", 200, None, "completed", "engine", TOKENS),
    Case("cut=0", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("error_before", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("no_done", 200, None, "completed", "engine", TOKENS),
    Case("no_usage", 200, None, "completed", "counted", TOKENS),
    Case("reset", 502, "upstream_error", "upstream_error", "none", 0, attempts=4),
    Case("error=500", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    # Both nodes are asked again when they wanted to be.
    Case("error=503;retry_after=1", 502, "upstream_error", "upstream_error", "none", 0, attempts=4),
    Case("error=429;retry_after=1", 429, "server_busy", "refused", "none", 0, retry_after=True, attempts=4),
    Case("slow_first_token=0.3", 200, None, "completed", "engine", TOKENS),
)
UNSAFE = (
    # Two choices: what they were about to say died with the node.
    Case("cut=2", 200, "upstream_error", "truncated", "counted", 2),
    Case("reset_after=2", 200, "upstream_error", "truncated", "counted", 2),
)
WHOLE_ANSWERS = (
    Case("cut=2", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("reset_after=2", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("malformed=2", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("no_usage", 200, None, "completed", "counted"),
    Case("reset", 502, "upstream_error", "upstream_error", "none", 0, attempts=4),
    Case("error=500", 502, "upstream_error", "upstream_error", "none", 0, attempts=2),
    Case("error=429;retry_after=1", 429, "server_busy", "refused", "none", 0, retry_after=True, attempts=4),
    Case("slow_first_token=0.3", 200, None, "completed", "engine", TOKENS),
)


@pytest.fixture(autouse=True)
def _well_behaved(scripted: ScriptedNodes) -> None:
    scripted.forget()


def _check_row(row: Row, case: Case, status: int) -> None:
    assert (row["outcome"], row["evidence"], row["attempts"]) == (case.outcome, case.evidence, case.attempts)
    assert row["http_status"] == (502 if case.outcome == "truncated" else status)
    if case.tokens is not None:
        assert row["completion_tokens"] == case.tokens
    if case.evidence == "none":
        assert (row["total_tokens"], int(row["cost_pusd"])) == (0, 0)
    else:
        assert row["prompt_tokens"] > 0


class TestFaultsOfANode:
    @pytest.mark.parametrize("case", STREAMED, ids=[case.fault for case in STREAMED])
    def test_in_a_stream(self, cloud: EmbeddedCloud, case: Case) -> None:
        self._check_stream(cloud, case, chat(max_tokens=TOKENS, stream=True))

    @pytest.mark.parametrize("case", UNSAFE, ids=[case.fault for case in UNSAFE])
    def test_in_a_stream_that_nobody_can_go_on_with(self, cloud: EmbeddedCloud, case: Case) -> None:
        self._check_stream(cloud, case, chat(max_tokens=TOKENS, stream=True, n=2))

    def _check_stream(self, cloud: EmbeddedCloud, case: Case, body: dict[str, object]) -> None:
        reply = cloud.ask(body, headers={"x-simulate-fault": case.fault})
        assert reply.status == case.status
        assert reply.done is (case.code is None)
        assert ("retry-after" in reply.headers) is case.retry_after
        if case.code is not None and reply.status == 200:
            assert reply.chunks[-1]["error"]["code"] == case.code
            assert not reply.whole, "the framing, too, says that something is missing"
        elif case.code is not None:
            assert reply.json["error"]["code"] == case.code
        _check_row(cloud.row(reply.headers["x-request-id"]), case, reply.status)

    @pytest.mark.parametrize("case", WHOLE_ANSWERS, ids=[case.fault for case in WHOLE_ANSWERS])
    def test_in_a_whole_answer(self, cloud: EmbeddedCloud, case: Case) -> None:
        body = chat(max_tokens=TOKENS)
        reply = cloud.ask(body, headers={"x-simulate-fault": case.fault})
        assert (reply.status, reply.whole) == (case.status, True)
        assert ("retry-after" in reply.headers) is case.retry_after
        assert reply.json.get("error", {}).get("code") == case.code
        _check_row(cloud.row(reply.headers["x-request-id"]), case, reply.status)

    def test_streams_of_responses_and_messages_are_no_less_careful(self, cloud: EmbeddedCloud) -> None:
        bodies = {
            "/v1/responses": {"model": LLAMA, "input": "Hello", "max_output_tokens": TOKENS, "stream": True},
            "/v1/messages": chat(max_tokens=TOKENS, stream=True),
        }
        for path, body in bodies.items():
            reply = cloud.ask(body, path=path, headers={"x-simulate-fault": "cut=2"})
            assert (reply.status, reply.whole) == (200, False)
            assert b"event: error\n" in reply.body
            assert b"completed" not in reply.body
            assert b"message_stop" not in reply.body
            row = cloud.row(reply.headers["x-request-id"])
            assert (row["outcome"], row["evidence"], row["completion_tokens"]) == ("truncated", "counted", 2)

    def test_a_crash_is_no_success_and_the_model_is_served_by_the_other_node(
        self, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """vLLM reports the crash of its engine within the stream, sends `[DONE]` all the same, and is gone."""
        cloud = start_up(tmp_path_factory.mktemp("crash"), "--nodes", 3)
        try:
            body = chat(max_tokens=50, stream=True)
            fail_next(cloud.nodes(LLAMA)[0]["endpoint_url"], "crash=3")

            def rescued() -> Row | None:
                reply = cloud.ask(body)
                assert reply.done
                row = cloud.row(reply.headers["x-request-id"])
                return row if row["attempts"] == 2 else None

            row = eventually(rescued)
            assert (row["outcome"], row["completion_tokens"], row["evidence"]) == ("completed", 50, "engine")
            for _ in range(6):
                assert cloud.ask(chat(max_tokens=2)).status == 200, "the node that is left"
            whole = cloud.ask(chat(model=QWEN, max_tokens=5), headers={"x-simulate-fault": "crash=1"})
            assert (whole.status, whole.json["error"]["code"]) == (502, "upstream_error")
            refused = cloud.ask(chat(model=QWEN, max_tokens=5))
            assert refused.json["error"]["code"] in ("upstream_error", "no_capacity")
        finally:
            cloud.program.kill()


class TestRetries:
    def test_the_other_node_answers_and_the_caller_notices_nothing(self, cloud: EmbeddedCloud) -> None:
        first = cloud.ask(chat(max_tokens=2)).headers["x-request-id"]
        assert cloud.row(first)["attempts"] == 1
        for node in cloud.nodes(LLAMA):
            fail_next(node["endpoint_url"], "error=500")
        # Both fail once: whichever is asked first fails, and so does the second.
        assert cloud.ask(chat(max_tokens=2)).status == 502
        # The one that serves now: a node that has failed before may be given nothing for a while.
        serving = cloud.row(cloud.ask(chat(max_tokens=2)).headers["x-request-id"])["node_id"]
        (url,) = (node["endpoint_url"] for node in cloud.nodes(LLAMA) if node["node_id"] == serving)
        fail_next(url, "error_before")

        def retried() -> Row | None:
            reply = cloud.ask(chat(max_tokens=4, stream=True))
            assert reply.done
            row = cloud.row(reply.headers["x-request-id"])
            return row if row["attempts"] == 2 else None

        row = eventually(retried)
        assert (row["outcome"], row["completion_tokens"], row["http_status"]) == ("completed", 4, 200)

    def test_no_more_than_three_others(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def fail(turn: Turn) -> None:
            turn.exchange.respond(500, b"", b"")

        scripted.script = fail
        reply = tuned.ask(chat(model="scripted"))
        assert (reply.status, len(scripted.turns)) == (502, 4)
        assert len({turn.node for turn in scripted.turns}) == 4
        assert tuned.row(reply.headers["x-request-id"])["attempts"] == 4

    def test_never_anew_after_the_first_token(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def stop_early(turn: Turn) -> None:
            turn.events(delta("Hel"))
            turn.exchange.abort(reset=True)

        scripted.script = stop_early
        reply = tuned.ask(chat(model="scripted", stream=True, logprobs=True))
        assert not reply.done
        assert len(scripted.turns) == 1

    def test_a_stream_of_nothing_is_no_answer(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def nothing(turn: Turn) -> None:
            turn.events()
            turn.exchange.start(200, b"content-type: text/event-stream\r\n")
            turn.exchange.end(b"")

        scripted.script = nothing
        reply = tuned.ask(chat(model="scripted", stream=True))
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_error")

    def test_a_node_that_closed_its_idle_connection_is_no_failure(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        async def answer_and_close(turn: Turn) -> None:
            await answer_well(turn)
            turn.exchange._connection.cut()  # as a server does when its keep-alive time is over

        scripted.script = answer_and_close
        replies = [tuned.ask(chat(model="scripted")) for _ in range(12)]
        assert {reply.status for reply in replies} == {200}
        assert {tuned.row(reply.headers["x-request-id"])["attempts"] for reply in replies} == {1}

    @pytest.mark.parametrize(
        "ending", ["without finish_reason", "with finish_reason only", "with usage only", "with done only"]
    )
    def test_what_makes_a_stream_whole(self, tuned: EmbeddedCloud, scripted: ScriptedNodes, ending: str) -> None:
        """Without `[DONE]` a finish reason must have come; `[DONE]` alone might follow a crash."""

        async def play(turn: Turn) -> None:
            turn.events(delta("Hel"), delta("lo"))
            if ending == "with finish_reason only":
                turn.events(delta(None, "stop"))
            if ending == "with usage only":
                turn.events({"choices": [], "usage": USAGE}, b"[DONE]")
            if ending == "with done only":
                turn.events(b"[DONE]")
            turn.exchange.end()

        scripted.script = play
        reply = tuned.ask(chat(model="scripted", stream=True))
        whole = ending in ("with finish_reason only", "with usage only")
        assert reply.done is whole
        row = tuned.row(reply.headers["x-request-id"])
        assert row["outcome"] == ("completed" if whole else "truncated")

    def test_an_answer_of_which_one_choice_is_missing_its_end_is_not_whole(
        self, tuned: EmbeddedCloud, scripted: ScriptedNodes
    ) -> None:
        async def end_one_of_two(turn: Turn) -> None:
            turn.events(delta("Hel"), delta("lo"), delta(None, "stop"))
            turn.exchange.end()

        scripted.script = end_one_of_two
        reply = tuned.ask(chat(model="scripted", stream=True, n=2))
        assert not reply.done
        assert tuned.row(reply.headers["x-request-id"])["outcome"] == "truncated"

    def test_usage_that_contradicts_itself_is_no_evidence(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def boast(turn: Turn) -> None:
            turn.exchange.respond(
                200,
                b"content-type: application/json\r\n",
                b'{"choices":[{"finish_reason":"stop"}],"usage":{"prompt_tokens":-5,"completion_tokens":2}}',
            )

        scripted.script = boast
        reply = tuned.ask(chat(model="scripted"))
        assert reply.status == 200
        assert tuned.row(reply.headers["x-request-id"])["evidence"] == "counted"


class TestTimeouts:
    """Each bounds one wait; `tuned` has connect 0.5 s, first token 1 s, idle 0.6 s, total 2.5 s."""

    def test_first_token(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def silent(turn: Turn) -> None:
            turn.exchange.on_closed = turn._left

        scripted.script = silent

        def ask() -> Reply:
            scripted.turns.clear()
            reply = tuned.ask(chat(model="scripted", stream=True))
            assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
            assert reply.seconds > 2.3, "other nodes are tried, within the total"
            assert 2 <= len(scripted.turns) <= 3
            return reply

        reply = in_time(ask, 3.5)
        eventually(lambda: all(turn.left_s for turn in scripted.turns), 10)
        row = tuned.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["evidence"], row["http_status"]) == ("timeout", "none", 504)

    def test_idle_between_tokens(self, tuned: EmbeddedCloud, scripted: ScriptedNodes) -> None:
        async def stall(turn: Turn) -> None:
            turn.events(delta("Hel"), delta("lo"))

        scripted.script = stall

        def ask() -> Reply:
            scripted.turns.clear()
            reply = tuned.ask(chat(model="scripted", stream=True, logprobs=True))
            assert reply.status == 200
            assert not reply.whole
            assert reply.chunks[-1]["error"]["code"] == "upstream_timeout"
            assert reply.seconds > 0.5
            return reply

        reply = in_time(ask, 1.3)
        row = tuned.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["completion_tokens"], row["http_status"]) == ("timeout", 2, 504)
        assert len(scripted.turns) == 1

    @pytest.mark.parametrize("stream", [True, False])
    def test_total(self, tuned: EmbeddedCloud, scripted: ScriptedNodes, stream: bool) -> None:
        async def endless(turn: Turn) -> None:
            while stream and turn.left_s is None:
                turn.events(delta("x"))
                await asyncio.sleep(0.2)

        scripted.script = endless
        reply = in_time(lambda: tuned.ask(chat(model="scripted", stream=stream)), 3.3)
        assert reply.seconds > 2.3
        row = tuned.row(reply.headers["x-request-id"])
        assert (row["outcome"], row["http_status"]) == ("timeout", 504)
        eventually(lambda: all(turn.left_s for turn in scripted.turns), 10)

    def test_connect(self, tuned: EmbeddedCloud, unanswering_url: str) -> None:
        body = {"endpoint_url": unanswering_url, "model_list": ["unanswering"], "status": "active"}
        node = tuned.admin.post("/admin/nodes/register", json=body).raise_for_status().json()
        eventually(lambda: b"unanswering" in tuned.ask(path="/v1/models", method="GET").body, 10)

        def ask() -> Reply:
            reply = tuned.ask(chat(model="unanswering"))
            assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_error")
            return reply

        reply = in_time(ask, 1.5)
        tuned.admin.delete(f"/admin/nodes/{node['node_id']}").raise_for_status()
        assert reply.seconds > 0.4


@pytest.fixture
def unanswering_url() -> Iterator[str]:
    """A machine that is gone answers nothing, not even that nothing listens: here, a queue that is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
