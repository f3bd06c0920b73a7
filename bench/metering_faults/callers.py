"""The callers: what they ask, how they behave, and what they saw of each answer, line by line in a file.

One event loop and plain sockets, for their CPU is taken from what is looked at. A caller that breaks off knows what
it had seen until then: that much must have been billed, unless the gateway itself was killed.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from tests.flow.clouds import LLAMA

PATIENCE_S = 45.0
FRESH_S = 1.0  # what came in the last second may not have been in a mark yet
STAMP_S = 0.05
RECONNECT = 0.05  # of the requests, so that a worker that begins anew gets its share
SYSTEMS = [f"You are assistant number {n}. " + "Answer briefly, name your sources, be kind. " * 8 for n in range(6)]

# How a caller behaves, and how often.
NORMAL, LEAVES, LEAVES_AT_END, SLOW, HALF = "normal", "leaves", "leaves before [DONE]", "slow reader", "half-open"
BEHAVIOURS = ((LEAVES, 0.008), (LEAVES_AT_END, 0.003), (SLOW, 0.002), (HALF, 0.001))


@dataclass(frozen=True)
class Plan:
    tag: str
    data: bytes
    stream: bool
    most_tokens: int
    behaviour: str
    at: float  # where it leaves: a share of the answer's bytes, or of its time
    reset: bool


@dataclass
class Seen:
    """What a caller knows. `old_tokens`: of those it saw, the ones older than `FRESH_S` when the answer ended, or when
    a gateway's process died under it: what the kernel held then comes to a slow reader for seconds, and is no older."""

    plan: Plan
    status: int = 0
    request_id: str = ""
    whole: bool = False
    tokens: int = 0
    old_tokens: int = 0
    usage: dict[str, Any] | None = None
    refusal: str = ""

    def line(self) -> str:
        usage = self.usage or {}
        cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
        plan = self.plan
        fields = (
            plan.tag, self.request_id, int(plan.stream), plan.behaviour, self.status, int(self.whole),
            usage.get("prompt_tokens", 0), usage.get("completion_tokens", 0), cached,
            self.tokens, self.old_tokens, plan.most_tokens,
        )  # fmt: skip
        return "\t".join(map(str, fields)) + "\n"


