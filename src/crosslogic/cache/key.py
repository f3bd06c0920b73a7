"""From a request to the digest that its answer is kept under. Pure.

Two requests have one digest exactly when they are of one org, environment, endpoint, model and form, and their
bodies are the same JSON value apart from `IGNORED`: order of members, white space and escapes do not count,
everything else does (also 0 against 0.0, and null against absence: a difference that means nothing costs a miss,
never a wrong answer).

Cost for a body of 4 KB: see `bench/micro/cache.py`. JSON and not MessagePack is hashed, because integers may be of
any size in JSON.
"""

import hashlib
import re
from typing import Any

import msgspec

from crosslogic.cache.model import CacheKey, Form, Question
from crosslogic.kernel.ids import OrgId

Fields = dict[str, Any]

# `model` and the form stand in the key by themselves, with aliases resolved; the rest goes to the engine without
# changing what it answers. `store` is harmless only when false: see `policy.has_side_effects`.
IGNORED = frozenset(
    (
        "cache_salt",
        "metadata",
        "model",
        "priority",
        "prompt_cache_key",
        "prompt_cache_retention",
        "request_id",
        "safety_identifier",
        "service_tier",
        "store",
        "stream",
        "stream_options",
        "user",
    )
)

_SHOWN = re.compile(r"[0-9a-f]{64}", re.ASCII)  # `bytes.fromhex` alone would take white space and capitals too

_decoder = msgspec.json.Decoder(dict[str, Any])
_canonical = msgspec.json.Encoder(order="deterministic").encode
_frame = msgspec.json.Encoder().encode


def read_fields(body: bytes) -> Fields | None:
    """The members of a JSON object; None for what cannot be compared, such as numbers beyond a double."""
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def meaning_of(fields: Fields) -> bytes:
    """Canonical JSON of what decides the answer."""
    return _canonical({name: value for name, value in fields.items() if name not in IGNORED})


def cache_key(question: Question, fields: Fields, meaning: bytes) -> CacheKey:
    """The key of a request whose body has these fields, and so this meaning."""
    options = _stream_options(question.form, fields)
    head = (question.org_id, question.env_id, question.endpoint, question.model, question.form, options)
    return CacheKey(question.org_id, _digest(head, meaning))


def key_named(org_id: OrgId, shown: str) -> CacheKey | None:
    """The key that one of this org was shown as (`x-cache-key`); None for what is no such name."""
    return CacheKey(org_id, bytes.fromhex(shown)) if _SHOWN.fullmatch(shown) else None


def fingerprint(question: Question) -> bytes:
    """What must be equal for a repeat of an idempotency key to be the same request: nothing is ignored here."""
    fields = read_fields(question.body)
    meaning = question.body if fields is None else _canonical({**fields, "model": question.model})
    return _digest((question.endpoint,), meaning)


def slot_digest(question: Question, idempotency_key: bytes) -> bytes:
    """Where an idempotency key of one org and endpoint is remembered."""
    return _digest((question.org_id, question.endpoint), idempotency_key)


def run_digest(slot: bytes, fingerprint: bytes) -> bytes:
    """What the runs of one request under one idempotency key have in common."""
    return hashlib.sha256(slot + fingerprint).digest()


def _stream_options(form: Form, fields: Fields) -> bytes:
    """What else changes the packets of a stream; whether usage was asked for is in the form."""
    options = fields.get("stream_options")
    if form is Form.WHOLE or not isinstance(options, dict):
        return b""
    others = {name: value for name, value in options.items() if name != "include_usage"}
    return _canonical(others) if others else b""


def _digest(head: tuple[object, ...], rest: bytes) -> bytes:
    """The head is a JSON array, which no continuation can turn into another one."""
    return hashlib.sha256(_frame(head) + b"\n" + rest).digest()
