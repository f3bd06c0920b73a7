"""Reads of a request body just what the gateway must know, and refuses what no node should see. Pure.

Everything else in the body passes to the node untouched. One decoding pass both finds our fields and proves
that the whole body is JSON (no NaN, no nesting deeper than the parser's bound).
"""

import re
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from crosslogic.gateway.endpoints import Dialect, Endpoint
from crosslogic.kernel.errors import CrossLogicError
from crosslogic.limits.model import Demand

BYTES_PER_TOKEN = 4  # the usual estimate for English text and code
MOST_BYTES_PER_TOKEN = 6  # above this hardly any prompt goes: only such a prompt is certainly over-long
MEDIA_CHECK_BYTES = 16 * 1024  # smaller prompts hold no image worth looking for
_INLINE_MEDIA = re.compile(rb'"data:[^"]{256,}"|"data"\s*:\s*"[^"]{256,}"')
_TOKENS_PER_MEDIA = 1024
PREFIX_BYTES = 1024  # prompts that share this much may share a node's prefix cache
MAX_CHOICES = 128


class BadRequest(CrossLogicError):
    """The request is refused before any node sees it. `status` is 400, 404 or 413."""

    def __init__(self, message: str, *, code: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
        self.status = status


class Call(msgspec.Struct, frozen=True):
    """What the gateway knows of a request."""

    endpoint: Endpoint
    model: str  # canonical id, as the nodes know it
    stream: bool
    choices: int  # answers in all: `n` for each prompt
    prompt_tokens_estimate: int
    max_output_tokens: int  # 0 where nothing is generated
    asked_for_usage: bool  # the caller wants the usage chunk
    prefix_hash: int
    body: bytes  # what the node gets
    bounded: bool = True  # whether the caller said how long the answer may be
    least_prompt_tokens: int = 0

    @property
    def tokens_to_reserve(self) -> int:
        return self.prompt_tokens_estimate + self.max_output_tokens * self.choices

    def demand(self, most: int | None, most_output: int | None = None) -> Demand:
        """What to reserve where at most `most` tokens and `most_output` tokens of output can be.

        Without a bound of the caller's the default must give way, down to one token for each choice.
        """
        output = self.max_output_tokens * self.choices
        if not self.bounded:
            if most is not None and self.prompt_tokens_estimate + output > most:
                output = max(most - self.prompt_tokens_estimate, self.choices)
            if most_output is not None and output > most_output:
                output = max(most_output, self.choices)
        return Demand(self.prompt_tokens_estimate, output)

    def bounded_by(self, most: int) -> "Call":
        """The same call with the longest answer written into its body, where its caller said nothing.

        It stays unbounded in the sense of `demand`: what is reserved of tokens is a guess, not the caller's word.
        """
        body = _replace(self.body, {self.endpoint.max_tokens_fields[-1]: most})
        return msgspec.structs.replace(self, body=body, max_output_tokens=min(self.max_output_tokens, most))

    def for_model(self, model: str) -> "Call":
        """The same call for another model."""
        return msgspec.structs.replace(self, model=model, body=_replace(self.body, {"model": model}))


class ModelBounds(msgspec.Struct, frozen=True):
    """What the catalogue says of a model; None where it does not know."""

    id: str
    context_window: int | None = None
    max_output_tokens: int | None = None


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


Raw = msgspec.Raw
_UNSET = msgspec.UNSET


class _Fields(msgspec.Struct):
    """The union of the fields of all endpoints; unknown ones are skipped, but must be JSON."""

    model: str | msgspec.UnsetType = _UNSET
    stream: bool | None = None
    stream_options: _StreamOptions | msgspec.UnsetType | None = _UNSET
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    max_output_tokens: int | None = None
    messages: Raw | msgspec.UnsetType = _UNSET
    prompt: Raw | msgspec.UnsetType = _UNSET
    input: Raw | msgspec.UnsetType = _UNSET
    documents: Raw | msgspec.UnsetType = _UNSET
    query: Raw | msgspec.UnsetType = _UNSET
    text_1: Raw | msgspec.UnsetType = _UNSET
    text_2: Raw | msgspec.UnsetType = _UNSET
    tools: Raw | msgspec.UnsetType = _UNSET
    system: Raw | msgspec.UnsetType = _UNSET
    instructions: Raw | msgspec.UnsetType = _UNSET


_decoder = msgspec.json.Decoder(_Fields)
_object_decoder = msgspec.json.Decoder(dict[str, Raw])
_list_decoder = msgspec.json.Decoder(list[Raw])
_PROMPTS_BEGIN = (b'"', b"[", b"{")
_INCLUDE_USAGE = b'{"stream_options":{"include_usage":true},'


def read_call(
    endpoint: Endpoint,
    body: bytes,
    models: Mapping[str, ModelBounds],
    *,
    default_output_tokens: int,
    model_in_path: str | None = None,
) -> Call:
    """Validate a body and return what to do with it.

    `models` maps every served id and alias to its canonical id and bounds. Raises BadRequest.
    """
    fields = _decode(body)
    name = model_in_path if model_in_path is not None else fields.model
    if name is _UNSET or not isinstance(name, str):
        raise BadRequest("you must provide a model parameter", code="missing_required_parameter", param="model")
    bounds = models.get(name)
    if bounds is None:
        raise model_not_found(name)
    prompt = _prompt(endpoint, fields)
    stream = bool(fields.stream) and endpoint.streams
    choices = _choices(fields.n) * _prompts(endpoint, prompt)
    prompt_tokens, least_prompt_tokens = estimate_tokens(prompt)
    _check_prompt(least_prompt_tokens, bounds)
    asked_tokens = _asked_output_tokens(endpoint, fields, bounds)
    output_tokens = asked_tokens if asked_tokens is not None else _default_tokens(bounds, default_output_tokens)
    asked_for_usage = _asked_for_usage(fields)
    changes: dict[str, Any] = {}
    if fields.model != bounds.id:
        changes["model"] = bounds.id
    if stream and not asked_for_usage and endpoint.dialect is Dialect.OPENAI:
        body = _ask_for_usage(body, fields, changes)
    if changes:
        body = _replace(body, changes)
    return Call(
        endpoint,
        bounds.id,
        stream,
        choices,
        prompt_tokens,
        output_tokens,
        asked_for_usage,
        zlib.crc32(prompt[:PREFIX_BYTES]),
        body,
        asked_tokens is not None,
        least_prompt_tokens,
    )


def estimate_tokens(prompt: bytes) -> tuple[int, int]:
    """(a likely, a least) number of tokens in a prompt given as JSON; inline images count as a fixed number each."""
    size = len(prompt)
    media_tokens = 0
    if size > MEDIA_CHECK_BYTES:
        text, media = _INLINE_MEDIA.subn(b"", prompt)
        size, media_tokens = len(text), media * _TOKENS_PER_MEDIA
    return size // BYTES_PER_TOKEN + media_tokens + 1, size // MOST_BYTES_PER_TOKEN


def model_not_found(name: str) -> BadRequest:
    shown = name if len(name) <= 128 else name[:128] + "…"
    return BadRequest(
        f"the model `{shown}` does not exist or you do not have access to it",
        code="model_not_found",
        param="model",
        status=404,
    )


def _decode(body: bytes) -> _Fields:
    try:
        if not body.isascii():
            body.decode()
        return _decoder.decode(body)
    except RecursionError:
        raise BadRequest("the JSON body is nested too deeply", code="invalid_json") from None
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise BadRequest(reason[:300], code="invalid_type", param=place.rstrip("`")[:64] or None) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not valid JSON: {error}"[:300], code="invalid_json") from None


def _prompt(endpoint: Endpoint, fields: _Fields) -> bytes:
    prompt = getattr(fields, endpoint.prompt_field)
    raw = b"" if prompt is _UNSET else bytes(prompt)
    if raw in (b"", b"null"):
        raise BadRequest(
            f"you must provide a {endpoint.prompt_field} parameter",
            code="missing_required_parameter",
            param=endpoint.prompt_field,
        )
    expected = b"[" if endpoint.prompt_field in ("messages", "documents") else b'["'
    if endpoint.path == "/v1/score":
        expected = b'[{"'
    if raw[:1] not in expected or raw == b"[]":
        raise BadRequest(
            f"{endpoint.prompt_field} has the wrong type or is empty",
            code="invalid_type",
            param=endpoint.prompt_field,
        )
    if endpoint.prompt_field == "messages" and raw[1:].lstrip()[:1] != b"{":
        raise BadRequest("each of messages must be an object", code="invalid_type", param="messages")
    for name in endpoint.more_prompt_fields:
        more = getattr(fields, name)
        if more is not _UNSET:
            raw += bytes(more)
    return raw


def _choices(n: int | None) -> int:
    if n is None:
        return 1
    if not 1 <= n <= MAX_CHOICES:
        raise BadRequest(f"n must be between 1 and {MAX_CHOICES}", code="invalid_value", param="n")
    return n


def _prompts(endpoint: Endpoint, prompt: bytes) -> int:
    """How many prompts a completion answers: those of a list, of which a list of token numbers is one."""
    if endpoint.prompt_field != "prompt" or prompt[:1] != b"[" or prompt[1:].lstrip()[:1] not in _PROMPTS_BEGIN:
        return 1
    return len(_list_decoder.decode(prompt))


def _check_prompt(least_prompt_tokens: int, bounds: ModelBounds) -> None:
    window = bounds.context_window
    if window is not None and least_prompt_tokens > window:
        raise BadRequest(
            f"this model's context is {window} tokens, but the prompt has at least {least_prompt_tokens}",
            code="context_length_exceeded",
            param="messages",
        )


def _asked_output_tokens(endpoint: Endpoint, fields: _Fields, bounds: ModelBounds) -> int | None:
    """How long the caller lets the answer be, None when it does not say; over the model's bound is refused."""
    if not endpoint.generates:
        return 0
    ceiling = bounds.max_output_tokens or bounds.context_window
    for name in endpoint.max_tokens_fields:
        asked = getattr(fields, name)
        if asked is None:
            continue
        if asked < (0 if name == "max_tokens" else 1):
            raise BadRequest(f"{name} must be positive", code="invalid_value", param=name)
        if ceiling is not None and asked > ceiling:
            raise BadRequest(
                f"{name} is {asked}, but this model answers with at most {ceiling} tokens",
                code="max_tokens_exceeded",
                param=name,
            )
        return int(asked)
    return None


def _default_tokens(bounds: ModelBounds, default: int) -> int:
    ceiling = bounds.max_output_tokens or bounds.context_window
    return default if ceiling is None else min(default, ceiling)


def _asked_for_usage(fields: _Fields) -> bool:
    options = fields.stream_options
    return isinstance(options, _StreamOptions) and bool(options.include_usage)


def _ask_for_usage(body: bytes, fields: _Fields, changes: dict[str, Any]) -> bytes:
    """Have the engine tell its usage: by one splice at the front, or by a change when the caller set the options."""
    if fields.stream_options is _UNSET:
        start = body.index(b"{") + 1
        return _INCLUDE_USAGE + body[start:]
    changes["stream_options"] = None
    return body


def _replace(body: bytes, changes: Mapping[str, Any]) -> bytes:
    """Re-encode the object with some members changed; all others keep their bytes."""
    members: dict[str, Any] = dict(_object_decoder.decode(body))
    for name, value in changes.items():
        if name == "stream_options":
            options = msgspec.json.decode(members.get(name, b"null")) or {}
            value = {**options, "include_usage": True}
        members[name] = value
    return msgspec.json.encode(members)
