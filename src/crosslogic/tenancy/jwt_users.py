"""`UserManager` over JSON web tokens.

Invariants: a token is verified once and then known by its hash until it expires, so that all but its first request
cost a digest and a look-up. A principal never outlives a change of its org, environment, user or plan, nor the key
that signed its token. How many are remembered is bounded; the oldest are forgotten, and verified again.
"""

import hashlib

import msgspec

from crosslogic.tenancy.claims import Identity, Invalid
from crosslogic.tenancy.directory import Directory
from crosslogic.tenancy.jwt import JwtVerifier
from crosslogic.tenancy.model import Principal

MAX_REMEMBERED = 10_000


class _Known(msgspec.Struct, gc=False):
    identity: Identity
    principal: Principal
    directory_version: int
    keys_version: int


class JwtUsers:
    def __init__(self, verifier: JwtVerifier, directory: Directory) -> None:
        self._verifier = verifier
        self._directory = directory
        self._known: dict[bytes, _Known] = {}

    def __len__(self) -> int:
        """How many tokens are remembered."""
        return len(self._known)

    def resolve(self, token: bytes) -> Principal | None:
        """The caller compares `expires_at_s` with its clock: an expired token is remembered as such for a while."""
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if known is None or known.keys_version != self._verifier.version:
            return self._verify(digest, token)
        if known.directory_version != self._directory.version:
            return self._identify_again(digest, known)
        return known.principal

    async def authenticate(self, token: bytes) -> Principal | None:
        digest = hashlib.sha256(token).digest()
        if digest in self._known:
            return self.resolve(token)
        return self._remember(digest, await self._verifier.verify_waiting(token))

    def _verify(self, digest: bytes, token: bytes) -> Principal | None:
        self._known.pop(digest, None)
        return self._remember(digest, self._verifier.verify(token))

    def _remember(self, digest: bytes, identity: Identity | Invalid) -> Principal | None:
        principal = self._identify(identity) if isinstance(identity, Identity) else None
        if principal is None or not isinstance(identity, Identity):
            return None
        while len(self._known) >= MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[digest] = _Known(identity, principal, self._directory.version, self._verifier.version)
        return principal

    def _identify_again(self, digest: bytes, known: _Known) -> Principal | None:
        principal = self._identify(known.identity)
        if principal is None:
            del self._known[digest]
            return None
        known.directory_version = self._directory.version
        if principal != known.principal:  # else the old one stays: limiters know its scopes by identity
            known.principal = principal
        return known.principal

    def _identify(self, identity: Identity) -> Principal | None:
        return self._directory.member(
            identity.org,
            identity.env,
            caller_id=caller_id(identity),
            role=identity.role,
            default_role=self._verifier.rules.default_role,
            email=identity.email,
            expires_at_s=identity.expires_at_s,
        )


def caller_id(identity: Identity) -> str:
    """What stands in the place of a key's id in limits and the ledger: the same for all tokens of one subject."""
    named = f"{identity.issuer}\n{identity.subject}".encode("utf-8", "surrogatepass")
    return f"jwt_{hashlib.sha256(named).hexdigest()[:24]}"
