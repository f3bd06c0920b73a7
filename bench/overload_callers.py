"""Callers for the overload measurement: Poisson arrivals of streamed chats, each on a connection of its own.

Open loop: a request is due whatever came before, and its times count from when it was due.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from dataclasses import dataclass, field

_TOLD = re.compile(rb": queued position=\d+ estimated_wait_s=([0-9.]+)")


@dataclass(frozen=True)
class Caller:
    """One org: how often it asks, and for how much."""

    name: str
    key: str
    per_s: float
    output_tokens: int = 64
    prompt_words: int = 30
    steady: bool = False  # at equal distances instead of Poisson


@dataclass
class Asked:
    """What became of one request; times in seconds since the start of the run."""

    caller: str
    due_s: float
    status: int = 0
    tokens: int = 0
    first_token_s: float | None = None
    ended_s: float | None = None
    told: tuple[float, float] | None = None  # when the first estimate came, and the wait that it told
    retry_after: bool = False
    shed: bool = False

    @property
    def served(self) -> bool:
        return self.status == 200 and self.tokens > 0


@dataclass
class Run:
    """All requests of one run."""

    asked: list[Asked] = field(default_factory=list)

    def of(self, name: str) -> list[Asked]:
        return [each for each in self.asked if each.caller == name]

    def tokens(self, name: str, start_s: float, end_s: float) -> int:
        """Tokens of the answers that ended in that time."""
        return sum(a.tokens for a in self.of(name) if a.ended_s is not None and start_s <= a.ended_s < end_s)


async def drive(port: int, model: str, callers: list[Caller], seconds: float, seed: int, drain_s: float) -> Run:
    """Let all ask for so long, then wait for what is still open."""
    run, loop, open_requests = Run(), asyncio.get_running_loop(), set[asyncio.Task[None]]()
    start_s = loop.time()

    async def arrive(caller: Caller, rng: random.Random) -> None:
        due_s = rng.random() / caller.per_s
        while due_s < seconds:
            await asyncio.sleep(max(0.0, start_s + due_s - loop.time()))
            asked = Asked(caller.name, due_s)
            run.asked.append(asked)
            task = asyncio.create_task(_ask(port, model, caller, asked, start_s))
            open_requests.add(task)
            task.add_done_callback(open_requests.discard)
            due_s += 1.0 / caller.per_s if caller.steady else rng.expovariate(caller.per_s)

    await asyncio.gather(*(arrive(caller, random.Random(f"{seed}{caller.name}")) for caller in callers))
    if open_requests:
        _, late = await asyncio.wait(open_requests, timeout=drain_s)
        for task in late:
            task.cancel()
    return run


async def _ask(port: int, model: str, caller: Caller, asked: Asked, start_s: float) -> None:
    loop = asyncio.get_running_loop()
    words = " ".join(f"w{random.randrange(10_000)}" for _ in range(caller.prompt_words))
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": words}],
            "max_tokens": caller.output_tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {caller.key}\r\n"
        f"content-type: application/json\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return
    try:
        writer.write(head.encode() + body)
        last = b""
        async for line in reader:
            if not asked.status:
                asked.status = int(line.split()[1])
            elif line[:12].lower() == b"retry-after:":
                asked.retry_after = True
            elif line.startswith(b"data: "):
                last = _data(line, last, asked, loop.time() - start_s)
            elif asked.told is None and (told := _TOLD.match(line)):
                asked.told = (loop.time() - start_s, float(told[1]))
        asked.shed = asked.status == 429 or b"server_busy" in last
        usage = re.search(rb'"total_tokens": ?(\d+)', last)
        asked.tokens = int(usage[1]) if usage else 0
        asked.ended_s = loop.time() - start_s
    except OSError:
        return
    finally:
        writer.close()


def _data(line: bytes, last: bytes, asked: Asked, now_s: float) -> bytes:
    """Notes the first token; returns the last event but `[DONE]`."""
    if line.startswith(b"data: [DONE]"):
        return last
    if asked.first_token_s is None and b'"error"' not in line:
        asked.first_token_s = now_s
    return line
