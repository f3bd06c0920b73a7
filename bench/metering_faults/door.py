"""The way to PostgreSQL, which understands enough of the protocol to lose the answer to a COMMIT.

It can be shut (as any `Doorway`), silent (connections stand, nothing passes), slow, and it can cut
a connection between PostgreSQL's having committed and its client's hearing of it. Messages as of protocol 3.0.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections import Counter

from tests.flow.production import Doorway

_SSL_REQUEST = 80877103
_WRITES = re.compile(rb'^\s*(?:INSERT\s+INTO|UPDATE|DELETE\s+FROM)\s+"?(\w+)', re.IGNORECASE)
_PARSE, _BIND, _QUERY = b"P"[0], b"B"[0], b"Q"[0]


class Frontend:
    """What a client says: which tables its transaction writes to, and when it commits. Pure."""

    def __init__(self) -> None:
        self._pending = b""
        self._started = False
        self._tables: dict[bytes, str] = {}  # of prepared statements, by their names
        self._written: set[str] = set()

    def feed(self, data: bytes) -> set[str] | None:
        """The tables of a transaction whose COMMIT is in these bytes; None: there is no COMMIT of writes."""
        data = self._pending + data
        committed: set[str] | None = None
        at = 0
        while True:
            head = 1 if self._started else 0  # the first message has no type
            if len(data) - at < head + 4:
                break
            (length,) = struct.unpack_from(">I", data, at + head)
            if len(data) - at < head + length:
                break
            body = data[at + head + 4 : at + head + length]
            if not self._started:
                self._started = struct.unpack_from(">I", body)[0] != _SSL_REQUEST
            else:
                committed = self._message(data[at], body) or committed
            at += head + length
        self._pending = data[at:]
        return committed

    def _message(self, kind: int, body: bytes) -> set[str] | None:
        if kind == _PARSE:
            name, text, _ = body.split(b"\0", 2)
            written = _WRITES.match(text)
            if written:
                self._tables[name] = written[1].decode()
            else:
                self._tables.pop(name, None)
        elif kind == _BIND:
            _portal, name, _ = body.split(b"\0", 2)
            if name in self._tables:
                self._written.add(self._tables[name])
        elif kind == _QUERY:
            word = body[:8].upper()
            if word.startswith(b"COMMIT"):
                written_to, self._written = self._written, set()
                return written_to or None
            if word.startswith((b"BEGIN", b"ROLLBACK")):
                self._written = set()
        return None


class Door(Doorway):
    def __init__(self, url: str) -> None:
        self.lost: Counter[str] = Counter()  # commits whose answer never came, by one of the tables
        self._wanted: list[str] = []  # cut the next commit that writes to this table; "" any
        self._delay_s = 0.0
        self._passes = asyncio.Event()
        self._passes.set()
        super().__init__(url)

    def silence(self) -> None:
        self._loop.call_soon_threadsafe(self._passes.clear)

    def speak(self) -> None:
        self._loop.call_soon_threadsafe(self._passes.set)

    def slow(self, delay_s: float) -> None:
        self._delay_s = delay_s

    def lose_a_commit(self, table: str = "") -> None:
        self._loop.call_soon_threadsafe(self._wanted.append, table)

    @property
    def owed(self) -> int:
        """Commits that were to be lost and have not come by yet."""
        return len(self._wanted)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            away_reader, away_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, away_writer}
        wire = _Wire(self, writer, away_writer)
        try:
            await asyncio.gather(wire.up(reader), wire.down(away_reader))
        finally:
            self._writers -= {writer, away_writer}
            writer.transport.abort()
            away_writer.transport.abort()

    def _take(self, tables: set[str]) -> bool:
        """Whether this commit's answer is to be lost."""
        for wanted in self._wanted:
            if not wanted or wanted in tables:
                self._wanted.remove(wanted)
                self.lost[wanted if wanted in tables else min(tables)] += 1
                return True
        return False

    async def _pass(self) -> None:
        if self._delay_s:
            await asyncio.sleep(self._delay_s)
        await self._passes.wait()


class _Wire:
    """One client's connection."""

    def __init__(self, door: Door, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self._door, self._client, self._server = door, client, server
        self._frontend = Frontend()
        self._cut = False

    async def up(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65536):
                await self._door._pass()
                tables = self._frontend.feed(data)
                if tables is not None and self._door._take(tables):
                    self._cut = True  # before it is sent: the answer may be quick
                self._server.write(data)
                await self._server.drain()
            self._server.write_eof()
        except (OSError, RuntimeError):
            self._client.transport.abort()
            self._server.transport.abort()

    async def down(self, reader: asyncio.StreamReader) -> None:
        try:
            while data := await reader.read(65536):
                if self._cut:  # this is the answer: so it has committed
                    self._client.transport.abort()
                    self._server.transport.abort()
                    return
                await self._door._pass()
                self._client.write(data)
                await self._client.drain()
            self._client.write_eof()
        except (OSError, RuntimeError):
            self._client.transport.abort()
            self._server.transport.abort()
