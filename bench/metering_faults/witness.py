"""What the nodes themselves know of each request: an account that outlives their death. Independent of the product.

A node keeps the requests that it works on in a file that it has mapped (which survives SIGKILL, for the pages are the
kernel's) and appends those that are over to another. Its next life moves what the one before left behind. So each
request's tokens are known, exactly where it ended and to one token where its node was killed.
"""

from __future__ import annotations

import mmap
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SLOTS = 1024
SLOT_BYTES = 128
_SLOT = struct.Struct("<Q64s32sIII")  # serial (0: free), request, tag, prompt, cached, made
_MADE = struct.Struct("<I")
_MADE_AT = _SLOT.size - _MADE.size


@dataclass(frozen=True)
class Work:
    """What one node did of one request."""

    serial: int
    request_id: str
    tag: str  # the caller's own name of the request
    prompt_tokens: int
    cached_tokens: int
    made: int  # tokens
    over: bool  # False: the node was killed under it, and `made` may be one too many

    def line(self) -> bytes:
        fields = (self.serial, self.request_id, self.tag, self.prompt_tokens, self.cached_tokens, self.made)
        return "\t".join(map(str, (*fields, int(self.over)))).encode() + b"\n"


class Book:
    """The account of one node's life. One writer at a time."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._lines = os.open(directory / "done", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        fd = os.open(directory / "running", os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(fd, SLOTS * SLOT_BYTES)
        self._map = mmap.mmap(fd, SLOTS * SLOT_BYTES)
        os.close(fd)
        self._close_the_books_of_the_dead()
        self._free = list(range(SLOTS))
        self._serial = time.time_ns()

    def begin(self, request_id: str, tag: str, prompt_tokens: int, cached_tokens: int) -> int:
        """Returns the slot, to be named from now on."""
        slot = self._free.pop()
        self._serial += 1
        _SLOT.pack_into(
            self._map,
            slot * SLOT_BYTES,
            self._serial,
            request_id.encode()[:64],
            tag.encode()[:32],
            prompt_tokens,
            cached_tokens,
            0,
        )
        return slot

    def made(self, slot: int, tokens: int) -> None:
        _MADE.pack_into(self._map, slot * SLOT_BYTES + _MADE_AT, tokens)

    def end(self, slot: int, tokens: int) -> None:
        """The line comes first: a kill in between leaves both, and the serial tells that they are one."""
        self.made(slot, tokens)
        work = self._work(slot, over=True)
        os.write(self._lines, work.line())
        self._map[slot * SLOT_BYTES : slot * SLOT_BYTES + 8] = bytes(8)
        self._free.append(slot)

    def _work(self, slot: int, *, over: bool) -> Work:
        serial, request_id, tag, prompt, cached, made = _SLOT.unpack_from(self._map, slot * SLOT_BYTES)
        return Work(serial, _text(request_id), _text(tag), prompt, cached, made, over)

    def _close_the_books_of_the_dead(self) -> None:
        for slot in range(SLOTS):
            work = self._work(slot, over=False)
            if work.serial:
                os.write(self._lines, work.line())
        self._map[:] = bytes(len(self._map))


def _text(padded: bytes) -> str:
    return padded.rstrip(b"\0").decode("latin-1")


def read(directory: Path) -> Iterator[Work]:
    """All that a node did in all of its lives, each piece once; the node is gone by now."""
    Book(directory)  # takes in what its last life left
    seen: set[int] = set()
    with (directory / "done").open() as lines:
        for line in lines:
            serial, request_id, tag, prompt, cached, made, over = line.rstrip("\n").split("\t")
            if int(serial) not in seen:  # what was over and still in its slot comes first as over
                seen.add(int(serial))
                yield Work(int(serial), request_id, tag, int(prompt), int(cached), int(made), over == "1")
