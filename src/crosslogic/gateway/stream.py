"""Reads a stream of server-sent events while it passes: usage, end, errors. Pure: bytes in, bytes out.

Invariants, for any cut of the same bytes into packets:
- only whole events are let through, and in their order;
- the end of the answer (`data: [DONE]`, or the dialect's last event) is held back in `held_end`, so that the
  caller can be shown it only after the usage record is durable;
- nothing that follows an error is let through; an event that is not JSON is left out and counted in `malformed`.

Each event is decoded once, in passing, into the few fields that matter here, and relayed as the bytes that came:
that costs under a microsecond, less than searching those bytes for what would make them interesting.
"""

import re
from enum import Enum, auto

import msgspec

from crosslogic.gateway.answer import MessagesUsage, OpenAiUsage, ResponsesUsage
from crosslogic.gateway.endpoints import Dialect
from crosslogic.metering.model import Usage

MAX_EVENT_BYTES = 8 * 1024 * 1024
MOST_PIECES = 512
MAX_MALFORMED = 8  # events; what writes more nonsense than that is no answer
DONE_EVENT = b"data: [DONE]\n\n"
MESSAGE_STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
_SEPARATOR = re.compile(rb"(\r\n\r\n|\n\n)")


class Fate(Enum):
    PASS = auto()
    DROP = auto()  # an event that the caller did not ask for
    END = auto()  # the answer is whole; this event and what follows are held back
    FAIL = auto()  # the engine reports an error, or writes nothing but nonsense


class StreamReader:
    """Framing and state common to the dialects; they override `_read`."""

    def __init__(self, *, asked_for_usage: bool, choices: int = 1) -> None:
        self.usage: Usage | None = None
        self.prompt_tokens: int | None = None  # where the engine tells them before its usage
        self.finish_reason: str | None = None
        self.held_end = b""
        self.failed = False
        self.error = b""  # what the engine says went wrong
        self.ended = False
        self.events_counted = 0  # events that carried generated tokens: about one token each
        self.malformed = 0
        self._asked_for_usage = asked_for_usage
        self._open_choices = choices  # that have not said why they ended
        self._partial = b""

    def feed(self, data: bytes) -> bytes:
        """Take a packet; return what may be sent to the caller now."""
        if self.failed:
            return b""
        if self._partial:
            data = self._partial + data
            self._partial = b""
        if data[-2:] != b"\n\n" and data[-4:] != b"\r\n\r\n":
            data = self._keep_partial(data)
        if not data:
            return b""
        if data.find(b"\n") == len(data) - 2 and data[:7] == b"data: {":
            return self._take_event(data, data[6:-2])  # nearly every packet: one event of one line
        pieces = _SEPARATOR.split(data)
        events = zip(pieces[0::2], pieces[1::2], strict=False)
        return b"".join([self._take_event(body + separator, _data_of(body)) for body, separator in events])

    @property
    def complete(self) -> bool:
        """Whether the answer is whole: each of its choices said why it ended; or it ended, and told its usage."""
        if self._open_choices <= 0:
            return True  # whatever came after that: an error, the end of the connection, or nothing
        return self.ended and not self.failed and (self.finish_reason is not None or self.usage is not None)

    @property
    def tokens_delivered(self) -> int:
        """At least so many generated tokens has the caller seen."""
        return self.events_counted

    def _keep_partial(self, data: bytes) -> bytes:
        """Split off the incomplete event at the end and keep it for the next packet."""
        lf, crlf = data.rfind(b"\n\n"), data.rfind(b"\r\n\r\n")
        cut = max(lf + 2 if lf >= 0 else 0, crlf + 4 if crlf >= 0 else 0)
        self._partial = data[cut:]
        if len(self._partial) > MAX_EVENT_BYTES:
            self.failed = True
        return data[:cut]

    def _take_event(self, event: bytes, data: bytes | None) -> bytes:
        """One whole event and the data in it; returns what may be sent of it."""
        if self.ended:
            self._after_end(event)
            return b""
        fate = Fate.FAIL if self.failed else self._fate(data)
        if fate is Fate.PASS:
            return event
        if fate is Fate.END:
            self.ended = True
            self.held_end = event
        elif fate is Fate.FAIL:
            self.failed = True
            self.error = self.error or data or b""  # what is said first
        return b""

    def _after_end(self, event: bytes) -> None:
        """What comes after the last event (vLLM's `[DONE]` after `response.completed`) belongs to the end."""
        if len(self.held_end) + len(event) <= MAX_EVENT_BYTES:
            self.held_end += event

    def _fate(self, data: bytes | None) -> Fate:
        if data is None:
            return Fate.PASS  # a comment, or an event without data
        if data == b"[DONE]":
            return Fate.END
        try:
            return self._read(data)
        except msgspec.ValidationError:
            self._passes_unread()
            return Fate.PASS  # an engine's own invention: JSON, but of a type that nobody expects
        except (msgspec.DecodeError, RecursionError):
            self.malformed += 1
            return Fate.DROP if self.malformed <= MAX_MALFORMED else Fate.FAIL

    def _read(self, data: bytes) -> Fate:
        raise TypeError("a dialect must say what an event means")

    def bound(self, most_chars: int) -> None:
        """Keep no more than so much of what has passed."""

    def _passes_unread(self) -> None:
        """The caller gets something that we do not understand."""


