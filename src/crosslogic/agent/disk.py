"""Keeps the weights on disk under a budget: the model that was used longest ago goes first.

Invariant: what is in use stays, whatever the budget says.
"""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec

_log = logging.getLogger(__name__)


class Kept(msgspec.Struct, frozen=True):
    """One model's weights on disk."""

    name: str
    size_bytes: int
    used_at_s: float
    in_use: bool = False


def to_remove(kept: Sequence[Kept], budget_bytes: int) -> list[str]:
    """Which to remove, oldest use first, so that the rest fits; what is in use never. Pure."""
    excess = sum(one.size_bytes for one in kept) - budget_bytes
    gone = []
    for one in sorted(kept, key=lambda one: (one.used_at_s, one.name)):
        if excess <= 0:
            break
        if not one.in_use:
            gone.append(one.name)
            excess -= one.size_bytes
    return gone


def clean_up(directory: Path, budget_bytes: int, in_use: Path) -> list[str]:
    """Apply `to_remove` to the folders in `directory`; returns what was removed. Blocking."""
    if not directory.is_dir():
        return []
    kept = [_kept(folder, folder == in_use) for folder in directory.iterdir() if folder.is_dir()]
    gone = to_remove(kept, budget_bytes)
    for name in gone:
        shutil.rmtree(directory / name, ignore_errors=True)
        _log.info("removed the weights %s: the disk has a budget", name)
    return gone


def _kept(folder: Path, in_use: bool) -> Kept:
    files = [path.stat() for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    # Fetching again touches each file, so its time says when an agent last wanted it.
    newest_s = max((state.st_mtime for state in files), default=folder.stat().st_mtime)
    return Kept(folder.name, sum(state.st_size for state in files), newest_s, in_use)
