"""Whether an answer may go on elsewhere, by what its request asked for. Pure.

An answer is more than its text where a grammar, log-probabilities or several choices belong to it: their state died
with the node, so that such an answer is neither continued nor joined (Dynamo refuses the same, its PR 7930).
"""

from typing import Any

import msgspec

from crosslogic.gateway.endpoints import Dialect
from crosslogic.gateway.request import Call
from crosslogic.gateway.rescue.model import Delivered

Raw = msgspec.Raw
_Any = msgspec.Raw | msgspec.UnsetType
_UNSET = msgspec.UNSET
_NOTHING = (b"", b"null", b"false", b"0", b"[]", b"{}")


class Terms(msgspec.Struct, frozen=True):
    """The fields of a request that decide; others may have any value."""

    messages: _Any = _UNSET
    prompt: _Any = _UNSET
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int | None = None
    temperature: float | None = None
    top_k: int | None = None
    seed: int | None = None
    continue_final_message: bool | None = None
    response_format: _Any = _UNSET
    guided_json: _Any = _UNSET
    guided_regex: _Any = _UNSET
    guided_choice: _Any = _UNSET
    guided_grammar: _Any = _UNSET
    structured_outputs: _Any = _UNSET
    structural_tag: _Any = _UNSET
    json_schema: _Any = _UNSET
    regex: _Any = _UNSET
    ebnf: _Any = _UNSET
    grammar: _Any = _UNSET
    tool_choice: _Any = _UNSET
    logprobs: _Any = _UNSET
    top_logprobs: _Any = _UNSET
    prompt_logprobs: _Any = _UNSET
    return_token_ids: _Any = _UNSET
    return_tokens_as_token_ids: _Any = _UNSET
    use_beam_search: _Any = _UNSET
    best_of: int | None = None
    echo: bool | None = None
    suffix: str | None = None
    audio: _Any = _UNSET
    include_stop_str_in_output: bool | None = None

    @property
    def asked_tokens(self) -> int | None:
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens

    @property
    def repeatable(self) -> bool:
        """Whether the same request gives the same answer: greedy or seeded."""
        return self.temperature == 0 or self.top_k == 1 or self.seed is not None

    @property
    def more_than_text(self) -> bool:
        """Whether the answer has a state that its text does not show."""
        return (
            any(_is_set(getattr(self, name)) for name in _STATEFUL)
            or _kind(self.response_format) not in (None, "text")
            or _forces_tool(self.tool_choice)
            or (self.best_of or 1) > 1
            or bool(self.echo or self.suffix)
        )


_STATEFUL = (
    "guided_json", "guided_regex", "guided_choice", "guided_grammar", "structured_outputs", "structural_tag",
    "json_schema", "regex", "ebnf", "grammar", "logprobs", "top_logprobs", "prompt_logprobs", "return_token_ids",
    "return_tokens_as_token_ids", "use_beam_search", "audio",
)  # fmt: skip
_terms = msgspec.json.Decoder(Terms)


def terms_of(call: Call) -> Terms | None:
    """What the call asked for; None when a field is not what it should be (its engine may have let it pass)."""
    try:
        return _terms.decode(call.body)
    except (msgspec.MsgspecError, RecursionError):
        return None


def may_restart(call: Call, delivered: Delivered) -> bool:
    """Answer anew: where the caller has seen nothing but who answers, whatever it asked for, or just white space."""
    blank = delivered.plain and not delivered.reasoning and not delivered.text.strip() and delivered.text != ""
    return call.endpoint.dialect is Dialect.OPENAI and (delivered.nothing or blank)


def may_continue(call: Call, terms: Terms, delivered: Delivered) -> bool:
    """Go on from the text. Of an engine that can."""
    if not _is_plain(call, terms, delivered) or delivered.reasoning or not delivered.text or not delivered.resendable:
        return False
    return not terms.include_stop_str_in_output  # the text may end in half of such a stop


def may_join(call: Call, terms: Terms, delivered: Delivered) -> bool:
    """Answer anew, and leave out what is known."""
    return terms.repeatable and _is_plain(call, terms, delivered)


def _is_plain(call: Call, terms: Terms, delivered: Delivered) -> bool:
    single = call.endpoint.dialect is Dialect.OPENAI and call.choices == 1 and _single_prompt(terms.prompt)
    return single and delivered.plain and not terms.more_than_text


def _single_prompt(prompt: _Any) -> bool:
    """Text, token ids, or a list of one of those."""
    if isinstance(prompt, msgspec.UnsetType):
        return True
    value: Any = msgspec.json.decode(prompt)
    if not isinstance(value, list):
        return isinstance(value, str)
    return len(value) == 1 or all(isinstance(item, int) for item in value)


def _is_set(value: _Any) -> bool:
    return not isinstance(value, msgspec.UnsetType) and bytes(value).strip() not in _NOTHING


def _kind(form: _Any) -> str | None:
    if isinstance(form, msgspec.UnsetType) or not _is_set(form):
        return None
    value: Any = msgspec.json.decode(form)
    return str(value.get("type")) if isinstance(value, dict) else "unknown"


def _forces_tool(choice: _Any) -> bool:
    return _is_set(choice) and bytes(choice).strip() not in (b'"auto"', b'"none"')  # type: ignore[arg-type]
