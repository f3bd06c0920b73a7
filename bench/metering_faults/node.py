"""One simulated node with a book of what it did, and the ways in which nodes die.

    python -m bench.metering_faults.node --port P --seed N --speedup X --book DIR

SIGUSR1: it goes and its connections are reset. SIGUSR2: it goes and they end (FIN), in the middle of answers.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import sys
from pathlib import Path

import uvloop

from bench.metering_faults.witness import Book
from crosslogic.simulator.job import Job
from crosslogic.simulator.model import StepResult
from crosslogic.simulator.node import NodeOptions, SimulatedNode
from crosslogic.simulator.profile import REFERENCE_MODEL, Profile, find_profile

FLUSH_S = 0.02  # for the ends of connections to be on their way
_TAG = re.compile(rb'"user":\s*"([^"]*)"')


class BookedNode(SimulatedNode):
    def __init__(self, profile: Profile, options: NodeOptions, book: Book) -> None:
        super().__init__(profile, options)
        self._book = book
        self._slots: dict[Job, int] = {}

    def expect(self, job: Job) -> None:
        super().expect(job)
        exchange = job.exchange
        request_id, tag = exchange.header(b"x-request-id"), _TAG.search(exchange.body)
        self._slots[job] = self._book.begin(
            request_id.decode("latin-1") if request_id else "",
            tag[1].decode("latin-1") if tag else "",
            job.usage.prompt_tokens,
            job.usage.cached_tokens,
        )

    def ended(self, job: Job) -> None:
        slot = self._slots.pop(job, None)
        if slot is not None:
            self._book.end(slot, sum(job.made))
        super().ended(job)

    def _stepped(self, result: StepResult) -> None:
        # Written down before they are sent: a kill in between makes the account one token too high, never too low.
        for sequence in result.emitted:
            found = self._choices.get(sequence)
            if found is not None and (slot := self._slots.get(found[0])) is not None:
                self._book.made(slot, sum(found[0].made) + 1)
        super()._stepped(result)

    def go(self, *, reset: bool) -> None:
        """Leave, with a reset or a FIN in the middle of every answer."""
        for job in list(self._jobs):
            job.exchange.abort(reset=reset)
        asyncio.get_running_loop().call_later(FLUSH_S, os._exit, 1)


async def serve(node: BookedNode) -> None:
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    loop.add_signal_handler(signal.SIGUSR1, lambda: node.go(reset=True))
    loop.add_signal_handler(signal.SIGUSR2, lambda: node.go(reset=False))
    await node.start()
    await stopped.wait()
    await node.close(0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--speedup", type=float, default=4.0)
    parser.add_argument("--book", type=Path, required=True)
    asked = parser.parse_args()
    options = NodeOptions(port=asked.port, speedup=asked.speedup, seed=asked.seed)
    uvloop.run(serve(BookedNode(find_profile(REFERENCE_MODEL), options, Book(asked.book))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
