"""A listening port whose connections are greeted one by one, only so many of them at a time.

Invariant: while `most` greetings go on, what comes next waits in the kernel's queue; and a connection that cannot be
accepted (too many open files, a peer that is gone) stops nothing but itself.
"""

import asyncio
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import Any

Greet = Callable[[socket.socket, str, Callable[[], None]], Coroutine[Any, Any, None]]
"""Takes over an accepted socket. Given the peer's address, and what to call once as soon as the greeting is over,
however it ends; whoever is greeted may stay for as long as it likes."""

_BACKLOG = 1024
_PAUSE_S = 0.1
_log = logging.getLogger(__name__)


class GreetingPort:
    """One listening port of one process."""

    def __init__(self, greet: Greet, most: int) -> None:
        self._greet = greet
        self._free = asyncio.Semaphore(most)
        self._tasks: set[asyncio.Task[None]] = set()
        self._socket: socket.socket | None = None

    def listen(self, host: str, port: int) -> int:
        """Returns the port, which the system chooses for 0. Raises OSError."""
        info = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.socket(info[0], info[1], info[2])
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(info[4])
        listening.listen(_BACKLOG)
        listening.setblocking(False)
        self._socket = listening
        self._spawn(self._accept(listening))
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Accept nobody any more, and cancel whoever is being greeted or has stayed."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._free.acquire()
            try:
                accepted, address = await loop.sock_accept(listening)
            except OSError as error:
                self._free.release()
                _log.warning("a connection could not be accepted (%s)", error.strerror)
                await asyncio.sleep(_PAUSE_S)
                continue
            self._spawn(self._greet(accepted, str(address[0]), self._free.release))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
