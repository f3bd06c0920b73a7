"""The fake Stripe behaves as Stripe does, seen through the official SDK: what other tests lean on."""

import hashlib
import hmac
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
import stripe
from stripe import StripeClient

from tests.fake_stripe import server, webhooks
from tests.fake_stripe.server import FakeStripe

KEY = {"idempotency_key": "k1"}


@pytest_asyncio.fixture
async def fake() -> AsyncIterator[FakeStripe]:
    async with FakeStripe().serve() as fake:
        yield fake


@pytest_asyncio.fixture
async def client(fake: FakeStripe) -> AsyncIterator[StripeClient]:
    http = stripe.HTTPXClient(timeout=30)
    yield client_of(fake, http)
    await http.close_async()


def client_of(fake: FakeStripe, http: stripe.HTTPXClient, retries: int = 0) -> StripeClient:
    bases = {"api": fake.base_url, "meter_events": fake.base_url}
    return StripeClient(server.API_KEY, base_addresses=bases, max_network_retries=retries, http_client=http)


async def paid(fake: FakeStripe, client: StripeClient, behaviour: str = "ok", **more: object) -> stripe.PaymentIntent:
    customer = await client.v1.customers.create_async({"name": "acme"})
    setup = await client.v1.setup_intents.create_async({"customer": customer.id})
    method = fake.payments.new_method("us_bank_account" if behaviour == "slow" else "card", behaviour)
    fake.payments.complete_setup(setup.id, method)
    params = {"amount": 1000, "currency": "usd", "customer": customer.id, "payment_method": method, "confirm": True}
    return await client.v1.payment_intents.create_async({**params, **more})  # type: ignore[typeddict-item]


async def test_a_card_is_set_up_and_charged_and_refunded_up_to_what_was_captured(
    fake: FakeStripe, client: StripeClient
) -> None:
    intent = await paid(fake, client)
    assert (intent.status, intent.amount_received) == ("succeeded", 1000)
    first = await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 600})
    assert first.status == "succeeded"
    with pytest.raises(stripe.InvalidRequestError, match="greater than unrefunded"):
        await client.v1.refunds.create_async({"payment_intent": intent.id, "amount": 401})
    await client.v1.refunds.create_async({"payment_intent": intent.id})
    with pytest.raises(stripe.InvalidRequestError) as refused:
        await client.v1.refunds.create_async({"payment_intent": intent.id})
    assert refused.value.code == "charge_already_refunded"


async def test_declines_three_d_secure_and_bank_debits(fake: FakeStripe, client: StripeClient) -> None:
    with pytest.raises(stripe.CardError) as declined:
        await paid(fake, client, "declined")
    assert declined.value.code == "card_declined"
    with pytest.raises(stripe.CardError) as unauthenticated:
        await paid(fake, client, "3ds", off_session=True)
    assert unauthenticated.value.code == "authentication_required"
    present = await paid(fake, client, "3ds")
    assert present.status == "requires_action"
    assert present.next_action is not None
    fake.payments.payer_acts(present.id)
    assert (await client.v1.payment_intents.retrieve_async(present.id)).status == "succeeded"
    debit = await paid(fake, client, "slow", payment_method_types=["us_bank_account"])
    assert debit.status == "processing"
    fake.payments.bank_answers(debit.id, succeeds=False)
    assert (await client.v1.payment_intents.retrieve_async(debit.id)).status == "requires_payment_method"


async def test_a_key_repeats_the_first_answer_even_a_500_until_it_is_a_day_old(
    fake: FakeStripe, client: StripeClient
) -> None:
    first = await client.v1.customers.create_async({"name": "a"}, KEY)
    assert (await client.v1.customers.create_async({"name": "a"}, KEY)).id == first.id
    with pytest.raises(stripe.IdempotencyError):
        await client.v1.customers.create_async({"name": "b"}, KEY)
    fake.faults.order(server.APPLIED_500)
    for _ in range(2):
        with pytest.raises(stripe.APIError):
            await client.v1.customers.create_async({"name": "c"}, {"idempotency_key": "k2"})
    assert len(fake.state.all("customer")) == 2
    fake.state.advance(server.KEPT_S)
    assert (await client.v1.customers.create_async({"name": "a"}, KEY)).id != first.id


