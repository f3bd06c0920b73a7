"""Webhooks: forged, stale, repeated, reordered and concurrent ones, with both providers' own signatures."""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.inbound import sql
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.inbound.verify_paypal import PayPalVerifier, allowed
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.billing.payments.model import MethodKind, Status
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import InvalidRequest, NotFound, Unavailable
from tests.fake_paypal import WEBHOOK_ID
from tests.fake_stripe import webhooks
from tests.payments_rig import ACME, PayPalSide, Rig, StripeSide, paypal_side, stripe_side


@pytest_asyncio.fixture
async def rig(engine: AsyncEngine) -> AsyncIterator[Rig]:
    clock = ManualClock()
    async with stripe_side(clock) as side:
        yield await Rig(engine, side, clock).prepare()


def stripe_of(rig: Rig) -> StripeSide:
    assert isinstance(rig.provider, StripeSide)
    return rig.provider


def inbound_of(rig: Rig) -> Inbound:
    verifier = StripeVerifier(("whsec_old", webhooks.SECRET))
    return Inbound(rig.engine, rig.clock, rig.service, {"stripe": verifier.verified})


async def tell(rig: Rig, inbound: Inbound, event: dict[str, Any]) -> bool:
    payload = webhooks.payload_of(event)
    at_s = int(rig.clock.now().timestamp())
    return await inbound.take("stripe", payload, {"stripe-signature": webhooks.signature(payload, at_s)})


def event(kind: str = "customer.created", event_id: str = "evt_1") -> dict[str, Any]:
    return {"object": "event", "id": event_id, "type": kind, "data": {"object": {"id": "cus_1"}}}


@pytest.mark.parametrize(
    "change",
    ["body", "signature", "secret", "stale", "future", "no time", "no header", "two times", "empty", "not json"],
)
async def test_what_stripe_has_not_signed_just_now_is_refused(rig: Rig, change: str) -> None:
    inbound, at_s = inbound_of(rig), int(rig.clock.now().timestamp())
    payload = b"not json" if change == "not json" else webhooks.payload_of(event())
    at_s += {"stale": -301, "future": 61}.get(change, 0)
    header = webhooks.signature(payload, at_s, "whsec_other" if change == "secret" else webhooks.SECRET)
    header = {
        "signature": header[:-1] + ("0" if header[-1] != "0" else "1"),
        "no time": header.partition(",")[2],
        "no header": "",
        "two times": f"t={at_s + 10_000},{header}",
    }.get(change, header)
    body = {"body": payload + b" ", "empty": b""}.get(change, payload)
    with pytest.raises(InvalidRequest, match="not signed by Stripe"):
        await inbound.take("stripe", body, {"stripe-signature": header})
    assert await sql.events(rig.engine) == []


async def test_a_signature_holds_for_a_while_and_under_either_secret(rig: Rig) -> None:
    inbound, now_s = inbound_of(rig), int(rig.clock.now().timestamp())
    for number, (at_s, secret) in enumerate(
        ((now_s - 299, webhooks.SECRET), (now_s + 59, webhooks.SECRET), (now_s, "whsec_old"))
    ):
        payload = webhooks.payload_of(event(event_id=f"evt_{number}"))
        header = webhooks.signature(payload, at_s, secret)
        assert await inbound.take("stripe", payload, {"stripe-signature": header})
    with pytest.raises(NotFound):
        await inbound.take("paypal", b"{}", {})


async def test_an_event_is_kept_once_however_often_and_concurrently_it_comes(rig: Rig) -> None:
    inbound = inbound_of(rig)
    answers = await asyncio.gather(*(tell(rig, inbound, event()) for _ in range(10)))
    assert sorted(answers) == [False] * 9 + [True]
    (kept,) = await sql.events(rig.engine)
    assert (kept.copies, kept.payload) == (10, webhooks.payload_of(event()).decode())
    assert await inbound.act() == 1
    assert await inbound.act() == 0


