"""Holds a request to what its principal's requests may be: refuses what is over, bounds what names no length. Pure.

Invariants: what is refused is over for certain (the least that its prompt can be is above the maximum, or what it
asks for is); and where money is counted, a request costs at most what `fit` says, whatever the engine does: each byte
of a prompt is at most one token, and the answer's length is written into the body where the caller left it open.
"""

import msgspec

from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.request import Call, ModelBounds
from crosslogic.kernel.money import PicoUsd
from crosslogic.limits.model import Dimension, Layer
from crosslogic.limits.scopes import Maxima
from crosslogic.pricing.estimate import CostEstimates
from crosslogic.tenancy.bounds import Bounds

TEMPLATE_TOKENS = 64  # what a chat template may add to the bytes of the messages themselves
_UNSEEN_TOKENS = 32_768  # for what the engine fetches itself, where the model's window is not known
_LEGACY_OUTPUT_TOKENS = 16  # of completions that name no maximum, by their definition


class Exceeded(msgspec.Struct, frozen=True):
    """A request that is larger than its principal's requests may be."""

    layer: Layer
    dimension: Dimension
    most: int


class Fitted(msgspec.Struct, frozen=True):
    """The request as it may run, and what it may cost at most (0 where money is not counted)."""

    call: Call
    cost_pusd: PicoUsd


def exceeded(call: Call, maxima: Maxima) -> Exceeded | None:
    """The first maximum that this request is certainly over."""
    output = call.max_output_tokens * call.choices if call.bounded else call.choices
    if not call.endpoint.generates:
        output = 0
    for found, tokens, dimension in (
        (maxima.input_tokens, call.least_prompt_tokens, Dimension.MAX_INPUT_TOKENS),
        (maxima.output_tokens, output, Dimension.MAX_OUTPUT_TOKENS),
        (maxima.total_tokens, call.least_prompt_tokens + output, Dimension.MAX_TOTAL_TOKENS),
    ):
        if found is not None and tokens > found[0]:
            return Exceeded(found[1], dimension, found[0])
    return None


def fit(
    call: Call,
    bounds: Bounds,
    model: ModelBounds | None,
    costs: CostEstimates,
    models: tuple[str, ...],
    price_per_token_pusd: int | None,
    org_id: str = "",
) -> Fitted | Exceeded:
    """`models` are all that may serve it: the one asked for, then its fallbacks; `model` is what is known of that."""
    over = exceeded(call, bounds.maxima)
    if over is not None:
        return over
    prompt_tokens = _worst_prompt(call, model) if bounds.counts_money else 0

    def cost(prompt: int, output: int) -> PicoUsd:
        name = call.endpoint.name
        return costs.at_most(models, prompt, output, price_per_token_pusd, org_id=org_id, endpoint=name)

    each_tokens = call.max_output_tokens  # of one answer
    if not call.bounded and call.endpoint.generates:
        most = _room(call, bounds.maxima)
        if bounds.counts_money:
            longest = _longest(call, model)
            most = longest if most is None else min(most, longest)
            if bounds.spend_pusd is not None:
                each = cost(0, call.choices)
                left = bounds.spend_pusd - cost(prompt_tokens, 0)
                if each:
                    most = max(1, min(most, left // each))
        if most is not None:
            each_tokens = min(most, _LEGACY_OUTPUT_TOKENS) if _is_legacy(call) else most
            call = call.bounded_by(each_tokens)
    if not bounds.counts_money:
        return Fitted(call, PicoUsd(0))
    return Fitted(call, cost(prompt_tokens, each_tokens * call.choices))


def _room(call: Call, maxima: Maxima) -> int | None:
    """How long each answer may be beside this prompt; None where no maximum says."""
    rooms = []
    if maxima.output_tokens is not None:
        rooms.append(maxima.output_tokens[0])
    if maxima.total_tokens is not None:
        rooms.append(maxima.total_tokens[0] - call.prompt_tokens_estimate)
    return max(1, min(rooms) // call.choices) if rooms else None


def _longest(call: Call, model: ModelBounds | None) -> int:
    """The longest answer that the model can give to this prompt, as far as it is known."""
    if model is None:
        return call.max_output_tokens
    known = []
    if model.max_output_tokens is not None:
        known.append(model.max_output_tokens)
    if model.context_window is not None:
        # Engines refuse a maximum that does not fit beside the prompt: leave it twice the room that it likely takes.
        known.append(model.context_window - 2 * call.prompt_tokens_estimate - TEMPLATE_TOKENS)
    return max(1, min(known)) if known else call.max_output_tokens


def _worst_prompt(call: Call, model: ModelBounds | None) -> int:
    """The most tokens that its prompts can have, all together."""
    window = model.context_window if model is not None else None
    tokens = _text_bytes(call.body) + TEMPLATE_TOKENS
    if _unseen(call.body):
        return window or tokens + _UNSEEN_TOKENS
    if call.endpoint.generates and not _is_legacy(call):
        return tokens if window is None else min(tokens, window)
    prompts = _prompts(call)
    if call.endpoint.more_prompt_fields:  # each document is read together with the query, at most all of the bytes
        return tokens * prompts
    return tokens + TEMPLATE_TOKENS * prompts


def _is_legacy(call: Call) -> bool:
    return call.endpoint.dialect is Dialect.OPENAI and call.endpoint.prompt_field == "prompt"


def _text_bytes(body: bytes) -> int:
    """Of all that an engine may read: not the prompt alone, but a template, documents or functions beside it, too."""
    members = _members_of.decode(body)
    read = (bytes(raw) for name, raw in members.items() if name not in _NOT_READ)
    return sum(len(raw) for raw in read if raw[:1] in (b'"', b"[", b"{"))


_members_of = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NOT_READ = frozenset(("model", "stream_options", "stop", "user", "metadata", "tool_choice", "service_tier"))


class _Prompts(msgspec.Struct):
    prompt: msgspec.Raw = msgspec.Raw(b"null")
    input: msgspec.Raw = msgspec.Raw(b"null")
    documents: msgspec.Raw = msgspec.Raw(b"null")
    text_1: msgspec.Raw = msgspec.Raw(b"null")
    text_2: msgspec.Raw = msgspec.Raw(b"null")


_prompts_of = msgspec.json.Decoder(_Prompts)
_items_of = msgspec.json.Decoder(list[msgspec.Raw])


def _unseen(body: bytes) -> bool:
    """The engine may read more than stands here. Spelled out: each search is half a microsecond, a loop doubles it."""
    return (
        b'"image' in body
        or b'"input_image' in body
        or b'"video_url' in body
        or b'"input_audio' in body
        or b'"previous_response' in body
    )


def _prompts(call: Call) -> int:
    """How many prompts a list holds; a list of token numbers is one."""
    fields = _prompts_of.decode(call.body)
    most = 1
    for name in _Prompts.__struct_fields__:
        raw = bytes(getattr(fields, name))
        if raw[:1] == b"[":
            items = _items_of.decode(raw)
            if items and bytes(items[0])[:1] in (b'"', b"[", b"{"):
                most = max(most, len(items))
    return most
