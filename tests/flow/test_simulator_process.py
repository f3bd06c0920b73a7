"""`crosslogic simulate` as a process: settings, readiness, the parent's end, crash, signals, bad configuration."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest

from crosslogic.simulator import tokens

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
START_TIMEOUT_S = 20.0

Start = Callable[..., "Running"]


class Running:
    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self.process = process
        self.url: str = ready["base_url"]
        self.model: str = ready["model"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    processes: list[subprocess.Popen[bytes]] = []

    def begin(*options: str, **environment: str) -> Running:
        ready = tmp_path / f"ready-{len(processes)}.json"
        command = [sys.executable, "-m", "crosslogic.simulator", "--port", "0", "--speedup", "50"]
        process = subprocess.Popen(
            [*command, "--ready-file", str(ready), *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | environment,
        )
        processes.append(process)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not ready.exists():
            assert process.poll() is None, "it ended instead of becoming ready"
            assert time.monotonic() < deadline_s, "it did not become ready in time"
            time.sleep(0.02)
        return Running(process, json.loads(ready.read_bytes()))

    yield begin
    for process in processes:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _chat(node: Running, **more: Any) -> httpx.Response:
    body = {"model": node.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4}
    return httpx.post(f"{node.url}/v1/chat/completions", json=body | more, timeout=20)


def test_the_documents_environment_variables_choose_what_is_simulated(start: Start) -> None:
    node = start(MODEL_NAME="openai/gpt-oss-120b", GPU_TYPE="NVIDIA-H100", TENSOR_PARALLEL_SIZE="2")
    assert node.model == "openai/gpt-oss-120b"
    assert _chat(node).status_code == 200
    node.process.send_signal(signal.SIGTERM)
    assert node.process.wait(10) == 0
    assert node.process.stdout is not None
    line = node.process.stdout.read().decode()
    assert line == f"simulating openai/gpt-oss-120b on 2x h100_sxm (calibrated) at {node.url}\n"


def test_the_same_seed_gives_the_same_text_in_every_process(start: Start) -> None:
    nodes = [start("--seed", "5", PYTHONHASHSEED=hashed) for hashed in ("1", "2")] + [start("--seed", "6")]
    texts = [_chat(n, max_tokens=60).json()["choices"][0]["message"]["content"] for n in nodes]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2]


def test_health_turns_200_after_the_start_up_delay(start: Start) -> None:
    node = start("--startup-delay-s", "2.0")
    assert httpx.get(f"{node.url}/health").status_code == 503
    assert _chat(node).status_code == 503
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while httpx.get(f"{node.url}/health").status_code != 200:
        assert time.monotonic() < deadline_s
        time.sleep(0.1)
    assert _chat(node).status_code == 200


def test_it_ends_with_its_parent_and_leaves_ctrl_c_to_it(start: Start) -> None:
    node = start("--exit-with-parent")
    node.process.send_signal(signal.SIGINT)
    assert _chat(node).status_code == 200
    assert node.process.stdin is not None
    node.process.stdin.close()
    assert node.process.wait(10) == 0


def test_a_crash_ends_the_process_with_an_error(start: Start) -> None:
    node = start()
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}], "stream": True}
    headers = {"x-simulate-fault": "crash=2"}
    answer = httpx.post(f"{node.url}/v1/chat/completions", json=body, headers=headers, timeout=20)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"code":500' in answer.text
    assert node.process.wait(10) == 1


def test_a_full_queue_is_429(start: Start) -> None:
    node = start("--max-num-seqs", "1", "--max-queue", "1", "--speedup", "1")
    body = {"model": MODEL, "prompt": "x", "max_tokens": 500, "ignore_eos": True, "stream": True}
    with httpx.Client(base_url=node.url, timeout=20) as client:
        with (
            client.stream("POST", "/v1/completions", json=body) as running,
            client.stream("POST", "/v1/completions", json=body) as waiting,
        ):
            assert (running.status_code, waiting.status_code) == (200, 200)
            refused = client.post("/v1/completions", json=body)
            assert refused.status_code == 429
            assert refused.json()["error"]["code"] == 429
        # Both clients have left: there is room again, without waiting for 500 tokens.
        assert client.post("/v1/completions", json=body | {"max_tokens": 1}).status_code == 200


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--gpu", "abacus"], "is not known; choose one of"),
        (["--model", "meta-llama/Llama-3.1-70B-Instruct", "--gpu", "L4"], "does not fit"),
        (["--benchmarks", "/nonexistent.json"], "BENCHMARKS_PATH"),
        (["--max-num-seqs", "9000"], "must be larger"),
        (["--host", "192.0.2.1"], "choose another"),
    ],
)
def test_wrong_settings_are_one_sentence_and_exit_code_2(options: list[str], says: str) -> None:
    command = [sys.executable, "-m", "crosslogic.simulator", "--port", "0", *options]
    done = subprocess.run(command, capture_output=True, timeout=20)
    assert done.returncode == 2
    assert says in done.stderr.decode()
    assert len(done.stderr.decode().splitlines()) == 1


def test_a_port_in_use_says_so(start: Start) -> None:
    node = start()
    command = [sys.executable, "-m", "crosslogic.simulator", "--port", node.url.rsplit(":", 1)[1]]
    done = subprocess.run(command, capture_output=True, timeout=20)
    assert done.returncode == 2
    assert "choose another --port" in done.stderr.decode()


def test_the_official_sdks_work_against_it(start: Start) -> None:
    node = start("--api-key", "sk-node")
    client = openai.OpenAI(base_url=f"{node.url}/v1", api_key="sk-node", max_retries=0)
    messages: Any = [{"role": "user", "content": "What is a queue?"}]
    whole = client.chat.completions.create(model=MODEL, messages=messages)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage is not None
    assert whole.usage.completion_tokens == tokens.count(text)
    stream = client.chat.completions.create(
        model=MODEL, messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == text
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens_details is not None
    # The second time most of the prompt is in the prefix cache, if it fills a block.
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    tool: Any = {
        "type": "function",
        "function": {
            "name": "get_weather",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
        },
    }
    called = client.chat.completions.create(model=MODEL, messages=messages, tools=[tool], tool_choice="required")
    assert called.choices[0].finish_reason == "tool_calls"
    call: Any = (called.choices[0].message.tool_calls or [])[0]
    assert set(json.loads(call.function.arguments)) == {"city"}
    response = client.responses.create(model=MODEL, input="What is a queue?")
    assert response.output_text
    kinds = [event.type for event in client.responses.create(model=MODEL, input="Hi", stream=True)]
    assert (kinds[0], kinds[-1]) == ("response.created", "response.completed")
    vectors = client.embeddings.create(model=MODEL, input=["a", "b"]).data
    assert len(vectors[0].embedding) == 1024
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=f"{node.url}/v1", api_key="wrong", max_retries=0).models.list()
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="absent", messages=messages)


def test_the_anthropic_sdk_works_against_it(start: Start) -> None:
    node = start()
    client = anthropic.Anthropic(base_url=node.url, api_key="none", max_retries=0)
    messages: Any = [{"role": "user", "content": "Tell me about get_weather"}]
    whole = client.messages.create(model=MODEL, messages=messages, max_tokens=10)
    assert whole.content[0].type == "text"
    assert whole.usage.output_tokens == 10
    assert whole.stop_reason == "max_tokens"
    with client.messages.stream(model=MODEL, messages=messages, max_tokens=10) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text
    assert final.usage.output_tokens == 10
    tool: Any = {"name": "get_weather", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}
    called = client.messages.create(model=MODEL, messages=messages, max_tokens=100, tools=[tool])
    assert called.stop_reason == "tool_use"
    assert called.content[0].type == "tool_use"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="absent", messages=messages, max_tokens=1)
