"""The keys of an embedded cloud, kept for its next start in a file that only its owner reads."""

import os
from pathlib import Path

import msgspec

FILE_NAME = "credentials.json"


class Credentials(msgspec.Struct, omit_defaults=True):
    """`base_url` is where the last start listened; the admin commands read it."""

    api_key: str | None = None
    admin_key: str | None = None
    base_url: str | None = None

    def __repr__(self) -> str:
        return f"Credentials({self.base_url})"


def read_credentials(data_dir: Path) -> Credentials:
    """What an earlier start left; empty when there was none, or when the file is damaged."""
    try:
        return msgspec.json.decode((data_dir / FILE_NAME).read_bytes(), type=Credentials)
    except (FileNotFoundError, msgspec.DecodeError):
        return Credentials()


def write_private(path: Path, content: bytes) -> None:
    """Replace a file in one step; nobody else can read it, nobody sees half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def write_credentials(data_dir: Path, credentials: Credentials) -> None:
    write_private(data_dir / FILE_NAME, msgspec.json.encode(credentials))
