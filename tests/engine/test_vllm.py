"""The gateway before two real vLLM servers, by the official SDKs: what callers get, and what the ledger says of it."""

import json
import re
from typing import Any

import anthropic
import openai
import pytest

from tests.engine.servers import CHAT_MODEL, Engines
from tests.flow.clouds import CHAT, EmbeddedCloud, Row, chat
from tests.flow.processes import eventually

pytestmark = pytest.mark.engine

HELLO: list[Any] = [{"role": "user", "content": "Tell me something about the sea."}]
LENGTH = {"ignore_eos": True}  # the model is noise: it may end its answer at any token
LONG = 8000  # tokens; takes the engine half a minute
LIGHT: Any = {
    "type": "function",
    "function": {
        "name": "switch_light",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"on": {"type": "boolean"}},
            "required": ["on"],
            "additionalProperties": False,
        },
    },
}
SWITCH: Any = {"type": "function", "function": {"name": "switch_light"}}
STREAMS = {
    "/v1/chat/completions": {"messages": HELLO, "max_tokens": LONG, "min_tokens": LONG},
    "/v1/completions": {"prompt": "Tell me something about the sea.", "max_tokens": LONG, "min_tokens": LONG},
    "/v1/responses": {"input": "Tell me something about the sea.", "max_output_tokens": LONG, "ignore_eos": True},
    "/v1/messages": {"messages": HELLO, "max_tokens": LONG},
}


def counted(engines: Engines) -> tuple[float, float]:
    """(prompt, generated) tokens that the chat engines have counted so far."""
    return (
        sum(server.metric("prompt_tokens") for server in engines.chat),
        sum(server.metric("generation_tokens") for server in engines.chat),
    )


def billed(row: Row) -> tuple[int, int, str, str]:
    return row["prompt_tokens"], row["completion_tokens"], row["evidence"], row["outcome"]


def idle(engines: Engines) -> bool:
    return all(server.metric("num_requests_running") == 0 for server in engines.chat)


@pytest.fixture(autouse=True)
def _nothing_runs(engines: Engines) -> None:
    eventually(lambda: idle(engines))


