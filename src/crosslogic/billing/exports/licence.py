"""Licence files for sites that no network reaches: what they may run, until when, signed with Ed25519.

Invariant: a licence counts only as the very bytes that were signed; nothing is looked up anywhere.
"""

import base64
import binascii
from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from crosslogic.kernel.errors import ConfigurationError

_BEGIN, _END = "-----BEGIN CROSSLOGIC LICENCE-----", "-----END CROSSLOGIC LICENCE-----"
_DOMAIN = b"crosslogic licence 1\n"
EXPIRES_SOON = timedelta(days=30)
GRACE = timedelta(days=14)  # after its end
WARN_PERCENT, GRACE_PERCENT = 80, 110  # of what was sold


class Licence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was sold. None: no such bound."""

    id: str
    licensee: str
    issued_at: datetime
    expires_at: datetime
    nodes: int | None = None
    tokens_per_month: int | None = None

    def standing(self, now: datetime) -> str:
        """`not yet`, `valid`, `expires soon` or `expired`."""
        if now < self.issued_at - timedelta(days=1):  # a site's clock may be behind
            return "not yet"
        if now >= self.expires_at:
            return "expired"
        return "expires soon" if now >= self.expires_at - EXPIRES_SOON else "valid"


class Stage(StrEnum):
    WITHIN = "within"
    WARNED = "warned"  # close to a bound
    IN_GRACE = "in_grace"  # beyond it, and nothing is refused yet
    EXCEEDED = "exceeded"  # the site may not grow: no new organisations, no new nodes; what there is goes on


class Used(msgspec.Struct, frozen=True):
    nodes: int
    tokens_this_month: int


class Bound(msgspec.Struct, frozen=True):
    """Where a site stands at one of the bounds of its licence."""

    name: str  # "term", "nodes" or "tokens_per_month"
    stage: Stage
    used: str
    allowed: str


def bounds(licence: Licence, used: Used, now: datetime) -> list[Bound]:
    """Where a site stands. Pure; the worst of them counts."""
    found = [Bound("term", _term(licence, now), now.date().isoformat(), licence.expires_at.date().isoformat())]
    for name, amount, most in (
        ("nodes", used.nodes, licence.nodes),
        ("tokens_per_month", used.tokens_this_month, licence.tokens_per_month),
    ):
        if most is not None:
            found.append(Bound(name, _stage(amount, most, warns=name != "nodes"), str(amount), str(most)))
    return found


def worst(found: Iterable[Bound]) -> Stage:
    order = list(Stage)
    return max((each.stage for each in found), key=order.index, default=Stage.WITHIN)


def _term(licence: Licence, now: datetime) -> Stage:
    if now >= licence.expires_at + GRACE:
        return Stage.EXCEEDED
    standing = licence.standing(now)
    return {"expired": Stage.IN_GRACE, "expires soon": Stage.WARNED}.get(standing, Stage.WITHIN)


def _stage(amount: int, most: int, *, warns: bool) -> Stage:
    """A tenth more is grace, and at least one; that all nodes are in use is no news."""
    if amount > max(most + 1, most * GRACE_PERCENT // 100):
        return Stage.EXCEEDED
    if amount > most:
        return Stage.IN_GRACE
    return Stage.WARNED if warns and amount * 100 >= most * WARN_PERCENT else Stage.WITHIN


def new_keys() -> tuple[bytes, bytes]:
    """A private and a public key, as PEM."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private, key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def sign(licence: Licence, private_pem: bytes) -> str:
    """The licence file. Raises ConfigurationError for a key that is none."""
    try:
        key = load_pem_private_key(private_pem, password=None)
    except (ValueError, TypeError):
        raise ConfigurationError("the signing key cannot be read; make one with `crosslogic licence keys`") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigurationError("the signing key is no Ed25519 key")
    content = msgspec.json.encode(licence, order="deterministic")
    lines = [base64.b64encode(part).decode() for part in (content, key.sign(_DOMAIN + content))]
    return "\n".join((_BEGIN, *lines, _END, ""))


def read(text: str, public_pem: bytes) -> Licence:
    """Raises ConfigurationError for a file that was not signed with this key."""
    lines = [line.strip() for line in text.strip().splitlines()]
    if len(lines) != 4 or lines[0] != _BEGIN or lines[3] != _END:
        raise ConfigurationError("this is no licence file")
    try:
        key = load_pem_public_key(public_pem)
        content, signature = (base64.b64decode(line, validate=True) for line in lines[1:3])
    except (ValueError, TypeError, binascii.Error):
        raise ConfigurationError("the licence file or the key that it is checked with cannot be read") from None
    if not isinstance(key, Ed25519PublicKey):
        raise ConfigurationError("the key that licences are checked with is no Ed25519 key")
    try:
        key.verify(signature, _DOMAIN + content)
        return msgspec.json.decode(content, type=Licence)
    except (InvalidSignature, msgspec.MsgspecError):
        raise ConfigurationError("the licence file is not signed with the key that it is checked with") from None
