"""Stripe, by its official SDK.

Invariants: every call says how often the network may be tried again, which repeats under one idempotency key; an answer
is a `Result` only when it is final or Stripe holds the charge; a declined charge counts as failed only once its payment
intent is cancelled, so that nothing can make it succeed behind our back.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import stripe
from stripe import StripeClient

from crosslogic.billing.payments.model import (
    ChargebackFound,
    ChargebackStatus,
    ChargeOrder,
    MethodFound,
    MethodKind,
    RefundOrder,
    Result,
    Settled,
    SetupStarted,
    Status,
)
from crosslogic.billing.payments.ports import OutcomeUnknown, ProviderRefused

PROVIDER = "stripe"
CALL_TIMEOUT_S = 40.0
RESEND_WITHIN = timedelta(hours=23)  # keys may be forgotten after 24 h
_SKEW = timedelta(hours=1)  # between Stripe's clock and ours
_BANKS = {"usd": "us_bank_account", "eur": "sepa_debit"}  # whose debits are in one currency each
_METADATA_PAYMENT, _METADATA_REFUND, _METADATA_ORG = "crosslogic_payment", "crosslogic_refund", "crosslogic_org"
_DISPUTES = {
    "warning_needs_response": ChargebackStatus.INQUIRY,
    "warning_under_review": ChargebackStatus.INQUIRY,
    "warning_closed": ChargebackStatus.WON,
    "needs_response": ChargebackStatus.NEEDS_RESPONSE,
    "under_review": ChargebackStatus.UNDER_REVIEW,
    "won": ChargebackStatus.WON,
    "prevented": ChargebackStatus.WON,
    "lost": ChargebackStatus.LOST,
}
T = TypeVar("T")

logging.getLogger("stripe").setLevel(logging.WARNING)  # it would tell parameters at lower levels


def new_client(
    api_key: str, *, base_url: str | None = None, timeout_s: float = 30.0, network_retries: int = 2
) -> tuple[StripeClient, stripe.HTTPXClient]:
    """A client with retries that are said, and its connections, which whoever holds it closes."""
    http = stripe.HTTPXClient(timeout=timeout_s)
    bases: Any = {} if base_url is None else {"api": base_url, "meter_events": base_url}
    client = StripeClient(
        api_key,
        base_addresses=bases,
        max_network_retries=network_retries,
        http_client=http,
    )
    return client, http


class StripeProcessor:
    """`PaymentProcessor` over Stripe."""

    provider = PROVIDER
    resend_within = RESEND_WITHIN
    kinds: tuple[MethodKind, ...] = (MethodKind.CARD, MethodKind.BANK_ACCOUNT)

    def __init__(self, client: StripeClient, http: stripe.HTTPXClient, return_url: str) -> None:
        self._v1 = client.v1
        self._http = http
        self._return_url = return_url  # where a payer comes back to after 3-D Secure

    async def create_customer(self, org_id: str, name: str) -> str:
        made = await asked(
            self._v1.customers.create_async(
                {"name": name, "metadata": {_METADATA_ORG: org_id}}, {"idempotency_key": f"cic-cus-{org_id}"}
            )
        )
        return made.id

    async def begin_setup(self, customer_ref: str, kind: MethodKind, key: str, currency: str) -> SetupStarted:
        wanted = _type(kind, currency)
        if wanted is None:
            raise ProviderRefused("unsupported_method", "Stripe is not set up for this kind of payment method")
        params: Any = {"customer": customer_ref, "payment_method_types": [wanted], "usage": "off_session"}
        made = await asked(self._v1.setup_intents.create_async(params, {"idempotency_key": f"cic-set-{key}"}))
        return SetupStarted(made.id, client_secret=made.client_secret)

    async def finish_setup(self, customer_ref: str, setup_ref: str) -> MethodFound | None:
        setup = await asked(self._v1.setup_intents.retrieve_async(setup_ref))
        if _id(setup.customer) != customer_ref:
            raise ProviderRefused("resource_missing", "there is no such set-up")
        if setup.status != "succeeded" or setup.payment_method is None:
            return None
        return _method(await asked(self._v1.payment_methods.retrieve_async(_id(setup.payment_method) or "")))

    async def methods(self, customer_ref: str) -> list[MethodFound]:
        async with translated():
            found = await self._v1.payment_methods.list_async({"customer": customer_ref, "limit": 100})
            known = ("card", *_BANKS.values())
            return [_method(each) async for each in found.auto_paging_iter() if each.type in known]

    async def set_default(self, customer_ref: str, method_ref: str) -> None:
        await asked(
            self._v1.customers.update_async(customer_ref, {"invoice_settings": {"default_payment_method": method_ref}})
        )

    async def remove_method(self, customer_ref: str, method_ref: str) -> None:
        method = await asked(self._v1.payment_methods.retrieve_async(method_ref))
        if _id(method.customer) == customer_ref:
            await asked(self._v1.payment_methods.detach_async(method_ref))

    async def charge(self, order: ChargeOrder) -> Result:
        method_type = _type(order.kind, order.currency)
        if method_type is None:
            message = f"bank accounts are not debited in {order.currency}"
            return Result(Status.FAILED, failure_code="unsupported_currency", failure_message=message)
        params: Any = {
            "amount": order.amount_minor,
            "currency": order.currency,
            "customer": order.customer_ref,
            "payment_method": order.method_ref,
            "payment_method_types": [method_type],
            "confirm": True,
            "off_session": not order.customer_present,
            "description": order.description,
            "metadata": {_METADATA_PAYMENT: order.payment_id, _METADATA_ORG: order.org_id},
        }
        if order.customer_present:
            params["return_url"] = self._return_url
        try:
            intent = await asked(
                self._v1.payment_intents.create_async(params, {"idempotency_key": f"cic-{order.payment_id}"})
            )
        except ProviderRefused as refused:
            declined = getattr(refused, "intent_ref", None)
            if declined is None:
                return Result(Status.FAILED, failure_code=refused.code, failure_message=str(refused))
            stands = await self._surely(self.refresh(declined, order.payment_id, give_up=True))
            if stands.status is not Status.FAILED:
                return stands
            return Result(Status.FAILED, declined, failure_code=refused.code, failure_message=str(refused))
        return await self._surely(self._result(intent, give_up=False))

    async def find_charge(self, order: ChargeOrder) -> Result | None:
        since = int((order.sent_at - _SKEW).timestamp())
        async with translated():
            found = await self._v1.payment_intents.list_async(
                {"customer": order.customer_ref, "created": {"gte": since}, "limit": 100}
            )
            async for intent in found.auto_paging_iter():
                if _tag(intent, _METADATA_PAYMENT) == order.payment_id:
                    return await self._result(intent, give_up=False)
        return None

    async def refresh(self, provider_ref: str, payment_id: str, *, give_up: bool = False) -> Result:
        intent = await asked(self._v1.payment_intents.retrieve_async(provider_ref))
        if _tag(intent, _METADATA_PAYMENT) != payment_id:
            raise ProviderRefused("foreign", "this payment intent is of another payment")
        return await self._result(intent, give_up=give_up)

    async def refund(self, order: RefundOrder) -> Result:
        try:
            made = await asked(
                self._v1.refunds.create_async(
                    {
                        "payment_intent": order.payment_ref,
                        "amount": order.amount_minor,
                        "metadata": {_METADATA_REFUND: order.refund_id},
                    },
                    {"idempotency_key": f"cic-{order.refund_id}"},
                )
            )
        except ProviderRefused as refused:
            return Result(Status.FAILED, failure_code=refused.code, failure_message=str(refused))
        return _refunded(made)

    async def find_refund(self, order: RefundOrder) -> Result | None:
        async with translated():
            found = await self._v1.refunds.list_async({"payment_intent": order.payment_ref, "limit": 100})
            async for refund in found.auto_paging_iter():
                if _tag(refund, _METADATA_REFUND) == order.refund_id:
                    return _refunded(refund)
        return None

    async def refresh_refund(self, provider_ref: str, refund_id: str) -> Result:
        refund = await asked(self._v1.refunds.retrieve_async(provider_ref))
        if _tag(refund, _METADATA_REFUND) != refund_id:
            raise ProviderRefused("foreign", "this refund is another one")
        return _refunded(refund)

    async def portal(self, customer_ref: str, return_url: str) -> str:
        made = await asked(
            self._v1.billing_portal.sessions.create_async({"customer": customer_ref, "return_url": return_url})
        )
        return made.url

    async def settled(self, customer_ref: str, start: datetime, end: datetime) -> list[Settled]:
        rows: list[Settled] = []
        bounds: Any = {"gte": int(start.timestamp()), "lte": int(end.timestamp())}
        async with translated():
            intents = await self._v1.payment_intents.list_async(
                {"customer": customer_ref, "created": bounds, "limit": 100}
            )
            async for intent in intents.auto_paging_iter():
                our_id = _tag(intent, _METADATA_PAYMENT)
                done = intent.status == "succeeded"
                rows.append(
                    Settled("payment", our_id, intent.id, intent.amount_received, intent.currency, succeeded=done)
                )
                if not done:
                    continue
                refunds = await self._v1.refunds.list_async({"payment_intent": intent.id, "limit": 100})
                async for refund in refunds.auto_paging_iter():
                    our_id = _tag(refund, _METADATA_REFUND)
                    stands = refund.status not in ("failed", "canceled")
                    rows.append(Settled("refund", our_id, refund.id, refund.amount, refund.currency, succeeded=stands))
        return rows

    async def chargeback(self, provider_ref: str) -> ChargebackFound:
        found = await asked(self._v1.disputes.retrieve_async(provider_ref))
        due_by = part(found.evidence_details, "due_by")
        return ChargebackFound(
            provider_ref=found.id,
            payment_ref=_id(found.payment_intent),
            charge_ref=_id(found.charge),
            amount_minor=found.amount,
            currency=found.currency,
            reason=found.reason,
            status=_DISPUTES.get(found.status, ChargebackStatus.UNDER_REVIEW),
            # Withdrawals are below zero, what comes back above; fees are Stripe's own matter with us.
            withdrawn_minor=max(0, -sum(each.amount for each in found.balance_transactions)),
            opened_at=datetime.fromtimestamp(found.created, UTC),
            respond_by=None if due_by is None else datetime.fromtimestamp(due_by, UTC),
        )

    async def chargebacks(self, since: datetime) -> list[str]:
        async with translated():
            found = await self._v1.disputes.list_async({"created": {"gte": int(since.timestamp())}, "limit": 100})
            return [each.id async for each in found.auto_paging_iter()]

    async def close(self) -> None:
        await self._http.close_async()  # type: ignore[no-untyped-call]

    async def _result(self, intent: stripe.PaymentIntent, *, give_up: bool) -> Result:
        if intent.status == "succeeded":
            charge = _id(intent.latest_charge)
            return Result(Status.SUCCEEDED, intent.id, charge, captured_minor=intent.amount_received)
        if intent.status == "canceled":
            return _failed(intent)
        if intent.status in ("processing", "requires_capture") or (
            not give_up and intent.status in ("requires_action", "requires_confirmation")
        ):
            return Result(Status.PENDING, intent.id, action_url=_action_url(intent))
        try:
            return _failed(await asked(self._v1.payment_intents.cancel_async(intent.id)), intent)
        except ProviderRefused:  # it has moved on meanwhile
            moved = await asked(self._v1.payment_intents.retrieve_async(intent.id))
            if moved.status == intent.status:
                raise OutcomeUnknown("Stripe does not let a payment intent be cancelled", answered=True) from None
            return await self._result(moved, give_up=give_up)

    async def _surely(self, stands: Awaitable[Result]) -> Result:
        """What fails after the charge was made leaves it unknown: its key would only repeat the first answer."""
        try:
            return await stands
        except OutcomeUnknown as unknown:
            raise OutcomeUnknown(str(unknown), answered=True) from None


async def asked(call: Awaitable[T]) -> T:
    async with translated():
        return await call


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """Stripe's errors as ours, under a deadline. What the message of an error holds is not passed on, but the one for
    people of a refusal."""
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            yield
    except TimeoutError:
        raise OutcomeUnknown("Stripe did not answer in time", answered=False) from None
    except (stripe.APIConnectionError, stripe.RateLimitError, stripe.AuthenticationError) as error:
        raise OutcomeUnknown(f"Stripe cannot be used ({type(error).__name__})", answered=False) from None
    except (stripe.CardError, stripe.InvalidRequestError, stripe.PermissionError) as error:
        if error.http_status == 409:  # the same call is still being carried out
            raise OutcomeUnknown("Stripe is still at it", answered=False) from None
        refused = ProviderRefused(error.code or "refused", error.user_message or "Stripe refused")
        intent = part(error.error, "payment_intent")
        refused.intent_ref = _id(intent)  # type: ignore[attr-defined]
        raise refused from None
    except stripe.StripeError as error:
        raise OutcomeUnknown(f"Stripe failed ({type(error).__name__})", answered=True) from None


def _type(kind: MethodKind, currency: str) -> str | None:
    """What Stripe calls such a method of an org with this currency; None where there is none."""
    if kind is MethodKind.CARD:
        return "card"
    return _BANKS.get(currency) if kind is MethodKind.BANK_ACCOUNT else None


def _tag(found: stripe.PaymentIntent | stripe.Refund, name: str) -> str | None:
    value = part(found.metadata, name)
    return None if value is None else str(value)


def _id(value: Any) -> str | None:
    """Of what may have been expanded."""
    if value is None or isinstance(value, str):
        return value
    return str(value["id"])


def _method(found: stripe.PaymentMethod) -> MethodFound:
    card = part(found, "card")
    if card is not None:
        return MethodFound(found.id, MethodKind.CARD, card.brand, card.last4, card.exp_month, card.exp_year)
    account = part(found, "us_bank_account") or part(found, "sepa_debit")
    bank = part(account, "bank_name") or part(account, "bank_code")
    return MethodFound(found.id, MethodKind.BANK_ACCOUNT, bank, part(account, "last4"))


def _action_url(intent: stripe.PaymentIntent) -> str | None:
    url = part(part(part(intent, "next_action"), "redirect_to_url"), "url")
    return None if url is None else str(url)


def _failed(intent: stripe.PaymentIntent, before: stripe.PaymentIntent | None = None) -> Result:
    error = part(before or intent, "last_payment_error")
    code = part(error, "code") or part(intent, "cancellation_reason") or "not_completed"
    message = part(error, "message") or "the payment was not completed"
    return Result(Status.FAILED, intent.id, failure_code=code, failure_message=message)


def _refunded(refund: stripe.Refund) -> Result:
    if refund.status in ("failed", "canceled"):
        return Result(Status.FAILED, refund.id, failure_code=part(refund, "failure_reason") or refund.status)
    return Result(Status.SUCCEEDED if refund.status == "succeeded" else Status.PENDING, refund.id)


def part(found: Any, name: str) -> Any:
    """What Stripe may leave out: the SDK has no attribute then."""
    return getattr(found, name, None)
