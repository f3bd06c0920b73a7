"""Customers, setup intents, payment methods, payment intents, refunds, the billing portal.

What a method does is decided when it is made: `ok`, `declined`, `3ds` (its payer has to act), `slow` (bank debits).
"""

from typing import Any

from tests.fake_stripe.state import Obj, Refusal, State, page


def whole(params: Obj, name: str) -> int:
    """Raises Refusal unless the parameter is a positive integer."""
    try:
        value = int(str(params.get(name)))
    except ValueError:
        raise Refusal(400, f"Invalid integer: {params.get(name)}", param=name) from None
    if value < 1:
        raise Refusal(400, "This value must be greater than or equal to 1.", param=name)
    return value


class Payments:
    def __init__(self, state: State) -> None:
        self.state = state
        self.behaviour: dict[str, str] = {}  # of payment methods, by id

    # what happens outside of the API, in a browser or a bank

    def new_method(self, kind: str = "card", behaviour: str = "ok") -> str:
        method = self.state.make("payment_method", type=kind, customer=None)
        if kind == "us_bank_account":
            del method["card"]
            method["us_bank_account"] = {"bank_name": "STRIPE TEST BANK", "last4": "6789"}
        if kind == "sepa_debit":
            del method["card"]
            method["sepa_debit"] = {"bank_code": "37040044", "last4": "3000", "country": "DE"}
        self.behaviour[method["id"]] = behaviour
        return str(method["id"])

    def complete_setup(self, setup_ref: str, method_ref: str) -> None:
        """The payer enters a card or bank account into Stripe's own form."""
        setup = self.state.get("setup_intent", setup_ref)
        method = self.state.get("payment_method", method_ref)
        setup.update(status="succeeded", payment_method=method_ref, next_action=None)
        method["customer"] = setup["customer"]
        self.state.tell("payment_method.attached", method)
        self.state.tell("setup_intent.succeeded", setup)

    def payer_acts(self, intent_ref: str, *, succeeds: bool = True) -> None:
        """The payer passes 3-D Secure, or fails it."""
        intent = self.state.get("payment_intent", intent_ref)
        assert intent["status"] in ("requires_action", "requires_payment_method"), intent["status"]
        if succeeds:
            self._succeed(intent)
        else:
            self._fail(intent, "payment_intent_authentication_failure", "Authentication failed.")

    def bank_answers(self, intent_ref: str, *, succeeds: bool = True) -> None:
        intent = self.state.get("payment_intent", intent_ref)
        assert intent["status"] == "processing"
        if succeeds:
            self._succeed(intent)
        else:
            self._fail(intent, "payment_method_provider_decline", "The bank returned the debit.")

    def refund_fails(self, refund_ref: str) -> None:
        refund = self.state.get("refund", refund_ref)
        refund.update(status="failed", failure_reason="lost_or_stolen_card")
        charge = self.state.get("charge", refund["charge"])
        charge["amount_refunded"] -= refund["amount"]
        self.state.tell("refund.failed", refund)

    # the API

    def create_customer(self, params: Obj) -> Obj:
        kept = {name: params[name] for name in ("name", "email", "description") if name in params}
        made = self.state.make("customer", **kept, metadata=dict(params.get("metadata", {})))
        self.state.tell("customer.created", made)
        return made

    def update_customer(self, ref: str, params: Obj) -> Obj:
        customer = self.state.get("customer", ref)
        wanted = params.get("invoice_settings", {}).get("default_payment_method")
        if wanted is not None:
            if self.state.get("payment_method", wanted)["customer"] != ref:
                raise Refusal(400, "The customer does not have a payment method with that ID.", code="resource_missing")
            customer["invoice_settings"]["default_payment_method"] = wanted
        return customer

    def create_setup(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        types = list(params.get("payment_method_types", ["card"]))
        made = self.state.make(
            "setup_intent", customer=params["customer"], payment_method_types=types, next_action=None
        )
        made["client_secret"] = f"{made['id']}_secret_test"
        made["last_setup_error"] = None
        made["metadata"] = dict(params.get("metadata", {}))
        return made

    def list_methods(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        rows = [row for row in self.state.all("payment_method") if row["customer"] == params["customer"]]
        if params.get("type"):
            rows = [row for row in rows if row["type"] == params["type"]]
        return page(rows, params, "/v1/payment_methods")

    def detach(self, ref: str) -> Obj:
        method = self.state.get("payment_method", ref)
        if method["customer"] is None:
            raise Refusal(400, "The payment method you provided is not attached to a customer.")
        for customer in self.state.all("customer"):
            if customer["invoice_settings"]["default_payment_method"] == ref:
                customer["invoice_settings"]["default_payment_method"] = None
        method["customer"] = None
        self.state.tell("payment_method.detached", method)
        return method

    def create_intent(self, params: Obj) -> Obj:
        amount = whole(params, "amount")
        if amount > 99_999_999:
            raise Refusal(400, "Amount must be no more than $999,999.99", code="amount_too_large", param="amount")
        customer = self.state.get("customer", params.get("customer"))
        method = self.state.get("payment_method", params.get("payment_method"))
        currency = {"us_bank_account": "usd", "sepa_debit": "eur"}.get(method["type"])
        if currency not in (None, str(params["currency"]).lower()):
            raise Refusal(
                400, "The currency is not supported by the payment method.", code="payment_method_unsupported"
            )
        if method["customer"] != customer["id"]:
            raise Refusal(400, "The payment method does not belong to the customer.", code="payment_method_unexpected")
        intent = self.state.make(
            "payment_intent",
            amount=amount,
            currency=str(params["currency"]).lower(),
            customer=customer["id"],
            payment_method=method["id"],
            payment_method_types=list(params.get("payment_method_types", ["card"])),
            metadata=dict(params.get("metadata", {})),
            description=params.get("description"),
            last_payment_error=None,
            next_action=None,
            processing=None,
            canceled_at=None,
        )
        intent["client_secret"] = f"{intent['id']}_secret_test"
        self.state.tell("payment_intent.created", intent)
        if params.get("confirm") == "true":
            self._confirm(intent, off_session=params.get("off_session") == "true")
        return intent

    def cancel_intent(self, ref: str) -> Obj:
        intent = self.state.get("payment_intent", ref)
        if intent["status"] in ("succeeded", "canceled", "processing"):
            raise Refusal(
                400,
                f"You cannot cancel this PaymentIntent because it has a status of {intent['status']}.",
                code="payment_intent_unexpected_state",
                payment_intent=intent,
            )
        intent.update(status="canceled", canceled_at=int(self.state.now_s), next_action=None)
        self.state.tell("payment_intent.canceled", intent)
        return intent

    def list_intents(self, params: Obj) -> Obj:
        rows = [row for row in self.state.all("payment_intent") if row["customer"] == params.get("customer")]
        rows = [row for row in rows if _within(row, params.get("created", {}))]
        return page(rows, params, "/v1/payment_intents")

    def create_refund(self, params: Obj) -> Obj:
        intent = self.state.get("payment_intent", params.get("payment_intent"))
        if intent["status"] != "succeeded":
            raise Refusal(400, "This PaymentIntent does not have a successful charge to refund.")
        charge = self.state.get("charge", intent["latest_charge"])
        left = charge["amount_captured"] - charge["amount_refunded"]
        if charge["disputed"] and any(
            each["charge"] == charge["id"] and each["status"] not in ("won", "lost", "warning_closed")
            for each in self.state.all("dispute")
        ):
            raise Refusal(400, "Charge has been charged back and cannot be refunded.", code="charge_disputed")
        if left == 0:
            raise Refusal(400, "Charge has already been refunded.", code="charge_already_refunded")
        amount = whole(params, "amount") if "amount" in params else left
        if amount > left:
            raise Refusal(400, f"Refund amount ({amount}) is greater than unrefunded amount on charge ({left})")
        charge["amount_refunded"] += amount
        charge["refunded"] = charge["amount_refunded"] == charge["amount_captured"]
        slow = self.behaviour.get(intent["payment_method"]) == "slow"
        refund = self.state.make(
            "refund",
            amount=amount,
            charge=charge["id"],
            payment_intent=intent["id"],
            currency=intent["currency"],
            status="pending" if slow else "succeeded",
            metadata=dict(params.get("metadata", {})),
        )
        self.state.tell("refund.created", refund)
        self.state.tell("charge.refunded", charge)
        return refund

    def list_refunds(self, params: Obj) -> Obj:
        rows = [row for row in self.state.all("refund") if row["payment_intent"] == params.get("payment_intent")]
        return page(rows, params, "/v1/refunds")

    def create_portal(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        made = self.state.make("billing_portal.session", customer=params["customer"], return_url=params["return_url"])
        made["url"] = f"https://billing.stripe.test/session/{made['id']}"
        return made

    def _confirm(self, intent: Obj, *, off_session: bool) -> None:
        behaviour = self.behaviour.get(intent["payment_method"], "ok")
        if behaviour == "declined":
            self._fail(intent, "card_declined", "Your card was declined.")
            raise Refusal(
                402, "Your card was declined.", "card_error", code="card_declined", decline_code="generic_decline",
                payment_intent=intent,
            )  # fmt: skip
        if behaviour == "3ds":
            if off_session:
                intent["status"] = "requires_payment_method"
                self.state.tell("payment_intent.payment_failed", intent)
                raise Refusal(
                    402, "Your card was declined. This transaction requires authentication.", "card_error",
                    code="authentication_required", payment_intent=intent,
                )  # fmt: skip
            url = f"https://hooks.stripe.test/3d_secure/{intent['id']}"
            intent.update(
                status="requires_action", next_action={"type": "redirect_to_url", "redirect_to_url": {"url": url}}
            )
            self.state.tell("payment_intent.requires_action", intent)
            return
        if behaviour == "slow":
            intent["status"] = "processing"
            self.state.tell("payment_intent.processing", intent)
            return
        self._succeed(intent)

    def _succeed(self, intent: Obj) -> None:
        charge = self.state.make(
            "charge",
            amount=intent["amount"],
            amount_captured=intent["amount"],
            amount_refunded=0,
            captured=True,
            paid=True,
            status="succeeded",
            currency=intent["currency"],
            customer=intent["customer"],
            payment_intent=intent["id"],
            payment_method=intent["payment_method"],
            metadata=dict(intent["metadata"]),
        )
        intent.update(
            status="succeeded", amount_received=intent["amount"], latest_charge=charge["id"], next_action=None
        )
        self.state.tell("charge.succeeded", charge)
        self.state.tell("payment_intent.succeeded", intent)

    def _fail(self, intent: Obj, code: str, message: str) -> None:
        error: dict[str, Any] = {"type": "card_error", "code": code, "message": message}
        intent.update(status="requires_payment_method", last_payment_error=error, next_action=None)
        self.state.tell("payment_intent.payment_failed", intent)


def _within(row: Obj, created: Obj) -> bool:
    return int(created.get("gte", 0)) <= row["created"] <= int(created.get("lte", 1 << 60))
