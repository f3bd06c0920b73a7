"""One timer for the deadlines of all requests: a timer for each request and chunk would cost more than relaying it.

Deadlines are kept to within `INTERVAL_S`.
"""

import asyncio
from typing import Protocol

INTERVAL_S = 0.1


class Watched(Protocol):
    def check(self, now_s: float) -> None:
        """`now_s` is the loop's time; end yourself if it is too late."""
        ...


class Watchdog:
    def __init__(self) -> None:
        self._watched: set[Watched] = set()
        self.add = self._watched.add
        self.remove = self._watched.discard
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.get_running_loop().create_task(self._run())

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def __len__(self) -> int:
        return len(self._watched)

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(INTERVAL_S)
            now_s = loop.time()
            for watched in tuple(self._watched):
                watched.check(now_s)
