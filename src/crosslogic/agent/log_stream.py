"""Lines of agent and engine on their way to control.

Invariants: nobody waits for a line; what does not fit is dropped, counted and said; an engine's log file stays under
`MAX_FILE_BYTES`.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crosslogic.agent.messages import says_out_of_memory
from crosslogic.fleet.wire import node_agent_pb2 as wire

BUFFER_LINES = 5_000
BATCH_LINES = 200
BATCH_INTERVAL_S = 0.5
MAX_LINE_CHARS = 4_096
MAX_READ_BYTES = 256 * 1024
MAX_FILE_BYTES = 64 * 1024 * 1024


class LogStream(logging.Handler):
    """Collects what this process logs, and what `follow` reads, until `batches` takes it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[Any] = deque()
        self._dropped = 0
        self.oom_events = 0  # told by the engine; lines that come together tell of the same one

    def emit(self, record: logging.LogRecord) -> None:
        self.add("agent", record.getMessage())

    def add(self, source: str, text: str) -> None:
        if len(self._lines) >= BUFFER_LINES:
            self._lines.popleft()
            self._dropped += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._lines.append(wire.LogLine(at=at, source=source, text=text[:MAX_LINE_CHARS]))

    async def batches(self) -> AsyncIterator[Any]:
        """What has come, again and again, until cancelled."""
        while True:
            if self._lines:
                taken = [self._lines.popleft() for _ in range(min(BATCH_LINES, len(self._lines)))]
                dropped, self._dropped = self._dropped, 0
                yield wire.LogBatch(lines=taken, dropped=dropped)
            if len(self._lines) < BATCH_LINES:
                await asyncio.sleep(BATCH_INTERVAL_S)

    async def follow(self, path: Path, source: str = "engine") -> None:
        """Read what is added to the file, from its present end, until cancelled."""
        position = path.stat().st_size if path.exists() else 0
        rest = b""
        while True:
            await asyncio.sleep(BATCH_INTERVAL_S)
            try:
                size = path.stat().st_size
                if size < position:
                    position = 0
                with path.open("rb") as file:
                    file.seek(position)
                    data = file.read(MAX_READ_BYTES)
                if size > MAX_FILE_BYTES:
                    os.truncate(path, 0)  # the engine appends, so it goes on at the new end
                    position = 0
                else:
                    position += len(data)
            except FileNotFoundError:
                continue
            *lines, rest = (rest + data).split(b"\n")
            rest = rest[-MAX_READ_BYTES:]
            read = [line.decode("utf-8", "replace").rstrip() for line in lines if line.strip()]
            self.oom_events += any(says_out_of_memory(line) for line in read)
            for line in read:
                self.add(source, line)
