"""The request that has another node go on from the text so far. Pure.

Chats: the partial answer becomes the last message, which the engine is told to continue
(`continue_final_message: true, add_generation_prompt: false`: vLLM, SGLang). Completions: prompt and text are one
prompt. What was delivered is taken off the maximum (Dynamo's PR 2038 shows what happens otherwise).
"""

from collections.abc import Sequence
from typing import Any

import msgspec

from crosslogic.gateway.request import Call
from crosslogic.gateway.rescue.terms import Terms

_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


def overlap_of(call: Call, text: str) -> int:
    """How many characters of white space at the end of the text are not resent, since chat templates trim them."""
    return len(text) - len(text.rstrip()) if call.endpoint.prompt_field == "messages" else 0


def continued(
    call: Call,
    terms: Terms,
    text: str,
    *,
    resent_tokens: int,
    text_ids: Sequence[int] | None = None,
    default_tokens: int | None = None,
) -> Call | None:
    """The call for the rest of an answer that began with `text`; None where it cannot be put into words.

    `resent_tokens` are those of the text, by which the rest is shorter. `text_ids` are the same one by one, wanted
    where the prompt came as tokens; `default_tokens` is what the engine gives where the caller named no maximum (None:
    as many as there is room for).
    """
    members: dict[str, Any] = dict(_members.decode(call.body))
    if "messages" in members:
        messages = _with_answer(members["messages"], text, bool(terms.continue_final_message))
        if messages is None or not text:
            return None
        members |= {"messages": messages, "continue_final_message": True, "add_generation_prompt": False}
    else:
        prompt = _longer_prompt(msgspec.json.decode(members["prompt"]), text, text_ids)
        if prompt is None:
            return None
        members["prompt"] = prompt
    most = call.max_output_tokens
    for name in call.endpoint.max_tokens_fields:
        asked = getattr(terms, name)
        if asked is not None:
            members[name] = most = max(1, asked - resent_tokens)
    if terms.asked_tokens is None and default_tokens is not None:
        members["max_tokens"] = most = max(1, default_tokens - resent_tokens)
    if terms.min_tokens:
        members["min_tokens"] = max(0, terms.min_tokens - resent_tokens)
    body = msgspec.json.encode(members)
    return msgspec.structs.replace(call, body=body, max_output_tokens=most)


def _with_answer(messages: msgspec.Raw, text: str, goes_on: bool) -> Any:
    """The messages with the text as the last one's content, or at the end of it where the caller began it."""
    found: list[msgspec.Raw] = msgspec.json.decode(messages, type=list[msgspec.Raw])
    if not goes_on:
        return [*found, {"role": "assistant", "content": text}]
    last: Any = msgspec.json.decode(found[-1])
    if not isinstance(last, dict) or not isinstance(last.get("content"), str):
        return None
    return [*found[:-1], last | {"content": last["content"] + text}]


def _longer_prompt(prompt: Any, text: str, text_ids: Sequence[int] | None) -> Any:
    if isinstance(prompt, str):
        return prompt + text
    if not isinstance(prompt, list) or not prompt:
        return None
    if all(isinstance(value, int) for value in prompt):
        return None if text_ids is None else [*prompt, *text_ids]
    longer = _longer_prompt(prompt[0], text, text_ids)
    return None if len(prompt) != 1 or longer is None else [longer]
