"""Which part of a prompt the prefix cache already holds: whole blocks, least recently used out first.

Pure. It only answers how many tokens need no prefill; the engine still counts the blocks of every sequence, so
the cache never makes room appear that is not there.
"""

import zlib
from collections import OrderedDict


class PrefixCache:
    """Remembers chains of blocks by their hash, at most `capacity_blocks` of them."""

    def __init__(self, capacity_blocks: int, block_tokens: int = 16) -> None:
        self._capacity = capacity_blocks
        self._block_tokens = block_tokens
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def claim(self, pieces: list[str]) -> int:
        """How many leading tokens are cached; afterwards all of the prompt's whole blocks are."""
        hit = 0
        missed = False
        chain = 0
        size = self._block_tokens
        for start in range(0, len(pieces) - size + 1, size):
            # Two checksums of different texts make a 64-bit key, chained so that equal blocks differ by what precedes.
            block = "\x00".join(pieces[start : start + size]).encode("utf-8", "surrogatepass")
            chain = hash((chain, zlib.crc32(block), zlib.adler32(block), len(block)))
            if chain in self._blocks:
                self._blocks.move_to_end(chain)
                if not missed:
                    hit += size
            else:
                missed = True
                self._blocks[chain] = None
        while len(self._blocks) > self._capacity:
            self._blocks.popitem(last=False)
        return hit
