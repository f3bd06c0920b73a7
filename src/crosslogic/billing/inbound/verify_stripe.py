"""Whether a webhook is Stripe's: its signature over the raw body, no older than five minutes and not of the future.

The SDK checks signature and age; it takes a timestamp that lies an hour ahead, which could be kept and played again
later, so that bound is ours.
"""

import re
from datetime import datetime

import msgspec
import stripe

from crosslogic.billing.inbound.model import InboundEvent
from crosslogic.kernel.errors import InvalidRequest

STALE_S = 300
FUTURE_S = 60
MOST_BYTES = 1_000_000
_TIMESTAMP = re.compile(r"(?:^|,)\s*t=(\d{1,12})(?:,|$)")


class StripeVerifier:
    """Several secrets may hold at once, as long as one is exchanged for another."""

    provider = "stripe"

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets

    async def verified(self, body: bytes, headers: dict[str, str], now: datetime) -> InboundEvent:
        """Raises InvalidRequest, which does not say what exactly was wrong."""
        header = headers.get("stripe-signature", "")
        at = _TIMESTAMP.search(header)
        if at is None or len(body) > MOST_BYTES:
            raise _refused()
        age_s = now.timestamp() - int(at.group(1))
        if not -FUTURE_S <= age_s <= STALE_S or not any(self._signed(body, header, each) for each in self._secrets):
            raise _refused()
        try:
            content = msgspec.json.decode(body, type=dict[str, object])
            event_id, kind = content["id"], content["type"]
        except (msgspec.DecodeError, KeyError):
            raise _refused() from None
        if not (isinstance(event_id, str) and isinstance(kind, str) and 0 < len(event_id) <= 200):
            raise _refused()
        return InboundEvent(self.provider, event_id, kind[:200], body.decode())

    def _signed(self, body: bytes, header: str, secret: str) -> bool:
        try:
            # Its own look at the age takes the system's time; ours was taken before.
            stripe.WebhookSignature.verify_header(body, header, secret, tolerance=None)
        except (stripe.SignatureVerificationError, UnicodeDecodeError):
            return False
        return True


def _refused() -> InvalidRequest:
    return InvalidRequest("this webhook is not signed by Stripe, or not now")
