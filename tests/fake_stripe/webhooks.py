"""How the fake Stripe tells what happened: signed as Stripe signs, some events twice, in no certain order."""

import hashlib
import hmac
import json
from random import Random

from tests.fake_stripe.state import Obj

SECRET = "whsec_test_secret"


def payload_of(event: Obj) -> bytes:
    """What is sent: a thin event goes without its data."""
    sent = event if event["object"] == "event" else {name: value for name, value in event.items() if name != "data"}
    return json.dumps(sent, separators=(",", ":")).encode()


def signature(payload: bytes, at_s: int, secret: str = SECRET) -> str:
    """The header `Stripe-Signature`."""
    digest = hmac.new(secret.encode(), b"%d." % at_s + payload, hashlib.sha256).hexdigest()
    return f"t={at_s},v1={digest}"


def storm(events: list[Obj], random: Random, *, copies: int = 3) -> list[Obj]:
    """Every event once to `copies` times, in any order."""
    told = [event for event in events for _ in range(random.randint(1, copies))]
    random.shuffle(told)
    return told