class Line(asyncio.Protocol):
    """One connection of one caller, from request to request."""

    def __init__(self, sock: socket.socket, deaths: Sequence[float]) -> None:
        self._deaths = deaths
        self._asked_s = 0.0
        self.transport: asyncio.Transport | None = None
        self.open = False
        self._socket = sock
        self._raw = bytearray()
        self._head = -1  # where the body begins
        self._length = -1  # of the body; -1: chunks
        self._stamps: list[tuple[float, int]] = []
        self._over: asyncio.Future[bool] | None = None
        self._seen: Seen | None = None
        self._leave_after = -1  # bytes
        self._trickles = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # (uvloop's transports are not asyncio's by their class)
        self.transport, self.open = cast(asyncio.Transport, transport), True

    def connection_lost(self, _error: Exception | None) -> None:
        self.open = False
        self._end(False)

    async def ask(self, seen: Seen) -> None:
        """Send, and read until the answer is over, whatever way."""
        plan, transport = seen.plan, self.transport
        if transport is None or not self.open:
            raise ConnectionResetError("it was closed before it was used")
        self._raw, self._head, self._length, self._stamps, self._seen = bytearray(), -1, -1, [], seen
        self._asked_s = time.monotonic()
        self._over = asyncio.get_running_loop().create_future()
        self._leave_after, self._trickles = -1, False
        timer: asyncio.TimerHandle | None = None
        loop = asyncio.get_running_loop()
        data = plan.data
        if plan.behaviour == LEAVES and plan.stream:
            self._leave_after = 350 + int(plan.at * plan.most_tokens * 260)
        elif plan.behaviour == LEAVES:
            timer = loop.call_later(0.003 + plan.at * plan.most_tokens * 0.003, self.leave)
        elif plan.behaviour == SLOW:
            self._trickles = True
        elif plan.behaviour == HALF:
            if plan.reset:
                data = data[: int(len(data) * plan.at)]  # half of a request, and nothing after it
            else:
                transport.pause_reading()  # a whole one, whose answer nobody reads
            timer = loop.call_later(3.0 + 2.0 * plan.at, self.leave)
        transport.write(data)
        try:
            async with asyncio.timeout(PATIENCE_S):
                seen.whole = await self._over
        except TimeoutError:
            self.leave()
        if timer is not None:
            timer.cancel()
        self._count(seen)
        if not seen.whole and self.open:
            self.leave()

    def leave(self) -> None:
        """With a FIN or a reset."""
        transport, seen = self.transport, self._seen
        if transport is None or not self.open:
            return
        if seen is not None and seen.plan.reset:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
        self.open = False
        self._end(False)

    def data_received(self, data: bytes) -> None:
        raw = self._raw
        raw += data
        now = time.monotonic()
        if not self._stamps or now - self._stamps[-1][0] > STAMP_S:
            self._stamps.append((now, len(raw)))
        if self._head < 0 and not self._read_head():
            return
        seen = self._seen
        assert seen is not None
        at_end = seen.plan.behaviour == LEAVES_AT_END and b'"usage":{' in data
        if at_end or 0 <= self._leave_after <= len(raw):
            self.leave()
        elif raw.endswith(b"0\r\n\r\n") if self._length < 0 else len(raw) - self._head >= self._length:
            self._end(True)
        elif self._trickles and self.transport is not None:
            self.transport.pause_reading()
            asyncio.get_running_loop().call_later(0.1, self._go_on)

    def _go_on(self) -> None:
        if self.open and self.transport is not None and not self.transport.is_reading():
            self.transport.resume_reading()

    def _read_head(self) -> bool:
        raw, seen = self._raw, self._seen
        end = raw.find(b"\r\n\r\n")
        if end < 0 or seen is None:
            return False
        self._head = end + 4
        lines = bytes(raw[:end]).split(b"\r\n")
        seen.status = int(lines[0].split()[1])
        for line in lines[1:]:
            name, _, value = line.partition(b":")
            name = name.lower()
            if name == b"x-request-id":
                seen.request_id = value.strip().decode()
            elif name == b"content-length":
                self._length = int(value)
        return True

    def _end(self, whole: bool) -> None:
        if self._over is not None and not self._over.done():
            self._over.set_result(whole)

    def _count(self, seen: Seen) -> None:
        """What was in the bytes that came."""
        raw = bytes(self._raw)
        if seen.status != 200:
            seen.whole = False
            seen.refusal = raw[self._head :].decode("utf-8", "replace")[:200]
            return
        if not seen.plan.stream:
            if seen.whole:
                seen.usage = json.loads(raw[self._head :]).get("usage")
            return
        seen.whole = seen.whole and b"data: [DONE]\n\n" in raw and b'"error"' not in raw
        seen.tokens = _tokens(raw)
        before = fresh_since(self._asked_s, time.monotonic(), self._deaths)
        old = max((length for at, length in self._stamps if at <= before), default=0)
        seen.old_tokens = _tokens(raw[:old])
        at = raw.rfind(b'"usage":{')
        if seen.whole and at >= 0:
            start = raw.rfind(b"data: ", 0, at)
            seen.usage = json.loads(raw[start + 6 : raw.find(b"\n\n", at)])["usage"]


def fresh_since(asked_s: float, over_s: float, deaths: Sequence[float]) -> float:
    """From when on what came may be in no mark: whichever process died first under the answer may have been its own."""
    return min((at for at in deaths if asked_s <= at <= over_s), default=over_s) - FRESH_S


def _tokens(raw: bytes) -> int:
    """Events with generated text."""
    return raw.count(b'"content":"') - raw.count(b'"content":""')


