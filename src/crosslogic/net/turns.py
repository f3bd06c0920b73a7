"""Waiting a few turns of the event loop, to do one thing for many.

A turn takes microseconds when there is little to do and grows with the load, so work that is put off by turns is
put off for no time that matters on an idle machine, and gathers company on a busy one. (A timer could not do it: the
loop's timers count milliseconds.)
"""

import asyncio
from collections.abc import Callable


def after_turns(loop: asyncio.AbstractEventLoop, turns: int, callback: Callable[[], None]) -> None:
    """Call `callback` when the loop has turned `turns` times, at least once."""
    if turns <= 1:
        loop.call_soon(callback)
    else:
        loop.call_soon(after_turns, loop, turns - 1, callback)
