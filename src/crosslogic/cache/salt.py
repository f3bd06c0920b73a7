"""`cache_salt`: keeps the prefix caches of vLLM apart for each org. Pure.

A node shares the KV blocks of equal prompt beginnings among all its callers, so the time to the first token tells
whether somebody has sent the same beginning before. With a salt that only we can compute, an org shares blocks with
itself alone (vLLM, `cache_salt` of all its endpoints: at most 128 characters, none of `@`, `/`, `\\` and NUL).

Invariant: whatever the caller's body says, the node sees our salt. It is written as the *last* member, and of equal
names the last one counts in every JSON parser that vLLM uses, however the name is spelt. A caller's own salt is
mixed into ours, so it divides that org's cache further and can never reach another org's.
"""

import base64
import hashlib
import hmac

import msgspec

from crosslogic.kernel.ids import OrgId


class _Own(msgspec.Struct):
    cache_salt: object = None


_own = msgspec.json.Decoder(_Own)


def cache_salt(secret: bytes, org_id: OrgId, own: str | None = None) -> bytes:
    """43 characters of base64url: HMAC-SHA256 of the org, and of the caller's own salt where there is one."""
    text = org_id.encode() if own is None else org_id.encode() + b"\0" + own.encode("utf-8", "replace")
    return base64.urlsafe_b64encode(hmac.digest(secret, text, hashlib.sha256)).rstrip(b"=")


class Salts:
    """Bodies with the salt of their org. The secret must be the same in all gateway workers, and stay the same."""

    def __init__(self, secret: bytes, *, most_orgs: int = 100_000) -> None:
        self._secret = secret
        self._most_orgs = most_orgs
        self._endings: dict[OrgId, bytes] = {}

    def __repr__(self) -> str:
        return "Salts()"

    def salted(self, body: bytes, org_id: OrgId) -> bytes:
        """The body of a request, a JSON object with at least one member, with the salt as its last member."""
        own = _own_salt(body) if b'"cache_salt"' in body else None
        ending = self._known_ending(org_id) if own is None else self._ending(org_id, own)
        return body[: body.rindex(b"}")] + ending

    def _known_ending(self, org_id: OrgId) -> bytes:
        ending = self._endings.get(org_id)
        if ending is None:
            if len(self._endings) >= self._most_orgs:
                self._endings.clear()
            ending = self._endings[org_id] = self._ending(org_id)
        return ending

    def _ending(self, org_id: OrgId, own: str | None = None) -> bytes:
        return b',"cache_salt":"%b"}' % cache_salt(self._secret, org_id, own)


def _own_salt(body: bytes) -> str | None:
    """What the caller gave; what is not a text is none."""
    try:
        own = _own.decode(body).cache_salt
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return own if isinstance(own, str) and own else None
