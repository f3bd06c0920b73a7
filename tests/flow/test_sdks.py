"""The clients that people use already work unchanged: change the base URL and the key, nothing else."""

import anthropic
import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from tests.flow import wire
from tests.flow.clouds import CHAT, LLAMA, QWEN, EmbeddedCloud, chat

LENGTHY = {"ignore_eos": True}  # the answer is as long as max_tokens lets it be
HELLO = [{"role": "user", "content": "Hello"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


@pytest.fixture
def client(cloud: EmbeddedCloud) -> openai.OpenAI:
    return openai.OpenAI(base_url=cloud.base_url, api_key=cloud.api_key, max_retries=0)


class TestOpenAi:
    def test_chat(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(model=LLAMA, messages=HELLO, max_tokens=8)
        assert answer.choices[0].message.content
        assert answer.usage is not None
        row = cloud.row(answer.id.removeprefix("chatcmpl-"))
        assert (row["prompt_tokens"], row["completion_tokens"]) == (
            answer.usage.prompt_tokens,
            answer.usage.completion_tokens,
        )

    def test_streamed_chat_gives_the_same_text_and_no_usage_unasked(
        self, cloud: EmbeddedCloud, client: openai.OpenAI
    ) -> None:
        body = chat(max_tokens=8, seed=1)
        directly = [wire.ask(node["endpoint_url"], CHAT, body).json for node in cloud.nodes(LLAMA)]
        texts = [answer["choices"][0]["message"]["content"] for answer in directly]
        chunks = list(
            client.chat.completions.create(
                model=LLAMA, messages=HELLO, max_tokens=8, seed=1, stream=True, extra_body=LENGTHY
            )
        )
        assert "".join(c.choices[0].delta.content or "" for c in chunks) in texts
        assert chunks[-1].choices[0].finish_reason == "length"
        assert all(chunk.usage is None for chunk in chunks)

    def test_streamed_usage(self, client: openai.OpenAI) -> None:
        *chunks, last = client.chat.completions.create(
            model=LLAMA,
            messages=HELLO,
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=LENGTHY,
        )
        assert last.usage is not None
        assert (last.choices, last.usage.completion_tokens) == ([], 8)
        assert all(chunk.usage is None for chunk in chunks)

    def test_forced_tool(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=LLAMA,
            messages=[{"role": "user", "content": "What is the weather in Oslo?"}],
            tools=[WEATHER],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
        )
        (call,) = answer.choices[0].message.tool_calls or []
        assert call.function.name == "get_weather"
        assert "city" in call.function.arguments

    def test_json_answer(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=LLAMA,
            messages=[{"role": "user", "content": "Name a city, as JSON"}],
            response_format={
                "type": "json_schema",
                "json_schema": {
                    "name": "city",
                    "schema": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
                },
            },
        )
        assert '"name"' in (answer.choices[0].message.content or "")

    def test_logprobs_choices_and_stop(self, client: openai.OpenAI) -> None:
        answer = client.chat.completions.create(
            model=LLAMA, messages=HELLO, max_tokens=4, logprobs=True, top_logprobs=2, n=2
        )
        assert len(answer.choices) == 2
        assert answer.choices[1].logprobs is not None
        assert len(answer.choices[1].logprobs.content[0].top_logprobs) == 2
        stopped = client.completions.create(model=LLAMA, prompt="Count to ten", max_tokens=60, stop=[" "])
        assert stopped.choices[0].finish_reason == "stop"
        assert " " not in stopped.choices[0].text

    def test_streamed_completions(self, client: openai.OpenAI) -> None:
        chunks = list(
            client.completions.create(model=QWEN, prompt="Once", max_tokens=6, stream=True, extra_body=LENGTHY)
        )
        assert chunks[-1].choices[0].finish_reason == "length"

    @pytest.mark.parametrize("encoding", ["float", "base64"])
    def test_embeddings(self, cloud: EmbeddedCloud, client: openai.OpenAI, encoding: str) -> None:
        answer = client.embeddings.create(model=LLAMA, input=["one", "two"], encoding_format=encoding)
        assert [entry.index for entry in answer.data] == [0, 1]
        assert answer.usage.prompt_tokens > 0

    def test_models(self, client: openai.OpenAI) -> None:
        assert {model.id for model in client.models.list()} == {LLAMA, QWEN}
        assert client.models.retrieve(LLAMA).id == LLAMA

    def test_responses(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        answer = client.responses.create(model=LLAMA, input="Hello", max_output_tokens=8, extra_body=LENGTHY)
        assert answer.output_text
        assert answer.usage is not None
        assert answer.usage.output_tokens == 8

    def test_streamed_responses(self, cloud: EmbeddedCloud, client: openai.OpenAI) -> None:
        with client.responses.create(
            model=LLAMA, input="Hello", max_output_tokens=8, stream=True, extra_body=LENGTHY
        ) as stream:
            events = list(stream)
            request_id = stream.response.headers["x-request-id"]
        assert events[0].type == "response.created"
        assert events[-1].type in ("response.completed", "response.incomplete")
        row = cloud.row(request_id)
        assert (row["endpoint"], row["completion_tokens"], row["evidence"]) == ("responses", 8, "engine")

    async def test_async_client(self, cloud: EmbeddedCloud) -> None:
        async with openai.AsyncOpenAI(base_url=cloud.base_url, api_key=cloud.api_key) as client:
            stream = await client.chat.completions.create(
                model=LLAMA, messages=HELLO, max_tokens=5, stream=True, extra_body=LENGTHY
            )
            chunks = [chunk async for chunk in stream]
        assert chunks[-1].choices[0].finish_reason == "length"


class TestOpenAiErrors:
    """The SDK chooses its exception by status and reads message, code and headers: all must be where it looks."""

    def test_wrong_key(self, cloud: EmbeddedCloud) -> None:
        client = openai.OpenAI(base_url=cloud.base_url, api_key="wrong", max_retries=0)
        with pytest.raises(openai.AuthenticationError) as caught:
            client.chat.completions.create(model=LLAMA, messages=HELLO)
        assert caught.value.code == "invalid_api_key"

    def test_unknown_model(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.NotFoundError) as caught:
            client.chat.completions.create(model="gpt-0", messages=HELLO)
        assert (caught.value.code, caught.value.param) == ("model_not_found", "model")

    def test_bad_request(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=LLAMA, messages=HELLO, n=0)
        assert caught.value.param == "n"

    def test_the_engines_own_bad_request(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.BadRequestError):
            client.chat.completions.create(model=LLAMA, messages=HELLO, top_logprobs=2)

    def test_busy_nodes_are_a_rate_limit_with_a_time_to_come_back(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(
                model=LLAMA, messages=HELLO, extra_headers={"x-simulate-fault": "error=429;retry_after=3"}
            )
        assert caught.value.code == "server_busy"
        assert int(caught.value.response.headers["retry-after"]) >= 1

    def test_failing_nodes_are_a_server_error(self, client: openai.OpenAI) -> None:
        with pytest.raises(openai.InternalServerError) as caught:
            client.chat.completions.create(model=QWEN, messages=HELLO, extra_headers={"x-simulate-fault": "error=500"})
        assert caught.value.code == "upstream_error"


class TestAnthropic:
    @pytest.fixture
    def client(self, cloud: EmbeddedCloud) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=cloud.url, api_key=cloud.api_key, max_retries=0)

    def test_message(self, cloud: EmbeddedCloud, client: anthropic.Anthropic) -> None:
        raw = client.messages.with_raw_response.create(model=LLAMA, max_tokens=8, messages=HELLO)
        message = raw.parse()
        assert message.content[0].text
        row = cloud.row(raw.headers["x-request-id"])
        assert (row["endpoint"], row["prompt_tokens"], row["completion_tokens"]) == (
            "messages",
            message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0),
            message.usage.output_tokens,
        )

    def test_the_base_url_that_openais_clients_take_does_as_well(self, cloud: EmbeddedCloud) -> None:
        client = anthropic.Anthropic(base_url=cloud.base_url, api_key=cloud.api_key, max_retries=0)
        assert client.messages.create(model=LLAMA, max_tokens=3, messages=HELLO).usage.output_tokens == 3

    def test_stream(self, cloud: EmbeddedCloud, client: anthropic.Anthropic) -> None:
        with client.messages.stream(model=LLAMA, max_tokens=8, messages=HELLO) as stream:
            text = "".join(stream.text_stream)
            message = stream.get_final_message()
            request_id = stream.response.headers["x-request-id"]
        assert text == message.content[0].text
        row = cloud.row(request_id)
        assert (row["completion_tokens"], row["finish_reason"]) == (message.usage.output_tokens, message.stop_reason)

    def test_errors(self, cloud: EmbeddedCloud, client: anthropic.Anthropic) -> None:
        with pytest.raises(anthropic.AuthenticationError):
            anthropic.Anthropic(base_url=cloud.url, api_key="wrong", max_retries=0).messages.create(
                model=LLAMA, max_tokens=8, messages=HELLO
            )
        with pytest.raises(anthropic.NotFoundError):
            client.messages.create(model="claude-0", max_tokens=8, messages=HELLO)
        with pytest.raises(anthropic.BadRequestError):
            client.messages.create(model=LLAMA, max_tokens=8, messages=[])


class TestLangChain:
    @pytest.fixture
    def model(self, cloud: EmbeddedCloud) -> ChatOpenAI:
        return ChatOpenAI(
            base_url=cloud.base_url,
            api_key=SecretStr(cloud.api_key),
            model=LLAMA,
            max_retries=0,
            max_tokens=8,
            extra_body=LENGTHY,
        )

    def test_invoke_tells_usage(self, model: ChatOpenAI) -> None:
        answer = model.invoke("Hello")
        assert answer.content
        assert answer.usage_metadata is not None
        assert answer.usage_metadata["output_tokens"] == 8

    def test_stream_adds_up_to_an_answer_with_usage(self, model: ChatOpenAI) -> None:
        chunks = list(model.stream("Hello", stream_usage=True))
        total = chunks[0]
        for chunk in chunks[1:]:
            total += chunk
        assert total.content
        assert total.usage_metadata is not None
        assert total.usage_metadata["output_tokens"] == 8


class TestTruncationReachesTheSdk:
    """A program that loops over a stream must not take half of an answer for all of it."""

    @pytest.mark.parametrize("fault", ["cut=2", "reset_after=2"])
    def test_as_an_exception(self, client: openai.OpenAI, fault: str) -> None:
        stream = client.chat.completions.create(
            model=LLAMA, messages=HELLO, max_tokens=9, stream=True, extra_headers={"x-simulate-fault": fault}
        )
        chunks = []
        with pytest.raises((openai.APIError, httpx.TransportError)):
            chunks.extend(stream)

    @pytest.mark.parametrize("fault", ["cut=2", "reset_after=2"])
    def test_in_anthropics_too(self, cloud: EmbeddedCloud, fault: str) -> None:
        client = anthropic.Anthropic(base_url=cloud.url, api_key=cloud.api_key, max_retries=0)
        with (
            pytest.raises((anthropic.APIError, httpx.TransportError)),
            client.messages.stream(
                model=LLAMA, max_tokens=9, messages=HELLO, extra_headers={"x-simulate-fault": fault}
            ) as stream,
        ):
            list(stream.text_stream)

    @pytest.mark.parametrize("fault", ["cut=2", "reset_after=2"])
    def test_in_responses_too(self, client: openai.OpenAI, fault: str) -> None:
        with pytest.raises((openai.APIError, httpx.TransportError)):
            list(
                client.responses.create(
                    model=LLAMA,
                    input="Hello",
                    max_output_tokens=9,
                    stream=True,
                    extra_headers={"x-simulate-fault": fault},
                )
            )
