"""Every fault of a node that a caller can meet, through the real gateway: what the caller sees, and what nodes see.

All are rescued or cleanly refused: a stream that is not whole never ends as if it were, what cannot succeed is asked
once, and after any fault the next request is answered at once.
"""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.flow.clouds import EmbeddedCloud, Row, chat
from tests.flow.conftest import start_up
from tests.flow.processes import eventually, in_time
from tests.flow.scripted import ScriptedNodes
from tests.flow.storyteller import (
    PROMPT_TOKENS,
    STORY,
    WORDS,
    Fault,
    Storyteller,
    crash,
    cut,
    late,
    malformed,
    rejects_continuation,
    reset,
    reset_at_once,
    silence,
    stall,
    status,
    told,
    unfinished,
)
from tests.flow.wire import Reply

FIRST_TOKEN_S, IDLE_S = 0.8, 0.5
NODES = {
    "story": (3, "vllm"),
    "plain": (2, "openai"),
    "guarded": (2, "vllm"),
    "spare": (1, "vllm"),
    "alone": (1, "vllm"),
}
CONFIG = {
    "timeouts": {"connect_s": 0.5, "first_token_s": FIRST_TOKEN_S, "idle_s": IDLE_S, "total_s": 8.0},
    "scheduling": {"retry_wait_s": 3.0},
    "fleet": {"probe_interval_s": 1.0},
    "models": [{"id": "guarded", "fallbacks": ["spare"]}, *({"id": name} for name in NODES if name != "guarded")],
}
COMPLETIONS = "/v1/completions"


@dataclass(frozen=True)
class Ten:
    """Requests one after the other; all but one of them took at most so long."""

    seconds: float


class Matrix:
    """A gateway with nodes of several models, all of them storytellers."""

    def __init__(self, cloud: EmbeddedCloud, nodes: dict[str, ScriptedNodes]) -> None:
        self.cloud = cloud
        self.nodes = nodes

    def tell(self, model: str, script: Storyteller) -> Storyteller:
        self.nodes[model].script = script
        return script

    def ask(self, model: str = "story", **more: object) -> Reply:
        return self.cloud.ask(chat(model=model, **({"stream": True} | more)))

    def row(self, reply: Reply) -> Row:
        return self.cloud.row(reply.headers["x-request-id"])

    def healthy_at_once(self, model: str = "story") -> None:
        """Ten more requests, all well and hardly one of them late: a busy machine may hold up one."""
        self.tell(model, Storyteller())
        in_time(lambda: self._ten(model), FIRST_TOKEN_S)

    def _ten(self, model: str) -> "Ten":
        taken_s = []
        for _ in range(10):
            reply = self.ask(model)
            assert text_of(reply) == STORY
            taken_s.append(reply.seconds)
        return Ten(sorted(taken_s)[-2])


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Matrix]:
    directory = tmp_path_factory.mktemp("matrix")
    with ExitStack() as stack:
        nodes = {name: stack.enter_context(ScriptedNodes(name, count)) for name, (count, _) in NODES.items()}
        listed = [
            {"endpoint": url, "type": NODES[name][1], "models": [name]} for name in NODES for url in nodes[name].urls
        ]
        (directory / "crosslogic.yaml").write_text(yaml.safe_dump(CONFIG | {"nodes": listed}))
        cloud = start_up(directory, "--config", directory / "crosslogic.yaml")
        stack.callback(cloud.program.kill)
        yield Matrix(cloud, nodes)


@pytest.fixture
def matrix(running: Matrix) -> Iterator[Matrix]:
    yield running
    for name, nodes in running.nodes.items():
        nodes.forget()
        if name != "alone":
            # Breakers that a fault has opened close by a success, or within seconds by themselves.
            running.healthy_at_once(name)


def text_of(reply: Reply) -> str:
    """The text of a stream that is whole, and one answer."""
    assert reply.done, reply
    names = {(chunk["id"], chunk["created"], chunk["model"]) for chunk in reply.chunks}
    assert len(names) == 1, "one answer has one name"
    choices = [choice for chunk in reply.chunks for choice in chunk["choices"]]
    assert sum(choice["finish_reason"] is not None for choice in choices) == 1
    assert sum("role" in choice.get("delta", {}) for choice in choices) <= 1
    return "".join(choice.get("delta", {}).get("content") or choice.get("text") or "" for choice in choices)


