"""The callers of a chaotic day: what they ask, and what they saw."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Known:
    """One request and what it is answered with when nothing goes wrong."""

    path: str
    body: dict[str, Any]
    text: str = ""
    usage: tuple[int, int] = (0, 0)


@dataclass
class Seen:
    """What a caller got; times are of time.monotonic."""

    known: Known
    status: int = 0
    request_id: str = ""
    text: str = ""
    done: bool = False  # ended as a whole answer does
    error: bool = False
    began_s: float = 0.0
    first_s: float | None = None  # to the first text
    gap_s: float = 0.0  # the longest wait between two pieces of text
    usage: tuple[int, int] | None = None
    names: set[str] = field(default_factory=set)  # under which its events came

    @property
    def answered(self) -> bool:
        return self.status == 200 and self.done and not self.error


def requests(model: str, *, longest: int = 200) -> list[Known]:
    """Chats and completions of some variety, greedy, each of a known number of tokens."""
    found = []
    for number, topic in enumerate(["rivers", "lists in python code", "summarize the budget", "what is a lease?"] * 4):
        length = longest - 7 * (15 - number)
        shape = {"model": model, "stream": True, "temperature": 0, "max_tokens": length, "ignore_eos": True}
        shape |= {"min_tokens": length, "stream_options": {"include_usage": True}}
        text = f"Please tell me about {topic}, number {number}.\n"
        found.append(Known("/v1/chat/completions", shape | {"messages": [{"role": "user", "content": text}]}))
        found.append(Known("/v1/completions", shape | {"prompt": text}))
    return found


async def ask(port: int, key: str, known: Known) -> Seen:
    """One streamed request on a connection of its own."""
    seen = Seen(known, began_s=time.monotonic())
    body = json.dumps(known.body).encode()
    head = (
        f"POST {known.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head.encode() + body)
        answer = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        seen.status = int(answer.split()[1])
        seen.request_id = next(line[14:] for line in answer.split("\r\n") if line.lower().startswith("x-request-id: "))
        await _read(reader, seen)
        writer.close()
    except (OSError, asyncio.IncompleteReadError, StopIteration):
        seen.error = True
    return seen


async def _read(reader: asyncio.StreamReader, seen: Seen) -> None:
    last_s: float | None = None
    while line := await reader.readline():
        if line == b"0\r\n":
            return
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]\n":
            seen.done = True
            continue
        event = json.loads(line[6:])
        seen.error = seen.error or "error" in event
        seen.names.add(str(event.get("id")))
        text = "".join(c.get("text") or c.get("delta", {}).get("content") or "" for c in event.get("choices", ()))
        if text:
            now_s = time.monotonic()
            if last_s is None:
                seen.first_s = now_s - seen.began_s
            else:
                seen.gap_s = max(seen.gap_s, now_s - last_s)
            last_s = now_s
            seen.text += text
        if event.get("usage"):
            seen.usage = event["usage"]["prompt_tokens"], event["usage"]["completion_tokens"]


class Callers:
    """Some callers that ask one request after another until they are told to stop."""

    def __init__(self, port: int, key: str, known: list[Known]) -> None:
        self._port, self._key, self._known = port, key, known
        self.seen: list[Seen] = []
        self._over = False

    async def calm(self) -> list[float]:
        """Ask everything once, to know the answers; returns the longest gap of each."""

        async def learn(known: Known) -> float:
            seen = await ask(self._port, self._key, known)
            if not seen.answered or seen.usage is None:
                raise SystemExit(f"without any fault: {seen}")
            known.text, known.usage = seen.text, seen.usage
            return seen.gap_s

        return await asyncio.gather(*map(learn, self._known))

    async def during(self, count: int, chaos: Callable[[], Any]) -> None:
        """`count` of them ask while `chaos` runs, and for a moment after."""
        load = [asyncio.create_task(self._call(number)) for number in range(count)]
        try:
            await chaos()
            await asyncio.sleep(1)
        finally:
            self._over = True
            await asyncio.gather(*load)

    async def _call(self, number: int) -> None:
        order = random.Random(number)
        while not self._over:
            seen = await ask(self._port, self._key, order.choice(self._known))
            self.seen.append(seen)
            if not seen.answered:
                await asyncio.sleep(0.1)
