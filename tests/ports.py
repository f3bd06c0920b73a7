"""Ports for the servers that tests start: named before anybody listens on them, and nobody else's even then.

They lie below those that a kernel gives to callers (from 32768 on Linux, 49152 on macOS), so no connection takes one
by chance. And each test process draws them from blocks of its own, each of them once: two that run side by side never
draw the same.
"""

import random
import socket
from collections.abc import Iterator

BLOCK = 250
FIRST, LAST = 12_000, 32_000

_kept: list[socket.socket] = []  # the first port of each block that is ours, until this process ends


def free_port() -> int:
    """A port on which nothing listens, and which no other test is given."""
    return next(_ports)


def _blocks() -> Iterator[range]:
    """Blocks that are now ours: who holds a block's first port has the block."""
    blocks = [range(first, first + BLOCK) for first in range(FIRST, LAST, BLOCK)]
    random.SystemRandom().shuffle(blocks)  # Hypothesis seeds the common generator
    for block in blocks:
        held = _bound(block[0])
        if held is not None:
            _kept.append(held)
            yield block[1:]


def _free() -> Iterator[int]:
    for block in _blocks():
        for port in block:
            probe = _bound(port)
            if probe is not None:
                probe.close()
                yield port


def _bound(port: int) -> socket.socket | None:
    """A socket that has this port, and hears nobody; None when another has it."""
    probe = socket.socket()
    try:
        probe.bind(("127.0.0.1", port))
    except OSError:
        probe.close()
        return None
    return probe


_ports = _free()