@dataclass(frozen=True)
class Case:
    """Faults of the first nodes that are asked, and what follows."""

    name: str
    faults: tuple[Fault, ...]
    attempts: int
    within_s: float = 0.7
    continued: bool = False  # the last node was asked for the rest only
    evidence: str = "engine"
    stale: bool = False  # on a connection in use this looks as if it had been idle too long: no attempt at all


AFTER = b"retry-after: 1\r\n"
RESCUED = (
    Case("429 with Retry-After", (status(429, headers=AFTER),), 2),
    Case("429 without Retry-After", (status(429),), 2),
    Case("429 from all, with Retry-After", (status(429, headers=AFTER),) * 3, 4, within_s=3.0),
    Case("500 once", (status(500),), 2),
    Case("503 from two", (status(503), status(503)), 3),
    Case("reset before headers", (reset_at_once,), 2, stale=True),
    Case("silence", (silence,), 2, within_s=FIRST_TOKEN_S + 1),
    Case("20 s to the first token", (late(20),), 2, within_s=FIRST_TOKEN_S + 1),
    Case("cut after the role", (told(0, cut),), 2),
    Case("cut", (told(4, cut),), 2, continued=True),
    Case("reset in the answer", (told(4, reset),), 2, continued=True),
    Case("cut at white space", (told(12, cut),), 2, continued=True),
    Case("cut before the finish reason", (told(len(WORDS), cut),), 2, continued=True),
    Case("cut twice", (told(3, cut), told(4, reset)), 3, continued=True),
    Case("cut, then refused, then told", (told(4, cut), status(500)), 3, continued=True),
    Case("stall", (told(4, stall),), 2, within_s=IDLE_S + 1, continued=True),
    Case("engine crash", (told(4, crash),), 2, continued=True),
    Case("engine crash at once", (told(0, crash),), 2),
    Case("no [DONE], connection lost", (unfinished(usage=True, closes=True),), 1),
    Case("no [DONE], nothing more", (unfinished(usage=True, closes=False),), 1, within_s=IDLE_S + 1),
    Case("no usage, no [DONE]", (unfinished(usage=False, closes=True),), 1, evidence="counted"),
)


