"""What a client sees of each fault, on a real socket."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest

from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import find_profile

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
TOKENS = 6


@pytest.fixture
async def node() -> AsyncIterator[SimulatedNode]:
    async with SimulatedNode(find_profile(MODEL), NodeOptions(speedup=100)) as running:
        yield running


class Seen:
    """All bytes of one answer, and how the connection ended."""

    def __init__(self, data: bytes, ending: str, seconds: float) -> None:
        self.head, _, self.body = data.partition(b"\r\n\r\n")
        self.ending = ending
        self.seconds = seconds

    @property
    def status(self) -> int:
        return int(self.head.split()[1]) if self.head else 0

    @property
    def complete(self) -> bool:
        """Whether HTTP's framing says that this is all."""
        if b"transfer-encoding: chunked" in self.head:
            return self.body.endswith(b"0\r\n\r\n")
        length = int(self.head.lower().split(b"content-length:")[1].split()[0])
        return len(self.body) == length

    @property
    def events(self) -> list[str]:
        """Data of the server-sent events, without the chunk framing."""
        lines = self.body.splitlines()
        return [line.removeprefix(b"data: ").decode() for line in lines if line.startswith(b"data: ")]

    @property
    def content_events(self) -> int:
        return sum('"content":"' in event and '"role"' not in event for event in self.events)


