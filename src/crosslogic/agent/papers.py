"""The agent's key, certificate and CA, and where control is: files in its data directory.

Invariant: the key is made here, never leaves, and only its owner can read it; the files are replaced as one, so that
a certificate always belongs to its key.
"""

import base64
import os
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from crosslogic.agent.model import Certificate
from crosslogic.kernel.errors import ConfigurationError

FILE_NAME = "identity.json"


class Papers(msgspec.Struct, frozen=True):
    """Who this agent is, with all that proves it."""

    node_id: str
    region: str
    key_pem: str
    certificate_pem: str
    ca_pem: str
    control_host: str
    control_port: int
    got_at: datetime | None = None  # the certificate says an earlier time, for clocks that are behind

    def __repr__(self) -> str:
        return f"Papers({self.node_id})"

    def certificate(self) -> Certificate:
        read = x509.load_pem_x509_certificate(self.certificate_pem.encode())
        return Certificate(self.got_at or read.not_valid_before_utc, read.not_valid_after_utc)

    def is_valid(self, now: datetime) -> bool:
        return now < self.certificate().expires_at


class NewKey(msgspec.Struct, frozen=True):
    """A key with a request for its certificate."""

    key_pem: str
    csr_der: bytes

    def __repr__(self) -> str:
        return "NewKey()"


def new_key() -> NewKey:
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return NewKey(pem.decode(), request.public_bytes(serialization.Encoding.DER))


def ca_fingerprint(ca_pem: str) -> bytes:
    """SHA-256 of the CA's certificate. Raises ConfigurationError for what is no certificate."""
    try:
        return x509.load_pem_x509_certificate(ca_pem.encode()).fingerprint(hashes.SHA256())
    except ValueError:
        raise ConfigurationError("control answered with something that is no CA certificate") from None


def read_papers(data_dir: Path) -> Papers | None:
    """What an earlier start left; None where there is nothing. Raises ConfigurationError for a damaged file."""
    path = data_dir / FILE_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    if path.stat().st_mode & 0o077:
        raise ConfigurationError(f"others may read {path}; run `chmod 600 {path}`")
    try:
        return msgspec.json.decode(content, type=Papers)
    except msgspec.DecodeError:
        raise ConfigurationError(f"{path} is damaged; remove it, and join again with a new token") from None


def write_papers(data_dir: Path, papers: Papers) -> None:
    data_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    path = data_dir / FILE_NAME
    draft = path.with_name(f"{FILE_NAME}.part")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(msgspec.json.encode(papers))
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
