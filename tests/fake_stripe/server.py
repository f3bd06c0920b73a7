"""The HTTP side of the fake Stripe: routes, keys of idempotency, and the faults that real networks make.

Idempotency is Stripe's: an answer that began to be carried out, a 500 among them, is given again for 24 hours under the
same key; the same key with other parameters is an error; what was refused before it began is not kept.
"""

import hashlib
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any
from urllib.parse import parse_qsl, unquote

from crosslogic.net.exchange import Exchange
from crosslogic.net.server import HttpServer
from tests.fake_stripe.disputes import Disputes
from tests.fake_stripe.invoices import Invoices
from tests.fake_stripe.meters import Meters
from tests.fake_stripe.payments import Payments
from tests.fake_stripe.state import Obj, Refusal, State

KEPT_S = 24 * 3600
API_KEY = "sk_test_fake"
LOST_REPLY, LOST_REQUEST, APPLIED_500, FAILED_500, LIMITED, DOWN = (
    "applied, reply lost", "never arrived", "applied, then 500", "500", "429", "503",
)  # fmt: skip
FAULTS = (LOST_REPLY, LOST_REQUEST, APPLIED_500, FAILED_500, LIMITED, DOWN)
_ERROR_500 = {"error": {"type": "api_error", "message": "An unknown error occurred"}}
_JSON = b"content-type: application/json\r\n"
Handler = Callable[..., Obj]


@dataclass
class Faults:
    """What goes wrong: those that were ordered first, then any of `kinds` with this probability."""

    ordered: list[tuple[str, str]] = field(default_factory=list)  # fault, and what its path contains
    probability: float = 0.0
    kinds: tuple[str, ...] = FAULTS
    random: Random = field(default_factory=lambda: Random(0))
    down: bool = False

    def order(self, fault: str, path: str = "/", times: int = 1) -> None:
        self.ordered += [(fault, path)] * times

    def next(self, path: str) -> str | None:
        if self.down:
            return DOWN
        for index, (fault, part) in enumerate(self.ordered):
            if part in path:
                del self.ordered[index]
                return fault
        return self.random.choice(self.kinds) if self.random.random() < self.probability else None