class TestFleet:
    def test_kind_and_models_are_found_out(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        assert [model.id for model in client.models.list()] == [CHAT_MODEL]
        nodes = [(node["backend"], node["status"], node["model_list"]) for node in cloud.nodes()]
        assert nodes == [("vllm", "active", [CHAT_MODEL])] * 2

    def test_both_nodes_work_and_their_load_is_seen(self, cloud: EmbeddedCloud, engines: Engines) -> None:
        conversations = [cloud.begin(chat("Go on.", CHAT_MODEL, **STREAMS[CHAT], stream=True)) for _ in range(4)]
        try:
            eventually(lambda: all(server.metric("num_requests_running") == 2 for server in engines.chat))
            eventually(lambda: [node["load"]["requests_running"] for node in cloud.nodes()] == [2, 2])
            assert all(0 < node["load"]["kv_cache_used_ratio"] < 1 for node in cloud.nodes())
        finally:
            for conversation in conversations:
                conversation.close()
        eventually(lambda: [node["load"]["requests_running"] for node in cloud.nodes()] == [0, 0])


class TestWhole:
    def test_chat_with_choices_and_logprobs(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        raw = client.chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=HELLO, max_tokens=6, n=2, logprobs=True, top_logprobs=2, extra_body=LENGTH
        )
        answer = raw.parse()
        assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
        for choice in answer.choices:
            assert choice.logprobs is not None
            assert [len(token.top_logprobs) for token in choice.logprobs.content or []] == [2] * 6
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        row = cloud.row(raw.headers["x-request-id"])
        assert billed(row) == (answer.usage.prompt_tokens, 12, "engine", "completed")
        assert row["finish_reason"] == "length"

    def test_completions_of_several_prompts(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        raw = client.completions.with_raw_response.create(
            model=CHAT_MODEL, prompt=["The sea", "The sky is"], max_tokens=5, extra_body=LENGTH
        )
        answer = raw.parse()
        assert len(answer.choices) == 2
        assert answer.usage is not None
        row = cloud.row(raw.headers["x-request-id"])
        assert billed(row) == (answer.usage.prompt_tokens, 10, "engine", "completed")

    def test_a_forced_tool_is_called(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=CHAT_MODEL, messages=HELLO, tools=[LIGHT], tool_choice=SWITCH, max_tokens=1500, seed=1
        )
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.type == "function"
        assert call.function.name == "switch_light"
        assert set(json.loads(call.function.arguments)) == {"on"}

    def test_responses(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        raw = client.responses.with_raw_response.create(model=CHAT_MODEL, input="Hello", max_output_tokens=16)
        answer = raw.parse()
        assert answer.usage is not None
        row = cloud.row(raw.headers["x-request-id"])
        assert billed(row) == (answer.usage.input_tokens, answer.usage.output_tokens, "engine", "completed")
        assert row["finish_reason"] == answer.status

    def test_messages(self, cloud: EmbeddedCloud) -> None:
        with anthropic.Anthropic(base_url=cloud.url, api_key=cloud.api_key, max_retries=0) as client:
            raw = client.messages.with_raw_response.create(model=CHAT_MODEL, messages=HELLO, max_tokens=6)
        answer = raw.parse()
        assert answer.usage.output_tokens <= 6
        cached = answer.usage.cache_read_input_tokens or 0
        row = cloud.row(raw.headers["x-request-id"])
        assert row["prompt_tokens"] >= answer.usage.input_tokens + cached > 0
        assert (row["completion_tokens"], row["finish_reason"]) == (answer.usage.output_tokens, answer.stop_reason)


class TestStreams:
    def test_usage_is_billed_and_not_shown_unasked(
        self, cloud: EmbeddedCloud, client: openai.OpenAI, engines: Engines
    ) -> None:
        before = counted(engines)
        raw = client.chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=HELLO, max_tokens=20, stream=True, extra_body=LENGTH
        )
        chunks = list(raw.parse())
        assert all(chunk.choices and chunk.usage is None for chunk in chunks)
        assert chunks[-1].choices[0].finish_reason == "length"
        row = cloud.row(raw.headers["x-request-id"])
        # The proof is the engines' own counters, not what they wrote into the stream.
        eventually(lambda: counted(engines) == (before[0] + row["prompt_tokens"], before[1] + 20))
        assert billed(row)[1:] == (20, "engine", "completed")

    @pytest.mark.parametrize("continuous", [False, True])
    def test_usage_is_shown_when_asked_for(self, cloud: EmbeddedCloud, client: openai.OpenAI, continuous: bool) -> None:
        options: Any = {"include_usage": True} | ({"continuous_usage_stats": True} if continuous else {})
        raw = client.chat.completions.with_raw_response.create(
            model=CHAT_MODEL, messages=HELLO, max_tokens=7, stream=True, stream_options=options, extra_body=LENGTH
        )
        *chunks, last = raw.parse()
        assert last.choices == []
        assert last.usage is not None
        assert [chunk.usage is not None for chunk in chunks] == [continuous] * len(chunks)
        row = cloud.row(raw.headers["x-request-id"])
        assert billed(row) == (last.usage.prompt_tokens, 7, "engine", "completed")

    def test_a_tool_call_comes_in_pieces(self, client: openai.OpenAI) -> None:
        stream = client.chat.completions.create(
            model=CHAT_MODEL, messages=HELLO, tools=[LIGHT], tool_choice=SWITCH, max_tokens=1500, seed=1, stream=True
        )
        calls = [call for chunk in stream for call in chunk.choices[0].delta.tool_calls or []]
        assert calls[0].function is not None
        assert calls[0].function.name == "switch_light"
        arguments = "".join(call.function.arguments or "" for call in calls if call.function)
        assert set(json.loads(arguments)) == {"on"}

    @pytest.mark.parametrize(
        "more",
        [
            {"logprobs": True, "top_logprobs": 2},
            {"tools": [LIGHT], "tool_choice": SWITCH},
            {"response_format": {"type": "json_object"}, "unknown_field": {"deep": [1, None]}},
        ],
        ids=["logprobs", "tools", "unknown"],
    )
    def test_bytes_are_those_of_the_engine(self, cloud: EmbeddedCloud, engines: Engines, more: Row) -> None:
        options = {"include_usage": True}
        body = chat("The same.", CHAT_MODEL, max_tokens=12, seed=5, stream=True, stream_options=options)
        # A busy engine puts several tokens into one event, so two runs may be cut differently: try a few times.
        for _ in range(6):
            through = cloud.ask(body | more)
            directly = engines.chat[0].post(CHAT, body | more).content
            assert through.done
            if _without_identity(through.body) == _without_identity(directly):
                return
        assert _without_identity(through.body) == _without_identity(directly)

    def test_responses(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        raw = client.responses.with_raw_response.create(
            model=CHAT_MODEL, input="Hello", max_output_tokens=16, stream=True
        )
        events = list(raw.parse())
        last = events[-1]
        assert last.type in ("response.completed", "response.incomplete")
        assert last.response.usage is not None
        row = cloud.row(raw.headers["x-request-id"])
        usage = last.response.usage
        assert billed(row) == (usage.input_tokens, usage.output_tokens, "engine", "completed")

    def test_messages(self, cloud: EmbeddedCloud) -> None:
        with (
            anthropic.Anthropic(base_url=cloud.url, api_key=cloud.api_key, max_retries=0) as client,
            client.messages.stream(model=CHAT_MODEL, messages=HELLO, max_tokens=8) as stream,
        ):
            answer = stream.get_final_message()
            request_id = stream.response.headers["x-request-id"]
        assert answer.stop_reason in ("max_tokens", "end_turn")
        row = cloud.row(request_id)
        assert billed(row)[1:] == (answer.usage.output_tokens, "engine", "completed")


class TestRefusals:
    @pytest.mark.parametrize("stream", [False, True])
    def test_an_over_long_prompt_is_refused_in_the_engines_words(
        self, cloud: EmbeddedCloud, client: openai.OpenAI, stream: bool
    ) -> None:
        with pytest.raises(openai.BadRequestError, match="maximum context length") as refused:
            client.chat.completions.create(
                model=CHAT_MODEL, messages=[{"role": "user", "content": "sea " * 20_000}], stream=stream
            )
        row = cloud.row(refused.value.response.headers["x-request-id"])
        assert billed(row) == (0, 0, "none", "refused")
        assert (row["http_status"], row["attempts"]) == (400, 1)

    def test_the_key_of_the_nodes_is_not_a_callers(self, cloud: EmbeddedCloud, engines: Engines) -> None:
        with pytest.raises(openai.AuthenticationError):
            openai.OpenAI(base_url=cloud.base_url, api_key="sk-node-of-the-tests").models.list()
        wrong = openai.OpenAI(base_url=f"{engines.chat[0].url}/v1", api_key=cloud.api_key)
        with pytest.raises(openai.AuthenticationError):
            wrong.models.list()


class TestCallersThatLeave:
    @pytest.mark.parametrize("path", STREAMS)
    def test_the_engine_stops_and_what_it_made_is_billed(
        self, cloud: EmbeddedCloud, engines: Engines, path: str
    ) -> None:
        for _ in range(10):  # one that may end by itself (LENGTH), because its endpoint cannot be told not to
            eventually(lambda: idle(engines))
            made_before = counted(engines)[1]
            conversation = cloud.begin({"model": CHAT_MODEL, "stream": True} | STREAMS[path], path)
            head = conversation.until(lambda data: data.count(b"\n\n") > 25, 30)
            if not idle(engines):
                break
            conversation.close()
        assert not idle(engines)
        conversation.close()
        eventually(lambda: idle(engines))

        match = re.search(rb"x-request-id: (\S+)", head)
        assert match is not None
        row = cloud.row(match[1].decode())
        assert (row["outcome"], row["evidence"], row["http_status"]) == ("client_closed", "counted", 499)
        assert row["prompt_tokens"] == self.tokens_of_prompt(engines, path)
        made = counted(engines)[1] - made_before
        assert 20 <= row["completion_tokens"] <= made < LONG

    def test_a_whole_answer_that_nobody_waits_for_is_stopped_too(self, cloud: EmbeddedCloud, engines: Engines) -> None:
        made_before = counted(engines)[1]
        conversation = cloud.begin(chat("Go on.", CHAT_MODEL, max_tokens=LONG, min_tokens=LONG))
        eventually(lambda: not idle(engines))
        conversation.close()
        eventually(lambda: idle(engines))
        assert counted(engines)[1] - made_before < LONG

    @staticmethod
    def tokens_of_prompt(engines: Engines, path: str) -> int:
        """The engine's own number, from a whole answer to the same question."""
        body = {"model": CHAT_MODEL} | STREAMS[path]
        for name in ("max_tokens", "min_tokens", "max_output_tokens"):
            body[name] = 1 if name in body else None
        usage = engines.chat[0].post(path, {name: value for name, value in body.items() if value}).json()["usage"]
        if path == "/v1/messages":  # told in up to three parts
            parts = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
            return sum(usage.get(part) or 0 for part in parts)
        return int(usage.get("prompt_tokens") or usage["input_tokens"])


def _without_identity(body: bytes) -> bytes:
    """A stream without what differs between any two answers to one question."""
    for pattern in (rb'"id":"[^"]+"', rb'"created":\d+', rb'"(cached_tokens|prompt_tokens_details)":[^,}]+'):
        body = re.sub(pattern, b"", body)
    return body
