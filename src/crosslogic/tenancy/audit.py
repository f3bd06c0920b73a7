"""The audit log as values: who did what, when, with what before and after, in a chain of hashes. Pure.

Invariant: each entry's hash covers all of it and the hash of the entry before; numbers have no holes, and the head
says which entry is the last. So a changed, added, removed or moved entry is noticed, unless all that follow it and
the head are forged as well. With a pepper the hash is an HMAC: then forging takes the pepper too.
"""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

Digest = Callable[[bytes], bytes]

_DOMAIN = b"crosslogic audit 1\n"  # no API key begins like this, so one pepper serves both
_SECRET = frozenset({"key_hash", "token", "key", "api_key", "secret"})
REDACTED = "***"


class ActorKind(StrEnum):
    OPERATOR = "operator"  # with an admin key
    KEY = "key"  # a tenant's API key
    USER = "user"  # a tenant's user, with a JSON web token
    NODE = "node"  # a node, with its certificate or join token
    SYSTEM = "system"  # the product itself


class Actor(msgspec.Struct, frozen=True):
    """Who acts, and in which request."""

    kind: ActorKind
    id: str
    request_id: str | None = None


SYSTEM = Actor(ActorKind.SYSTEM, "crosslogic")


class AuditEntry(msgspec.Struct, frozen=True):
    """`before` and `after` are canonical JSON: of a change only the fields that differ, null where there is none."""

    seq: int
    at: datetime
    org_id: str | None
    actor_kind: str
    actor_id: str
    action: str  # "org.create", "key.revoke", …
    entity_id: str
    before: str | None
    after: str | None
    request_id: str | None
    hash: bytes = b""


class Head(msgspec.Struct, frozen=True):
    """The end of the chain; an empty one has number 0 and no hash."""

    seq: int
    hash: bytes


class Verdict(msgspec.Struct, frozen=True):
    """`entries` were found in order up to the first that is not, if there is one."""

    entries: int
    head: str  # hex; keep it elsewhere, and nobody can shorten the log unnoticed
    wrong_seq: int | None = None
    problem: str | None = None

    @property
    def intact(self) -> bool:
        return self.problem is None


def chained_hash(digest: Digest, previous: bytes, entry: AuditEntry) -> bytes:
    fields = msgspec.structs.asdict(entry)
    del fields["hash"]
    fields["at"] = entry.at.isoformat(timespec="microseconds")
    return digest(_DOMAIN + previous.hex().encode() + b"\n" + _json(fields).encode())


def follow(digest: Digest, head: Head, entries: Iterable[AuditEntry]) -> tuple[Head, Verdict | None]:
    """Check that `entries` go on from `head`: the new head, and what is wrong if something is."""
    for entry in entries:
        expected = head.seq + 1
        if entry.seq != expected:
            return head, _wrong(head, expected, f"entry {expected} is missing: {entry.seq} comes next")
        if chained_hash(digest, head.hash, entry) != entry.hash:
            return head, _wrong(head, expected, f"entry {expected} is not what was written")
        head = Head(entry.seq, entry.hash)
    return head, None


def ended(reached: Head, recorded: Head, last_seq: int) -> Verdict:
    """Judge the end: all entries were followed to `reached`, the database says `recorded` and `last_seq`."""
    if last_seq > recorded.seq:
        return _wrong(reached, recorded.seq + 1, f"entry {recorded.seq + 1} was added past the end of the chain")
    if reached.seq < recorded.seq:
        return _wrong(reached, reached.seq + 1, f"the log ends at entry {reached.seq}, it had {recorded.seq}")
    if reached.hash != recorded.hash:
        return _wrong(reached, reached.seq, "the end of the log is not what was written")
    return Verdict(reached.seq, reached.hash.hex())


def document(values: Mapping[str, Any] | None) -> str | None:
    """`values` as canonical JSON, secrets replaced."""
    if values is None:
        return None
    return _json({name: REDACTED if name in _SECRET else value for name, value in values.items()})


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of both that differ."""
    names = [name for name in after if before.get(name) != after[name]]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def _wrong(head: Head, seq: int, problem: str) -> Verdict:
    return Verdict(head.seq, head.hash.hex(), seq, problem)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=_plain)


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
