"""JSON web tokens: signature, then claims (RFC 7515, RFC 7519, and what RFC 8725 advises).

Invariant: the algorithm is ours to choose, not the token's. HS256 is verified with the configured secret only,
RS256 and ES256 with the issuer's keys only, and every other algorithm, `none` first of all, is refused unread.
Headers that bring a key or an address along (`jwk`, `jku`, `x5u`, …) are never looked at.
"""

import binascii
import json
from base64 import urlsafe_b64decode
from collections.abc import Collection
from typing import Any

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.tenancy.claims import ClaimRules, Identity, Invalid, identity_of
from crosslogic.tenancy.jwks import IssuerKeys, PublicKey

MAX_TOKEN_BYTES = 8 * 1024
MAX_HEADER_BYTES = 1_024
MIN_SECRET_BYTES = 32  # RFC 7518 §3.2: as long as the hash
SYMMETRIC = "HS256"
ASYMMETRIC = ("RS256", "ES256")

UNKNOWN_KEY = Invalid("signed with a key that is not known")


class JwtVerifier:
    def __init__(
        self,
        rules: ClaimRules,
        clock: Clock,
        *,
        secret: bytes | None = None,
        issuer_keys: IssuerKeys | None = None,
        algorithms: Collection[str] | None = None,
    ) -> None:
        """`algorithms` narrows what secret and keys make possible. Raises ConfigurationError."""
        if secret is None and issuer_keys is None:
            raise ConfigurationError("JSON web tokens need auth.secret or auth.jwt.jwks_url")
        if secret is not None and len(secret) < MIN_SECRET_BYTES:
            raise ConfigurationError(f"auth.secret must have at least {MIN_SECRET_BYTES} bytes to sign tokens")
        possible = {SYMMETRIC} if secret is not None else set()
        possible |= set(ASYMMETRIC) if issuer_keys is not None else set()
        self.rules = rules
        self.issuer_keys = issuer_keys
        self._clock = clock
        self._secret = None if secret is None else _symmetric(secret)
        self._algorithms = possible if algorithms is None else possible & set(algorithms)
        if not self._algorithms:
            raise ConfigurationError("auth.jwt.algorithms leaves no algorithm that secret or jwks_url could verify")

    @property
    def version(self) -> int:
        """What was verified under another version has to be verified again."""
        return 0 if self.issuer_keys is None else self.issuer_keys.version

    def verify(self, token: bytes) -> Identity | Invalid:
        """Who this token says is calling. UNKNOWN_KEY when asking the issuer anew may help. Takes about 0.1 ms."""
        header = _header(token)
        if header is None:
            return Invalid("not a token")
        algorithm, key_id = header.get("alg"), header.get("kid")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            return Invalid("this algorithm is not allowed")
        if "crit" in header or not (key_id is None or isinstance(key_id, str)):
            return Invalid("a header that we do not understand")
        key = self._key(algorithm, key_id)
        if key is None:
            return UNKNOWN_KEY
        try:
            decoded = jwt.decode(token, key, algorithms=[algorithm])
        except (JoseError, ValueError, RecursionError):
            return Invalid("the signature is wrong")
        if not isinstance(decoded.claims, dict):
            return Invalid("no claims")
        return identity_of(decoded.claims, self.rules, self._clock.now().timestamp())

    async def verify_waiting(self, token: bytes) -> Identity | Invalid:
        """As `verify`; for a key that is not known the issuer is asked, if that was not done a moment ago."""
        found = self.verify(token)
        if found is not UNKNOWN_KEY or self.issuer_keys is None:
            return found
        await self.issuer_keys.refresh()
        return self.verify(token)

    def _key(self, algorithm: str, key_id: str | None) -> OctKey | PublicKey | None:
        if algorithm == SYMMETRIC:
            return self._secret
        return self.issuer_keys.find(algorithm, key_id) if self.issuer_keys is not None else None


def _symmetric(secret: bytes) -> OctKey:
    try:
        return OctKey.import_key(secret)
    except (JoseError, ValueError):
        raise ConfigurationError("auth.secret is a public key, which everybody knows; use a random secret") from None


def looks_like_token(token: bytes) -> bool:
    return len(token) <= MAX_TOKEN_BYTES and token.count(b".") == 2


def _header(token: bytes) -> dict[str, Any] | None:
    if not looks_like_token(token):
        return None
    encoded = token[: token.index(b".")]
    if len(encoded) > MAX_HEADER_BYTES:
        return None
    try:
        header = json.loads(urlsafe_b64decode(encoded + b"=" * (-len(encoded) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        return None
    return header if isinstance(header, dict) else None
