"""A real engine is killed in the middle of its answers: nobody may take them for whole, and the rest goes on.

vLLM's HTTP server survives its engine for a moment: it ends a chat with an error event and `[DONE]`, and a response
in the Responses API with nothing at all.
"""

import json
from collections.abc import Iterator

import openai
import pytest

from tests.engine.conftest import StartCloud
from tests.engine.servers import CHAT_MODEL, Engines
from tests.engine.test_vllm import HELLO, LONG, STREAMS
from tests.flow.clouds import EmbeddedCloud, chat
from tests.flow.processes import eventually
from tests.flow.wire import Conversation, Reply

pytestmark = pytest.mark.engine

NEW_REQUESTS = 12


class Aftermath:
    """What was under way when the engine of the second server was killed, and what came after."""

    def __init__(self, lonely: EmbeddedCloud, cloud: EmbeddedCloud, engines: Engines) -> None:
        self.lonely = lonely
        streams = {
            path: lonely.begin({"model": CHAT_MODEL, "stream": True} | body, path) for path, body in STREAMS.items()
        }
        whole = lonely.begin(chat("Go on.", CHAT_MODEL, max_tokens=LONG, min_tokens=LONG))
        with openai.OpenAI(base_url=lonely.base_url, api_key=lonely.api_key, max_retries=0) as client:
            sdk = client.chat.completions.create(
                model=CHAT_MODEL, messages=HELLO, max_tokens=LONG, stream=True, extra_body={"ignore_eos": True}
            )
            next(sdk)
            for conversation in streams.values():
                conversation.until(lambda data: data.count(b"\n\n") > 12, 30)
            engines.chat[1].kill_engine()
            self.after = [cloud.ask(chat("Hello", CHAT_MODEL, max_tokens=4)) for _ in range(NEW_REQUESTS)]
            try:
                self.sdk_saw: object = list(sdk)
            except openai.APIError as error:
                self.sdk_saw = error
        self.replies: dict[str, Reply] = {path: _end(conversation) for path, conversation in streams.items()}
        self.whole = _end(whole)


def _end(conversation: Conversation) -> Reply:
    reply = conversation.rest(20)
    conversation.close()
    return reply


@pytest.fixture(scope="module")
def aftermath(start_cloud: StartCloud, cloud: EmbeddedCloud, engines: Engines) -> Iterator[Aftermath]:
    yield Aftermath(start_cloud(engines.chat[1]), cloud, engines)
    engines.chat[1].stop()


@pytest.mark.parametrize("path", STREAMS)
def test_a_stream_ends_with_an_error_and_never_as_a_success(aftermath: Aftermath, path: str) -> None:
    reply = aftermath.replies[path]
    assert reply.status == 200
    assert not reply.whole
    assert reply.ending in ("closed", "reset")
    for success in (b"[DONE]", b"response.completed", b"message_stop", b'"finish_reason":"'):
        assert success not in reply.body
    last = json.loads(reply.events[-1])
    assert last["error"]["code"] == "upstream_error"


@pytest.mark.parametrize("path", STREAMS)
def test_its_row_says_truncated_and_bills_what_had_passed(aftermath: Aftermath, path: str) -> None:
    reply = aftermath.replies[path]
    row = aftermath.lonely.row(reply.headers["x-request-id"])
    assert (row["outcome"], row["evidence"], row["finish_reason"]) == ("truncated", "counted", None)
    tokens = sum(reply.body.count(kind) for kind in (b'"delta":{"content":', b'"text":"', b"output_text.delta\n"))
    assert 5 <= row["completion_tokens"] <= tokens


def test_the_sdk_raises(aftermath: Aftermath) -> None:
    assert isinstance(aftermath.sdk_saw, openai.APIError)


def test_a_whole_answer_is_an_error_too_and_costs_nothing(aftermath: Aftermath) -> None:
    assert aftermath.whole.status in (502, 503)
    assert aftermath.whole.json["error"]["type"] == "server_error"
    row = aftermath.lonely.row(aftermath.whole.headers["x-request-id"])
    assert (row["outcome"], row["completion_tokens"], row["prompt_tokens"]) == ("upstream_error", 0, 0)


def test_new_requests_are_all_served_by_the_other_node(
    aftermath: Aftermath, cloud: EmbeddedCloud, engines: Engines
) -> None:
    assert [reply.status for reply in aftermath.after] == [200] * NEW_REQUESTS
    survivor = next(node["node_id"] for node in cloud.nodes() if node["endpoint_url"] == engines.chat[0].url)
    rows = [cloud.row(reply.headers["x-request-id"]) for reply in aftermath.after]
    assert {row["node_id"] for row in rows} == {survivor}
    assert {row["outcome"] for row in rows} == {"completed"}


def test_the_dead_node_is_found_out_and_taken_back_when_it_serves_again(
    aftermath: Aftermath, cloud: EmbeddedCloud, engines: Engines
) -> None:
    victim = engines.chat[1]

    def status() -> str:
        return str(next(node["status"] for node in cloud.nodes() if node["endpoint_url"] == victim.url))

    victim.process.wait(30)
    victim.start_again()  # which takes longer than to be found dead
    eventually(lambda: status() == "dead", 30)
    victim.wait_until_ready()
    eventually(lambda: status() == "active", 30)

    def served() -> float:
        assert cloud.ask(chat("Hello", CHAT_MODEL, max_tokens=2)).status == 200
        return victim.metric("request_success")

    eventually(served)
