"""Of two ways to sync, the cheap one is used while it is about as quick, and the steady one otherwise."""

import asyncio
import tempfile

import pytest

from crosslogic.metering.sync import Done, FastestSync, ThreadSync

SYNCS = 100


def counted(uses: list[str], name: str, delay_s: float) -> type[ThreadSync]:
    """A real sync that is used under this name and tells its end late."""

    class Counted(ThreadSync):
        def __init__(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
            super().__init__(loop, lambda code: loop.call_later(delay_s, done, code))

        def start(self, fd: int) -> None:
            uses.append(name)
            super().start(fd)

    return Counted


@pytest.mark.parametrize(
    ("cheap_delay_s", "steady_delay_s", "preferred"),
    [(0.02, 0.001, "steady"), (0.005, 0.005, "cheap"), (0.001, 0.02, "cheap")],
)
async def test_the_choice(cheap_delay_s: float, steady_delay_s: float, preferred: str) -> None:
    uses: list[str] = []
    ended = asyncio.Queue[int]()
    sync = FastestSync(
        asyncio.get_running_loop(),
        ended.put_nowait,
        cheap=counted(uses, "cheap", cheap_delay_s),
        steady=counted(uses, "steady", steady_delay_s),
    )
    with tempfile.TemporaryFile() as file:
        for _ in range(SYNCS):
            sync.start(file.fileno())
            assert await ended.get() == 0
    sync.close()
    assert len(uses) == SYNCS
    assert set(uses[8:]) == {preferred}
    assert set(uses[:8]) == {"cheap", "steady"}, "both are tried first"


async def test_a_file_that_is_gone_is_told_as_an_error() -> None:
    ended = asyncio.Queue[int]()
    sync = ThreadSync(asyncio.get_running_loop(), ended.put_nowait)
    sync.start(999_999)
    assert await ended.get() != 0
    sync.close()
