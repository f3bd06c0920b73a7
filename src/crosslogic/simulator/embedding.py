"""Vectors for texts: words hashed into signed buckets, so that texts which share words lie close together.

Pure and deterministic. Not a language model, but enough for a retrieval pipeline to find what it should.
"""

import base64
import math
import re
import struct
import zlib

DEFAULT_DIMENSIONS = 1024
_WORD = re.compile(r"\w+")
_BUCKETS_PER_WORD = 4


def embed(text: str, dimensions: int = DEFAULT_DIMENSIONS) -> list[float]:
    """A unit vector of this many dimensions."""
    vector = [0.0] * dimensions
    for word in _WORD.findall(text.lower()) or [text]:
        data = word.encode("utf-8", "surrogatepass")
        mark = zlib.crc32(data)
        for _ in range(_BUCKETS_PER_WORD):
            vector[(mark >> 1) % dimensions] += 1.0 if mark & 1 else -1.0
            mark = zlib.crc32(data, mark)
    norm = math.sqrt(sum(v * v for v in vector))
    if norm == 0.0:  # the signs cancelled out
        vector[zlib.crc32(text.encode("utf-8", "surrogatepass")) % dimensions] = norm = 1.0
    return [v / norm for v in vector]


def similarity(first: str, second: str) -> float:
    """How much two texts have in common, from 0 to 1."""
    return max(0.0, sum(a * b for a, b in zip(embed(first), embed(second), strict=True)))


def as_base64(vector: list[float]) -> str:
    """Little-endian 32-bit floats, as OpenAI's `encoding_format: base64`."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
