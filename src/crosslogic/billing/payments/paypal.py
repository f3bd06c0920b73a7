"""PayPal, by HTTP: vault v3 for methods, orders v2 for charges, payments v2 for refunds.

PayPal keeps `PayPal-Request-Id` for six hours of orders, so nothing is sent again after five. It also refuses a second
order with the same `invoice_id`, which is the payment's id: a second guard. Whoever has no answer reads the events that
PayPal keeps for thirty days. An order is captured by our call alone, so one that we give up can never succeed.
"""

import asyncio
import hashlib
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx

from crosslogic.billing.payments.currencies import minor_of, minor_text
from crosslogic.billing.payments.model import (
    ChargebackFound,
    ChargeOrder,
    MethodFound,
    MethodKind,
    RefundOrder,
    Result,
    Settled,
    SetupStarted,
    Status,
)
from crosslogic.billing.payments.paypal_wire import (
    capture_of,
    chargeback_of,
    events_query,
    failure_of,
    link,
    method_of,
    number,
    time_text,
)
from crosslogic.billing.payments.ports import OutcomeUnknown, ProviderRefused

PROVIDER = "paypal"
LIVE_URL = "https://api-m.paypal.com"
RESEND_WITHIN = timedelta(hours=5)
CALL_TIMEOUT_S = 40.0
_SKEW = timedelta(hours=1)
_TOKEN_MARGIN_S = 60.0
_PAGES = 200  # of a list, at most
Json = dict[str, Any]


