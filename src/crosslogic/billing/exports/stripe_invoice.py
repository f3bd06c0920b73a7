"""Our invoices in Stripe's books: an invoice there with the same lines, finalised only when the sums agree.

Invariant: what is there already is read before anything is added, so that a step may be repeated at any age; items are
told apart by their number in the metadata, and a second one of a number is taken away again.
"""

from typing import Any

import stripe
from stripe import StripeClient

from crosslogic.billing.exports.ports import InvoiceOrder
from crosslogic.billing.payments.ports import ProviderRefused
from crosslogic.billing.payments.stripe import asked, part, translated

_INVOICE, _LINE = "crosslogic_invoice", "crosslogic_line"


class StripeInvoices:
    """`InvoiceSink` over Stripe."""

    def __init__(self, client: StripeClient) -> None:
        self._v1 = client.v1

    async def put(self, order: InvoiceOrder) -> str:
        invoice = await self._find(order) or await self._create(order)
        if invoice.status == "draft":
            await self._fill(order, invoice.id)
            invoice = await asked(self._v1.invoices.retrieve_async(invoice.id))
            if invoice.total != order.total_minor:
                raise ProviderRefused(
                    "total_differs", f"Stripe sums the invoice up to {invoice.total}, we to {order.total_minor}"
                )
            try:
                invoice = await asked(self._v1.invoices.finalize_invoice_async(invoice.id, {"auto_advance": False}))
            except ProviderRefused:  # somebody else was quicker
                invoice = await asked(self._v1.invoices.retrieve_async(invoice.id))
        if invoice.status not in ("open", "paid") or invoice.total != order.total_minor:
            raise ProviderRefused("not_ours", f"the invoice at Stripe is {invoice.status} over {invoice.total}")
        return invoice.id

    async def settle(self, provider_ref: str, payment_ref: str | None) -> bool:
        invoice = await asked(self._v1.invoices.retrieve_async(provider_ref))
        if invoice.status != "open":
            return invoice.status == "paid"
        if payment_ref is not None:
            try:
                made = await asked(
                    self._v1.invoices.attach_payment_async(provider_ref, {"payment_intent": payment_ref})
                )
                if made.status == "paid":
                    return True
            except ProviderRefused:  # it is attached to something else, or of another amount
                pass
        return (await asked(self._v1.invoices.pay_async(provider_ref, {"paid_out_of_band": True}))).status == "paid"

    async def void(self, provider_ref: str) -> None:
        if (await asked(self._v1.invoices.retrieve_async(provider_ref))).status == "open":
            await asked(self._v1.invoices.void_invoice_async(provider_ref))

    async def _find(self, order: InvoiceOrder) -> stripe.Invoice | None:
        async with translated():
            found = await self._v1.invoices.list_async({"customer": order.customer_ref, "limit": 100})
            async for invoice in found.auto_paging_iter():
                if part(invoice.metadata, _INVOICE) == order.invoice_id and invoice.status != "void":
                    return invoice
        return None

    async def _create(self, order: InvoiceOrder) -> stripe.Invoice:
        return await asked(
            self._v1.invoices.create_async(
                {
                    "customer": order.customer_ref,
                    "currency": order.currency,
                    "auto_advance": False,
                    "collection_method": "charge_automatically",  # by us; Stripe only keeps the books
                    "pending_invoice_items_behavior": "exclude",
                    "description": f"Invoice {order.number}",
                    "metadata": {_INVOICE: order.invoice_id},
                }
            )
        )

    async def _fill(self, order: InvoiceOrder, ref: str) -> None:
        there: dict[str, str] = {}
        async with translated():
            found = await self._v1.invoice_items.list_async({"invoice": ref, "limit": 100})
            surplus = []
            async for item in found.auto_paging_iter():
                name = str(part(item.metadata, _LINE))
                if name in there:
                    surplus.append(item.id)
                there[name] = item.id
        for each in surplus:
            await asked(self._v1.invoice_items.delete_async(each))
        for item_order in order.items:
            if str(item_order.n) in there:
                continue
            params: dict[str, Any] = {
                "customer": order.customer_ref,
                "invoice": ref,
                "currency": order.currency,
                "description": item_order.description,
                "metadata": {_LINE: str(item_order.n), _INVOICE: order.invoice_id},
            }
            if item_order.quantity is None or item_order.unit_amount is None:
                params["amount"] = item_order.amount_minor
            else:
                params["quantity_decimal"] = item_order.quantity
                params["unit_amount_decimal"] = item_order.unit_amount
            await asked(self._v1.invoice_items.create_async(params))  # type: ignore[arg-type]