class TestRescued:
    @pytest.mark.parametrize("case", RESCUED, ids=[case.name for case in RESCUED])
    def test_the_caller_notices_nothing(self, matrix: Matrix, case: Case) -> None:
        in_time(lambda: self._rescued(matrix, case), case.within_s)

    def _rescued(self, matrix: Matrix, case: Case) -> Reply:
        script = matrix.tell("story", Storyteller(*case.faults))
        reply = matrix.ask(stream_options={"include_usage": True})
        assert text_of(reply) == STORY
        assert len(script.asked) == case.attempts
        usage = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": len(WORDS)}
        assert len([chunk for chunk in reply.chunks if chunk.get("usage")]) == 1
        assert reply.usage["completion_tokens"] == len(WORDS)
        row = matrix.row(reply)
        assert (row["outcome"], row["evidence"]) == ("completed", case.evidence)
        assert case.stale or row["attempts"] == case.attempts
        if case.evidence == "engine":
            assert {name: reply.usage[name] for name in usage} == usage
            assert {name: row[name] for name in usage} == usage
        last = script.asked[-1][2]
        assert bool(last.get("continue_final_message")) is case.continued
        if not case.stale:
            self._check_what_nodes_saw(case, script)
        if reply.seconds >= case.within_s:
            matrix.healthy_at_once()
        return reply

    def _check_what_nodes_saw(self, case: Case, script: Storyteller) -> None:
        nodes = script.nodes
        asked_again = case.name == "429 from all, with Retry-After"
        assert asked_again or len(set(nodes[:2])) == len(nodes[:2]), "never the same node at once again"
        if case.attempts > 1 and not case.continued and "silence" not in case.name:
            assert script.pauses_s[0] >= 0.02, "a pause, drawn by chance"
        if asked_again:
            # A second, by the gateway's clock; a busy machine may note the first asking late.
            assert script.pauses_s[-1] >= 0.5, "not before it wanted to be asked"
        if case.continued:
            body = script.asked[-1][2]
            assert STORY.startswith(body["messages"][-1]["content"])
            assert body["add_generation_prompt"] is False

    @pytest.mark.parametrize("count", [1, 5, 14])
    def test_completions_go_on_from_prompt_and_text(self, matrix: Matrix, count: int) -> None:
        script = matrix.tell("story", Storyteller(told(count, cut)))
        body = {"model": "story", "prompt": "Tell:", "max_tokens": 40, "stream": True}
        reply = matrix.cloud.ask(body, path=COMPLETIONS)
        assert text_of(reply) == STORY
        last = script.asked[-1][2]
        assert last["prompt"] == "Tell:" + "".join(WORDS[:count])
        assert last["max_tokens"] == 40 - count
        row = matrix.row(reply)
        assert (row["prompt_tokens"], row["completion_tokens"]) == (PROMPT_TOKENS, len(WORDS))

    def test_the_maximum_holds_for_the_whole_answer(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(told(4, cut)))
        reply = matrix.ask(max_tokens=6)
        assert text_of(reply) == "".join(WORDS[:6])
        assert script.asked[-1][2]["max_tokens"] == 2
        assert matrix.row(reply)["finish_reason"] == "length"

    def test_an_answer_that_lacks_only_its_finish_reason_needs_no_other_node(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(told(6, cut)))
        reply = matrix.ask(max_tokens=6, stream_options={"include_usage": True})
        assert text_of(reply) == "".join(WORDS[:6])
        assert len(script.asked) == 1
        assert reply.usage["completion_tokens"] == 6
        assert matrix.row(reply)["finish_reason"] == "length"

    def test_a_malformed_event_is_left_out(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(malformed))
        reply = matrix.ask()
        assert text_of(reply) == STORY
        assert len(script.asked) == 1
        eventually(lambda: "no JSON" in matrix.cloud.program.log.read_text(), 5)

    def test_a_node_that_asked_for_rest_gets_it(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(status(429, headers=AFTER)))
        began_s = time.monotonic()
        assert text_of(matrix.ask()) == STORY
        while time.monotonic() < began_s + 0.8:
            assert text_of(matrix.ask()) == STORY
        (refused_s, resting, _), *later = script.asked
        assert resting not in [node for asked_s, node, _ in later if asked_s < refused_s + 1.0]
        eventually(lambda: matrix.ask().done and resting in script.nodes[1:], 5)

    @pytest.mark.parametrize("with_cut", [False, True])
    def test_a_slow_reader_gets_all_of_it(self, matrix: Matrix, with_cut: bool) -> None:
        matrix.tell("story", Storyteller(*([told(8, cut)] if with_cut else [])))
        conversation = matrix.cloud.begin(chat(model="story", stream=True))
        time.sleep(0.6)
        assert text_of(conversation.rest()) == STORY

    def test_a_reader_slower_than_the_idle_deadline_is_no_stall(self, matrix: Matrix) -> None:
        """The gateway stops reading when its caller does: the node cannot help that nothing comes."""
        size, count = 100_000, 120

        async def pour(teller: Storyteller, turn: Any) -> None:
            for number in range(count):
                finish = "stop" if number == count - 1 else None
                choice = {"index": 0, "delta": {"content": "x" * size}, "finish_reason": finish}
                turn.events({"id": "z", "created": 1, "model": "story", "choices": [choice]})
                await turn.drained()
            turn.exchange.end(b"data: [DONE]\n\n")

        script = matrix.tell("story", Storyteller(pour))
        conversation = matrix.cloud.begin(chat(model="story", stream=True))
        time.sleep(IDLE_S * 4)
        assert len(text_of(conversation.rest())) == size * count
        assert len(script.asked) == 1


