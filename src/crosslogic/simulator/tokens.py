"""A tokenizer that needs no vocabulary file: pieces of words, about 1.3 for an English word.

Invariant: splitting is a left-to-right match without look-ahead, so the first k pieces of a text, joined, split
into the same k pieces. What the simulator streams therefore counts to what it reports as usage.
"""

import re
import zlib

VOCABULARY_SIZE = 128_000
TEMPLATE_ID = VOCABULARY_SIZE  # stands for each token that a chat template adds; no piece has it

# A word with the space before it in runs of 7 letters, numbers in threes, line ends, punctuation, blanks; any
# other character (ideographs, emoji, underscores) stands alone.
_PIECE = re.compile(
    r" ?[A-Za-z\u00c0-\u024f\u0370-\u04ff]{1,7}| ?[0-9]{1,3}|\n{1,2}| ?[^\w\s]{1,3}|[^\S\n]{1,4}|.", re.DOTALL
)


def split(text: str) -> list[str]:
    """The pieces of a text; joined they are the text."""
    return _PIECE.findall(text)


def count(text: str) -> int:
    """How many tokens a text has."""
    return len(_PIECE.findall(text))


def token_id(piece: str) -> int:
    """A stable number for a piece; distinct pieces may share one, so there is no way back to the text."""
    return zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY_SIZE
