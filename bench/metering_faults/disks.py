"""Small disks of this run alone, which can be filled and emptied again: tmpfs in a mount namespace of our own.

Nothing is left behind: the namespace and its mounts end with the last process in it.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_CLONE_NEWNS = 0x00020000
_MS_REMOUNT, _MS_REC, _MS_PRIVATE = 32, 16384, 1 << 18
_MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def own_mounts() -> bool:
    """Leave the machine's mount namespace; whether that is permitted. Call it before there are threads."""
    if _libc.unshare(_CLONE_NEWNS) != 0:
        return False
    return _mount(Path("/"), _MS_REC | _MS_PRIVATE, None) == 0


def _mount(path: Path, flags: int, options: str | None) -> int:
    """Of a tmpfs; returns 0 or an errno."""
    given = None if options is None else options.encode()
    if _libc.mount(b"tmpfs", os.fsencode(path), b"tmpfs", ctypes.c_ulong(flags), given) == 0:
        return 0
    return ctypes.get_errno()


class Disk:
    """A directory that is a disk of its own where mounts are permitted, else a mere directory."""

    def __init__(self, path: Path, size_mb: int, *, mounts: bool) -> None:
        self.path, self._size_mb = path, size_mb
        path.mkdir(parents=True, exist_ok=True)
        self.can_fill = mounts and _mount(path, 0, f"size={size_mb}m") == 0

    def fill(self) -> None:
        """From now on nothing more can be written: the disk is just as large as what is on it."""
        for _ in range(50):
            used = os.statvfs(self.path)
            blocks = max(1, used.f_blocks - used.f_bfree)  # 0 would be no bound at all, for good
            code = self._resized(str(blocks * used.f_frsize))
            if code == 0:
                return  # else somebody wrote in between
        raise OSError(code, os.strerror(code), str(self.path))

    def empty(self) -> None:
        code = self._resized(f"{self._size_mb}m")
        if code != 0:
            raise OSError(code, os.strerror(code), str(self.path))

    def close(self) -> None:
        if self.can_fill:
            _libc.umount2(os.fsencode(self.path), _MNT_DETACH)

    def _resized(self, size: str) -> int:
        return _mount(self.path, _MS_REMOUNT, f"size={size}")
