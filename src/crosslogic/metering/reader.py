"""Reading journals back: whole frames only, from any position, while the writer goes on writing.

Invariant: what is read is a prefix of what was appended to the segment, in order. A torn frame ends the reading,
since every commit waits for the one before it: behind a torn frame nothing was ever acknowledged.
"""

import os
from pathlib import Path

import msgspec

from crosslogic.metering.frames import (
    FRAME_HEAD_BYTES,
    HEADER_BYTES,
    Entry,
    Tail,
    decode_entries,
    header_seed,
    read_frame,
)
from crosslogic.metering.segment import SegmentName

SLICE_BYTES = 512 << 10


class Slice(msgspec.Struct, frozen=True):
    """What one reading gave."""

    entries: tuple[Entry, ...]
    next_offset: int  # where to read on
    tail: Tail  # what stands there: FRAME means that there is more to read now
    finished: bool  # nothing can be appended any more
    unknown: int = 0  # entries of a later version, left out


def list_segments(directory: Path) -> list[SegmentName]:
    """All segments in the order of writing, life by life. Raises OSError."""
    return sorted(name for file in os.listdir(directory) if (name := SegmentName.parse(file)) is not None)


def read_slice(path: Path, offset: int = 0, *, limit_bytes: int = SLICE_BYTES) -> Slice:
    """The frames from `offset` on (0: from the beginning), about `limit_bytes` of them, at least one if any.

    A segment whose header is not there yet reads as empty. Raises OSError.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(fd).st_size
        seed = header_seed(os.pread(fd, HEADER_BYTES, 0))
        if seed is None:
            return Slice((), 0, Tail.END, finished=False)
        return _read_frames(fd, max(offset, HEADER_BYTES), size, seed, limit_bytes)
    finally:
        os.close(fd)


def _read_frames(fd: int, start: int, size: int, seed: int, limit_bytes: int) -> Slice:
    # A poll that finds nothing new reads these few bytes only.
    data = memoryview(os.pread(fd, FRAME_HEAD_BYTES, start))
    entries: list[Entry] = []
    unknown = at = 0
    while True:
        tail, length = read_frame(data, at, seed, left_bytes=size - start - at)
        if tail is Tail.MORE and at == 0:
            # There is a frame; it may be longer than the slice.
            wanted = max(FRAME_HEAD_BYTES + length, limit_bytes)
            longer = memoryview(os.pread(fd, wanted, start))
            if len(longer) > len(data):
                data = longer
                continue
            tail = Tail.TORN  # the file was cut while we read it
        if tail is not Tail.FRAME:
            break
        known, skipped = decode_entries(data[at + FRAME_HEAD_BYTES : at + FRAME_HEAD_BYTES + length])
        entries += known
        unknown += skipped
        at += FRAME_HEAD_BYTES + length
    if tail is Tail.MORE:
        tail = Tail.FRAME
    finished = tail is Tail.END and start + at + FRAME_HEAD_BYTES > size
    return Slice(tuple(entries), start + at, tail, finished, unknown)
