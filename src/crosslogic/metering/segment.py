"""The journal's files: one lock for each life of a writer, and its numbered segments.

    {writer}-{start}.lock               flock held as long as the writer lives
    {writer}-{start}-{number}.journal   preallocated, filled front to back, cut to its data once full

Zeros are written, not merely allocated: into written blocks fdatasync has no metadata to commit, and a full disk
shows when a segment is made, not when a record is. The header is written last, so a segment with a header has its
whole size. A segment that ends where its data ends is finished: nobody will append to it.
"""

import contextlib
import errno
import fcntl
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Self

import msgspec

from crosslogic.metering.frames import HEADER_BYTES, header, header_seed

_ZEROS = bytes(1 << 20)
_LOCK_ATTEMPTS = 50
_LOCK_RETRY_S = 0.002
_WRITER = re.compile(r"[A-Za-z0-9_.]{1,64}")
_SEGMENT = re.compile(r"(?P<life>[A-Za-z0-9_.]{1,64}-[0-9a-f]{16})-(?P<number>\d{8})\.journal")
_LOCK = re.compile(r"(?P<life>[A-Za-z0-9_.]{1,64}-[0-9a-f]{16})\.lock")


class SegmentName(msgspec.Struct, frozen=True, order=True):
    life: str  # "{writer}-{start}"
    number: int

    @classmethod
    def parse(cls, file_name: str) -> Self | None:
        match = _SEGMENT.fullmatch(file_name)
        return cls(match["life"], int(match["number"])) if match else None

    @property
    def file_name(self) -> str:
        return f"{self.life}-{self.number:08d}.journal"


def life_name(writer: str, start_us: int) -> str:
    """Raises ValueError when the writer's name cannot be part of a file name."""
    if not _WRITER.fullmatch(writer):
        raise ValueError(f"a journal writer's name is up to 64 letters, digits, dots and underscores: {writer!r}")
    return f"{writer}-{start_us:016x}"


def lives_of_locks(file_names: Iterable[str]) -> set[str]:
    return {match["life"] for name in file_names if (match := _LOCK.fullmatch(name))}


class LifeLock:
    """Says that a writer lives, by a lock that the kernel drops however the process ends.

    Take it after forking: a child would inherit it and keep a dead writer alive.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self._path = path
        self._fd = fd

    @classmethod
    def take(cls, directory: Path, life: str) -> Self:
        """Blocks for up to 0.1 s. Raises OSError, BlockingIOError when a living writer has it."""
        path = directory / f"{life}.lock"
        for attempt in range(_LOCK_ATTEMPTS):
            fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.stat(path).st_ino == os.fstat(fd).st_ino:
                    return cls(path, fd)
            except (BlockingIOError, FileNotFoundError):
                # Somebody who cleans up looked at the new file (`is_alive` locks it for a moment) or removed it.
                if attempt == _LOCK_ATTEMPTS - 1:
                    os.close(fd)
                    raise
                time.sleep(_LOCK_RETRY_S)
            os.close(fd)
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    def release(self, *, remove: bool) -> None:
        if remove:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._fd)


def new_life(directory: Path, writer: str, start_us: int) -> tuple[LifeLock, str, int]:
    """The lock, the name and the start of a life that was not lived before: a clock that was set back may give the very
    microsecond of an earlier one, whose segments are still to be read. Raises OSError.
    """
    while True:
        life = life_name(writer, start_us)
        lock = LifeLock.take(directory, life)
        if not any(directory.glob(f"{life}-*.journal*")):
            return lock, life, start_us
        lock.release(remove=False)
        start_us += 1


def is_alive(directory: Path, life: str) -> bool:
    """Whether the writer still holds its lock."""
    try:
        fd = os.open(directory / f"{life}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


class Segment:
    """A segment open for appending. `synced_to` is how far its bytes are known to be on the disk."""

    def __init__(self, path: Path, fd: int, seed: int, size: int) -> None:
        self.path = path
        self.fd = fd
        self.seed = seed
        self._size = size
        self._written_to = HEADER_BYTES
        self.synced_to = HEADER_BYTES

    @classmethod
    def create(cls, directory: Path, name: SegmentName, start_us: int, size: int) -> Self:
        """Make a segment and its directory entry durable. Blocks for milliseconds. Raises OSError."""
        path = directory / name.file_name
        fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            for at in range(0, size, len(_ZEROS)):
                _write_all(fd, _ZEROS[: min(len(_ZEROS), size - at)], at)
            head = header(start_us, name.number)
            _write_all(fd, head, 0)
            os.fsync(fd)
            sync_directory(directory)
            seed = header_seed(head)
            assert seed is not None
            return cls(path, fd, seed, size)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise

    @property
    def capacity(self) -> int:
        """The longest frame that an empty segment of this size takes."""
        return self._size - HEADER_BYTES

    def fits(self, frame: bytearray) -> bool:
        return len(frame) <= self._size - self._written_to

    def write(self, frame: bytearray) -> None:
        """Put the frame into the page cache. Raises OSError."""
        _write_all(self.fd, frame, self._written_to)
        self._written_to += len(frame)

    def mark_synced(self) -> None:
        self.synced_to = self._written_to

    def finish(self) -> None:
        """Cut the zeros, and after a failure all that was not synced: such bytes are never trusted again.

        Where even that fails, the segment stays as it is until its writer is gone.
        """
        with contextlib.suppress(OSError):
            os.ftruncate(self.fd, self.synced_to)
        os.close(self.fd)

    def discard(self) -> None:
        """Remove a segment that holds nothing."""
        with contextlib.suppress(OSError):
            self.path.unlink()
        os.close(self.fd)


def sync_directory(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes | bytearray, at: int) -> None:
    written = os.pwrite(fd, data, at)
    while written < len(data):  # a short write comes before the error that explains it
        step = os.pwrite(fd, data[written:], at + written)
        if step == 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written += step
