"""Makes a recording of an answer: of a stream while it passes to its caller, of a whole answer when it is there. Pure.

Invariant: what is kept is exactly what was written to the caller; beyond `most_bytes` nothing is kept at all, so
that a long answer costs no memory.
"""

import msgspec

from crosslogic.cache.model import Form, Question, Recording, Tokens

STREAM_TYPE = b"text/event-stream; charset=utf-8"
_BROKEN_OFF = ("abort", "error")  # finish reasons of engines that gave up


class Answered(msgspec.Struct, frozen=True):
    """A completed answer, when its caller is about to see the end of it."""

    model: str  # who answered: a fallback perhaps
    streamed: bool
    status: int
    content_type: bytes  # of an answer that was not streamed
    body: bytes  # the whole body; of a stream the piece that ends it
    tokens: Tokens
    by_engine: bool  # the engine itself told the tokens
    finish_reason: str | None = None

    def fits(self, question: Question) -> bool:
        """Whether others who ask the same may have this answer too."""
        return (
            self.by_engine
            and self.model == question.model
            and self.streamed == (question.form is not Form.WHOLE)
            and self.finish_reason not in _BROKEN_OFF
        )


class Tap:
    """Give it each packet that the caller is sent, then have it make the recording."""

    __slots__ = ("_most_bytes", "_pieces", "_size_bytes", "overflowed")

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._pieces: list[bytes] = []
        self._size_bytes = 0
        self.overflowed = False

    def take(self, piece: bytes) -> None:
        """Keep one packet."""
        if self.overflowed or not piece:
            return
        self._size_bytes += len(piece)
        if self._size_bytes > self._most_bytes:
            self.overflowed = True
            self._pieces.clear()
            return
        self._pieces.append(piece)

    def record(self, question: Question, answered: Answered) -> Recording | None:
        """The recording, the end included; None when it is too long."""
        self.take(answered.body)
        if self.overflowed:
            return None
        return Recording(
            question.request_id,
            answered.model,
            answered.streamed,
            answered.status,
            STREAM_TYPE if answered.streamed else answered.content_type,
            tuple(self._pieces),
            answered.tokens,
            answered.finish_reason,
            question.env_id,
            question.endpoint,
        )
