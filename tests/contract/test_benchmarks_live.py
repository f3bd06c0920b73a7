"""A live benchmark reads answers as engines send them, whatever their text holds."""

import asyncio
import json

from crosslogic.compass.knowledge.live import Sweep, measure
from crosslogic.compass.knowledge.model import Setup

MODEL = "talks-in-separators"
WORDS = ("line\u2028one", "next\x85", "end")  # the first two hold what ends a line for `str.splitlines`


def event(body: dict[str, object]) -> bytes:
    return b"data: %b\r\n\r\n" % json.dumps(body, ensure_ascii=False).encode()


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An engine that serves one model, and says the same to everybody in pieces of seven bytes."""
    head = await reader.readuntil(b"\r\n\r\n")
    kind, body = b"application/json", json.dumps({"data": [{"id": MODEL}]}).encode()
    if head.startswith(b"POST"):
        kind = b"text/event-stream"
        usage = {"prompt_tokens": 8, "completion_tokens": len(WORDS)}
        events = [event({"choices": [{"delta": {"content": word}}]}) for word in WORDS]
        body = b"".join([*events, event({"choices": [], "usage": usage}), b"data: [DONE]\r\n\r\n"])
    writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: %b\r\n\r\n" % kind)
    for start in range(0, len(body), 7):
        writer.write(body[start : start + 7])
        await writer.drain()
        await asyncio.sleep(0.001)
    writer.close()


async def test_separators_of_text_end_no_line_of_the_protocol() -> None:
    async with await asyncio.start_server(answer, "127.0.0.1") as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        setup = Setup(model=MODEL, gpu="H100")
        sweep = Sweep(rates=(20.0,), prompt_tokens=8, output_tokens=len(WORDS), seconds=0.5)
        (point,) = await measure(url, setup, sweep)
    assert point.failed == 0
    assert (point.mean_input_tokens, point.mean_output_tokens) == (8, len(WORDS))
