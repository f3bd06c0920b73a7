"""A Redis of one's own that may be paused, killed and flushed, and a wire that loses answers: for limits and net."""

import asyncio
import signal
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import redis.asyncio

from tests import servers
from tests.ports import free_port


async def eventually(holds: Callable[[], bool | Awaitable[bool]], within_s: float = 5.0) -> None:
    """Wait until `holds()` is true. Raises AssertionError when it is not by then."""
    async with asyncio.timeout(within_s):
        while True:
            answer = holds()
            if answer is True or (not isinstance(answer, bool) and await answer):
                return
            await asyncio.sleep(0.01)


class OwnRedis:
    """A redis-server process without persistence."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.port = free_port()
        self._directory = directory
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        command = [servers._redis_program(), "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(  # noqa: ASYNC220 - forking takes a millisecond
            [*command, "--dir", str(self._directory), *self._options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await eventually(self._accepts, 20.0)

    async def _accepts(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    async def say(self, *command: str | int) -> object:
        """One command on a connection of its own."""
        async with redis.asyncio.Redis(port=self.port) as client:
            return await client.execute_command(*command)

    async def calls(self, command: str) -> int:
        """How often a command was run so far."""
        async with redis.asyncio.Redis(port=self.port) as client:
            stats = await client.info("commandstats")
        return int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"])

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        self._signal(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


@asynccontextmanager
async def own_redis(directory: Path, *options: str) -> AsyncIterator[OwnRedis]:
    server = OwnRedis(directory, *options)
    await server.start()
    try:
        yield server
    finally:
        server.kill()


class Wire:
    """A TCP proxy to a Redis. `swallow` lets requests through, then loses the answers; `cut` closes all."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.swallow = False
        self.swallowed = 0
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self, **tls: object) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, **tls)

    async def cut(self) -> None:
        """Close every connection, and accept none."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, there_writer}
        for source, sink, answers in ((reader, there_writer, False), (there_reader, writer, True)):
            pump = asyncio.create_task(self._pump(source, sink, answers))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, answers: bool) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65_536):
                if answers and self.swallow:
                    self.swallowed += 1
                    continue
                sink.write(data)
        sink.close()
        self._writers.discard(sink)
