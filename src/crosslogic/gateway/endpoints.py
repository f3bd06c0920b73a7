"""The table of endpoints that are relayed with full accounting. To add one, add a row (CONTRIBUTING.md, checklist).

A row says which dialect the endpoint speaks (where usage and the end of a stream stand), which field carries
the prompt, and which fields bound the answer.
"""

from enum import Enum, auto

import msgspec


class Dialect(Enum):
    """How an answer tells its usage, its end and its errors."""

    OPENAI = auto()  # usage.{prompt,completion}_tokens; streams end with `data: [DONE]`
    RESPONSES = auto()  # usage.{input,output}_tokens; streams end with a `response.completed` event
    MESSAGES = auto()  # Anthropic; streams end with a `message_stop` event


class Endpoint(msgspec.Struct, frozen=True):
    path: str  # as the engines know it
    dialect: Dialect
    prompt_field: str  # the first field that holds what is read by the model; it is required
    streams: bool = True
    max_tokens_fields: tuple[str, ...] = ()  # the first one present bounds the answer
    generates: bool = True  # False: nothing is generated, only the prompt is counted
    more_prompt_fields: tuple[str, ...] = ()  # further fields that the model reads

    @property
    def name(self) -> str:
        """The label in metrics and the ledger: the path without `/v1/`."""
        return self.path.removeprefix("/v1/")


_CHAT_LENGTHS = ("max_completion_tokens", "max_tokens")

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("/v1/chat/completions", Dialect.OPENAI, "messages", True, _CHAT_LENGTHS, True, ("tools",)),
    Endpoint("/v1/completions", Dialect.OPENAI, "prompt", True, ("max_tokens",)),
    Endpoint(
        "/v1/responses", Dialect.RESPONSES, "input", True, ("max_output_tokens",), True, ("instructions", "tools")
    ),
    Endpoint("/v1/messages", Dialect.MESSAGES, "messages", True, ("max_tokens",), True, ("system", "tools")),
    Endpoint("/v1/embeddings", Dialect.OPENAI, "input", streams=False, generates=False),
    Endpoint("/v1/rerank", Dialect.OPENAI, "documents", streams=False, generates=False, more_prompt_fields=("query",)),
    Endpoint("/v1/score", Dialect.OPENAI, "text_2", streams=False, generates=False, more_prompt_fields=("text_1",)),
)

BY_PATH: dict[bytes, Endpoint] = {endpoint.path.encode(): endpoint for endpoint in ENDPOINTS}
