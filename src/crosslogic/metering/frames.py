"""The journal's file format: bytes in, bytes out, no I/O.

    segment  =  header  frame*  zeros
    header   =  magic (8) · start of the writer in µs (u64) · segment number (u32) · CRC-32 of these (u32)
    frame    =  length of the payload (u32) · CRC-32 (u32) · payload: msgpack array of `Entry`

A frame is one group commit, so what was acknowledged together is readable together or not at all. Its checksum
is seeded with the header's and with its length: a frame of another segment, or a piece of one, never passes.
Invariant: what `read_frame` returns was written by `write_frame` with the same seed, in whole.
"""

import contextlib
import struct
import zlib
from collections.abc import Sequence
from enum import Enum

import msgspec

from crosslogic.metering.model import Checkpoint, Intent, UsageRecord, Withdrawal

Entry = Intent | Checkpoint | Withdrawal | UsageRecord

MAGIC = b"CLJOURN\x01"
_HEADER = struct.Struct("<8sQI")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<II")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_HEAD_BYTES = _FRAME.size

_encoder = msgspec.msgpack.Encoder()
_entries_decoder = msgspec.msgpack.Decoder(list[Entry])
_raw_decoder = msgspec.msgpack.Decoder(list[msgspec.Raw])
_entry_decoder = msgspec.msgpack.Decoder(Entry)


class Tail(Enum):
    """What stands where the next frame would begin."""

    FRAME = "frame"
    END = "end"  # zeros, or the end of the file
    MORE = "more"  # a frame may begin here, but the given bytes do not hold all of it
    TORN = "torn"  # neither: a write that did not finish, or damage


def header(start_us: int, number: int) -> bytes:
    head = _HEADER.pack(MAGIC, start_us, number)
    return head + _CRC.pack(zlib.crc32(head))


def header_seed(data: bytes) -> int | None:
    """The checksum seed of the segment that begins with `data`, or None when that is no valid header."""
    head = data[: _HEADER.size]
    if len(data) < HEADER_BYTES or head[: len(MAGIC)] != MAGIC:
        return None
    (crc,) = _CRC.unpack_from(data, _HEADER.size)
    return int(crc) if zlib.crc32(head) == crc else None


def write_frame(entries: Sequence[Entry], seed: int, buffer: bytearray) -> None:
    """Fill `buffer` with one frame.

    Raises UnicodeEncodeError or OverflowError for values that msgpack cannot carry (lone surrogates, integers
    over 64 bits).
    """
    _encoder.encode_into(entries, buffer, FRAME_HEAD_BYTES)
    length = len(buffer) - FRAME_HEAD_BYTES
    with memoryview(buffer) as view:
        crc = zlib.crc32(view[FRAME_HEAD_BYTES:], seed ^ length)
    _FRAME.pack_into(buffer, 0, length, crc)


def read_frame(data: memoryview, at: int, seed: int, *, left_bytes: int) -> tuple[Tail, int]:
    """What stands at `at`, and how many bytes of payload it has or needs.

    `left_bytes` is how much of the file there is from `at` on, whether or not `data` holds it.
    """
    if left_bytes < FRAME_HEAD_BYTES:
        return Tail.END, 0
    if len(data) - at < FRAME_HEAD_BYTES:
        return Tail.MORE, 0
    length, crc = _FRAME.unpack_from(data, at)
    if length == 0:
        return (Tail.END if crc == 0 else Tail.TORN), 0
    if length > left_bytes - FRAME_HEAD_BYTES:
        return Tail.TORN, 0
    payload = data[at + FRAME_HEAD_BYTES : at + FRAME_HEAD_BYTES + length]
    if len(payload) < length:
        return Tail.MORE, length
    return (Tail.FRAME if zlib.crc32(payload, seed ^ length) == crc else Tail.TORN), length


def decode_entries(payload: bytes | memoryview) -> tuple[list[Entry], int]:
    """The entries of a frame whose checksum holds, and how many of them only a later version understands."""
    try:
        return _entries_decoder.decode(payload), 0
    except msgspec.MsgspecError:
        pass
    try:
        raws = _raw_decoder.decode(payload)
    except msgspec.MsgspecError:
        return [], 1
    entries: list[Entry] = []
    for raw in raws:
        with contextlib.suppress(msgspec.MsgspecError):
            entries.append(_entry_decoder.decode(raw))
    return entries, len(raws) - len(entries)
