"""Join tokens: with one of them a machine becomes a node, once.

A token is the seed of an Ed25519 key and the fingerprint of the CA. Its holder signs the request with that key, so
the token itself never travels, and knows control by the fingerprint, so that joining is safe over plain HTTP: who
listens learns nothing, who replays gets a certificate for a key that is not theirs, who answers in control's place
is found out. What is stored is the SHA-256 of the public key.
"""

import base64
import binascii
import hashlib
import os

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from crosslogic.kernel.errors import ConfigurationError, Unauthenticated

PREFIX = "clsk_join_"
_SEED_BYTES = 32
_FINGERPRINT_BYTES = 32
_DOMAIN = b"crosslogic join 1\n"


class JoinToken(msgspec.Struct, frozen=True):
    """What the text of a token holds."""

    seed: bytes
    ca_fingerprint: bytes  # SHA-256 of the CA certificate

    def __repr__(self) -> str:
        return "JoinToken(…)"

    @property
    def text(self) -> str:
        """What is shown once to whoever made the token."""
        return PREFIX + base64.urlsafe_b64encode(self.seed + self.ca_fingerprint).rstrip(b"=").decode()

    @property
    def public_key(self) -> bytes:
        return self._key().public_key().public_bytes_raw()

    def signature(self, csr_der: bytes, node_id: str) -> bytes:
        """Proof that the holder of the token asks for this request and node id ("": any)."""
        return self._key().sign(_signed(csr_der, node_id))

    def _key(self) -> Ed25519PrivateKey:
        return Ed25519PrivateKey.from_private_bytes(self.seed)


def new_token(ca_fingerprint: bytes) -> JoinToken:
    return JoinToken(os.urandom(_SEED_BYTES), ca_fingerprint)


def read_token(text: str) -> JoinToken:
    """The token in `text`. Raises ConfigurationError; the message does not repeat it."""
    body = text.strip().removeprefix(PREFIX)
    try:
        raw = base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    except (binascii.Error, ValueError):
        raw = b""
    if not text.strip().startswith(PREFIX) or len(raw) != _SEED_BYTES + _FINGERPRINT_BYTES:
        raise ConfigurationError("this is no join token; make one with `crosslogic nodes token create`")
    return JoinToken(raw[:_SEED_BYTES], raw[_SEED_BYTES:])


def stored_hash(public_key: bytes) -> bytes:
    """What the database keeps of a token."""
    return hashlib.sha256(_DOMAIN + public_key).digest()


def check_signature(public_key: bytes, signature: bytes, csr_der: bytes, node_id: str) -> None:
    """Raises Unauthenticated unless the holder of the token made this very request."""
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, _signed(csr_der, node_id))
    except (InvalidSignature, ValueError):
        raise Unauthenticated("the request is not signed with a join token") from None


def _signed(csr_der: bytes, node_id: str) -> bytes:
    return _DOMAIN + hashlib.sha256(csr_der).digest() + node_id.encode()
