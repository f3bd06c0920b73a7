"""Prices, subscriptions, invoices with their items, finalisation and payment, credit grants."""

from decimal import ROUND_HALF_UP, Decimal, InvalidOperation

from tests.fake_stripe.payments import whole
from tests.fake_stripe.state import Obj, Refusal, State, page

MOST_ITEMS = 250


class Invoices:
    def __init__(self, state: State) -> None:
        self.state = state

    def create_price(self, params: Obj) -> Obj:
        recurring = params.get("recurring", {})
        if recurring.get("usage_type") == "metered" and not recurring.get("meter"):
            raise Refusal(400, "As of 2025-03-31.basil metered prices need a meter.", param="recurring[meter]")
        if recurring.get("meter"):
            self.state.get("billing.meter", recurring["meter"])
        decimals(params.get("unit_amount_decimal", "0"), "unit_amount_decimal")
        return self.state.make(
            "price",
            currency=params["currency"],
            unit_amount_decimal=params.get("unit_amount_decimal"),
            recurring={**recurring, "usage_type": recurring.get("usage_type", "licensed")},
        )

    def create_subscription(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        items = [
            self.state.make("subscription_item", price=self.state.get("price", item["price"]))
            for item in params.get("items", [])
        ]
        if not items:
            raise Refusal(400, "Missing required param: items.", param="items")
        return self.state.make(
            "subscription",
            customer=params["customer"],
            status="active",
            items={"object": "list", "data": items, "has_more": False, "url": "/v1/subscription_items"},
            metadata=dict(params.get("metadata", {})),
        )

    def create_invoice(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        made = self.state.make(
            "invoice",
            customer=params["customer"],
            currency=params.get("currency", "usd"),
            auto_advance=params.get("auto_advance") == "true",
            collection_method=params.get("collection_method", "charge_automatically"),
            status="draft",
            metadata=dict(params.get("metadata", {})),
            description=params.get("description"),
            last_finalization_error=None,
        )
        self._sum(made)
        return made

    def list_invoices(self, params: Obj) -> Obj:
        rows = [row for row in self.state.all("invoice") if row["customer"] == params.get("customer")]
        return page(rows, params, "/v1/invoices")

    def create_item(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        invoice = self.state.get("invoice", params.get("invoice"))
        if invoice["status"] != "draft":
            raise Refusal(400, "This invoice is no longer editable", code="invoice_not_editable")
        if len(self._items(invoice["id"])) >= MOST_ITEMS:
            raise Refusal(400, "Invoices may have at most 250 items.", code="invoice_line_items_limit")
        if "amount" in params:
            amount, quantity, unit = int(params["amount"]), "1", str(params["amount"])
        else:
            quantity, unit = str(params.get("quantity_decimal", "1")), str(params["unit_amount_decimal"])
            exact = decimals(quantity, "quantity_decimal") * decimals(unit, "unit_amount_decimal")
            amount = int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
        made = self.state.make(
            "invoiceitem",
            customer=params["customer"],
            invoice=invoice["id"],
            amount=amount,
            currency=params["currency"],
            description=params.get("description"),
            quantity_decimal=quantity,
            metadata=dict(params.get("metadata", {})),
        )
        made["pricing"] = {"type": "price_details", "unit_amount_decimal": unit}
        self._sum(invoice)
        return made

    def list_items(self, params: Obj) -> Obj:
        return page(self._items(params.get("invoice")), params, "/v1/invoiceitems")

    def delete_item(self, ref: str) -> Obj:
        item = self.state.get("invoiceitem", ref)
        invoice = self.state.get("invoice", item["invoice"])
        if invoice["status"] != "draft":
            raise Refusal(400, "This invoice is no longer editable", code="invoice_not_editable")
        del self.state.objects["invoiceitem"][ref]
        self._sum(invoice)
        return {"id": ref, "object": "invoiceitem", "deleted": True}

    def finalize(self, ref: str) -> Obj:
        invoice = self.state.get("invoice", ref)
        if invoice["status"] != "draft":
            raise Refusal(400, "This invoice is already finalized, you can't re-finalize.", code="invoice_not_editable")
        invoice.update(status="open", number=f"7FE1103-{len(self.state.all('invoice')):04d}")
        self.state.tell("invoice.finalized", invoice)
        return invoice

    def attach_payment(self, ref: str, params: Obj) -> Obj:
        invoice = self.state.get("invoice", ref)
        intent = self.state.get("payment_intent", params.get("payment_intent"))
        if intent["status"] != "succeeded" or invoice["status"] != "open":
            raise Refusal(400, "The payment cannot be attached to this invoice.")
        return self._paid(invoice, intent["amount_received"])

    def pay(self, ref: str, params: Obj) -> Obj:
        invoice = self.state.get("invoice", ref)
        if invoice["status"] != "open" or params.get("paid_out_of_band") != "true":
            raise Refusal(400, "This invoice can't be paid.", code="invoice_not_payable")
        return self._paid(invoice, invoice["amount_due"])

    def void(self, ref: str) -> Obj:
        invoice = self.state.get("invoice", ref)
        if invoice["status"] != "open":
            raise Refusal(400, "You can only void open invoices.")
        invoice["status"] = "void"
        self.state.tell("invoice.voided", invoice)
        return invoice

    def create_grant(self, params: Obj) -> Obj:
        self.state.get("customer", params.get("customer"))
        amount = params.get("amount", {})
        value = whole(amount.get("monetary", {}), "value")
        if not 0 <= int(params.get("priority", 50)) <= 100:
            raise Refusal(400, "priority must be between 0 and 100", param="priority")
        return self.state.make(
            "billing.credit_grant",
            customer=params["customer"],
            category=params.get("category", "paid"),
            amount={
                "type": "monetary",
                "monetary": {"currency": amount["monetary"].get("currency", "usd"), "value": value},
            },
            priority=int(params.get("priority", 50)),
            expires_at=params.get("expires_at"),
            voided_at=None,
            metadata=dict(params.get("metadata", {})),
        )

    def void_grant(self, ref: str) -> Obj:
        grant = self.state.get("billing.credit_grant", ref)
        if grant["voided_at"] is not None:
            raise Refusal(400, "This credit grant has already been voided.")
        grant["voided_at"] = int(self.state.now_s)
        return grant

    def _paid(self, invoice: Obj, amount: int) -> Obj:
        paid = min(amount, invoice["amount_due"])
        invoice.update(amount_paid=paid, amount_remaining=invoice["amount_due"] - paid)
        if invoice["amount_remaining"] == 0:
            invoice["status"] = "paid"
            self.state.tell("invoice.paid", invoice)
        return invoice

    def _items(self, invoice_ref: object) -> list[Obj]:
        return [row for row in self.state.all("invoiceitem") if row["invoice"] == invoice_ref]

    def _sum(self, invoice: Obj) -> None:
        total = sum(row["amount"] for row in self._items(invoice["id"]))
        invoice.update(total=total, subtotal=total, amount_due=max(total, 0), amount_remaining=max(total, 0))


def decimals(text: str, param: str) -> Decimal:
    """A number with at most 12 decimals. Raises Refusal."""
    try:
        value = Decimal(str(text))
    except InvalidOperation:
        raise Refusal(400, f"Invalid decimal: {text}", code="parameter_invalid_decimal", param=param) from None
    exponent = value.as_tuple().exponent
    if not isinstance(exponent, int) or exponent < -12:
        raise Refusal(400, "Decimals may have at most 12 places.", code="parameter_invalid_decimal", param=param)
    return value
