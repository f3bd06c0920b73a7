"""API keys as text: how they are made, recognised and hashed.

A key is `clsk_{live,test,admin}_`, 27 base62 digits of 160 random bits, and 6 base62 digits of the CRC32 of all
that stands before them: anyone can tell a mistyped or invented key offline, without a look-up.

Invariant: a key exists in plain text only where it is generated and where it is presented. What is stored is
`hash_key` of it: 160 random bits need no slow hash, but a pepper makes a stolen or forged table row worthless.
"""

import hashlib
import os
import re
import zlib
from collections.abc import Callable, Iterator
from enum import StrEnum

RANDOM_BITS = 160
_BODY_WIDTH = 27  # 62**27 > 2**160
_CHECK_WIDTH = 6  # 62**6 > 2**32
_SHOWN_DIGITS = 6
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# What secret scanners look for; `looks_valid` then checks the digits at the end.
PATTERN = "clsk_(live|test|admin)_[0-9A-Za-z]{33}"
_FORM = re.compile(PATTERN.encode())
_IN_TEXT = re.compile(f"{PATTERN}(?![0-9A-Za-z])")
_DIGIT = bytes(_ALPHABET.find(chr(code)) % 62 for code in range(256))  # the value of a base62 digit
_SHA256_BLOCK = 64


class KeyKind(StrEnum):
    LIVE = "live"
    TEST = "test"
    ADMIN = "admin"


KeyHasher = Callable[[bytes], bytes]


def generate(kind: KeyKind) -> str:
    """A new key from the operating system's random source."""
    return assemble(kind, os.urandom(RANDOM_BITS // 8))


def assemble(kind: KeyKind, random: bytes) -> str:
    """The key of these 20 random bytes. Raises ValueError when there are not 20."""
    if len(random) != RANDOM_BITS // 8:
        raise ValueError(f"a key takes {RANDOM_BITS // 8} random bytes, not {len(random)}")
    text = f"clsk_{kind.value}_{_base62(int.from_bytes(random), _BODY_WIDTH)}"
    return text + _check(text.encode())


def looks_valid(token: str | bytes) -> bool:
    """Whether this has the form of a key and its checksum is right; says nothing of whether it exists.

    Asked of every request before its key is looked up: half a microsecond.
    """
    raw = token.encode("utf-8", "replace") if isinstance(token, str) else token
    if _FORM.fullmatch(raw) is None:
        return False
    a, b, c, d, e, f = raw[-_CHECK_WIDTH:].translate(_DIGIT)
    return ((((a * 62 + b) * 62 + c) * 62 + d) * 62 + e) * 62 + f == zlib.crc32(raw[:-_CHECK_WIDTH])


def found_in(text: str) -> Iterator[str]:
    """The keys that stand somewhere in a text (a log, a repository, a paste), recognised without a look-up."""
    for match in _IN_TEXT.finditer(text):
        if looks_valid(match.group()):
            yield match.group()


def kind_of(token: str) -> KeyKind | None:
    """The kind of a well-formed key, else None."""
    return KeyKind(token.split("_")[1]) if looks_valid(token) else None


def shown_prefix(token: str) -> str:
    """What a key is recognised by in lists: its kind and first 6 random digits (35 of its 160 bits)."""
    return token[: token.rindex("_") + 1 + _SHOWN_DIGITS]


def key_hasher(pepper: bytes | None = None) -> KeyHasher:
    """The function from a key to the 32 bytes that are stored of it: SHA-256, or HMAC-SHA-256 under `pepper`."""
    if not pepper:
        return lambda token: hashlib.sha256(token).digest()
    # RFC 2104, with both padded blocks absorbed once: the hash of a key costs two copies and no key schedule.
    block = (hashlib.sha256(pepper).digest() if len(pepper) > _SHA256_BLOCK else pepper).ljust(_SHA256_BLOCK, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block))
    outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def hash_key(token: bytes) -> bytes:
        first = inner.copy()
        first.update(token)
        second = outer.copy()
        second.update(first.digest())
        return second.digest()

    return hash_key


def _check(text: bytes) -> str:
    return _base62(zlib.crc32(text), _CHECK_WIDTH)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
