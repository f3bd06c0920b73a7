"""What usage costs: exact integers, no rounding anywhere."""

from typing import Protocol

from crosslogic.kernel.money import PicoUsd
from crosslogic.pricing.book import Price


class TokenCounts(Protocol):
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def completion_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...


def rate(usage: TokenCounts, price: Price) -> PicoUsd:
    """The cost of one request: prompt tokens, the cached ones among them at their own price, and completion tokens.

    Cached tokens are part of the prompt and reasoning tokens part of the completion, so neither is paid twice. An
    engine's impossible numbers never make a negative bill: at most the whole prompt is cached, and below zero is zero.
    """
    prompt = max(usage.prompt_tokens, 0)
    cached = min(max(usage.cached_tokens, 0), prompt)
    return PicoUsd(
        (prompt - cached) * price.input_pusd
        + cached * price.cached_pusd
        + max(usage.completion_tokens, 0) * price.output_pusd
    )
