"""A PayPal of our own for tests, stateful, over HTTP: OAuth, vault v3, orders v2, refunds, events, signed webhooks.

Made after PayPal's OpenAPI descriptions (checkout_orders_v2, payments_payment_v2, vault_payment_tokens_v3,
notifications_webhooks_v1). Request ids are kept for 6 hours of orders, 45 days of refunds, 3 hours of the vault.
"""

import json
import zlib
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID

from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from tests.fake_stripe.server import APPLIED_500, DOWN, FAILED_500, LIMITED, LOST_REPLY, LOST_REQUEST, Faults

Json = dict[str, Any]
CLIENT_ID, SECRET, WEBHOOK_ID = "client", "secret", "1JE4291016473214C"
CERT_PATH = "/v1/notifications/certs/CERT-360caa42-fca2a594-a5cafa77"
_KEPT_S = {"/v2/checkout": 6 * 3600, "/v2/payments": 45 * 86400, "/v3/vault": 3 * 3600}


class Refused(Exception):
    def __init__(self, status: int, name: str, issue: str | None = None) -> None:
        super().__init__(name)
        self.status = status
        details = [] if issue is None else [{"issue": issue, "description": issue.replace("_", " ").lower()}]
        self.body: Json = {"name": name, "message": name.lower(), "debug_id": "x", "details": details, "links": []}


