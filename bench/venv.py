"""The peers' virtual environment: made once from the hash-pinned bench/peers.lock, and again when the lock changes."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

HERE = Path(__file__).parent
LOCK = HERE / "peers.lock"
HOME = HERE / ".venvs" / "peers"


class NotInstalled(Exception):
    """The peers cannot be installed here; the message holds pip's last words."""


def peers_bin(say: Callable[[str], None]) -> Path:
    """The folder of the peers' programs, installed first when need be; raises NotInstalled."""
    mark, digest = HOME / "lock.sha256", hashlib.sha256(LOCK.read_bytes()).hexdigest()
    if mark.exists() and mark.read_text() == digest:
        return HOME / "bin"
    say("installing the peers from bench/peers.lock (about a minute, once)")
    shutil.rmtree(HOME, ignore_errors=True)
    _run(sys.executable, "-m", "venv", HOME)
    # The lock is whole: without --no-deps a newer release that another one asks for with an extra counts as unpinned.
    _run(HOME / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes", "-r", LOCK)
    mark.write_text(digest)
    return HOME / "bin"


def _run(*argv: str | Path) -> None:
    ended = subprocess.run([str(word) for word in argv], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise NotInstalled(ended.stderr.strip()[-400:] or f"{argv[0]} exited {ended.returncode}")