def _data_of(event: bytes) -> bytes | None:
    """The `data` of one event; several data lines are joined by newlines (WHATWG HTML, server-sent events)."""
    if event.startswith(b"data:") and b"\n" not in event:
        return event[5:].strip()
    lines = [line[5:].strip() for line in event.splitlines() if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


class _ChunkDelta(msgspec.Struct, gc=False):
    role: object = None
    content: object = None
    reasoning_content: object = None
    reasoning: object = None  # the same, as vLLM names it since 0.12
    tool_calls: object = None
    function_call: object = None

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing in it but role and content."""
        return not (self.reasoning_content or self.reasoning or self.tool_calls or self.function_call)


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    delta: _ChunkDelta | None = None
    text: object = None

    def carries_tokens(self) -> bool:
        """A first chunk may name just the role, a last one just the finish reason; all others carry tokens."""
        if self.text:
            return True
        delta = self.delta
        if delta is None:
            return self.finish_reason is None
        if delta.content or not delta.is_plain:
            return True
        return delta.role is None and self.finish_reason is None


class Kept:
    """What the caller has of an answer of one choice, as far as it is text."""

    __slots__ = ("event", "pieces", "plain", "reasoning")

    def __init__(self, *, single: bool) -> None:
        self.event = b""  # the last one's data: its names are those of the whole answer
        self.pieces: list[str] = []
        self.reasoning: list[str] = []
        self.plain = single  # False: there is, or may be, more to it than text

    def bound(self, most_chars: int) -> None:
        """Called now and then: many short strings take the room of a long one several times over."""
        if len(self.pieces) > MOST_PIECES:
            text = "".join(self.pieces)
            self.pieces = [text]
            if len(text) > most_chars:
                self.pieces, self.plain = [], False

    def take_silent(self, choice: _Choice) -> None:
        """An event without content: of a role, of reasoning, of a tool, of half a letter, of the end."""
        if choice.delta is not None and not choice.delta.is_plain:
            self.take_unusual(choice.delta)

    def take_unusual(self, delta: _ChunkDelta) -> None:
        reasoning = delta.reasoning or delta.reasoning_content
        if isinstance(reasoning, str) and not (delta.content or delta.tool_calls or delta.function_call):
            self.reasoning.append(reasoning)
        else:
            self.plain = False


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: OpenAiUsage | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class OpenAiStream(StreamReader):
    """Chat completions and completions. The usage chunk is dropped when the caller did not ask for it.

    The text of a single choice is kept, for another node may have to go on from there (`gateway/rescue`): it has
    been decoded anyhow.
    """

    _chunks = msgspec.json.Decoder(_Chunk)

    def __init__(self, *, asked_for_usage: bool, choices: int = 1) -> None:
        super().__init__(asked_for_usage=asked_for_usage, choices=choices)
        self.kept = Kept(single=choices == 1)

    def _read(self, data: bytes) -> Fate:
        chunk = self._chunks.decode(data)
        if chunk.error is not msgspec.UNSET and chunk.error != b"null":
            return Fate.FAIL
        if chunk.usage is not None:
            self.usage = self._usage_of(chunk.usage) or self.usage
            if not chunk.choices:
                return Fate.PASS if self._asked_for_usage else Fate.DROP
        kept = self.kept
        kept.event = data
        carries_tokens = False
        for choice in chunk.choices:
            delta = choice.delta
            text = choice.text if delta is None else delta.content
            if text and text.__class__ is str:
                carries_tokens = True
                kept.pieces.append(text)
                if delta is not None and delta.tool_calls is not None:
                    kept.take_unusual(delta)
            else:
                carries_tokens = carries_tokens or choice.carries_tokens()
                kept.take_silent(choice)
            if choice.finish_reason is not None:
                self.finish_reason = choice.finish_reason
                self._open_choices -= 1
        self.events_counted += carries_tokens
        return Fate.PASS

    def bound(self, most_chars: int) -> None:
        self.kept.bound(most_chars)

    def _usage_of(self, usage: OpenAiUsage) -> Usage | None:
        return usage.usage()

    def _passes_unread(self) -> None:
        self.kept.plain = False


class _Response(msgspec.Struct):
    usage: ResponsesUsage | None = None
    status: str | None = None


class _ResponsesEvent(msgspec.Struct):
    type: str = ""
    response: _Response | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class ResponsesStream(StreamReader):
    """`/v1/responses`: every event names its type; the last one carries the whole response with its usage."""

    _events = msgspec.json.Decoder(_ResponsesEvent)

    def _read(self, data: bytes) -> Fate:
        event = self._events.decode(data)
        if event.type in ("response.completed", "response.incomplete"):
            self.finish_reason = event.type.removeprefix("response.")
            if event.response is not None:
                self.finish_reason = event.response.status or self.finish_reason
                self.usage = event.response.usage.usage() if event.response.usage else None
            return Fate.END
        if event.type in ("response.failed", "error") or event.error not in (msgspec.UNSET, b"null"):
            return Fate.FAIL
        if event.type.endswith(".delta"):
            self.events_counted += 1
        return Fate.PASS


class _Message(msgspec.Struct):
    usage: MessagesUsage | None = None


class _Delta(msgspec.Struct):
    stop_reason: str | None = None


class _MessagesEvent(msgspec.Struct):
    type: str = ""
    message: _Message | None = None
    delta: _Delta | None = None
    usage: MessagesUsage | None = None


class MessagesStream(StreamReader):
    """Anthropic's `/v1/messages`: input usage comes with the first event, output usage with `message_delta`."""

    _events = msgspec.json.Decoder(_MessagesEvent)

    def __init__(self, *, asked_for_usage: bool, choices: int = 1) -> None:
        super().__init__(asked_for_usage=asked_for_usage, choices=choices)
        self._counts = MessagesUsage()

    def _read(self, data: bytes) -> Fate:
        event = self._events.decode(data)
        if event.type == "message_start" and event.message is not None and event.message.usage is not None:
            self._counts = event.message.usage
            counted = self._counts.usage()
            self.prompt_tokens = None if counted is None else counted.prompt_tokens
        elif event.type == "message_delta":
            if event.delta is not None and event.delta.stop_reason is not None:
                self.finish_reason = event.delta.stop_reason
                self._open_choices = 0
            if event.usage is not None:
                self._take(event.usage)
        elif event.type == "message_stop":
            return Fate.END
        elif event.type == "error":
            return Fate.FAIL
        elif event.type == "content_block_delta":
            self.events_counted += 1
        return Fate.PASS

    def _take(self, usage: MessagesUsage) -> None:
        """Counts in `message_delta` are totals; those it leaves out stay as `message_start` gave them."""
        counts = self._counts
        if usage.input_tokens is not None:
            counts.input_tokens = usage.input_tokens
        if usage.cache_read_input_tokens is not None:
            counts.cache_read_input_tokens = usage.cache_read_input_tokens
        if usage.output_tokens is not None:
            counts.output_tokens = usage.output_tokens
            self.usage = counts.usage()


_READERS: dict[Dialect, type[StreamReader]] = {
    Dialect.OPENAI: OpenAiStream,
    Dialect.RESPONSES: ResponsesStream,
    Dialect.MESSAGES: MessagesStream,
}


def missing_end(dialect: Dialect) -> bytes:
    """The end of a whole answer whose engine did not write it."""
    return {Dialect.OPENAI: DONE_EVENT, Dialect.MESSAGES: MESSAGE_STOP}.get(dialect, b"")


def stream_reader(dialect: Dialect, *, asked_for_usage: bool, choices: int = 1) -> StreamReader:
    """A reader for an answer of so many choices."""
    return _READERS[dialect](asked_for_usage=asked_for_usage, choices=choices)
