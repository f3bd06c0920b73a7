"""One request on its way through the engine: its sequences, what has been sent of it, and how it ends.

Invariant: a job ends exactly once, as finished, failed or cancelled, and from then on holds no seat in the engine.
Faults act here, at the border between what the engine made and what the client gets to see.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from crosslogic.simulator.faults import Fault
from crosslogic.simulator.model import Sequence
from crosslogic.simulator.replies import ENGINE_DEAD, Usage, Writer

if TYPE_CHECKING:
    from crosslogic.net.exchange import Exchange

JSON_LINES = b"content-type: application/json\r\n"
STREAM_LINES = b"content-type: text/event-stream; charset=utf-8\r\ncache-control: no-cache\r\n"
_BROKEN_EVENT = b'data: {"id":"chatcmpl-broken","object":"chat.completion.chunk","choices":[{"ind\n\n'


# Answers an exchange with a status and a message, in the error shape of its path.
Refuse = Callable[["Exchange", int, str], None]


class Job:
    """One generating request. `made` counts tokens per choice; `events` those that the client was sent."""

    __slots__ = (
        "_on_crash",
        "_on_end",
        "_refuse",
        "events",
        "exchange",
        "fault",
        "finish_reason",
        "last_token_s",
        "lengths",
        "made",
        "over",
        "sequences",
        "started_s",
        "stream",
        "unfinished",
        "usage",
        "writer",
    )

    def __init__(
        self,
        exchange: Exchange,
        writer: Writer,
        sequences: list[Sequence],
        usage: Usage,
        *,
        finish_reason: str,
        stream: bool,
        fault: Fault,
        started_s: float,
        on_end: Callable[[Job], None],
        on_crash: Callable[[], None],
        refuse: Refuse,
    ) -> None:
        self.exchange = exchange
        self.writer = writer
        self.sequences = sequences
        self.usage = usage
        self.finish_reason = finish_reason  # of the whole request, for the metrics
        self.stream = stream
        self.fault = fault
        self.started_s = started_s
        self.last_token_s: float | None = None
        self.lengths = [s.output_tokens for s in sequences]
        self.made = [0] * len(sequences)
        self.unfinished = len(sequences)
        self.events = 0
        self.over = False
        self._on_end = on_end
        self._on_crash = on_crash
        self._refuse = refuse

    def begin(self) -> None:
        """The request is accepted. As vLLM, a stream's status and headers go out long before its first token."""
        if self.stream and not self.exchange.started:
            self.exchange.start(200, STREAM_LINES)
            if self.fault.error_before:
                self.fail()
            else:
                self._strike()

    def token(self, choice: int) -> bool:
        """The engine made one more token of this choice; true when it was the last one of the whole job."""
        self.made[choice] += 1
        made = self.made[choice]
        if self.stream:
            self._send(choice, made)
        if made == self.lengths[choice]:
            self.unfinished -= 1
        if self.unfinished or self.over:
            return False
        self._finish()
        return True

    def end(self) -> None:
        """No more of this job: it is finished, failed, or its client has left."""
        if not self.over:
            self.over = True
            self._on_end(self)

    def refuse(self, status: int, message: str) -> None:
        """The request never gets into the engine."""
        self._refuse(self.exchange, status, message)
        self.end()

    def fail(self) -> None:
        """The engine is dead: what a client of a crashed vLLM gets, by its API."""
        if self.over:
            return
        ending = self.writer.failure()
        if not self.exchange.started:
            self._refuse(self.exchange, 500, ENGINE_DEAD)
        elif ending is None:
            self.exchange.abort()
        else:
            self.exchange.end(ending)
        self.end()

    def _send(self, choice: int, made: int) -> None:
        if self.over or self._stalled():
            return
        opening = b"" if self.events else self.writer.opening()
        data = self.writer.token(choice, made)
        self.exchange.write(opening + (_BROKEN_EVENT if self.fault.malformed == self.events else data))
        self.events += 1
        self._strike()

    def _strike(self) -> None:
        """Commit the faults that are due after this many events."""
        if self.fault.crash is not None and self.events >= self.fault.crash:
            self._on_crash()
        elif self.fault.reset_after is not None and self.events >= self.fault.reset_after:
            self._cut(reset=True)
        elif self.fault.cut is not None and self.events >= self.fault.cut:
            self._cut(reset=False)

    def _stalled(self) -> bool:
        return self.fault.stall is not None and self.events >= self.fault.stall

    def _cut(self, *, reset: bool) -> None:
        self.exchange.abort(reset=reset)
        self.end()

    def _finish(self) -> None:
        if self._stalled():
            self.end()  # the engine is done with it, but the client never hears of that
            return
        usage = None if self.fault.no_usage else self.usage
        if self.stream:
            self.exchange.end(self.writer.ending(usage) + (b"" if self.fault.no_done else self.writer.done))
        else:
            self._respond(msgspec.json.encode(self.writer.whole(usage)))
        self.end()

    def _respond(self, body: bytes) -> None:
        """The whole answer; the faults of a stream strike in the middle of the body."""
        fault = self.fault
        if fault.crash is not None or fault.error_before:
            if fault.crash is not None:
                self._on_crash()
            self.fail()
        elif fault.cut is not None or fault.reset_after is not None or fault.stall is not None:
            self.exchange.start(200, JSON_LINES, len(body))
            self.exchange.write(body[: len(body) // 2])
            if fault.stall is None:
                self._cut(reset=fault.reset_after is not None)
        elif fault.malformed is not None:
            self.exchange.respond(200, JSON_LINES, body[: len(body) // 2])
        else:
            self.exchange.respond(200, JSON_LINES, body)
