"""A process that rates, invoices, charges, refunds, hears webhooks and exports, once through, until it is killed.

    python -m tests.chaos.money_process DATABASE_URL STRIPE_URL NOW [POINT]

NOW is what its clock says. With POINT it ends where `kernel/crash_points.py` says.
"""

import asyncio
import sys
from contextlib import suppress
from datetime import datetime

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.exports.model import Mode
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.exports.stripe_meter import StripeMeters
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.invoices.closing import Closer
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments import stripe
from crosslogic.billing.payments.model import Status
from crosslogic.billing.payments.owed import Invoices, PaidForOurs
from crosslogic.billing.payments.service import PaymentService
from crosslogic.kernel import crash_points
from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict
from crosslogic.pricing.book import PriceBook
from crosslogic.store.engine import create_engine
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import key_hasher
from tests.fake_stripe import server
from tests.money_rig import LIST

REFUND_MINOR = 7


async def main(url: str, stripe_url: str, now: datetime) -> None:
    engine, clock, version = create_engine(url), ManualClock(now), PriceBook(LIST).version
    trail = AuditTrail(clock=clock)
    client, http = stripe.new_client(server.API_KEY, base_url=stripe_url, network_retries=0)
    processor = stripe.StripeProcessor(client, http, "https://console.test")
    books, issuer = InvoiceService(engine, key_hasher(), clock), Issuer(engine, key_hasher(), clock)
    paid_for = PaidForOurs(engine, books, issuer, CreditsService(engine, key_hasher(), clock), clock)
    payments = PaymentService(engine, processor, Invoices(books), paid_for, clock, trail)
    chargebacks = ChargebackService(engine, payments, paid_for, clock, trail)
    inbound = Inbound(engine, clock, payments, {}, chargebacks=chargebacks)
    meters = StripeMeters(client)
    exports = Exports(engine, clock, meters, payments.methods.customer, trail, default=Mode.STRIPE_METER)

    await RatingService(engine, clock, price_list=lambda: (version, LIST)).round()
    await Closer(engine, issuer, clock).round()
    for invoice in await books.open_invoices():
        with suppress(Conflict):  # it is under way, or was charged back
            if not any(each.charged_back for each in await payments.payments(invoice_id=invoice.id)):
                await payments.pay_invoice(invoice.id)
    await payments.drive_due()
    for payment in await payments.payments(status=Status.SUCCEEDED):
        with suppress(Conflict):
            await payments.refund(payment.id, REFUND_MINOR, creation_ref="once")
    await inbound.act()
    await chargebacks.round()
    await exports.run()
    await processor.close()
    await engine.dispose()


if __name__ == "__main__":
    if len(sys.argv) > 4:
        crash_points.arm(sys.argv[4])
    asyncio.run(main(sys.argv[1], sys.argv[2], datetime.fromisoformat(sys.argv[3])))