class TestJoined:
    """Engines that cannot go on with an answer: greedy and seeded ones are made again, and joined."""

    @pytest.mark.parametrize("how", [{"temperature": 0}, {"seed": 7}])
    def test_a_repeatable_answer_is_joined(self, matrix: Matrix, how: dict[str, Any]) -> None:
        script = matrix.tell("plain", Storyteller(told(4, cut)))
        reply = matrix.ask("plain", **how)
        assert text_of(reply) == STORY
        assert "continue_final_message" not in script.asked[-1][2]
        row = matrix.row(reply)
        assert (row["prompt_tokens"], row["completion_tokens"], row["attempts"]) == (PROMPT_TOKENS, len(WORDS), 2)

    def test_one_that_says_something_else_is_not(self, matrix: Matrix) -> None:
        async def another(teller: Storyteller, turn: Any) -> None:
            turn.events(
                {"id": "y", "choices": [{"index": 0, "delta": {"content": "Twice upon"}, "finish_reason": None}]}
            )
            turn.exchange.end(b"data: [DONE]\n\n")

        matrix.tell("plain", Storyteller(told(4, cut), another))
        reply = matrix.ask("plain", temperature=0)
        _check_failed(matrix, reply, 4)
        assert "Twice" not in reply.body.decode()

    def test_an_engine_that_rejects_the_assistants_message_is_not_asked_again(self, matrix: Matrix) -> None:
        script = matrix.tell("guarded", Storyteller(told(4, cut), always=rejects_continuation))
        assert text_of(matrix.ask("guarded", temperature=0)) == STORY
        assert [bool(body.get("continue_final_message")) for _, _, body in script.asked] == [False, True, False]
        script = matrix.tell("guarded", Storyteller(told(4, cut), always=rejects_continuation))
        assert text_of(matrix.ask("guarded", temperature=0)) == STORY
        assert [bool(body.get("continue_final_message")) for _, _, body in script.asked] == [False, False]
        script = matrix.tell("guarded", Storyteller(told(4, cut), always=rejects_continuation))
        _check_failed(matrix, matrix.ask("guarded"), 4)
        assert len(script.asked) == 1


def _check_failed(matrix: Matrix, reply: Reply, tokens: int) -> None:
    assert not reply.done
    assert not reply.whole, "the framing, too, says that something is missing"
    assert reply.chunks[-1]["error"]["code"] in ("upstream_error", "upstream_timeout")
    row = matrix.row(reply)
    assert (row["outcome"], row["completion_tokens"]) == ("truncated", tokens)


UNSAFE = (
    {"logprobs": True},
    {"n": 2},
    {"response_format": {"type": "json_object"}},
    {"guided_regex": "a+"},
    {"structured_outputs": {"choice": ["a", "b"]}},
    {"tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required"},
)


