"""Settings of the layered limits: every dimension, at every layer."""

from decimal import Decimal
from typing import Annotated

from pydantic import AfterValidator, Field

from crosslogic.kernel.money import pusd_of
from crosslogic.limits.model import Limits
from crosslogic.settings.values import Money, Positive, Real, Section, Truth


def _exact(usd: Decimal) -> Decimal:
    pusd_of(usd)  # raises ValueError
    return usd


Spend = Annotated[Money, Field(le=9_000_000), AfterValidator(_exact)]


class LimitSettings(Section):
    """Ceilings of one layer; absent is no ceiling."""

    requests_per_second: Positive | None = Field(default=None, description="Requests a second.")
    requests_per_minute: Positive | None = Field(default=None, description="Requests a minute.")
    requests_per_day: Positive | None = Field(default=None, description="Requests a day.")
    tokens_per_second: Positive | None = Field(default=None, description="Tokens a second.")
    tokens_per_minute: Positive | None = Field(default=None, description="Tokens a minute, prompt and answer together.")
    tokens_per_hour: Positive | None = Field(default=None, description="Tokens an hour.")
    tokens_per_day: Positive | None = Field(default=None, description="Tokens a day.")
    input_tokens_per_second: Positive | None = Field(default=None, description="Tokens of prompts a second.")
    input_tokens_per_minute: Positive | None = Field(default=None, description="Tokens of prompts a minute.")
    input_tokens_per_hour: Positive | None = Field(default=None, description="Tokens of prompts an hour.")
    input_tokens_per_day: Positive | None = Field(default=None, description="Tokens of prompts a day.")
    output_tokens_per_second: Positive | None = Field(default=None, description="Tokens of answers a second.")
    output_tokens_per_minute: Positive | None = Field(default=None, description="Tokens of answers a minute.")
    output_tokens_per_hour: Positive | None = Field(default=None, description="Tokens of answers an hour.")
    output_tokens_per_day: Positive | None = Field(default=None, description="Tokens of answers a day.")
    spend_per_hour_usd: Spend | None = Field(default=None, description="USD an hour.")
    spend_per_day_usd: Spend | None = Field(default=None, description="USD a day.")
    spend_per_month_usd: Spend | None = Field(default=None, description="USD a calendar month (UTC).")
    concurrency: Positive | None = Field(default=None, description="Requests at the same time.")
    max_input_tokens: Positive | None = Field(default=None, description="Tokens of one request's prompt.")
    max_output_tokens: Positive | None = Field(default=None, description="Tokens of one request's answer.")
    max_total_tokens: Positive | None = Field(default=None, description="Tokens of one request.")
    burst_share: Annotated[Real, Field(gt=0, le=1)] = Field(
        default=1.0, description="How much of a period's limit may be spent at once."
    )
    shadow: Truth = Field(default=False, description="Count and tell, but refuse nobody.")

    def limits(self) -> Limits:
        said = self.model_dump()
        for name in ("spend_per_hour", "spend_per_day", "spend_per_month"):
            usd = said.pop(f"{name}_usd")
            said[f"{name}_pusd"] = None if usd is None else pusd_of(usd)
        return Limits(**said)


class LimitsSettings(Section):
    """The layers. `org`, `env` and `key` hold for those that have no limits of their own."""

    global_: LimitSettings = Field(default=LimitSettings(), alias="global", description="All requests together.")
    region: LimitSettings = Field(default=LimitSettings(), description="Each region that `regions` does not name.")
    regions: dict[str, LimitSettings] = Field(
        default={}, description="By region, ceilings of all requests that are for it; unset ones as in `region`."
    )
    org: LimitSettings = Field(default=LimitSettings(), description="Each organisation.")
    env: LimitSettings = Field(default=LimitSettings(), description="Each environment.")
    key: LimitSettings = Field(default=LimitSettings(), description="Each key.")