@pytest.mark.parametrize("seed", range(5))
async def test_storms_of_events_in_any_order_come_to_the_same_end(rig: Rig, seed: int) -> None:
    random, inbound, fake = Random(seed), inbound_of(rig), stripe_of(rig).fake
    good, bad = await rig.method(), await rig.method(behaviour="declined")
    asked = await rig.method(behaviour="3ds")
    slow = await rig.method(behaviour="slow", kind=MethodKind.BANK_ACCOUNT)
    paid = await rig.service.top_up(ACME, 1000, "usd", method_id=good)
    refund = await rig.service.refund(paid.id, 300)
    declined = await rig.service.top_up(ACME, 1100, "usd", method_id=bad)
    acted = await rig.service.top_up(ACME, 1200, "usd", method_id=asked)
    rig.provider.payer_acts(acted)
    bounced = await rig.service.top_up(ACME, 1300, "usd", method_id=slow)
    assert bounced.provider_ref is not None
    fake.payments.bank_answers(bounced.provider_ref, succeeds=False)
    fake.payments.refund_fails(str(refund.provider_ref))
    told = webhooks.storm(fake.state.events, random)
    for each in told:
        await tell(rig, inbound, each)
        if random.random() < 0.2:
            await inbound.act()
    while await inbound.act():
        pass
    ends = {each.id: each.status for each in await rig.service.payments()}
    assert ends == {
        paid.id: Status.SUCCEEDED,
        declined.id: Status.FAILED,
        acted.id: Status.SUCCEEDED,
        bounced.id: Status.FAILED,
    }
    (refund,) = await rig.service.refunds()
    assert refund.status is Status.FAILED
    assert (await rig.service.payment(paid.id)).refundable_minor == 1000
    assert sorted(amount for _, _, amount in rig.books.told_paid) == [1000, 1200]
    assert {each.event_id for each in await sql.events(rig.engine, limit=500)} == {each["id"] for each in told}


async def test_while_the_provider_does_not_answer_events_wait_and_none_is_lost(rig: Rig) -> None:
    inbound, fake = inbound_of(rig), stripe_of(rig).fake
    acted = await rig.service.top_up(ACME, 1200, "usd", method_id=await rig.method(behaviour="3ds"))
    rig.provider.payer_acts(acted)
    for each in fake.state.events:
        await tell(rig, inbound, each)
    fake.faults.down = True
    for _ in range(5):
        await inbound.act()
        rig.provider.advance(600)
    assert await sql.events(rig.engine, failing=True)
    fake.faults.down = False
    rig.provider.advance(900)
    await inbound.act()
    assert (await rig.service.payment(acted.id)).status is Status.SUCCEEDED
    assert await sql.events(rig.engine, failing=True) == []


async def test_methods_that_are_set_up_or_removed_at_the_provider_are_known_here(rig: Rig) -> None:
    inbound = inbound_of(rig)
    begun = await rig.service.methods.begin_setup(ACME, MethodKind.CARD)
    await rig.provider.enter(begun.setup_ref)
    for each in stripe_of(rig).fake.state.events:
        await tell(rig, inbound, each)
    await inbound.act()
    (method,) = await rig.service.methods.all(ACME)
    assert method.is_default
    stripe_of(rig).fake.payments.detach(method.method_ref)
    await tell(rig, inbound, stripe_of(rig).fake.state.events[-1])
    await inbound.act()
    # a detached method names no customer any more: the next look of ours finds out
    await rig.service.methods.sync(ACME)
    assert await rig.service.methods.all(ACME) == []


async def test_other_peoples_events_and_unknown_shapes_change_nothing(rig: Rig) -> None:
    inbound = inbound_of(rig)
    shapes: list[Any] = [
        {"id": "pi_9", "metadata": {"crosslogic_payment": "pay_none"}},
        {"id": 5, "metadata": []},
        {"metadata": None},
        [],
        None,
    ]
    for number, shape in enumerate(shapes):
        told = {"object": "event", "id": f"evt_{number}", "type": "payment_intent.succeeded", "data": {"object": shape}}
        await tell(rig, inbound, told)
    assert await inbound.act() == len(shapes)


# PayPal


@pytest_asyncio.fixture
async def paypal_rig(engine: AsyncEngine) -> AsyncIterator[Rig]:
    clock = ManualClock()
    async with paypal_side(clock) as side:
        yield await Rig(engine, side, clock).prepare()


def paypal_of(rig: Rig) -> tuple[PayPalSide, PayPalVerifier]:
    side = rig.provider
    assert isinstance(side, PayPalSide)

    async def fetch(url: str) -> bytes:
        return side.fake.certificate()

    return side, PayPalVerifier(WEBHOOK_ID, fetch, lambda url: url.startswith(side.fake.base_url))