class PayPalProcessor:
    """`PaymentProcessor` over PayPal."""

    provider = PROVIDER
    resend_within = RESEND_WITHIN
    kinds: tuple[MethodKind, ...] = (MethodKind.PAYPAL, MethodKind.CARD)

    def __init__(
        self, client_id: str, secret: str, return_url: str, *, base_url: str = LIVE_URL, timeout_s: float = 30.0
    ) -> None:
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout_s)
        self._credentials = (client_id, secret)
        self._return_url = return_url
        self._token = ""
        self._token_until_s = 0.0
        self._token_lock = asyncio.Lock()

    async def create_customer(self, org_id: str, name: str) -> str:
        """PayPal takes our own name of a customer, of at most 22 characters."""
        return "c" + hashlib.sha256(org_id.encode()).hexdigest()[:21]

    async def begin_setup(self, customer_ref: str, kind: MethodKind, key: str, currency: str) -> SetupStarted:
        places = {"return_url": self._return_url, "cancel_url": self._return_url}
        if kind is MethodKind.PAYPAL:
            source: Json = {"paypal": {"usage_type": "MERCHANT", "experience_context": places}}
        elif kind is MethodKind.CARD:
            source = {"card": {"experience_context": places}}
        else:
            raise ProviderRefused("unsupported_method", "PayPal is not set up for this kind of payment method")
        body = {"customer": {"id": customer_ref}, "payment_source": source}
        made = await self._call("POST", "/v3/vault/setup-tokens", body, key=f"cic-{key}")
        return SetupStarted(made["id"], url=link(made, "approve"))

    async def finish_setup(self, customer_ref: str, setup_ref: str) -> MethodFound | None:
        setup = await self._call("GET", f"/v3/vault/setup-tokens/{_safe(setup_ref)}")
        if setup.get("customer", {}).get("id") != customer_ref:
            raise ProviderRefused("resource_missing", "there is no such set-up")
        if setup.get("status") not in ("APPROVED", "VAULTED"):
            return None
        body = {"payment_source": {"token": {"id": setup_ref, "type": "SETUP_TOKEN"}}}
        made = await self._call("POST", "/v3/vault/payment-tokens", body, key=f"cic-tok-{setup_ref}")
        return method_of(made)

    async def methods(self, customer_ref: str) -> list[MethodFound]:
        found: list[MethodFound] = []
        for page in range(1, _PAGES):
            query = {"customer_id": customer_ref, "page_size": "20", "page": str(page), "total_required": "true"}
            answer = await self._call("GET", "/v3/vault/payment-tokens", query=query)
            found += [method_of(each) for each in answer.get("payment_tokens", [])]
            if page >= int(answer.get("total_pages", 1)):
                break
        return found

    async def set_default(self, customer_ref: str, method_ref: str) -> None:
        """PayPal knows no default: it is ours alone."""

    async def remove_method(self, customer_ref: str, method_ref: str) -> None:
        try:
            await self._call("DELETE", f"/v3/vault/payment-tokens/{_safe(method_ref)}")
        except ProviderRefused as refused:
            if refused.code != "RESOURCE_NOT_FOUND":
                raise

    async def charge(self, order: ChargeOrder) -> Result:
        source = "card" if order.kind is MethodKind.CARD else "paypal"
        body = {
            "intent": "CAPTURE",
            "purchase_units": [
                {
                    "amount": _money(order.amount_minor, order.currency),
                    "custom_id": f"{order.payment_id}.{order.customer_ref}",
                    "invoice_id": order.payment_id,
                    "description": order.description[:127],
                }
            ],
            "payment_source": {source: {"vault_id": order.method_ref}},
        }
        try:
            made = await self._call("POST", "/v2/checkout/orders", body, key=order.payment_id)
        except ProviderRefused as refused:
            if refused.code == "DUPLICATE_INVOICE_ID":
                raise OutcomeUnknown("PayPal has an order of this payment", answered=True) from None
            return Result(Status.FAILED, failure_code=refused.code, failure_message=str(refused))
        return await self._result(made, order.payment_id, give_up=False)

    async def find_charge(self, order: ChargeOrder) -> Result | None:
        async for event in self._events("PAYMENT.CAPTURE.", order.sent_at - _SKEW, None):
            resource = event.get("resource", {})
            if str(resource.get("custom_id", "")).partition(".")[0] == order.payment_id:
                ref = resource.get("supplementary_data", {}).get("related_ids", {}).get("order_id", "")
                return await self.refresh(ref, order.payment_id)
        return None

    async def refresh(self, provider_ref: str, payment_id: str, *, give_up: bool = False) -> Result:
        found = await self._call("GET", f"/v2/checkout/orders/{_safe(provider_ref)}")
        if found.get("purchase_units", [{}])[0].get("invoice_id") != payment_id:
            raise ProviderRefused("foreign", "this order is of another payment")
        return await self._result(found, payment_id, give_up=give_up)

    async def refund(self, order: RefundOrder) -> Result:
        body = {
            "amount": _money(order.amount_minor, order.currency),
            "custom_id": order.refund_id,
            "invoice_id": order.refund_id,
        }
        path = f"/v2/payments/captures/{_safe(order.charge_ref)}/refund"
        try:
            return _refunded(await self._call("POST", path, body, key=order.refund_id))
        except ProviderRefused as refused:
            return Result(Status.FAILED, failure_code=refused.code, failure_message=str(refused))

    async def find_refund(self, order: RefundOrder) -> Result | None:
        found = await self._call("GET", f"/v2/checkout/orders/{_safe(order.payment_ref)}")
        for unit in found.get("purchase_units", []):
            for refund in unit.get("payments", {}).get("refunds", []):
                if refund.get("custom_id") == order.refund_id:
                    return _refunded(refund)
        return None

    async def refresh_refund(self, provider_ref: str, refund_id: str) -> Result:
        found = await self._call("GET", f"/v2/payments/refunds/{_safe(provider_ref)}")
        if found.get("custom_id") != refund_id:
            raise ProviderRefused("foreign", "this refund is another one")
        return _refunded(found)

    async def portal(self, customer_ref: str, return_url: str) -> str:
        raise ProviderRefused(
            "no_portal", "PayPal has no billing portal; its payers look after methods in their account"
        )

    async def settled(self, customer_ref: str, start: datetime, end: datetime) -> list[Settled]:
        rows: dict[str, Settled] = {}
        async for event in self._events("PAYMENT.CAPTURE.COMPLETED", start, end):
            resource = event["resource"]
            our_id, _, customer = str(resource.get("custom_id", "")).partition(".")
            if customer != customer_ref:
                continue
            ref = resource.get("supplementary_data", {}).get("related_ids", {}).get("order_id", "")
            order = await self._call("GET", f"/v2/checkout/orders/{_safe(ref)}")
            currency = str(resource["amount"]["currency_code"]).lower()
            amount = minor_of(number(resource["amount"]["value"]), currency)
            rows[ref] = Settled("payment", our_id, ref, amount, currency, succeeded=capture_of(order) is not None)
            for unit in order.get("purchase_units", []):
                for refund in unit.get("payments", {}).get("refunds", []):
                    amount = minor_of(number(refund["amount"]["value"]), currency)
                    stands = refund.get("status") in ("COMPLETED", "PENDING")
                    rows[refund["id"]] = Settled(
                        "refund", refund.get("custom_id"), refund["id"], amount, currency, succeeded=stands
                    )
        return list(rows.values())

    async def chargeback(self, provider_ref: str) -> ChargebackFound:
        return chargeback_of(await self._call("GET", f"/v1/customer/disputes/{_safe(provider_ref)}"))

    async def chargebacks(self, since: datetime) -> list[str]:
        query: dict[str, str] | None = {"start_time": time_text(since), "page_size": "50"}
        path, found = "/v1/customer/disputes", []
        for _ in range(_PAGES):
            answer = await self._call("GET", path, query=query)
            found += [str(each["dispute_id"]) for each in answer.get("items", [])]
            following = link(answer, "next")
            if following is None:
                break
            parts = urlsplit(following)
            path, query = f"{parts.path}?{parts.query}", None
        return found

    async def close(self) -> None:
        await self._http.aclose()

    async def _result(self, order: Json, payment_id: str, *, give_up: bool) -> Result:
        ref = str(order["id"])
        if order.get("status") == "APPROVED" and not give_up:  # its payer has agreed
            path = f"/v2/checkout/orders/{_safe(ref)}/capture"
            try:
                order = await self._call("POST", path, {}, key=f"{payment_id}-capture")
            except ProviderRefused as refused:
                if refused.code == "ORDER_ALREADY_CAPTURED":
                    raise OutcomeUnknown("PayPal has captured it meanwhile", answered=True) from None
                return Result(Status.FAILED, ref, failure_code=refused.code, failure_message=str(refused))
        capture = capture_of(order)
        if capture is not None:
            currency = str(capture["amount"]["currency_code"]).lower()
            taken = minor_of(number(capture["amount"]["value"]), currency)
            status = capture.get("status")
            if status in ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED"):
                return Result(Status.SUCCEEDED, ref, str(capture["id"]), captured_minor=taken)
            if status == "PENDING":
                return Result(Status.PENDING, ref, str(capture["id"]))
            return Result(Status.FAILED, ref, failure_code=str(status).lower(), failure_message="the capture failed")
        if give_up or order.get("status") == "VOIDED":
            return Result(Status.FAILED, ref, failure_code="not_completed", failure_message="its payer did not agree")
        return Result(Status.PENDING, ref, action_url=link(order, "payer-action") or link(order, "approve"))

    async def _events(self, kind: str, start: datetime, end: datetime | None) -> Any:
        query: dict[str, str] | None = events_query(start, end)
        path = "/v1/notifications/webhooks-events"
        for _ in range(_PAGES):
            answer = await self._call("GET", path, query=query)
            for event in answer.get("events", []):
                if str(event.get("event_type", "")).startswith(kind):
                    yield event
            following = link(answer, "next")
            if following is None:
                return
            parts = urlsplit(following)  # of the same host, whatever it says
            path, query = f"{parts.path}?{parts.query}", None

    async def _call(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        key: str | None = None,
        query: dict[str, str] | None = None,
    ) -> Json:
        """Raises ProviderRefused, OutcomeUnknown."""
        headers = {"Authorization": f"Bearer {await self._bearer()}", "Prefer": "return=representation"}
        if key is not None:
            headers["PayPal-Request-Id"] = key
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                answer = await self._http.request(method, path, json=body, headers=headers, params=query)
        except (httpx.HTTPError, TimeoutError) as error:
            raise OutcomeUnknown(f"PayPal cannot be reached ({type(error).__name__})", answered=False) from None
        return self._read(answer)

    def _read(self, answer: httpx.Response) -> Json:
        if answer.status_code == 401:
            self._token = ""
        if answer.status_code in (401, 403, 409, 429):
            raise OutcomeUnknown(f"PayPal answers {answer.status_code}", answered=False)
        if answer.status_code >= 500:
            raise OutcomeUnknown(f"PayPal failed ({answer.status_code})", answered=True)
        try:
            content = answer.json() if answer.content else {}
        except ValueError:
            raise OutcomeUnknown("PayPal answers with what is no JSON", answered=True) from None
        if answer.is_success and isinstance(content, dict):
            return content
        raise ProviderRefused(*failure_of(content))

    async def _bearer(self) -> str:
        now_s = asyncio.get_running_loop().time()
        async with self._token_lock:
            if self._token and now_s < self._token_until_s:
                return self._token
            try:
                async with asyncio.timeout(CALL_TIMEOUT_S):
                    answer = await self._http.post(
                        "/v1/oauth2/token", data={"grant_type": "client_credentials"}, auth=self._credentials
                    )
            except (httpx.HTTPError, TimeoutError) as error:
                raise OutcomeUnknown(f"PayPal cannot be reached ({type(error).__name__})", answered=False) from None
            if not answer.is_success:
                raise OutcomeUnknown(f"PayPal lets us in no more ({answer.status_code})", answered=False)
            content = answer.json()
            self._token = str(content["access_token"])
            self._token_until_s = now_s + float(content.get("expires_in", 0)) - _TOKEN_MARGIN_S
            return self._token


def _money(amount_minor: int, currency: str) -> Json:
    return {"currency_code": currency.upper(), "value": minor_text(amount_minor, currency)}


def _refunded(refund: Json) -> Result:
    status = refund.get("status")
    if status in ("FAILED", "CANCELLED"):
        return Result(Status.FAILED, str(refund["id"]), failure_code=str(status).lower())
    return Result(Status.SUCCEEDED if status == "COMPLETED" else Status.PENDING, str(refund["id"]))


def _safe(ref: str) -> str:
    """Raises ProviderRefused for what is no id of PayPal's: it becomes part of a path."""
    if not ref or not all(each.isascii() and (each.isalnum() or each in "-_") for each in ref):
        raise ProviderRefused("resource_missing", "PayPal knows nothing of this id")
    return ref
