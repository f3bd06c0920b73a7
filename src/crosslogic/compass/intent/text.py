"""A turn as it is read: normalised, bounded, cut into clauses. Pure.

Invariant: every step costs time in proportion to the text, which is cut at `MOST_CHARACTERS`; offsets stay those of
the normalised text.
"""

import re
import unicodedata

import msgspec

from crosslogic.compass.intent.languages import in_english
from crosslogic.compass.intent.spelling import corrected

MOST_CHARACTERS = 20_000
MOST_TURNS = 200

_BREAK = re.compile(
    r"[.;!?:\n\r]+(?=\s|$)|,(?=\s)|\s[—–-]{1,2}\s|\(|\)|\b(?:but|however|although|though|"
    r"whereas|we'd rather|we would rather)\b"
)
_QUOTES = str.maketrans({"’": "'", "‘": "'", "“": '"', "”": '"', "\u00a0": " ", "\u202f": " ", "−": "-", "‑": "-"})


class Clause(msgspec.Struct, frozen=True):
    start: int
    end: int
    text: str


class Text(msgspec.Struct, frozen=True):
    """`raw` is what was said with slips put right and in English; `lower` has the same length."""

    said: str
    raw: str
    lower: str
    clauses: tuple[Clause, ...]
    cut: bool  # whether something was left out

    def clause_at(self, position: int) -> int:
        """The index of the clause that a position is in."""
        low, high = 0, len(self.clauses) - 1
        while low < high:
            middle = (low + high + 1) // 2
            if self.clauses[middle].start <= position:
                low = middle
            else:
                high = middle - 1
        return low

    def clause_of(self, position: int) -> str:
        return self.clauses[self.clause_at(position)].text if self.clauses else ""


def read(content: str) -> Text:
    cut = len(content) > MOST_CHARACTERS
    raw = unicodedata.normalize("NFKC", content[:MOST_CHARACTERS].translate(_QUOTES))[: 2 * MOST_CHARACTERS]
    said = "".join(c if c.isprintable() or c == "\n" else " " for c in raw)
    raw = corrected(in_english(said))
    lower = "".join(each if len(each := c.lower()) == 1 else c for c in raw)
    return Text(said, raw, lower, tuple(_clauses(lower)), cut)


def _clauses(lower: str) -> list[Clause]:
    clauses = []
    start = 0
    for found in _BREAK.finditer(lower):
        # A word that breaks ("but") begins its clause, a sign ends the one before.
        end = found.start() if found[0][0].isalpha() else found.end()
        if lower[start:end].strip():
            clauses.append(Clause(start, end, lower[start:end]))
            start = end
    if lower[start:].strip() or not clauses:
        clauses.append(Clause(start, len(lower), lower[start:]))
    return clauses
