"""Reads the stream of a node that goes on with an answer that another began, as the caller is to see it. Pure.

Invariants, whatever the cut: text delivered before and text let through here are together the answer's text; all
events carry the names of the first stream; the role is told once; usage is that of one answer.
"""

from typing import Any

import msgspec

from crosslogic.gateway.answer import OpenAiUsage
from crosslogic.gateway.rescue.join import Matcher, Overlap
from crosslogic.gateway.rescue.model import Delivered, Way, delivered_by
from crosslogic.gateway.stream import OpenAiStream
from crosslogic.metering.model import Usage


class NextLeg(OpenAiStream):
    """`way` says what the node was asked for; `resent_tokens` are those of the text that it was given."""

    def __init__(
        self,
        before: Delivered,
        way: Way,
        *,
        asked_for_usage: bool,
        choices: int = 1,
        overlap: int = 0,
        resent_tokens: int = 0,
    ) -> None:
        super().__init__(asked_for_usage=asked_for_usage, choices=choices)
        self.before = before
        self.way = way
        self.diverged = False
        self._names = before.names()
        self._overlap = Overlap(overlap)
        self._resent_tokens = resent_tokens
        joins = way is Way.JOINED
        self._text = Matcher(before.text if joins else "")
        self._reasoning = Matcher(before.reasoning if joins else "")
        self.prompt_tokens = before.prompt_tokens
        self._new_text: list[str] = []
        self._new_reasoning: list[str] = []

    @property
    def tokens_delivered(self) -> int:
        if self.way is Way.CONTINUED:
            return max(self.before.tokens, self._resent_tokens + self.events_counted)
        return max(self.before.tokens, self.events_counted)

    def delivered(self) -> Delivered:
        """What the caller has by now, of all legs."""
        before = self.before
        usage = self.usage
        return Delivered(
            before.text + "".join(self._new_text),
            before.reasoning + "".join(self._new_reasoning),
            self.tokens_delivered,
            before.plain and self.kept.plain,
            before.event or self.kept.event,
            prompt_tokens=before.prompt_tokens if usage is None else usage.prompt_tokens,
        )

    def bound(self, most_chars: int) -> None:
        """What this leg brings, in addition to what there was."""
        if sum(map(len, self._new_text)) + len(self.before.text) > most_chars:
            self.kept.plain = False
        super().bound(most_chars)

    def _usage_of(self, usage: OpenAiUsage) -> Usage | None:
        """The engine took the text for a part of its prompt; to the caller it is a part of the answer."""
        own = usage.usage()
        if own is None or self.way is not Way.CONTINUED:
            return own
        prompt = self.before.prompt_tokens
        if prompt is None:
            prompt = own.prompt_tokens - self._resent_tokens
        prompt = min(max(1, prompt), own.prompt_tokens)
        resent = own.prompt_tokens - prompt
        return Usage(prompt, resent + own.completion_tokens, min(own.cached_tokens, prompt), own.reasoning_tokens)

    def _take_event(self, event: bytes, data: bytes | None) -> bytes:
        shown = super()._take_event(event, data)
        if not shown or data is None:
            return shown
        chunk: Any = msgspec.json.decode(data)
        if not isinstance(chunk, dict):
            return shown
        chunk |= self._names
        if chunk.get("usage") and self.usage is not None:
            chunk["usage"] = usage_member(self.usage, chunk["usage"])
        choices = chunk.get("choices")
        if choices and isinstance(choices, list):
            told = [self._tells(choice) for choice in choices]
            if True not in told:
                return b""
        return b"" if self.failed else b"data: %b\n\n" % msgspec.json.encode(chunk)

    def _tells(self, choice: Any) -> bool:
        """Leave in a choice what the caller does not have; whether that is anything."""
        if not isinstance(choice, dict):
            return True
        delta = choice.get("delta")
        holder, name = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        if isinstance(delta, dict) and self._names:
            delta.pop("role", None)
        news = False
        for key, matcher, kept in (
            (name, self._text, self._new_text),
            (_reasoning_name(holder), self._reasoning, self._new_reasoning),
        ):
            piece = holder.get(key)
            if not isinstance(piece, str) or not piece:
                continue
            beyond = self._overlap.take(matcher.take(piece)) if key == name else matcher.take(piece)
            holder[key] = beyond
            kept.append(beyond)
            news = news or bool(beyond)
        ends = choice.get("finish_reason") is not None
        if self._text.diverged or self._reasoning.diverged or (ends and not self._joined):
            self.diverged = self.failed = True
            return False
        return news or ends or self._says_more(holder)

    @property
    def _joined(self) -> bool:
        return self._text.joined and self._reasoning.joined

    def _says_more(self, delta: dict[str, Any]) -> bool:
        """Tool calls and whatever else this answer may have where it is not compared."""
        if not self._names:
            return True  # the caller has not even seen who answers
        return any(value for name, value in delta.items() if name not in ("index", "content", "text", "role"))


def _reasoning_name(delta: dict[str, Any]) -> str:
    return "reasoning" if delta.get("reasoning") else "reasoning_content"


def usage_member(usage: Usage, given: Any = None) -> dict[str, Any]:
    """Usage as a chunk's member; what else the engine said of it stays."""
    found: dict[str, Any] = dict(given) if isinstance(given, dict) else {}
    found |= {
        "prompt_tokens": usage.prompt_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "completion_tokens": usage.completion_tokens,
    }
    if isinstance(found.get("prompt_tokens_details"), dict):
        found["prompt_tokens_details"] = found["prompt_tokens_details"] | {"cached_tokens": usage.cached_tokens}
    return found


def delivered_of(reader: OpenAiStream) -> Delivered:
    """What the caller has when this reader's stream ends, of all legs."""
    return reader.delivered() if isinstance(reader, NextLeg) else delivered_by(reader)


def usage_event(delivered: Delivered, usage: Usage) -> bytes:
    """The usage that an engine owes, by our own count."""
    return b"data: %b\n\n" % msgspec.json.encode(delivered.names() | {"choices": [], "usage": usage_member(usage)})


def end_event(delivered: Delivered, finish_reason: str) -> bytes:
    """The reason of the end that an engine could not tell any more."""
    names = delivered.names()
    choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": finish_reason}
    if names.get("object") == "text_completion":
        choice["text"] = ""
    else:
        choice["delta"] = {}
    return b"data: %b\n\n" % msgspec.json.encode(names | {"choices": [choice]})
