"""Reads usage and finish reason out of a whole (not streamed) answer, for each dialect. Pure."""

from collections.abc import Callable

import msgspec

from crosslogic.gateway.endpoints import Dialect
from crosslogic.metering.model import Usage


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class OpenAiUsage(msgspec.Struct):
    """`usage` of chat completions, completions, embeddings, rerank and score."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    total_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None

    def usage(self) -> Usage | None:
        prompt, completion = self.prompt_tokens, self.completion_tokens
        if prompt is None and self.total_tokens is None:
            return None
        if prompt is None:
            prompt = (self.total_tokens or 0) - (completion or 0)
        cached = self.prompt_tokens_details.cached_tokens if self.prompt_tokens_details else None
        reasoning = self.completion_tokens_details.reasoning_tokens if self.completion_tokens_details else None
        return _checked(prompt, completion or 0, cached or 0, reasoning or 0)


class ResponsesUsage(msgspec.Struct):
    input_tokens: int
    output_tokens: int = 0
    input_tokens_details: _PromptDetails | None = None
    output_tokens_details: _CompletionDetails | None = None

    def usage(self) -> Usage | None:
        cached = self.input_tokens_details.cached_tokens if self.input_tokens_details else None
        reasoning = self.output_tokens_details.reasoning_tokens if self.output_tokens_details else None
        return _checked(self.input_tokens, self.output_tokens, cached or 0, reasoning or 0)


class MessagesUsage(msgspec.Struct):
    """Anthropic counts cached input apart from `input_tokens`; in the ledger cached tokens are part of the prompt."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None

    def usage(self) -> Usage | None:
        if self.input_tokens is None:
            return None
        cached = self.cache_read_input_tokens or 0
        prompt = self.input_tokens + cached + (self.cache_creation_input_tokens or 0)
        return _checked(prompt, self.output_tokens or 0, cached, 0)


def _checked(prompt: int, completion: int, cached: int, reasoning: int) -> Usage | None:
    """Usage that contradicts itself (negative, more cached than prompt) is no evidence."""
    if min(prompt, completion, cached, reasoning) < 0 or cached > prompt or reasoning > completion:
        return None
    return Usage(prompt, completion, cached, reasoning)


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _OpenAiAnswer(msgspec.Struct):
    usage: OpenAiUsage | None = None
    choices: list[_Choice] = []


class _ResponsesAnswer(msgspec.Struct):
    usage: ResponsesUsage | None = None
    status: str | None = None


class _MessagesAnswer(msgspec.Struct):
    usage: MessagesUsage | None = None
    stop_reason: str | None = None


class Answer(msgspec.Struct, frozen=True):
    usage: Usage | None
    finish_reason: str | None


_openai = msgspec.json.Decoder(_OpenAiAnswer)
_responses = msgspec.json.Decoder(_ResponsesAnswer)
_messages = msgspec.json.Decoder(_MessagesAnswer)


def _read_openai(body: bytes) -> Answer:
    answer = _openai.decode(body)
    finish_reason = answer.choices[0].finish_reason if answer.choices else None
    return Answer(answer.usage.usage() if answer.usage else None, finish_reason)


def _read_responses(body: bytes) -> Answer:
    answer = _responses.decode(body)
    return Answer(answer.usage.usage() if answer.usage else None, answer.status)


def _read_messages(body: bytes) -> Answer:
    answer = _messages.decode(body)
    return Answer(answer.usage.usage() if answer.usage else None, answer.stop_reason)


_READERS: dict[Dialect, Callable[[bytes], Answer]] = {
    Dialect.OPENAI: _read_openai,
    Dialect.RESPONSES: _read_responses,
    Dialect.MESSAGES: _read_messages,
}


def read_answer(dialect: Dialect, body: bytes) -> Answer | None:
    """Usage and finish reason of a whole answer; None when it is not what a working engine sends."""
    try:
        return _READERS[dialect](body)
    except (msgspec.DecodeError, RecursionError):
        return None
