"""Builds what takes payments, where they are on: the provider's adapter, what it pays for, who listens to webhooks,
what is exported, and who compares the books."""

from pathlib import Path

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import PaymentRooms
from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.credits.service import CreditsService
from crosslogic.billing.exports import licence
from crosslogic.billing.exports.invoicing import InvoiceExports
from crosslogic.billing.exports.licensed import LicensedSite
from crosslogic.billing.exports.model import Mode
from crosslogic.billing.exports.ports import MeterSink
from crosslogic.billing.exports.service import Counters, Exports
from crosslogic.billing.exports.stripe_invoice import StripeInvoices
from crosslogic.billing.exports.stripe_meter import StripeMeters
from crosslogic.billing.inbound.service import Inbound, Verifier
from crosslogic.billing.inbound.verify_paypal import PayPalVerifier
from crosslogic.billing.inbound.verify_stripe import StripeVerifier
from crosslogic.billing.invoices.issuing import Issuer
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.payments import paypal, stripe
from crosslogic.billing.payments.auto_charge import AutoCharge
from crosslogic.billing.payments.owed import Invoices, PaidForOurs
from crosslogic.billing.payments.ports import PaymentProcessor
from crosslogic.billing.payments.service import PaymentService
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.jobs.table import Job, export_jobs, payment_jobs, reconciliation_jobs
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.settings.commerce import PaymentSettings
from crosslogic.settings.model import Settings
from crosslogic.tenancy.audit import SYSTEM
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.wiring.invoicing import invoicing_terms

_STRIPE_NEEDS = "payments.provider: stripe needs payments.api_key and payments.webhook_secret"
_PAYPAL_NEEDS = "payments.provider: paypal needs payments.client_id, payments.api_key and payments.webhook_secret"


class Payments(msgspec.Struct, frozen=True):
    """All that there is of payments in one process. `rooms` is None where they are off; books are compared anyway."""

    rooms: PaymentRooms | None
    reconciler: Reconciler
    jobs: tuple[Job, ...]

    async def close(self) -> None:
        if self.rooms is not None:
            await self.rooms.service.processor.close()


def new_payments(
    settings: Settings, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, counters: Counters | None = None
) -> Payments:
    """Raises ConfigurationError for what a provider needs and is not set."""
    chosen = settings.payments
    trail = AuditTrail(SYSTEM, hash_key, clock)
    if not settings.enable_payments or chosen.provider == "none":
        reconciler = Reconciler(engine, clock, trail)
        return Payments(None, reconciler, reconciliation_jobs(reconciler))
    exporting: tuple[Job, ...] = ()
    meters: MeterSink | None
    books = InvoiceService(engine, hash_key, clock)
    invoices = Invoices(books)
    issuer = Issuer(engine, hash_key, clock, invoicing_terms(settings))
    paid_for = PaidForOurs(engine, books, issuer, CreditsService(engine, hash_key, clock), clock)
    if chosen.provider == "paypal":
        processor, verifier = _paypal(chosen)
        service = PaymentService(engine, processor, invoices, paid_for, clock, trail)
        chargebacks = ChargebackService(engine, service, paid_for, clock, trail)
        inbound = Inbound(engine, clock, service, {"paypal": verifier}, chargebacks=chargebacks)
        rooms, meters = PaymentRooms(service, inbound, chargebacks), None
    else:
        rooms, exporting, meters = _stripe(settings, engine, clock, invoices, paid_for, books, trail, counters)
    reconciler = Reconciler(engine, clock, trail, rooms.service, meters)
    charging = AutoCharge(rooms.service, invoices) if chosen.auto_charge else None
    jobs = payment_jobs(rooms.service, rooms.inbound, rooms.chargebacks, charging)
    return Payments(rooms, reconciler, (*jobs, *exporting, *reconciliation_jobs(reconciler)))


def check_payments(settings: Settings) -> None:
    """Raises ConfigurationError where the provider that is chosen lacks what it is reached with."""
    chosen = settings.payments
    if not settings.enable_payments:
        return
    keyless = chosen.api_key is None or chosen.webhook_secret is None
    if chosen.provider == "stripe" and keyless:
        raise ConfigurationError(_STRIPE_NEEDS)
    if chosen.provider == "paypal" and (keyless or chosen.client_id is None):
        raise ConfigurationError(_PAYPAL_NEEDS)


def licensed_site(chosen: PaymentSettings, engine: AsyncEngine, clock: Clock) -> LicensedSite | None:
    """Raises ConfigurationError for a licence file that is not signed. One that has expired still counts as a licence:
    a site is not stopped for it."""
    if chosen.licence_file is None:
        return None
    if chosen.licence_key_file is None:
        raise ConfigurationError("payments.licence_file needs payments.licence_key_file, the key to check it with")
    read = licence.read(_text(chosen.licence_file), _text(chosen.licence_key_file).encode())
    return LicensedSite(engine, read, clock)


def _stripe(
    settings: Settings,
    engine: AsyncEngine,
    clock: Clock,
    invoices: Invoices,
    paid_for: PaidForOurs,
    books: InvoiceService,
    trail: AuditTrail,
    counters: Counters | None,
) -> tuple[PaymentRooms, tuple[Job, ...], MeterSink]:
    chosen = settings.payments
    if chosen.api_key is None or chosen.webhook_secret is None:
        raise ConfigurationError(_STRIPE_NEEDS)
    client, http = stripe.new_client(
        chosen.api_key.get_secret_value(),
        base_url=chosen.base_url,
        timeout_s=chosen.timeout_s,
        network_retries=chosen.network_retries,
    )
    processor = stripe.StripeProcessor(client, http, chosen.return_url)
    service = PaymentService(engine, processor, invoices, paid_for, clock, trail)
    meters, customer = StripeMeters(client), service.methods.customer
    exports = Exports(engine, clock, meters, customer, trail, default=Mode(chosen.export), counters=counters)
    in_books = InvoiceExports(engine, clock, StripeInvoices(client), books, customer, counters)
    secrets = [each.get_secret_value() for each in (chosen.webhook_secret, chosen.former_webhook_secret) if each]
    verifier = StripeVerifier(tuple(secrets)).verified
    chargebacks = ChargebackService(engine, service, paid_for, clock, trail)
    inbound = Inbound(engine, clock, service, {"stripe": verifier}, exports.on_meter_report, chargebacks)
    jobs = export_jobs(exports, in_books, settings.billing.export_interval_s)
    return PaymentRooms(service, inbound, chargebacks, exports), jobs, meters


def _paypal(chosen: PaymentSettings) -> tuple[PaymentProcessor, Verifier]:
    if chosen.api_key is None or chosen.webhook_secret is None or chosen.client_id is None:
        raise ConfigurationError(_PAYPAL_NEEDS)
    processor = paypal.PayPalProcessor(
        chosen.client_id,
        chosen.api_key.get_secret_value(),
        chosen.return_url,
        base_url=chosen.base_url or paypal.LIVE_URL,
        timeout_s=chosen.timeout_s,
    )
    return processor, PayPalVerifier(chosen.webhook_secret.get_secret_value()).verified


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({type(error).__name__})") from None