class Callers:
    def __init__(
        self, port: int, keys: list[str], count: int, rate: float, seed: int, path: Path, deaths: Sequence[float]
    ) -> None:
        """`rate`: at most so many requests a second are begun. `deaths`: of gateways' processes, on the monotonic
        clock, of which more come."""
        self._deaths = deaths
        self._port, self._keys, self._count, self._rate = port, keys, count, rate
        self._rng = random.Random(seed)
        self._seed = seed
        self.path = path
        self._file: TextIO = path.open("w", buffering=1 << 20)
        self._number = 0
        self._due_s = 0.0
        self._over = False
        self.recent: deque[tuple[float, Seen]] = deque()  # whole answers that nobody has looked up yet
        self.asked = 0
        self.answered = self.whole = self.broken = self.unreached = 0
        self.rate_now = 0.0  # whole answers a second, of late
        self._whole_before = 0
        self.refused: Counter[int] = Counter()
        self.words: Counter[str] = Counter()  # of refusals
        self.troubles: Counter[str] = Counter()  # of connections
        self.behaved: Counter[str] = Counter()

    async def run(self) -> None:
        """Until `stop`; all requests under way are seen to their end."""
        self._due_s = time.monotonic()
        await asyncio.gather(*(self._call(number) for number in range(self._count)))

    def close(self) -> None:
        """What was seen is in the file."""
        self._file.close()

    def stop(self) -> None:
        self._over = True

    async def watch(self) -> None:
        """Keeps `rate_now`, until cancelled."""
        while True:
            await asyncio.sleep(0.5)
            self.rate_now = (self.whole - self._whole_before) / 0.5
            self._whole_before = self.whole

    async def _call(self, number: int) -> None:
        line: Line | None = None
        key = self._keys[number % len(self._keys)]
        while not self._over:
            await self._turn()
            seen = Seen(self._plan(key))
            self.asked += 1
            try:
                if line is not None and seen.plan.behaviour == SLOW:
                    line.leave()  # another one, with a small buffer
                if line is None or not line.open:
                    line = await self._connect(seen.plan.behaviour == SLOW)
                await line.ask(seen)
            except OSError as error:
                line = None
                self.troubles[f"{type(error).__name__}: {error}"] += 1
            self._note(seen)
            if seen.status == 0 and seen.plan.behaviour == NORMAL:
                await asyncio.sleep(0.2)
            elif seen.status not in (0, 200):
                await asyncio.sleep(0.02)
            if line is not None and (seen.plan.behaviour == SLOW or self._rng.random() < RECONNECT):
                line.leave()
        if line is not None and line.open:
            line.leave()

    async def _connect(self, small: bool) -> Line:
        sock = socket.socket()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if small:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(5.0):
                await loop.sock_connect(sock, ("127.0.0.1", self._port))
                _, line = await loop.create_connection(lambda: Line(sock, self._deaths), sock=sock)
                return line
        except BaseException:
            sock.close()
            raise

    async def _turn(self) -> None:
        now = time.monotonic()
        self._due_s = max(self._due_s + 1.0 / self._rate, now - 0.2)
        if self._due_s > now:
            await asyncio.sleep(self._due_s - now)

    def _note(self, seen: Seen) -> None:
        self._file.write(seen.line())
        if seen.plan.behaviour != NORMAL and (seen.status == 200 or seen.plan.behaviour in (HALF, LEAVES)):
            self.behaved[seen.plan.behaviour] += 1
        if seen.status == 0:
            self.unreached += seen.plan.behaviour == NORMAL
        elif seen.status != 200:
            self.refused[seen.status] += 1
            self.words[seen.refusal] += 1
        else:
            self.answered += 1
            self.whole += seen.whole
            self.broken += not seen.whole
            if seen.whole:
                self.recent.append((time.monotonic(), seen))

    def _plan(self, key: str) -> Plan:
        rng = self._rng
        self._number += 1
        tag = f"{self._seed}-{self._number}"
        draw = rng.random()
        most_tokens = rng.randint(1, 16) if draw < 0.94 else rng.randint(16, 100) if draw < 0.99 else 0
        most_tokens = most_tokens or rng.randint(150, 400)
        behaviour, draw = NORMAL, rng.random()
        for name, share in BEHAVIOURS:
            if draw < share:
                behaviour = name
                break
            draw -= share
        if behaviour == SLOW:
            most_tokens = rng.randint(200, 500)
        stream = rng.random() < 0.5 or behaviour in (SLOW, LEAVES_AT_END)
        messages = [{"role": "user", "content": f"Tell me about subject {rng.randint(1, 10**9)}."}]
        if rng.random() < 0.5:
            messages.insert(0, {"role": "system", "content": rng.choice(SYSTEMS)})
        body: dict[str, Any] = {"model": LLAMA, "messages": messages, "max_tokens": most_tokens, "ignore_eos": True}
        body["user"] = tag
        if stream:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        data = json.dumps(body).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {key}\r\n"
        head += f"content-type: application/json\r\ncontent-length: {len(data)}\r\n\r\n"
        return Plan(tag, head.encode() + data, stream, most_tokens, behaviour, rng.random(), rng.random() < 0.5)