class TestRefused:
    @pytest.mark.parametrize("asked", UNSAFE, ids=[next(iter(asked)) for asked in UNSAFE])
    def test_what_is_more_than_text_ends_as_a_failure(self, matrix: Matrix, asked: dict[str, Any]) -> None:
        script = matrix.tell("story", Storyteller(told(4, cut)))
        _check_failed(matrix, matrix.ask(temperature=0, **asked), 4)
        assert len(script.asked) == 1

    @pytest.mark.parametrize("asked", UNSAFE, ids=[next(iter(asked)) for asked in UNSAFE])
    def test_but_starts_anew_where_nothing_but_the_role_was_sent(self, matrix: Matrix, asked: dict[str, Any]) -> None:
        if asked.get("n") == 2:
            return  # a storyteller tells one choice
        matrix.tell("story", Storyteller(told(0, cut)))
        assert text_of(matrix.ask(**asked)) == STORY

    def test_a_tool_call_in_progress_is_not_continued(self, matrix: Matrix) -> None:
        async def call_tool(teller: Storyteller, turn: Any) -> None:
            call = {"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}
            choice = {
                "index": 0,
                "delta": {"role": "assistant", "content": None, "tool_calls": [call]},
                "finish_reason": None,
            }
            turn.events({"id": "z", "choices": [choice]})
            turn.exchange.abort(reset=True)

        script = matrix.tell("story", Storyteller(call_tool))
        _check_failed(matrix, matrix.ask(tools=[{"type": "function", "function": {"name": "f"}}], seed=1), 1)
        assert len(script.asked) == 1

    def test_all_nodes_die_under_one_stream(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(always=told(2, cut)))
        _check_failed(matrix, matrix.ask(), 8)
        assert len(script.asked) == 4, "three continuations, and no more"

    @pytest.mark.parametrize(
        "error",
        [
            {"message": "maximum context length is 10", "type": "BadRequestError", "code": "context_length_exceeded"},
            {"message": "not that", "type": "invalid_request_error", "code": "content_policy_violation"},
        ],
    )
    @pytest.mark.parametrize("stream", [True, False])
    @pytest.mark.parametrize("code", [400, 403])
    def test_what_cannot_succeed_is_asked_once(
        self, matrix: Matrix, error: dict[str, Any], stream: bool, code: int
    ) -> None:
        if code == 403 and "policy" not in error["code"]:
            return
        script = matrix.tell("story", Storyteller(always=status(code, error)))
        reply = matrix.ask(stream=stream)
        assert (reply.status, reply.json["error"]) == (code, error)
        assert len(script.asked) == 1
        row = matrix.row(reply)
        assert (row["outcome"], row["total_tokens"]) == ("refused", 0)

    def test_a_mistake_that_is_told_as_an_event_is_asked_once_too(self, matrix: Matrix) -> None:
        async def tell(teller: Storyteller, turn: Any) -> None:
            turn.events({"error": {"message": "too long", "type": "BadRequestError", "code": 400}})
            turn.exchange.end(b"data: [DONE]\n\n")

        script = matrix.tell("story", Storyteller(always=tell))
        reply = matrix.ask()
        assert (reply.status, reply.json["error"]["message"], len(script.asked)) == (400, "too long", 1)

    def test_503_for_good_is_refused_after_each_node_was_asked_once(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(always=status(503)))
        reply = matrix.ask()
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_error")
        assert sorted(script.nodes) == [0, 1, 2]
        row = matrix.row(reply)
        assert (row["total_tokens"], int(row["cost_pusd"])) == (0, 0)

    def test_silence_everywhere_costs_each_node_one_question(self, matrix: Matrix) -> None:
        script = matrix.tell("story", Storyteller(always=silence))
        reply = matrix.ask()
        assert (reply.status, reply.json["error"]["code"]) == (504, "upstream_timeout")
        assert sorted(script.nodes) == [0, 1, 2]

    def test_who_cannot_wait_is_told_when_to_come_back(self, matrix: Matrix) -> None:
        script = matrix.tell("alone", Storyteller(always=status(429, headers=b"retry-after: 60\r\n")))

        def ask() -> Reply:
            reply = matrix.ask("alone")
            assert (reply.status, reply.json["error"]["code"]) == (429, "server_busy")
            assert 50 <= int(reply.headers["retry-after"]) <= 60
            return reply

        assert ask().seconds < 3.0, "it is not waited for"
        in_time(ask, FIRST_TOKEN_S)
        assert len(script.asked) == 1, "the node is left alone"


class TestFallbackModel:
    def test_answers_and_is_billed_when_no_node_of_the_model_can(self, matrix: Matrix) -> None:
        script = matrix.tell("guarded", Storyteller(always=status(500)))
        reply = matrix.ask("guarded")
        assert text_of(reply) == STORY
        assert sorted(script.nodes) == [0, 1]
        assert {chunk["model"] for chunk in reply.chunks} == {"spare"}
        row = matrix.row(reply)
        assert (row["model"], row["outcome"], row["attempts"]) == ("spare", "completed", 3)

    def test_its_own_refusal_is_not_the_callers(self, matrix: Matrix) -> None:
        matrix.tell("guarded", Storyteller(always=status(500)))
        matrix.tell("spare", Storyteller(always=status(400)))
        reply = matrix.ask("guarded")
        assert (reply.status, reply.json["error"]["code"]) == (502, "upstream_error")


class TestFlapping:
    def test_a_bad_node_is_probed_seldom_and_is_back_soon(self, matrix: Matrix) -> None:
        """The other nodes serve its share; within 30 s of its recovery it serves again."""
        script = matrix.tell("story", Storyteller(by_node={0: reset_at_once}))
        began_s = time.monotonic()
        answered = 0
        while time.monotonic() < began_s + 3.0 or answered <= 20:
            assert text_of(matrix.ask()) == STORY
            answered += 1
        lasted_s = time.monotonic() - began_s
        assert script.nodes.count(0) <= 3 + lasted_s, "three failures, then a probe now and then"
        script.by_node = {}
        before = script.nodes.count(0)
        eventually(lambda: matrix.ask().done and script.nodes.count(0) > before + 1, 30)
