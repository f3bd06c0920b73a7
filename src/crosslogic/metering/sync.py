"""Making a file durable without making the event loop wait: one fdatasync at a time, its end told to the loop.

`AioSync` asks the Linux kernel (io_submit with IOCB_CMD_FDSYNC, completion on an eventfd): no second Python thread
wakes, so nobody fights for the interpreter lock. `ThreadSync` works everywhere. Measured for one commit at a time on
a quiet machine they take equally long (0.15 ms), for 20 and 80 µs of CPU. But the kernel does the work on the very
core that asked; when other programs keep that core busy it took 1.5 ms where the thread, which may move, took
0.15 ms. So `FastestSync` has both and watches which is quicker now.

Invariant: `done` runs in the loop's thread, exactly once for each `start` that returned.
"""

import asyncio
import contextlib
import ctypes
import errno
import os
import platform
import queue
import select
import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

Done = Callable[[int], None]  # called with 0, or with the errno of the failure

# io_setup, io_destroy, io_getevents, io_submit
_SYSCALLS = {"x86_64": (206, 207, 208, 209), "aarch64": (0, 1, 4, 2)}
_IOCB_CMD_FDSYNC = 3
_IOCB_FLAG_RESFD = 1
_PROBE_TIMEOUT_S = 5.0
_MUCH_QUICKER = 0.5  # the thread is worth its CPU when it takes less than this share of the kernel's time
_FIRST_TURNS = 8  # alternating
_OTHER_TURN = 256

# macOS has no fdatasync
_sync_data: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)


class Sync(Protocol):
    def start(self, fd: int) -> None:
        """Begin an fdatasync. Raises OSError when it cannot even begin. One at a time."""
        ...

    def close(self) -> None:
        """Release what is held; nothing may be under way."""
        ...


OpenSync = Callable[[asyncio.AbstractEventLoop, Done], Sync]


class ThreadSync:
    """One thread that waits for file descriptors and syncs them."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        self._loop = loop
        self._done = done
        self._todo: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal-sync", daemon=True)
        self._thread.start()

    def start(self, fd: int) -> None:
        self._todo.put(fd)

    def close(self) -> None:
        self._todo.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (fd := self._todo.get()) is not None:
            code = 0
            try:
                _sync_data(fd)
            except OSError as error:
                code = error.errno or errno.EIO
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
                self._loop.call_soon_threadsafe(self._done, code)


class _Iocb(ctypes.Structure):
    """struct iocb of linux/aio_abi.h, little-endian."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("key", ctypes.c_uint32),
        ("rw_flags", ctypes.c_int32),
        ("opcode", ctypes.c_uint16),
        ("priority", ctypes.c_int16),
        ("fd", ctypes.c_uint32),
        ("buf", ctypes.c_uint64),
        ("nbytes", ctypes.c_uint64),
        ("offset", ctypes.c_int64),
        ("reserved", ctypes.c_uint64),
        ("flags", ctypes.c_uint32),
        ("resfd", ctypes.c_uint32),
    )


class _IoEvent(ctypes.Structure):
    """struct io_event of linux/aio_abi.h."""

    _fields_ = (
        ("data", ctypes.c_uint64),
        ("obj", ctypes.c_uint64),
        ("res", ctypes.c_int64),
        ("res2", ctypes.c_int64),
    )


class AioSync:
    """The kernel's own queue. Raises OSError at construction where the kernel or a sandbox does not offer it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, done: Done) -> None:
        numbers = _SYSCALLS.get(platform.machine())
        if not sys.platform.startswith("linux") or numbers is None or sys.byteorder != "little":
            raise OSError(errno.ENOSYS, "no asynchronous fdatasync on this platform")
        setup, self._destroy, getevents, submit = numbers
        self._loop = loop
        self._done = done
        # PyDLL keeps the interpreter lock: these calls take about a microsecond, taking the lock back takes more.
        self._syscall = ctypes.PyDLL(None, use_errno=True).syscall
        self._context = ctypes.c_ulong(0)
        self._checked(ctypes.c_long(setup), ctypes.c_long(1), ctypes.byref(self._context))
        self._event_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._iocb = _Iocb(opcode=_IOCB_CMD_FDSYNC, flags=_IOCB_FLAG_RESFD, resfd=self._event_fd)
        self._iocbs = (ctypes.POINTER(_Iocb) * 1)(ctypes.pointer(self._iocb))
        self._events = (_IoEvent * 1)()
        one = ctypes.c_long(1)
        self._submit_args = (ctypes.c_long(submit), self._context, one, self._iocbs)
        self._events_args = (ctypes.c_long(getevents), self._context, one, one, self._events, None)
        try:
            self._probe()
        except OSError:
            self._release()
            raise
        loop.add_reader(self._event_fd, self._completed)

    def start(self, fd: int) -> None:
        self._iocb.fd = fd
        self._checked(*self._submit_args)

    def close(self) -> None:
        self._loop.remove_reader(self._event_fd)
        self._release()

    def _probe(self) -> None:
        """Sync an unlinked file in memory once: old kernels and some sandboxes refuse only at submission."""
        fd = os.memfd_create("journal-probe", os.MFD_CLOEXEC)
        try:
            self.start(fd)
            if not select.select([self._event_fd], [], [], _PROBE_TIMEOUT_S)[0]:
                raise OSError(errno.ETIMEDOUT, "asynchronous fdatasync did not complete")
            if (code := self._collect()) != 0:
                raise OSError(code, os.strerror(code))
        finally:
            os.close(fd)

    def _completed(self) -> None:
        self._done(self._collect())

    def _collect(self) -> int:
        os.read(self._event_fd, 8)
        self._checked(*self._events_args)
        return -int(self._events[0].res)

    def _checked(self, *args: object) -> None:
        if self._syscall(*args) < 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))

    def _release(self) -> None:
        self._syscall(ctypes.c_long(self._destroy), self._context)
        os.close(self._event_fd)


class FastestSync:
    """The cheaper way while it is about as quick, the quicker one otherwise.

    Every so often the other one gets a turn, so that both are known. What a busy event loop adds to either is alike,
    and so decides nothing. Raises OSError where there is only one way.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, done: Done, cheap: OpenSync = AioSync, steady: OpenSync = ThreadSync
    ) -> None:
        self._done = done
        self._cheap = cheap(loop, self._completed)
        self._steady = steady(loop, self._completed)
        self._took_s = {self._cheap: 0.0, self._steady: 0.0}
        self._turn = 0
        self._current = self._cheap
        self._began_s = 0.0

    def start(self, fd: int) -> None:
        steady_now = self._took_s[self._steady] < self._took_s[self._cheap] * _MUCH_QUICKER
        self._turn += 1
        if self._turn <= _FIRST_TURNS:
            steady_now = self._turn % 2 == 0
        elif self._turn % _OTHER_TURN == 0:
            steady_now = not steady_now
        self._current = self._steady if steady_now else self._cheap
        self._began_s = time.monotonic()
        self._current.start(fd)

    def close(self) -> None:
        self._cheap.close()
        self._steady.close()

    def _completed(self, code: int) -> None:
        took_s, before_s = time.monotonic() - self._began_s, self._took_s[self._current]
        self._took_s[self._current] = before_s + (took_s - before_s) / 4 if before_s else took_s
        self._done(code)


def open_sync(loop: asyncio.AbstractEventLoop, done: Done) -> Sync:
    """The best that this platform has."""
    try:
        return FastestSync(loop, done)
    except OSError:
        return ThreadSync(loop, done)