async def test_a_reply_that_is_lost_was_carried_out_and_the_sdk_repeats_only_where_it_is_told_to(
    fake: FakeStripe,
) -> None:
    http = stripe.HTTPXClient(timeout=30)
    fake.faults.order(server.LOST_REPLY)
    with pytest.raises(stripe.APIConnectionError):
        await client_of(fake, http).v1.customers.create_async({"name": "a"}, KEY)
    assert fake.calls == {"POST /v1/customers": 1}
    fake.faults.order(server.LOST_REPLY)
    await client_of(fake, http, retries=1).v1.customers.create_async({"name": "b"}, {"idempotency_key": "k2"})
    assert fake.calls == {"POST /v1/customers": 2}
    fake.faults.order(server.LIMITED)
    with pytest.raises(stripe.RateLimitError):
        await client_of(fake, http).v1.customers.create_async({"name": "d"})
    await http.close_async()


async def test_invoices_are_frozen_by_finalisation_and_rounded_by_line(client: StripeClient) -> None:
    customer = await client.v1.customers.create_async({"name": "acme"})
    invoice = await client.v1.invoices.create_async({"customer": customer.id, "currency": "usd", "auto_advance": False})
    item = {"customer": customer.id, "invoice": invoice.id, "currency": "usd"}
    await client.v1.invoice_items.create_async(
        {**item, "quantity_decimal": "1234567", "unit_amount_decimal": "0.000005"}  # type: ignore[typeddict-item]
    )
    await client.v1.invoice_items.create_async({**item, "amount": -2})  # type: ignore[typeddict-item]
    draft = await client.v1.invoices.retrieve_async(invoice.id)
    assert (draft.status, draft.total) == ("draft", 6 - 2)
    final = await client.v1.invoices.finalize_invoice_async(invoice.id)
    assert final.status == "open"
    with pytest.raises(stripe.InvalidRequestError, match="no longer editable"):
        await client.v1.invoice_items.create_async({**item, "amount": 1})  # type: ignore[typeddict-item]
    assert (await client.v1.invoices.pay_async(invoice.id, {"paid_out_of_band": True})).status == "paid"


async def test_metered_prices_need_a_meter_and_subscriptions_have_items(client: StripeClient) -> None:
    customer = await client.v1.customers.create_async({"name": "acme"})
    metered = {
        "currency": "usd",
        "unit_amount_decimal": "0.0001",
        "recurring": {"interval": "month", "usage_type": "metered"},
    }
    with pytest.raises(stripe.InvalidRequestError, match="need a meter"):
        await client.v1.prices.create_async(metered)  # type: ignore[arg-type]
    meter = await new_meter(client)
    metered["recurring"] = {"interval": "month", "usage_type": "metered", "meter": meter.id}
    price = await client.v1.prices.create_async(metered)  # type: ignore[arg-type]
    bought = await client.v1.subscriptions.create_async({"customer": customer.id, "items": [{"price": price.id}]})
    assert bought.status == "active"
    grant = await client.v1.billing.credit_grants.create_async(
        {
            "customer": customer.id,
            "category": "paid",
            "amount": {"type": "monetary", "monetary": {"currency": "usd", "value": 500}},
            "applicability_config": {"scope": {"price_type": "metered"}},
        }
    )
    assert (await client.v1.billing.credit_grants.void_grant_async(grant.id)).voided_at is not None


async def new_meter(client: StripeClient, name: str = "tokens") -> stripe.billing.Meter:
    return await client.v1.billing.meters.create_async(
        {"display_name": name, "event_name": name, "default_aggregation": {"formula": "sum"}}
    )


