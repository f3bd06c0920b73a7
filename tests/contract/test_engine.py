"""What the gateway relies on in an engine: one suite, over the simulated node and a real vLLM alike.

The simulator always runs. A real server joins when CROSSLOGIC_TEST_VLLM_URL names one (its key, if it asks for one,
in CROSSLOGIC_TEST_VLLM_API_KEY); CROSSLOGIC_TEST_VLLM_EMBEDDING_URL names one that runs an embedding model.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile

KEY = "sk-node"
HELLO = [{"role": "user", "content": "Tell me something about the sea."}]


class Engine:
    """A server under test: an HTTP client for it, and the name of its model."""

    def __init__(self, client: httpx.AsyncClient, model: str) -> None:
        self.client = client
        self.model = model

    async def post(self, path: str, **body: Any) -> httpx.Response:
        return await self.client.post(path, json={"model": self.model} | body)

    async def events(self, path: str, **body: Any) -> list[str]:
        """The data of every event of a streamed answer."""
        request = {"model": self.model, "stream": True} | body
        async with self.client.stream("POST", path, json=request) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            lines = [line.decode() for line in (await response.aread()).splitlines() if line]
        assert all(line.startswith("data: ") for line in lines)
        return [line.removeprefix("data: ") for line in lines]

    async def metric(self, name: str) -> float:
        text = (await self.client.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name
        )


@asynccontextmanager
async def _connected(url: str, key: str | None) -> AsyncIterator[Engine]:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
        models = (await client.get("/v1/models")).json()["data"]
        yield Engine(client, models[0]["id"])


@asynccontextmanager
async def _target(name: str, variable: str) -> AsyncIterator[Engine]:
    if name == "simulator":
        # Fast enough for tests, slow enough to be caught in the act by the disconnect test.
        options = NodeOptions(api_key=KEY, speedup=5, max_model_len=2048)
        node = SimulatedNode(find_profile("meta-llama/Llama-3.1-8B-Instruct"), options)
        async with node, _connected(node.url, KEY) as engine:
            yield engine
        return
    url = os.environ.get(variable)
    if not url:
        pytest.skip(f"{variable} is not set")
    async with _connected(url, os.environ.get("CROSSLOGIC_TEST_VLLM_API_KEY")) as engine:
        yield engine


TARGETS = ["simulator", pytest.param("vllm", marks=pytest.mark.engine)]


@pytest.fixture(params=TARGETS)
async def engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with _target(request.param, "CROSSLOGIC_TEST_VLLM_URL") as target:
        yield target


@pytest.fixture(params=TARGETS)
async def embedding_engine(request: pytest.FixtureRequest) -> AsyncIterator[Engine]:
    async with _target(request.param, "CROSSLOGIC_TEST_VLLM_EMBEDDING_URL") as target:
        yield target


async def test_health_version_and_models(engine: Engine) -> None:
    assert (await engine.client.get("/health")).status_code == 200
    assert "version" in (await engine.client.get("/version")).json()
    card = (await engine.client.get("/v1/models")).json()["data"][0]
    assert card["object"] == "model"
    assert card["max_model_len"] >= 1024


async def test_chat_answers_with_text_and_usage(engine: Engine) -> None:
    response = await engine.post("/v1/chat/completions", messages=HELLO, max_tokens=8, ignore_eos=True)
    body = response.json()
    assert response.status_code == 200
    assert body["id"].startswith("chatcmpl-")
    assert body["object"] == "chat.completion"
    choice = body["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"]
    assert choice["finish_reason"] == "length"
    usage = body["usage"]
    assert usage["completion_tokens"] == 8
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + 8


async def test_a_stream_begins_with_the_role_and_ends_with_usage_and_done(engine: Engine) -> None:
    events = await engine.events(
        "/v1/chat/completions",
        messages=HELLO,
        max_tokens=8,
        ignore_eos=True,
        stream_options={"include_usage": True},
    )
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert chunks[0]["choices"][0]["delta"]["content"] == ""
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert all(chunk.get("usage") is None for chunk in chunks[:-1])
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks[:-1]]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) == {None}


async def test_a_stream_without_the_option_has_no_usage(engine: Engine) -> None:
    events = await engine.events("/v1/chat/completions", messages=HELLO, max_tokens=4)
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert all(chunk["choices"] and chunk.get("usage") is None for chunk in chunks)


async def test_continuous_usage_counts_up(engine: Engine) -> None:
    events = await engine.events(
        "/v1/chat/completions",
        messages=HELLO,
        max_tokens=6,
        ignore_eos=True,
        stream_options={"include_usage": True, "continuous_usage_stats": True},
    )
    counts = [json.loads(event)["usage"]["completion_tokens"] for event in events[:-1]]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, 6)


async def test_streamed_and_whole_answers_are_the_same(engine: Engine) -> None:
    request: dict[str, Any] = {"messages": HELLO, "max_tokens": 12, "temperature": 0, "seed": 7}
    whole = (await engine.post("/v1/chat/completions", **request)).json()
    events = await engine.events("/v1/chat/completions", **request)
    deltas = [json.loads(event)["choices"][0]["delta"].get("content") or "" for event in events[:-1]]
    assert "".join(deltas) == whole["choices"][0]["message"]["content"]


async def test_stop_ends_the_text_before_it(engine: Engine) -> None:
    request: dict[str, Any] = {"prompt": "Why is the sea salty?", "temperature": 0, "seed": 1, "max_tokens": 12}
    free = (await engine.post("/v1/completions", **request)).json()["choices"][0]["text"]
    # A letter that can be shown, and that is not the first one.
    stop = next(c for c in free[1:] if c.isascii() and c.isprintable() and c not in free[:1])
    stopped = (await engine.post("/v1/completions", **request, stop=[stop])).json()["choices"][0]
    assert stopped["text"] == free[: free.index(stop)]
    assert (stopped["finish_reason"], stopped["stop_reason"]) == ("stop", stop)


async def test_n_gives_that_many_choices_and_sums_their_tokens(engine: Engine) -> None:
    body = (
        await engine.post("/v1/completions", prompt="One, two,", n=3, max_tokens=5, ignore_eos=True, temperature=1)
    ).json()
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 15


async def test_a_streamed_completion_ends_with_usage_and_done(engine: Engine) -> None:
    events = await engine.events(
        "/v1/completions", prompt="One", max_tokens=5, ignore_eos=True, stream_options={"include_usage": True}
    )
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"text_completion"}
    assert chunks[-1]["usage"]["completion_tokens"] == 5
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


async def test_logprobs_come_with_every_token(engine: Engine) -> None:
    body = (
        await engine.post(
            "/v1/chat/completions", messages=HELLO, max_tokens=4, ignore_eos=True, logprobs=True, top_logprobs=2
        )
    ).json()
    content = body["choices"][0]["logprobs"]["content"]
    assert len(content) == 4
    assert all(entry["logprob"] <= 0 and len(entry["top_logprobs"]) >= 2 for entry in content)


async def test_a_disconnect_frees_the_slot(engine: Engine) -> None:
    request = {
        "model": engine.model,
        "messages": HELLO,
        "max_tokens": 1500,
        "ignore_eos": True,
        "stream": True,
    }
    async with engine.client.stream("POST", "/v1/chat/completions", json=request) as response:
        async for line in response.aiter_lines():
            if '"content"' in line and '"content":""' not in line:
                break
        assert await engine.metric("vllm:num_requests_running") == 1
    for _ in range(200):
        if await engine.metric("vllm:num_requests_running") == 0:
            break
        await asyncio.sleep(0.01)
    assert await engine.metric("vllm:num_requests_running") == 0
    assert await engine.metric("vllm:num_requests_waiting") == 0


async def test_metrics_have_vllms_names_and_count(engine: Engine) -> None:
    before = await engine.metric("vllm:generation_tokens_total")
    asked = await engine.metric("vllm:e2e_request_latency_seconds_count")
    await engine.post("/v1/chat/completions", messages=HELLO, max_tokens=7, ignore_eos=True)
    for _ in range(100):  # a real server's statistics come a moment later
        if await engine.metric("vllm:e2e_request_latency_seconds_count") > asked:
            break
        await asyncio.sleep(0.02)
    assert await engine.metric("vllm:generation_tokens_total") == before + 7
    text = (await engine.client.get("/metrics")).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for name in (
        "num_requests_running",
        "num_requests_waiting",
        "kv_cache_usage_perc",
        "num_preemptions",
        "prompt_tokens",
        "generation_tokens",
        "request_success",
        "time_to_first_token_seconds",
        "inter_token_latency_seconds",
        "e2e_request_latency_seconds",
        "request_queue_time_seconds",
    ):
        assert f"vllm:{name}" in families, name
        assert all(s.labels["model_name"] == engine.model for s in families[f"vllm:{name}"].samples)


async def test_messages_count_the_same_prompt_in_three_parts(engine: Engine) -> None:
    """Fresh, written to the prefix cache, read from it: together they are what the chat endpoint counts."""
    messages = [{"role": "user", "content": "The sea is salty and wide. " * 40}]
    chat = (await engine.post("/v1/chat/completions", messages=messages, max_tokens=1)).json()
    for _ in range(2):
        answer = (await engine.post("/v1/messages", messages=messages, max_tokens=3)).json()
        usage = answer["usage"]
        parts = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
        assert sum(usage.get(part) or 0 for part in parts) == chat["usage"]["prompt_tokens"]
        assert 1 <= usage["output_tokens"] <= 3
        assert answer["content"][0]["type"] == "text"


async def test_streamed_messages_and_responses_end_with_their_usage(engine: Engine) -> None:
    async def last_events(path: str, **body: Any) -> list[Any]:
        response = await engine.post(path, stream=True, **body)
        lines = response.content.splitlines()  # not of the text: U+2028 in it ends no line of the protocol
        return [json.loads(line.removeprefix(b"data: ")) for line in lines if line.startswith(b"data: ")]

    events = await last_events("/v1/messages", messages=HELLO, max_tokens=3)
    assert [events[0]["type"], events[-1]["type"]] == ["message_start", "message_stop"]
    assert events[-2]["type"] == "message_delta"
    assert 1 <= events[-2]["usage"]["output_tokens"] <= 3
    events = await last_events("/v1/responses", input="Tell me of the sea.", max_output_tokens=3)
    assert [events[0]["type"], events[-1]["type"]] == ["response.created", "response.completed"]
    usage = events[-1]["response"]["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


async def test_errors_of_messages_are_in_anthropics_shape(engine: Engine) -> None:
    body = {"model": "absent", "messages": HELLO, "max_tokens": 1}
    response = await engine.client.post("/v1/messages", json=body)
    assert response.status_code == 404
    assert response.json()["type"] == "error"
    assert response.json()["error"]["message"]


async def test_tokenize_counts(engine: Engine) -> None:
    body = (await engine.post("/tokenize", prompt="The sea is salty.")).json()
    assert body["count"] == len(body["tokens"]) > 0
    assert body["max_model_len"] >= 1024


async def test_tokenize_counts_a_chat_as_its_usage_does(engine: Engine) -> None:
    """The template's tokens are among them; what else the request says is no hindrance."""
    request: dict[str, Any] = {"messages": HELLO, "max_tokens": 2, "temperature": 0.5, "n": 1}
    usage = (await engine.post("/v1/chat/completions", **request)).json()["usage"]
    asked = {"stream": True, "stream_options": {"include_usage": True}}
    assert (await engine.post("/tokenize", **request, **asked)).json()["count"] == usage["prompt_tokens"]