class FakeStripe:
    """`base_url` once it is served. `calls` counts what was carried out, by method and route."""

    def __init__(self, faults: Faults | None = None) -> None:
        self.state = State()
        self.payments, self.invoices, self.meters = Payments(self.state), Invoices(self.state), Meters(self.state)
        self.disputes = Disputes(self.state)
        self.faults = faults or Faults()
        self.base_url = ""
        self.calls: dict[str, int] = {}
        self.seen: list[tuple[str, str]] = []  # method and path of all that arrived
        self._kept: dict[str, tuple[str, int, bytes, float]] = {}
        self._routes = [
            (method, re.compile(pattern.replace("{}", "([^/]+)") + "$"), f"{method} {pattern}", handler)
            for method, pattern, handler in self._table()
        ]

    @asynccontextmanager
    async def serve(self) -> AsyncIterator["FakeStripe"]:
        server = HttpServer(self._answer)
        self.base_url = f"http://127.0.0.1:{await server.listen('127.0.0.1', 0)}"
        try:
            yield self
        finally:
            await server.close(0.0)

    def _table(self) -> list[tuple[str, str, Handler]]:
        pay, bill, meter, state = self.payments, self.invoices, self.meters, self.state
        return [
            ("POST", "/v1/customers", pay.create_customer),
            ("GET", "/v1/customers/{}", lambda ref, _: state.get("customer", ref)),
            ("POST", "/v1/customers/{}", pay.update_customer),
            ("POST", "/v1/setup_intents", pay.create_setup),
            ("GET", "/v1/setup_intents/{}", lambda ref, _: state.get("setup_intent", ref)),
            ("GET", "/v1/payment_methods", pay.list_methods),
            ("GET", "/v1/payment_methods/{}", lambda ref, _: state.get("payment_method", ref)),
            ("POST", "/v1/payment_methods/{}/detach", lambda ref, _: pay.detach(ref)),
            ("POST", "/v1/payment_intents", pay.create_intent),
            ("GET", "/v1/payment_intents", pay.list_intents),
            ("GET", "/v1/payment_intents/{}", lambda ref, _: state.get("payment_intent", ref)),
            ("POST", "/v1/payment_intents/{}/cancel", lambda ref, _: pay.cancel_intent(ref)),
            ("POST", "/v1/refunds", pay.create_refund),
            ("GET", "/v1/refunds", pay.list_refunds),
            ("GET", "/v1/refunds/{}", lambda ref, _: state.get("refund", ref)),
            ("GET", "/v1/disputes", self.disputes.list),
            ("GET", "/v1/disputes/{}", lambda ref, _: state.get("dispute", ref)),
            ("POST", "/v1/billing_portal/sessions", pay.create_portal),
            ("POST", "/v1/prices", bill.create_price),
            ("POST", "/v1/subscriptions", bill.create_subscription),
            ("POST", "/v1/invoices", bill.create_invoice),
            ("GET", "/v1/invoices", bill.list_invoices),
            ("GET", "/v1/invoices/{}", lambda ref, _: state.get("invoice", ref)),
            ("POST", "/v1/invoices/{}/finalize", lambda ref, _: bill.finalize(ref)),
            ("POST", "/v1/invoices/{}/attach_payment", bill.attach_payment),
            ("POST", "/v1/invoices/{}/pay", bill.pay),
            ("POST", "/v1/invoices/{}/void", lambda ref, _: bill.void(ref)),
            ("POST", "/v1/invoiceitems", bill.create_item),
            ("GET", "/v1/invoiceitems", bill.list_items),
            ("DELETE", "/v1/invoiceitems/{}", lambda ref, _: bill.delete_item(ref)),
            ("POST", "/v1/billing/credit_grants", bill.create_grant),
            ("POST", "/v1/billing/credit_grants/{}/void", lambda ref, _: bill.void_grant(ref)),
            ("POST", "/v1/billing/meters", meter.create_meter),
            ("GET", "/v1/billing/meters", meter.list_meters),
            ("GET", "/v1/billing/meters/{}", lambda ref, _: state.get("billing.meter", ref)),
            ("POST", "/v1/billing/meters/{}/deactivate", lambda ref, _: meter.deactivate(ref)),
            ("GET", "/v1/billing/meters/{}/event_summaries", meter.summaries),
            ("POST", "/v1/billing/meter_events", meter.take_v1),
            ("POST", "/v1/billing/meter_event_adjustments", meter.adjust),
            ("POST", "/v2/billing/meter_events", meter.take_v2),
            ("POST", "/v2/billing/meter_event_session", meter.open_session),
            ("GET", "/v2/core/events/{}", lambda ref, _: self._event(ref)),
        ]

    def _event(self, ref: str) -> Obj:
        for event in self.state.events:
            if event["id"] == ref:
                return event
        raise Refusal(404, f"No such event: '{ref}'", code="resource_missing")

    def _answer(self, exchange: Exchange) -> None:
        method, path = exchange.method.decode(), unquote(exchange.path.decode())
        self.seen.append((method, path))
        fault = self.faults.next(path)
        if fault == LOST_REQUEST:
            exchange.abort(reset=True)
            return
        if fault in (LIMITED, DOWN):
            status, kind = (429, "rate_limit_error") if fault == LIMITED else (503, "api_error")
            _respond(exchange, status, {"error": {"type": kind, "message": fault}})
            return
        status, body = self._through_key(exchange, method, path, fault)
        if fault == LOST_REPLY:
            exchange.abort(reset=True)
            return
        exchange.respond(status, _JSON, body)

    def _through_key(self, exchange: Exchange, method: str, path: str, fault: str | None) -> tuple[int, bytes]:
        key = (exchange.header(b"idempotency-key") or b"").decode() if method == "POST" else ""
        asked = hashlib.sha256(f"{method} {path} ".encode() + exchange.body).hexdigest()
        kept = self._kept.get(key) if key else None
        if kept is not None and self.state.now_s - kept[3] < KEPT_S:
            if kept[0] != asked:
                message = (
                    "Keys for idempotent requests can only be used with the same parameters they were first used with."
                )
                return 400, json.dumps({"error": {"type": "idempotency_error", "message": message}}).encode()
            return kept[1], kept[2]
        status, answer = self._carry_out(exchange, method, path, fault)
        body = json.dumps(answer).encode()
        if key and (status < 400 or status == 402 or status >= 500):
            self._kept[key] = (asked, status, body, self.state.now_s)
        return status, body

    def _carry_out(self, exchange: Exchange, method: str, path: str, fault: str | None) -> tuple[int, Obj]:
        token = (exchange.header(b"authorization") or b"").decode().removeprefix("Bearer ")
        if fault == FAILED_500:
            return 500, _ERROR_500
        try:
            if (method, path) == ("POST", "/v2/billing/meter_event_stream"):
                return 200, self.meters.take_stream(json.loads(exchange.body), token)
            if token != API_KEY:
                raise Refusal(401, "Invalid API Key provided")
            for verb, pattern, route, handler in self._routes:
                match = pattern.match(path)
                if verb == method and match:
                    answer = handler(*match.groups(), _params(exchange))
                    self.calls[route] = self.calls.get(route, 0) + 1
                    return (500, _ERROR_500) if fault == APPLIED_500 else (200, answer)
            raise Refusal(404, f"Unrecognized request URL ({method}: {path}).")
        except Refusal as refusal:
            return refusal.status, refusal.body


def _respond(exchange: Exchange, status: int, answer: Obj) -> None:
    exchange.respond(status, _JSON, json.dumps(answer).encode())


def _params(exchange: Exchange) -> Obj:
    if (exchange.header(b"content-type") or b"").startswith(b"application/json"):
        decoded: Obj = json.loads(exchange.body or b"{}")
        return decoded
    text = exchange.body if exchange.method == b"POST" else exchange.query
    return nested(parse_qsl(text.decode(), keep_blank_values=True))


def nested(pairs: list[tuple[str, str]]) -> Obj:
    """`a[b][0]=c` as Stripe reads it."""
    tree: Obj = {}
    for name, value in pairs:
        parts = re.findall(r"[^\[\]]+", name)
        place = tree
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    made: Obj = _lists(tree)
    return made


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(part.isdigit() for part in value):
        return [_lists(value[part]) for part in sorted(value, key=int)]
    return {name: _lists(item) for name, item in value.items()}
