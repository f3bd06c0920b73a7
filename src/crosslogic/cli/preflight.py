"""What has to be true before a process starts: checked first, so that nothing is left half-started.

Every `require_…` raises ConfigurationError with a sentence that says what to do.
"""

import errno
import fcntl
import os
import resource
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from crosslogic.kernel.errors import ConfigurationError

MOST_OPEN_FILES = 1_048_576


def require_port(host: str, port: int, *, setting: str) -> None:
    """`port` of `host` can be listened on; 0 always can. `setting` says where another one is chosen."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror:
        raise ConfigurationError(f"{host!r} is no address of this machine; listen on 127.0.0.1 or 0.0.0.0") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
        except OSError as error:
            raise ConfigurationError(_why(error, host, port, setting)) from None


def require_directory(path: Path) -> None:
    """`path` exists, made if need be, and files can be written in it."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=path) as file:
            file.write(b"\0")
    except OSError as error:
        raise ConfigurationError(
            f"the data directory {path} cannot be written: {error.strerror}; choose another with --data-dir "
            "or CROSSLOGIC_DATA_DIR"
        ) from None


def require_place_for(path: Path, *, setting: str) -> None:
    """A file can be made at `path`, whose directory must be there. `setting` says where another one is chosen."""
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            return
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}; choose another {setting}") from None


@contextmanager
def directory_held(path: Path) -> Iterator[None]:
    """Keep `path` to this process; the lock goes with the process, however it ends."""
    with (path / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigurationError(
                f"another crosslogic uses the data directory {path}; stop it or choose another with --data-dir"
            ) from None
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def raise_open_files() -> int:
    """Let this process and its workers open as many files as they are allowed to; returns how many that is.

    A stream takes two connections, and systems start programs with 1,024 although they allow many more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MOST_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_OPEN_FILES)
    if soft == resource.RLIM_INFINITY or soft >= most:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):  # macOS refuses more than its kernel has, whatever it says
        return soft
    return most


def _why(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} on {host} is in use; stop the other program or choose another port with {setting}"
    if error.errno == errno.EACCES:
        return f"port {port} needs privileges that this user lacks; choose one above 1023 with {setting}"
    return f"cannot listen on {host}: {error.strerror}; listen on 127.0.0.1 or 0.0.0.0"
