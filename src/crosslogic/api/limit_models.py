"""Ceilings as bodies: every dimension of `limits.model.Limits`; money as exact decimal US dollars in text."""

from decimal import Decimal
from typing import Annotated, Any

import msgspec
from pydantic import BaseModel, BeforeValidator, Field

from crosslogic.kernel.money import pusd_of, usd_text
from crosslogic.limits.model import NO_LIMITS, Limits

_MONEY = ("spend_per_hour", "spend_per_day", "spend_per_month")


def _whole(value: object) -> object:
    if isinstance(value, bool):  # pydantic would take true for 1
        raise ValueError("a ceiling is a whole number")
    return value


Ceiling = Annotated[int | None, BeforeValidator(_whole)]
Usd = Annotated[Decimal, Field(ge=0, max_digits=19, decimal_places=12)]
Spend = Annotated[Usd | None, BeforeValidator(_whole)]


class LimitsBody(BaseModel):
    """Ceilings; null or left out is none of its own, 0 lets nothing through.

    Where limits are changed, all are replaced together.
    """

    model_config = {"extra": "forbid"}

    requests_per_second: Ceiling = None
    requests_per_minute: Ceiling = None
    requests_per_day: Ceiling = None
    tokens_per_second: Ceiling = None
    tokens_per_minute: Ceiling = None
    tokens_per_hour: Ceiling = None
    tokens_per_day: Ceiling = None
    input_tokens_per_second: Ceiling = Field(default=None, description="of prompts alone")
    input_tokens_per_minute: Ceiling = None
    input_tokens_per_hour: Ceiling = None
    input_tokens_per_day: Ceiling = None
    output_tokens_per_second: Ceiling = Field(default=None, description="of answers alone")
    output_tokens_per_minute: Ceiling = None
    output_tokens_per_hour: Ceiling = None
    output_tokens_per_day: Ceiling = None
    spend_per_hour_usd: Spend = Field(default=None, description='US dollars as text: "2.50"')
    spend_per_day_usd: Spend = None
    spend_per_month_usd: Spend = Field(default=None, description="of a calendar month, UTC")
    concurrency: Ceiling = None
    max_input_tokens: Ceiling = Field(default=None, description="of one request's prompt")
    max_output_tokens: Ceiling = Field(default=None, description="of one request's answer, all choices together")
    max_total_tokens: Ceiling = Field(default=None, description="of one request")
    burst_share: float = Field(default=1.0, description="how much of a period's limit may be spent at once")
    shadow: bool = Field(default=False, description="count and tell, but refuse nobody")

    def value(self) -> Limits:
        said = self.model_dump()
        for name in _MONEY:
            usd = said.pop(f"{name}_usd")
            said[f"{name}_pusd"] = None if usd is None else pusd_of(usd)
        return Limits(**said)


class LimitsView(BaseModel):
    requests_per_second: int | None
    requests_per_minute: int | None
    requests_per_day: int | None
    tokens_per_second: int | None
    tokens_per_minute: int | None
    tokens_per_hour: int | None
    tokens_per_day: int | None
    input_tokens_per_second: int | None
    input_tokens_per_minute: int | None
    input_tokens_per_hour: int | None
    input_tokens_per_day: int | None
    output_tokens_per_second: int | None
    output_tokens_per_minute: int | None
    output_tokens_per_hour: int | None
    output_tokens_per_day: int | None
    spend_per_hour_usd: str | None
    spend_per_day_usd: str | None
    spend_per_month_usd: str | None
    concurrency: int | None
    max_input_tokens: int | None
    max_output_tokens: int | None
    max_total_tokens: int | None
    burst_share: float
    shadow: bool

    @classmethod
    def of(cls, limits: Limits) -> "LimitsView":
        said: dict[str, Any] = msgspec.structs.asdict(limits)
        for name in _MONEY:
            pusd = said.pop(f"{name}_pusd")
            said[f"{name}_usd"] = None if pusd is None else usd_text(pusd)
        return cls(**said)


def _viewed(value: object) -> object:
    return LimitsView.of(value) if isinstance(value, Limits) else value


ViewedLimits = Annotated[LimitsView, BeforeValidator(_viewed)]


def limits_or_none(body: LimitsBody | None) -> Limits:
    return NO_LIMITS if body is None else body.value()


def limits_given(body: LimitsBody | None) -> Limits | None:
    return None if body is None else body.value()