async def test_meter_events_are_validated_later_and_each_identifier_counts_once_a_day(
    fake: FakeStripe, client: StripeClient
) -> None:
    customer = await client.v1.customers.create_async({"name": "acme"})
    meter = await new_meter(client)
    hour = int(fake.state.now_s) // 3600 * 3600

    async def send(identifier: str, value: str, at: int = hour, name: str = "tokens") -> None:
        payload = {"stripe_customer_id": customer.id, "value": value}
        await client.v1.billing.meter_events.create_async(
            {"event_name": name, "identifier": identifier, "payload": payload, "timestamp": at}
        )

    await send("a", "5")
    with pytest.raises(stripe.InvalidRequestError) as again:
        await send("a", "5")
    assert again.value.code == "duplicate_meter_event"
    for identifier, value, at, name in (
        ("late", "1", hour - 36 * 86400, "tokens"),
        ("early", "1", hour + 7200, "tokens"),
        ("half", "1.5", hour, "tokens"),
        ("long", "1" * 16, hour, "tokens"),
        ("lost", "1", hour, "unknown"),
    ):
        await send(identifier, value, at, name)
    fake.state.advance(60)
    fake.meters.validate()
    thin = [event for event in fake.state.events if event["object"] == "v2.core.event"]
    codes = {kind["code"] for event in thin for kind in event["data"]["reason"]["error_types"]}
    assert codes == {
        "timestamp_too_far_in_past", "timestamp_in_future", "meter_event_invalid_value",
        "meter_event_value_too_many_digits", "no_meter",
    }  # fmt: skip
    assert "data" not in webhooks.payload_of(thin[0]).decode().partition('"object"')[0]
    fake.meters.lag_s = 300

    async def summed() -> int:
        found = await client.v1.billing.meters.event_summaries.list_async(
            meter.id, {"customer": customer.id, "start_time": hour, "end_time": hour + 3600}
        )
        return int(sum(each.aggregated_value for each in found.data))

    assert await summed() == 0
    fake.state.advance(300)
    assert await summed() == 5
    fake.state.advance(86400)
    await send("a", "5")  # outside of the window the same identifier counts again
    fake.meters.validate()
    fake.state.advance(300)
    assert await summed() == 10
    assert fake.meters.total("tokens", customer.id) == 10


async def test_v2_events_are_validated_at_once_or_under_a_session(fake: FakeStripe, client: StripeClient) -> None:
    customer = await client.v1.customers.create_async({"name": "acme"})
    await new_meter(client)
    event = {"event_name": "tokens", "payload": {"stripe_customer_id": customer.id, "value": "7"}}
    await client.v2.billing.meter_events.create_async(event)  # type: ignore[arg-type]
    with pytest.raises(stripe.InvalidRequestError):
        await client.v2.billing.meter_events.create_async({**event, "event_name": "unknown"})  # type: ignore[arg-type]
    session = await client.v2.billing.meter_event_session.create_async()
    http = stripe.HTTPXClient(timeout=30)
    bases = {"api": fake.base_url, "meter_events": fake.base_url}
    streaming = StripeClient(session.authentication_token, base_addresses=bases, http_client=http)
    await streaming.v2.billing.meter_event_stream.create_async({"events": [event, event]})  # type: ignore[typeddict-item]
    await http.close_async()
    fake.meters.validate()
    assert fake.meters.total("tokens", customer.id) == 21


async def test_events_are_signed_as_the_sdk_expects(fake: FakeStripe, client: StripeClient) -> None:
    await client.v1.customers.create_async({"name": "acme"})
    payload = webhooks.payload_of(fake.state.events[0])
    now = int(stripe._webhook.time.time())  # type: ignore[attr-defined]
    event = client.construct_event(payload, webhooks.signature(payload, now), webhooks.SECRET)
    assert event.type == "customer.created"
    with pytest.raises(stripe.SignatureVerificationError):
        client.construct_event(payload + b" ", webhooks.signature(payload, now), webhooks.SECRET)
    expected = hmac.new(webhooks.SECRET.encode(), f"{now}.".encode() + payload, hashlib.sha256).hexdigest()
    assert expected in webhooks.signature(payload, now)
