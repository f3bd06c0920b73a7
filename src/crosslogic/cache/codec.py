"""How a recording is written where other processes read it: a mark, then MessagePack, compressed when that pays.

Invariant: `read(write(x))` is x; what cannot be read (another version's, damaged) is None and never an exception.
"""

import zlib

import msgspec

from crosslogic.cache.model import Recording

COMPRESSED_FROM_BYTES = 2048
_PLAIN, _ZLIB = b"\x01", b"\x02"

_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(Recording)


def write(recording: Recording) -> bytes:
    """Level 1: text shrinks to a third at about 100 MB/s; higher levels cost several times that for little."""
    plain = _encode(recording)
    if len(plain) >= COMPRESSED_FROM_BYTES:
        packed = zlib.compress(plain, 1)
        if len(packed) < len(plain):
            return _ZLIB + packed
    return _PLAIN + plain


def read(data: bytes, *, most_bytes: int) -> Recording | None:
    """The recording; None also when it would unpack to more than `most_bytes`."""
    mark, rest = data[:1], data[1:]
    try:
        if mark == _ZLIB:
            unpacking = zlib.decompressobj()
            rest = unpacking.decompress(rest, most_bytes)
            if not unpacking.eof:
                return None
        elif mark != _PLAIN:
            return None
        return _decoder.decode(rest)
    except (zlib.error, msgspec.MsgspecError, UnicodeDecodeError):
        return None
