"""What a request is charged for, and on what evidence. Pure.

Rule (docs/decisions/0004-what-is-billed.md): the engine's own numbers win. Without them, what passed through is
counted. Of an answer of which nothing could be seen nothing is proven, and nothing is charged: what its node is
presumed to have done meanwhile counts against limits alone.
"""

from crosslogic.gateway.request import Call
from crosslogic.gateway.stream import StreamReader
from crosslogic.metering.model import Evidence, Usage

NOTHING = Usage(0, 0)


def of_stream(call: Call, reader: StreamReader) -> tuple[Usage, Evidence]:
    """Evidence of a stream, whole or not."""
    if reader.usage is not None:
        return reader.usage, Evidence.ENGINE
    if reader.tokens_delivered == 0:
        return NOTHING, Evidence.NONE
    prompt_tokens = call.prompt_tokens_estimate if reader.prompt_tokens is None else reader.prompt_tokens
    return Usage(prompt_tokens, reader.tokens_delivered), Evidence.COUNTED


def of_whole(call: Call, usage: Usage | None, body_bytes: int) -> tuple[Usage, Evidence]:
    """Evidence of a successful answer that was not streamed; an engine without usage is counted by length."""
    if usage is not None:
        return usage, Evidence.ENGINE
    completion = max(1, body_bytes // 4) if call.endpoint.generates else 0
    ceiling = call.max_output_tokens * call.choices
    return Usage(call.prompt_tokens_estimate, min(completion, ceiling)), Evidence.COUNTED


def presumed(call: Call, elapsed_s: float, pace_s: float | None) -> Usage:
    """What became of an answer that nobody saw, since its caller left: the node had `elapsed_s` seconds for it.

    `pace_s` is the node's measured time per generated token over whole answers, prompt included. A node that was busy
    with others, or stood still, did less: so this is no evidence of anything.
    """
    if not call.endpoint.generates or pace_s is None or pace_s <= 0:
        return NOTHING
    generated = min(int(elapsed_s / pace_s), call.max_output_tokens * call.choices)
    return Usage(call.prompt_tokens_estimate, generated) if generated else NOTHING
