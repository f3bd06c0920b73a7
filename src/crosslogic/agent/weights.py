"""Fetches a model's weights from wherever they are kept, before the engine starts: over HTTP, or any file system that
fsspec knows (the extras `weights-s3`, `weights-gcs`, `weights-azure`), or a folder.

Invariants: a file appears under its name only whole and with the right checksum; what an interrupted fetch has got is
not fetched again; no name from the source leads out of the target directory.
"""

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from crosslogic.agent.http_files import HttpFiles
from crosslogic.kernel.errors import ConfigurationError, Unavailable

SUMS_FILE = "SHA256SUMS"
CHUNK_BYTES = 4 * 1024 * 1024
_PART = ".part"
_EXTRAS = {
    "s3": "weights-s3",
    "gs": "weights-gcs",
    "gcs": "weights-gcs",
    "az": "weights-azure",
    "abfs": "weights-azure",
}

_log = logging.getLogger(__name__)


def fetch_weights(source: str, target: Path, checksums: Mapping[str, str] | None = None) -> Path:
    """Bring `target` up to `source`: a URL or folder that holds the files. Returns `target`. Blocking.

    `checksums` are SHA-256 in hex by file name; a `SHA256SUMS` file at the source adds to them, and over HTTP, where
    there are no directories, it says which files there are. Raises ConfigurationError for what will not get better,
    Unavailable for what may.
    """
    system, root = _opened(source)
    try:
        sums = {**_sums(system, root), **(checksums or {})}
        names = sorted(sums) if _is_http(source) else list(_listed(system, root))
        if not names:
            raise ConfigurationError(f"there are no files at {_shown(source)}; over HTTP a {SUMS_FILE} must name them")
        for name in names:
            _fetch(system, f"{root.rstrip('/')}/{name}", _inside(target, name), sums.get(name))
    except FileNotFoundError:
        raise ConfigurationError(f"a file that should be at {_shown(source)} is not there") from None
    except PermissionError:
        raise ConfigurationError(f"the files at {_shown(source)} may not be read") from None
    except OSError as error:
        raise Unavailable(f"{_shown(source)} cannot be read now ({type(error).__name__})") from None
    return target


def _opened(source: str) -> tuple[Any, str]:
    """A file system, and the path of the source in it."""
    if _is_http(source):
        return HttpFiles(), source
    try:
        fsspec = import_module("fsspec")
        system, root = fsspec.core.url_to_fs(source)
    except ImportError:
        extra = _EXTRAS.get(urlsplit(source).scheme, "weights-s3")
        raise ConfigurationError(f"fetching weights needs more packages: pip install 'crosslogic[{extra}]'") from None
    except ValueError:
        raise ConfigurationError(f"{_shown(source)} is no address of weights") from None
    return system, str(root)


def _listed(system: Any, root: str) -> Iterator[str]:
    base = root.rstrip("/") + "/"
    for path in sorted(system.find(root)):
        name = str(path).removeprefix(base)
        if name != SUMS_FILE and not name.endswith(_PART):
            yield name


def _sums(system: Any, root: str) -> dict[str, str]:
    """What `sha256sum` writes: `<hex>  <name>` or `<hex> *<name>` on each line."""
    path = f"{root.rstrip('/')}/{SUMS_FILE}"
    try:
        text = bytes(system.cat_file(path)).decode("utf-8", "replace")
    except FileNotFoundError:
        return {}
    found = {}
    for line in text.splitlines():
        digest, _, name = line.strip().partition(" ")
        if len(digest) == 64 and name.strip(" *"):
            found[name.strip(" *")] = digest.lower()
    return found


def _fetch(system: Any, path: str, target: Path, digest: str | None) -> None:
    size = int(system.size(path) or 0)
    if target.exists() and target.stat().st_size == size and (digest is None or _digest(target) == digest):
        os.utime(target)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + _PART)
    have = part.stat().st_size if part.exists() else 0
    if have > size:
        part.unlink()
        have = 0
    _log.info("fetching %s, %d of %d bytes are here", target.name, have, size)
    with system.open(path, "rb", block_size=CHUNK_BYTES) as remote, part.open("ab") as local:
        remote.seek(have)
        while chunk := remote.read(CHUNK_BYTES):
            local.write(chunk)
        local.flush()
        os.fsync(local.fileno())
    if part.stat().st_size != size:
        raise OSError("the file ended early")
    if digest is not None and _digest(part) != digest:
        part.unlink()  # all of it is in doubt
        raise ConfigurationError(f"the checksum of {target.name} is wrong; what was fetched is thrown away")
    part.replace(target)


def _inside(target: Path, name: str) -> Path:
    """Raises ConfigurationError for a name that leads elsewhere."""
    parts = PurePosixPath(name)
    if parts.is_absolute() or ".." in parts.parts or "\\" in name or "\0" in name:
        raise ConfigurationError(f"{name!r} is no file name for weights")
    return target.joinpath(*parts.parts)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_http(source: str) -> bool:
    return urlsplit(source).scheme in ("http", "https")


def _shown(source: str) -> str:
    """Without what may be a secret: credentials and signatures in the URL."""
    parts = urlsplit(source)
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}" if parts.scheme else source
