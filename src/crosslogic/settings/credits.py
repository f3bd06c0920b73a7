"""What organisations may use before they pay."""

from decimal import Decimal

from pydantic import Field

from crosslogic.settings.values import Count, Money, Section


class CreditSettings(Section):
    """Credits (product documentation §7)."""

    free_tokens_per_month: Count = Field(
        default=100_000, description="Of an organisation without reserved capacity, where its plan includes none."
    )
    signup_usd: Money = Field(default=Decimal(10), description="Credit of a new organisation, in its currency.")
    referral_usd: Money = Field(default=Decimal(5), description="Credit for bringing another, in its currency.")