class FakePayPal:
    def __init__(self, faults: Faults | None = None) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.faults = faults or Faults()
        self.base_url = ""
        self.setups: dict[str, Json] = {}
        self.tokens: dict[str, Json] = {}
        self.orders: dict[str, Json] = {}
        self.refunds: dict[str, Json] = {}
        self.disputes: dict[str, Json] = {}
        self.events: list[Json] = []
        self.behaviour: dict[str, str] = {}
        self._kept: dict[str, tuple[int, bytes, datetime]] = {}
        self._count = 0
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakePayPal"]:
        server = HttpServer(self._answer)
        self.base_url = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        try:
            yield self
        finally:
            await server.close(0.0)

    # what its payers do

    def approve_setup(self, ref: str, behaviour: str = "ok") -> None:
        self.setups[ref]["status"] = "APPROVED"
        self.behaviour[ref] = behaviour

    def approve_order(self, ref: str) -> None:
        self.orders[ref]["status"] = "APPROVED"
        self._tell("CHECKOUT.ORDER.APPROVED", self.orders[ref])

    def settle(self, ref: str) -> None:
        """A capture that was pending is complete."""
        capture = self.orders[ref]["purchase_units"][0]["payments"]["captures"][0]
        capture["status"] = "COMPLETED"
        self._tell("PAYMENT.CAPTURE.COMPLETED", capture)

    def captures(self) -> list[Json]:
        units = [unit for order in self.orders.values() for unit in order["purchase_units"]]
        return [capture for unit in units for capture in unit.get("payments", {}).get("captures", [])]

    # what banks and PayPal decide

    def dispute(self, order_ref: str, amount: str | None = None, *, inquiry: bool = False) -> str:
        capture = self.orders[order_ref]["purchase_units"][0]["payments"]["captures"][0]
        ref = self._new_id("PP-D-")
        money = {"currency_code": capture["amount"]["currency_code"], "value": amount or capture["amount"]["value"]}
        self.disputes[ref] = {
            "dispute_id": ref,
            "create_time": self.now.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            "reason": "UNAUTHORISED",
            "status": "OPEN" if inquiry else "WAITING_FOR_SELLER_RESPONSE",
            "dispute_life_cycle_stage": "INQUIRY" if inquiry else "CHARGEBACK",
            "dispute_amount": money,
            "disputed_transactions": [{"seller_transaction_id": capture["id"], "custom": capture["custom_id"]}],
            "seller_response_due_date": (self.now + timedelta(days=10)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
        }
        self._tell("CUSTOMER.DISPUTE.CREATED", self.disputes[ref])
        return ref

    def escalate(self, ref: str) -> None:
        self.disputes[ref].update(status="WAITING_FOR_SELLER_RESPONSE", dispute_life_cycle_stage="CHARGEBACK")
        self._tell("CUSTOMER.DISPUTE.UPDATED", self.disputes[ref])

    def resolve(self, ref: str, outcome: str, given: str | None = None) -> None:
        """`given` is what of it the buyer gets, where that is not all."""
        case = self.disputes[ref]
        case.update(status="RESOLVED", dispute_outcome={"outcome_code": outcome})
        if given is not None:
            money = {"currency_code": case["dispute_amount"]["currency_code"], "value": given}
            case["dispute_outcome"]["amount_refunded"] = money
        self._tell("CUSTOMER.DISPUTE.RESOLVED", case)

    # webhooks

    def headers_of(self, payload: bytes, *, at: datetime | None = None, cert_url: str | None = None) -> dict[str, str]:
        sent = (at or self.now).strftime("%Y-%m-%dT%H:%M:%SZ")
        message = f"t-1|{sent}|{WEBHOOK_ID}|{zlib.crc32(payload)}".encode()
        signature = self._key.sign(message, padding.PKCS1v15(), hashes.SHA256())
        return {
            "paypal-transmission-id": "t-1",
            "paypal-transmission-time": sent,
            "paypal-transmission-sig": b64encode(signature).decode(),
            "paypal-auth-algo": "SHA256withRSA",
            "paypal-cert-url": cert_url or f"{self.base_url}{CERT_PATH}",
        }

    def certificate(self) -> bytes:
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "messageverificationcerts.paypal.com")])
        builder = x509.CertificateBuilder(name, name, self._key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(self.now - timedelta(days=400)).not_valid_after(
            self.now + timedelta(days=800)
        )
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    # HTTP

    def _answer(self, exchange: Exchange) -> None:
        method, path = exchange.method.decode(), exchange.path.decode()
        if path == CERT_PATH:
            exchange.respond(200, b"content-type: application/x-pem-file\r\n", self.certificate())
            return
        if path == "/v1/oauth2/token":
            _respond(exchange, 200, {"access_token": "A21.test", "token_type": "Bearer", "expires_in": 32400})
            return
        fault = self.faults.next(path)
        if fault == LOST_REQUEST:
            exchange.abort(reset=True)
            return
        if fault in (LIMITED, DOWN):
            _respond(exchange, 429 if fault == LIMITED else 503, {"name": "X", "message": "x"})
            return
        status, body = self._through_key(exchange, method, path, fault)
        if fault == LOST_REPLY:
            exchange.abort(reset=True)
            return
        exchange.respond(status, b"content-type: application/json\r\n", body)

    def _through_key(self, exchange: Exchange, method: str, path: str, fault: str | None) -> tuple[int, bytes]:
        key = (exchange.header(b"paypal-request-id") or b"").decode()
        kept_s = next((seconds for part, seconds in _KEPT_S.items() if path.startswith(part)), 0)
        kept = self._kept.get(f"{path} {key}") if key else None
        if kept is not None and self.now - kept[2] < timedelta(seconds=kept_s):
            return kept[0], kept[1]
        status, answer = self._carry_out(exchange, method, path, fault)
        body = json.dumps(answer).encode() if answer is not None else b""
        if key and (status < 400 or status >= 500):
            self._kept[f"{path} {key}"] = (status, body, self.now)
        return status, body

    def _carry_out(self, exchange: Exchange, method: str, path: str, fault: str | None) -> tuple[int, Json | None]:
        if fault == FAILED_500:
            return 500, {"name": "INTERNAL_SERVER_ERROR"}
        body: Json = json.loads(exchange.body) if exchange.body else {}
        query = dict(parse_qsl(exchange.query.decode()))
        try:
            if exchange.header(b"authorization") != b"Bearer A21.test":
                raise Refused(401, "INVALID_TOKEN")
            status, answer = self._route(method, path.strip("/").split("/"), body, query)
        except Refused as refused:
            return refused.status, refused.body
        return (500, {"name": "INTERNAL_SERVER_ERROR"}) if fault == APPLIED_500 else (status, answer)

    def _route(self, method: str, parts: list[str], body: Json, query: Json) -> tuple[int, Json | None]:
        match method, *parts:
            case ["POST", "v3", "vault", "setup-tokens"]:
                return 201, self._new_setup(body)
            case ["GET", "v3", "vault", "setup-tokens", ref]:
                return 200, _found(self.setups, ref)
            case ["POST", "v3", "vault", "payment-tokens"]:
                return 201, self._new_token(body)
            case ["GET", "v3", "vault", "payment-tokens"]:
                mine = [each for each in self.tokens.values() if each["customer"]["id"] == query["customer_id"]]
                size, page = int(query.get("page_size", 5)), int(query.get("page", 1))
                shown = mine[(page - 1) * size : page * size]
                return 200, {"payment_tokens": shown, "total_items": len(mine), "total_pages": -(-len(mine) // size)}
            case ["DELETE", "v3", "vault", "payment-tokens", ref]:
                _found(self.tokens, ref)
                del self.tokens[ref]
                return 204, None
            case ["POST", "v2", "checkout", "orders"]:
                return 201, self._new_order(body)
            case ["GET", "v2", "checkout", "orders", ref]:
                return 200, _found(self.orders, ref)
            case ["POST", "v2", "checkout", "orders", ref, "capture"]:
                order = _found(self.orders, ref)
                if order["status"] == "COMPLETED":
                    raise Refused(422, "UNPROCESSABLE_ENTITY", "ORDER_ALREADY_CAPTURED")
                if order["status"] != "APPROVED":
                    raise Refused(422, "UNPROCESSABLE_ENTITY", "ORDER_NOT_APPROVED")
                self._capture(order, "COMPLETED")
                return 201, order
            case ["POST", "v2", "payments", "captures", ref, "refund"]:
                return 201, self._refund(ref, body)
            case ["GET", "v2", "payments", "refunds", ref]:
                return 200, _found(self.refunds, ref)
            case ["GET", "v1", "customer", "disputes"]:
                return 200, self._page_of_disputes(query)
            case ["GET", "v1", "customer", "disputes", ref]:
                return 200, _found(self.disputes, ref)
            case ["GET", "v1", "notifications", "webhooks-events"]:
                return 200, self._page_of_events(query)
        raise Refused(404, "RESOURCE_NOT_FOUND")

    def _new_setup(self, body: Json) -> Json:
        ref = self._new_id("ST")
        url = f"https://www.paypal.test/agreements/approve?token={ref}"
        self.setups[ref] = {
            "id": ref,
            "customer": body["customer"],
            "status": "PAYER_ACTION_REQUIRED",
            "payment_source": body["payment_source"],
            "links": [{"rel": "approve", "href": url, "method": "GET"}],
        }
        return self.setups[ref]

    def _new_token(self, body: Json) -> Json:
        setup = _found(self.setups, body["payment_source"]["token"]["id"])
        if setup["status"] != "APPROVED":
            raise Refused(422, "UNPROCESSABLE_ENTITY", "TOKEN_NOT_APPROVED")
        ref = self._new_id("TK")
        card = {"last_digits": "1111", "expiry": "2027-02", "brand": "VISA"}
        source = {"card": card} if "card" in setup["payment_source"] else {"paypal": {"email_address": "p@x.test"}}
        self.behaviour[ref] = self.behaviour.get(setup["id"], "ok")
        self.tokens[ref] = {"id": ref, "customer": setup["customer"], "payment_source": source, "links": []}
        return self.tokens[ref]

    def _new_order(self, body: Json) -> Json:
        (unit,) = body["purchase_units"]
        vault_id = next(iter(body["payment_source"].values()))["vault_id"]
        if vault_id not in self.tokens:
            raise Refused(422, "UNPROCESSABLE_ENTITY", "INVALID_RESOURCE_ID")
        if any(each["purchase_units"][0]["invoice_id"] == unit["invoice_id"] for each in self.orders.values()):
            raise Refused(422, "UNPROCESSABLE_ENTITY", "DUPLICATE_INVOICE_ID")
        behaviour = self.behaviour[vault_id]
        if behaviour == "declined":
            raise Refused(422, "UNPROCESSABLE_ENTITY", "INSTRUMENT_DECLINED")
        ref = self._new_id("OR")
        order = {"id": ref, "intent": "CAPTURE", "status": "CREATED", "purchase_units": [dict(unit)], "links": []}
        self.orders[ref] = order
        if behaviour == "3ds":
            order["status"] = "PAYER_ACTION_REQUIRED"
            order["links"] = [{"rel": "payer-action", "href": f"https://www.paypal.test/checkoutnow?token={ref}"}]
        else:
            self._capture(order, "PENDING" if behaviour == "slow" else "COMPLETED")
        return order

    def _capture(self, order: Json, status: str) -> None:
        (unit,) = order["purchase_units"]
        capture = {
            "id": self._new_id("CA"),
            "status": status,
            "amount": unit["amount"],
            "custom_id": unit["custom_id"],
            "invoice_id": unit["invoice_id"],
            "supplementary_data": {"related_ids": {"order_id": order["id"]}},
        }
        unit["payments"] = {"captures": [capture], "refunds": []}
        order["status"] = "COMPLETED"
        self._tell(f"PAYMENT.CAPTURE.{status}", capture)

    def _refund(self, ref: str, body: Json) -> Json:
        capture = next((each for each in self.captures() if each["id"] == ref), None)
        if capture is None:
            raise Refused(404, "RESOURCE_NOT_FOUND")
        (unit,) = self.orders[capture["supplementary_data"]["related_ids"]["order_id"]]["purchase_units"]
        given = sum((Decimal(each["amount"]["value"]) for each in unit["payments"]["refunds"]), Decimal(0))
        if given + Decimal(body["amount"]["value"]) > Decimal(capture["amount"]["value"]):
            raise Refused(422, "UNPROCESSABLE_ENTITY", "REFUND_AMOUNT_EXCEEDED")
        refund = {"id": self._new_id("RF"), "status": "COMPLETED", **body}
        unit["payments"]["refunds"].append(refund)
        self.refunds[refund["id"]] = refund
        self._tell("PAYMENT.CAPTURE.REFUNDED", refund)
        return refund

    def _page_of_disputes(self, query: Json) -> Json:
        start = datetime.fromisoformat(query["start_time"].replace("Z", "+00:00"))
        shown = [
            {name: case[name] for name in ("dispute_id", "create_time", "status", "reason", "dispute_amount")}
            for case in self.disputes.values()
            if datetime.fromisoformat(case["create_time"].replace("Z", "+00:00")) >= start
        ]
        first, size = int(query.get("next_page_token", 0)), int(query.get("page_size", 10))
        answer: Json = {"items": shown[first : first + size], "links": []}
        if first + size < len(shown):
            more = f"start_time={query['start_time']}&page_size={size}&next_page_token={first + size}"
            answer["links"] = [{"rel": "next", "href": f"{self.base_url}/v1/customer/disputes?{more}"}]
        return answer

    def _page_of_events(self, query: Json) -> Json:
        start, end = (datetime.fromisoformat(query[name].replace("Z", "+00:00")) for name in ("start_time", "end_time"))
        shown = [each for each in self.events if start <= datetime.fromisoformat(each["create_time"]) <= end]
        first, size = int(query.get("from", 0)), int(query.get("page_size", 10))
        answer: Json = {"events": shown[first : first + size], "count": len(shown), "links": []}
        if first + size < len(shown):
            more = "&".join(f"{name}={value}" for name, value in {**query, "from": first + size}.items())
            href = f"{self.base_url}/v1/notifications/webhooks-events?{more}".replace("+", "%2B")
            answer["links"] = [{"rel": "next", "href": href}]
        return answer

    def _tell(self, kind: str, resource: Json) -> None:
        event = {
            "id": self._new_id("WH"),
            "event_type": kind,
            "create_time": self.now.isoformat(),
            "resource_type": "capture",
            "resource": json.loads(json.dumps(resource)),
        }
        self.events.append(event)

    def _new_id(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:08d}"


def _found(rows: dict[str, Json], ref: str) -> Json:
    if ref not in rows:
        raise Refused(404, "RESOURCE_NOT_FOUND")
    return rows[ref]


def _respond(exchange: Exchange, status: int, answer: Json) -> None:
    exchange.respond(status, b"content-type: application/json\r\n", json.dumps(answer).encode())