async def test_paypals_own_webhooks_are_taken_and_acted_on(paypal_rig: Rig) -> None:
    rig = paypal_rig
    side, verifier = paypal_of(rig)
    inbound = Inbound(rig.engine, rig.clock, rig.service, {"paypal": verifier.verified})
    acted = await rig.service.top_up(ACME, 700, "usd", method_id=await rig.method(behaviour="3ds"))
    assert acted.status is Status.PENDING
    rig.provider.payer_acts(acted)
    for each in [*side.fake.events, *side.fake.events]:
        payload = json.dumps(each).encode()
        await inbound.take("paypal", payload, side.fake.headers_of(payload))
    await inbound.act()
    assert (await rig.service.payment(acted.id)).status is Status.SUCCEEDED
    assert rig.provider.taken_minor() == 700


@pytest.mark.parametrize(
    "change", ["body", "time", "webhook", "algorithm", "host", "stale", "future", "signature", "no key"]
)
async def test_what_paypal_has_not_signed_just_now_is_refused(paypal_rig: Rig, change: str) -> None:
    rig = paypal_rig
    side, verifier = paypal_of(rig)
    payload = json.dumps({"id": "WH-1", "event_type": "X"}).encode()
    shift = {"stale": timedelta(minutes=-6), "future": timedelta(minutes=2)}.get(change, timedelta(0))
    headers = side.fake.headers_of(payload, at=rig.clock.now() + shift)
    body = payload
    if change == "body":
        body += b" "
    elif change == "time":
        headers["paypal-transmission-time"] = "2026-01-01T00:00:01Z"
    elif change == "webhook":
        verifier = PayPalVerifier("OTHER", verifier._fetch, verifier._is_allowed)
    elif change == "algorithm":
        headers["paypal-auth-algo"] = "none"
    elif change == "host":
        headers["paypal-cert-url"] = "https://evil.test/v1/notifications/certs/CERT-1"
    elif change == "signature":
        headers["paypal-transmission-sig"] = "AAAA" + headers["paypal-transmission-sig"][4:]
    elif change == "no key":
        verifier = PayPalVerifier(WEBHOOK_ID, _not_a_certificate, verifier._is_allowed)
    with pytest.raises(InvalidRequest, match="not signed by PayPal"):
        await verifier.verified(body, headers, rig.clock.now())


async def _not_a_certificate(url: str) -> bytes:
    return b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


async def test_without_its_certificate_paypal_is_asked_to_send_it_again(paypal_rig: Rig) -> None:
    side, verifier = paypal_of(paypal_rig)

    async def away(url: str) -> bytes:
        raise Unavailable("no network")

    payload = json.dumps({"id": "WH-1", "event_type": "X"}).encode()
    with pytest.raises(Unavailable):
        await PayPalVerifier(WEBHOOK_ID, away, verifier._is_allowed).verified(
            payload, side.fake.headers_of(payload), paypal_rig.clock.now()
        )


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("https://api.paypal.com/v1/notifications/certs/CERT-360caa42-fca2a594", True),
        ("https://api.sandbox.paypal.com:443/v1/notifications/certs/CERT-1", True),
        ("http://api.paypal.com/v1/notifications/certs/CERT-1", False),
        ("https://api.paypal.com.evil.test/v1/notifications/certs/CERT-1", False),
        ("https://evil.test/api.paypal.com/v1/notifications/certs/CERT-1", False),
        ("https://api.paypal.com@evil.test/v1/notifications/certs/CERT-1", False),
        ("https://user:pass@api.paypal.com/v1/notifications/certs/CERT-1", False),
        ("https://api.paypal.com:8443/v1/notifications/certs/CERT-1", False),
        ("https://api.paypal.com/v1/notifications/certs/../../x", False),
        ("https://api.paypal.com/v1/notifications/certs/CERT-1?x=1", False),
        ("https://api.paypal.com/v1/notifications/certs/CERT-1#x", False),
        ("https://api.paypal.com/v2/other/CERT-1", False),
        ("https://api.paypal.com/v1/notifications/certs/", False),
        ("https://api.paypal.com:x/v1/notifications/certs/CERT-1", False),
        ("file:///etc/passwd", False),
        ("", False),
    ],
)
def test_certificates_come_from_paypals_own_hosts_only(url: str, good: bool) -> None:
    assert allowed(url) is good