async def test_an_unknown_model_is_404_in_openais_shape(engine: Engine) -> None:
    response = await engine.client.post("/v1/chat/completions", json={"model": "absent", "messages": HELLO})
    error = response.json()["error"]
    assert response.status_code == 404
    assert (error["code"], error["type"]) == (404, "NotFoundError")
    assert "absent" in error["message"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"messages": "text"},
        {"messages": HELLO, "max_tokens": -1},
        {"messages": HELLO, "max_tokens": 10**9},
        {"messages": [{"role": "user", "content": "sea " * 100_000}]},
        {"messages": HELLO, "stream_options": {"include_usage": True}},
        {"messages": HELLO, "temperature": "warm"},
    ],
    ids=["messages", "negative", "too many", "too long", "stream_options", "temperature"],
)
async def test_wrong_requests_are_400_in_openais_shape(engine: Engine, wrong: dict[str, Any]) -> None:
    response = await engine.post("/v1/chat/completions", **wrong)
    assert response.status_code == 400
    assert response.json()["error"]["message"]
    assert response.json()["error"]["code"] == 400


async def test_a_wrong_key_is_401(engine: Engine) -> None:
    if "authorization" not in engine.client.headers:
        pytest.skip("this server asks for no key")
    headers = {"authorization": "Bearer wrong"}
    response = await engine.client.post("/v1/chat/completions", json={"model": engine.model}, headers=headers)
    assert response.status_code == 401
    assert (await engine.client.get("/health", headers=headers)).status_code == 200


async def test_embeddings_of_several_texts(embedding_engine: Engine) -> None:
    response = await embedding_engine.post("/v1/embeddings", input=["the sea", "the sky"])
    body = response.json()
    assert response.status_code == 200
    assert [item["index"] for item in body["data"]] == [0, 1]
    first, second = (item["embedding"] for item in body["data"])
    assert len(first) == len(second) > 0
    assert first != second
    assert body["usage"]["prompt_tokens"] > 0
    again = (await embedding_engine.post("/v1/embeddings", input="the sea")).json()["data"][0]["embedding"]
    assert again == pytest.approx(first, abs=1e-3)


async def test_embeddings_as_base64(embedding_engine: Engine) -> None:
    body = (await embedding_engine.post("/v1/embeddings", input="the sea", encoding_format="base64")).json()
    assert isinstance(body["data"][0]["embedding"], str)
