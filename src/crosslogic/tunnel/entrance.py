"""The port that agents dial: reads which worker a connection is for, and hands the socket to that worker.

Workers that accept on one shared port get connections as the kernel pleases, and an agent could not come to each of
them. So the parent accepts, and passes sockets on before TLS begins; it never sees a request.

Invariant: a connection that does not say Hello in time is closed, and only so many may be saying it at once.
"""

import asyncio
import logging
import socket
from collections.abc import Callable

from crosslogic.net.greeting import GreetingPort
from crosslogic.tunnel.wire import HELLO_BYTES, BadTunnel, Hello, read_hello

HELLO_TIMEOUT_S = 5.0
MAX_GREETINGS = 512
PASS_TIMEOUT_S = 2.0
_MAX_MESSAGE_BYTES = 256

Accept = Callable[[socket.socket, Hello, str], None]
"""Takes over an accepted connection, what it said, and the peer's address."""

_log = logging.getLogger(__name__)


class Entrance:
    """One listening port of one process."""

    def __init__(self, accept: Accept) -> None:
        self._accept = accept
        self._port = GreetingPort(self._greet, MAX_GREETINGS)

    def listen(self, host: str, port: int) -> int:
        """Returns the port. Raises OSError."""
        return self._port.listen(host, port)

    async def close(self) -> None:
        await self._port.close()

    async def _greet(self, accepted: socket.socket, address: str, greeted: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        said = b""
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                while len(said) < HELLO_BYTES:
                    piece = await loop.sock_recv(accepted, HELLO_BYTES - len(said))
                    if not piece:
                        raise BadTunnel("it left")
                    said += piece
            hello = read_hello(said)
        except (OSError, TimeoutError, BadTunnel) as error:
            _log.info("a connection from %s is no tunnel: %s", address, error)
            accepted.close()
            return
        except asyncio.CancelledError:
            accepted.close()
            raise
        finally:
            greeted()
        self._accept(accepted, hello, address)


class Passing:
    """Sockets on their way to so many worker processes; `accept` is what an `Entrance` wants."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._channels: dict[int, socket.socket] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def channel(self, worker: int) -> socket.socket:
        """The end for this worker's new process; what its last process did not read is gone with that one."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        theirs.setblocking(False)
        before = self._channels.get(worker)
        if before is not None:
            before.close()
        self._channels[worker] = ours
        return theirs

    def accept(self, accepted: socket.socket, hello: Hello, address: str) -> None:
        # Where there are fewer workers than the agent thinks, it comes to another one, who tells it so.
        channel = self._channels.get(hello.worker % self._workers)
        if channel is None:  # it has not been started yet
            accepted.close()
            return
        task = asyncio.ensure_future(_pass_on(channel, accepted, hello.encode() + address.encode()))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        for channel in self._channels.values():
            channel.close()
        self._channels.clear()


class Receiving:
    """The worker's end: sockets that come through `channel` go to `accept`."""

    def __init__(self, channel: socket.socket, accept: Accept) -> None:
        self._channel = channel
        self._accept = accept
        channel.setblocking(False)
        asyncio.get_running_loop().add_reader(channel.fileno(), self._read)

    def close(self) -> None:
        if self._channel.fileno() >= 0:
            asyncio.get_running_loop().remove_reader(self._channel.fileno())
            self._channel.close()

    def _read(self) -> None:
        try:
            message, descriptors, _, _ = socket.recv_fds(self._channel, _MAX_MESSAGE_BYTES, 1)
        except BlockingIOError:
            return
        except OSError:
            message, descriptors = b"", []
        if not message:  # the parent is gone
            self.close()
            return
        if not descriptors:  # no descriptor was free for it; the agent will come again
            return
        accepted = socket.socket(fileno=descriptors[0])
        self._accept(accepted, read_hello(message[:HELLO_BYTES]), message[HELLO_BYTES:].decode())


async def _pass_on(channel: socket.socket, accepted: socket.socket, message: bytes) -> None:
    """The worker may be busy for a moment, and its channel full."""
    try:
        async with asyncio.timeout(PASS_TIMEOUT_S):
            while True:
                try:
                    socket.send_fds(channel, [message], [accepted.fileno()])
                    return
                except BlockingIOError:
                    await asyncio.sleep(0.01)
    except (OSError, TimeoutError):
        return  # the worker has died; the agent will come again
    finally:
        accepted.close()
