"""Packs and unpacks recordings for Redis: short ones at once, long ones off the event loop (zlib frees the GIL)."""

import asyncio

from crosslogic.cache import codec
from crosslogic.cache.model import Recording

OFF_LOOP_FROM_BYTES = 64 * 1024


async def packed(recording: Recording) -> bytes:
    """The recording as bytes."""
    if recording.size_bytes < OFF_LOOP_FROM_BYTES:
        return codec.write(recording)
    return await asyncio.get_running_loop().run_in_executor(None, codec.write, recording)


async def unpacked(value: bytes, most_answer_bytes: int) -> Recording | None:
    """The recording; None when it cannot be read, or is larger than any that we would have kept."""
    most_bytes = 2 * most_answer_bytes + 4096  # beside its bytes a recording has a few names, and a mark for each piece
    if len(value) < OFF_LOOP_FROM_BYTES // 4:
        return codec.read(value, most_bytes=most_bytes)
    loop = asyncio.get_running_loop()
    return await loop.run_in_executor(None, lambda: codec.read(value, most_bytes=most_bytes))
