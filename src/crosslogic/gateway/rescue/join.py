"""Replay and join: an answer is made again, and what equals the text that was delivered is left out. Pure.

Invariant: all that `take` has returned, joined to the delivered text, is the text of the replay; once the replay
says something else, nothing more is returned.
"""


class Matcher:
    """Compares a replay, piece by piece, with a text."""

    __slots__ = ("_at", "_text", "diverged")

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self.diverged = False

    @property
    def joined(self) -> bool:
        """Whether the replay has said all of the text."""
        return not self.diverged and self._at == len(self._text)

    def take(self, piece: str) -> str:
        """The next piece of the replay; returns what of it is beyond the text."""
        if self.diverged:
            return ""
        known = self._text[self._at : self._at + len(piece)]
        if not piece.startswith(known):
            self.diverged = True
            return ""
        self._at += len(known)
        return piece[len(known) :]


class Overlap:
    """White space that was delivered, but not resent, since chat templates trim it: it is not delivered again.

    What comes instead of it is let through: only the kind of white space can differ, and it is there already.
    """

    __slots__ = ("_left",)

    def __init__(self, chars: int) -> None:
        self._left = chars

    def take(self, piece: str) -> str:
        if not self._left:
            return piece
        rest = piece.lstrip()
        dropped = len(piece) - len(rest)
        if dropped > self._left:
            dropped = self._left
        self._left = 0 if rest else self._left - dropped
        return piece[dropped:]
