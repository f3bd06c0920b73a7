"""Reads the certificate authority of nodes, or makes it: for control, and for gateways that nodes dial.

Invariant: its key is in a file that only its owner reads, or came as a secret.
"""

from pathlib import Path

from crosslogic.fleet.authority import Authority, create_authority, load_authority
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.sections import ControlSettings
from crosslogic.wiring.credentials import write_private

NEW_SERVER_CERTIFICATE_S = 86_400.0


def has_authority(settings: ControlSettings, directory: Path) -> bool:
    """Whether the CA is on this machine already."""
    return settings.ca_certificate_file is not None or (directory / "ca.key").exists()


def read_or_create_authority(settings: ControlSettings, directory: Path, clock: Clock) -> Authority:
    """The CA that is configured, else the one in `directory`, made at the first start. Raises ConfigurationError."""
    if settings.ca_certificate_file is not None:
        if settings.ca_key is not None:
            private = settings.ca_key.get_secret_value().encode()
        elif settings.ca_key_file is not None:
            private = _read(settings.ca_key_file)
        else:
            raise ConfigurationError("control.ca_certificate_file needs control.ca_key_file or control.ca_key")
        return load_authority(_read(settings.ca_certificate_file), private)
    certificate, key = directory / "ca.pem", directory / "ca.key"
    if certificate.exists() and key.exists():
        if key.stat().st_mode & 0o077:
            raise ConfigurationError(f"others may read {key}; run `chmod 600 {key}`")
        return load_authority(_read(certificate), _read(key))
    authority = create_authority(clock.now())
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    write_private(key, authority.private_pem())
    write_private(certificate, authority.ca_pem)
    return authority


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