async def _ask(node: SimulatedNode, fault: str | None, *, stream: bool = True, wait_s: float = 0.5) -> Seen:
    body: dict[str, Any] = {
        "model": MODEL,
        "messages": [{"role": "user", "content": "hello"}],
        "max_tokens": TOKENS,
        "ignore_eos": True,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    data = msgspec.json.encode(body)
    begun_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", node.port)
    header = f"x-simulate-fault: {fault}\r\n" if fault else ""
    writer.write(
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{header}"
        f"content-length: {len(data)}\r\n\r\n".encode()
        + data
    )
    received = b""
    ending = "closed"
    try:
        async with asyncio.timeout(wait_s):
            while piece := await reader.read(65536):
                received += piece
    except ConnectionResetError:
        ending = "reset"
    except TimeoutError:
        ending = "open"
    seconds = time.monotonic() - begun_s
    writer.close()
    return Seen(received, ending, seconds)


async def _idle(node: SimulatedNode) -> bool:
    for _ in range(100):
        text = node.render_metrics().decode()
        if 'num_requests_running{engine="0",model_name="' + MODEL + '"} 0.0' in text:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_without_a_fault_the_answer_is_whole(node: SimulatedNode) -> None:
    seen = await _ask(node, None)
    assert (seen.status, seen.ending, seen.complete) == (200, "closed", True)
    assert seen.content_events == TOKENS
    assert seen.events[-1] == "[DONE]"


@pytest.mark.parametrize("stream", [True, False])
async def test_error_with_and_without_retry_after(node: SimulatedNode, stream: bool) -> None:
    plain = await _ask(node, "error=500", stream=stream)
    assert (plain.status, plain.complete) == (500, True)
    assert b"retry-after" not in plain.head
    later = await _ask(node, "error=503;retry_after=2", stream=stream)
    assert later.status == 503
    assert b"retry-after: 2\r\n" in later.head
    assert b'"code":503' in later.body


@pytest.mark.parametrize("stream", [True, False])
async def test_reset_and_silence(node: SimulatedNode, stream: bool) -> None:
    reset = await _ask(node, "reset", stream=stream)
    assert (reset.head, reset.ending) == (b"", "reset")
    silence = await _ask(node, "silence", stream=stream, wait_s=0.2)
    assert (silence.head, silence.ending) == (b"", "open")


async def test_slow_first_token_sends_its_headers_at_once(node: SimulatedNode) -> None:
    early = await _ask(node, "slow_first_token=0.3", wait_s=0.15)
    assert (early.status, early.events, early.ending) == (200, [], "open")
    seen = await _ask(node, "slow_first_token=0.3", wait_s=2)
    assert seen.complete
    assert seen.seconds >= 0.3
    assert await _idle(node)


@pytest.mark.parametrize("after", [0, 3])
async def test_cut_and_reset_after_some_events(node: SimulatedNode, after: int) -> None:
    cut = await _ask(node, f"cut={after}")
    assert (cut.status, cut.ending, cut.complete) == (200, "closed", False)
    assert cut.content_events == after
    reset = await _ask(node, f"reset_after={after}")
    assert (reset.ending, reset.complete) == ("reset", False)
    assert await _idle(node)


async def test_stall_keeps_the_connection_open(node: SimulatedNode) -> None:
    seen = await _ask(node, "stall=2", wait_s=0.3)
    assert (seen.status, seen.ending, seen.content_events) == (200, "open", 2)
    assert await _idle(node)


async def test_malformed_breaks_one_event_only(node: SimulatedNode) -> None:
    seen = await _ask(node, "malformed=2")
    assert seen.complete
    broken = [i for i, event in enumerate(seen.events) if event != "[DONE]" and not _is_json(event)]
    assert len(broken) == 1
    assert seen.events[-1] == "[DONE]"


async def test_no_done_and_no_usage(node: SimulatedNode) -> None:
    no_done = await _ask(node, "no_done")
    assert no_done.complete
    assert "[DONE]" not in no_done.events
    assert '"usage"' in no_done.events[-1]
    no_usage = await _ask(node, "no_usage")
    assert no_usage.events[-1] == "[DONE]"
    assert not any('"usage"' in event for event in no_usage.events)


async def test_error_before_is_a_200_whose_first_event_is_an_error(node: SimulatedNode) -> None:
    seen = await _ask(node, "error_before")
    assert (seen.status, seen.complete) == (200, True)
    assert '"error"' in seen.events[0]
    assert seen.events[1:] == ["[DONE]"]


@pytest.mark.parametrize(("fault", "ending"), [("cut=1", "closed"), ("reset_after=1", "reset"), ("stall=1", "open")])
async def test_a_whole_answer_breaks_in_its_middle(node: SimulatedNode, fault: str, ending: str) -> None:
    seen = await _ask(node, fault, stream=False, wait_s=0.3)
    # After a reset the kernel may throw away what was sent before it.
    assert seen.ending == ending
    if seen.head:
        assert (seen.status, seen.complete) == (200, False)
    malformed = await _ask(node, "malformed=1", stream=False)
    assert malformed.complete
    assert not _is_json(malformed.body.decode())


async def test_crash_gives_everybody_an_error_and_done_and_then_nobody_listens(node: SimulatedNode) -> None:
    bystander = asyncio.create_task(_ask(node, "slow_first_token=5", wait_s=2))
    await asyncio.sleep(0.1)
    seen = await _ask(node, "crash=3", wait_s=2)
    assert (seen.status, seen.complete, seen.content_events) == (200, True, 3)
    assert '"error"' in seen.events[-2]
    assert '"code":500' in seen.events[-2]
    assert seen.events[-1] == "[DONE]"
    assert not any('"usage"' in event for event in seen.events)
    other = await bystander
    assert (other.status, other.complete, other.events[-1]) == (200, True, "[DONE]")
    assert '"error"' in other.events[0]
    await asyncio.sleep(0.2)
    with pytest.raises(ConnectionError):
        await asyncio.open_connection("127.0.0.1", node.port)


async def test_crash_of_a_whole_answer_is_a_500(node: SimulatedNode) -> None:
    seen = await _ask(node, "crash=0", stream=False, wait_s=2)
    assert (seen.status, seen.complete) == (500, True)


@pytest.mark.parametrize(
    ("path", "more", "whole", "last"),
    [
        ("/v1/completions", {"prompt": "hello", "max_tokens": TOKENS}, True, b"data: [DONE]\n\n"),
        ("/v1/messages", {"max_tokens": TOKENS}, True, b"event: error\n"),
        ("/v1/responses", {"input": "hello", "max_output_tokens": TOKENS}, False, b"response.output_text.delta"),
    ],
)
async def test_each_api_fails_as_vllms_does(
    node: SimulatedNode, path: str, more: dict[str, Any], whole: bool, last: bytes
) -> None:
    messages = [{"role": "user", "content": "hello"}]
    body = {"model": MODEL, "messages": messages, "stream": True, "ignore_eos": True} | more
    received = b""
    async with httpx.AsyncClient(base_url=node.url) as client:
        headers = {"x-simulate-fault": "crash=2"}
        async with client.stream("POST", path, json=body, headers=headers) as response:
            assert response.status_code == 200
            try:
                async for piece in response.aiter_raw():
                    received += piece
            except httpx.RemoteProtocolError:
                assert not whole
            else:
                assert whole
    assert last in received[-400:]
    assert (b"[DONE]" in received) is (path == "/v1/completions")


async def test_an_unknown_fault_is_a_400(node: SimulatedNode) -> None:
    assert (await _ask(node, "explode")).status == 400


async def test_the_admin_call_strikes_the_next_requests(node: SimulatedNode) -> None:
    async with httpx.AsyncClient(base_url=node.url) as client:
        added = await client.post("/admin/faults", json={"fault": "error=502", "count": 2})
        assert added.json()["faults"][0]["count"] == 2
        assert [(await _ask(node, None)).status for _ in range(3)] == [502, 502, 200]
        await client.post("/admin/faults", json={"fault": "reset", "path": "/v1/embeddings"})
        assert (await _ask(node, None)).status == 200
        with pytest.raises(httpx.ReadError):
            await client.post("/v1/embeddings", json={"model": MODEL, "input": "x"})
        assert (await client.delete("/admin/faults")).json() == {"faults": []}
        assert (await client.post("/admin/faults", json={"fault": "?"})).status_code == 400
        assert (await client.post("/admin/faults", json={"count": 1})).status_code == 400


def _is_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return False
    return True
