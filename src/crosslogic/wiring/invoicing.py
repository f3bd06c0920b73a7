"""Builds what makes invoices, from the settings."""

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.invoicing import Invoicing
from crosslogic.billing.invoices.model import InvoicingTerms
from crosslogic.billing.payments.methods import PaymentMethods
from crosslogic.billing.profiles import rules
from crosslogic.billing.profiles.model import Address, BillingProfile, BillingTerms, Cycle, Seller
from crosslogic.billing.tax.model import TaxRule
from crosslogic.insight.notices.outbox import Outbox
from crosslogic.jobs.dunning import Dunning
from crosslogic.jobs.invoice_notices import InvoiceNotices
from crosslogic.jobs.table import Job, invoice_notice_jobs, invoicing_jobs
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError, InvalidRequest
from crosslogic.kernel.ids import OrgId
from crosslogic.settings.invoicing import SellerSettings, TaxRuleSettings
from crosslogic.settings.model import Settings
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.service import TenancyService


class MethodsOnFile:
    """The default payment method of an org, in the words that invoices print."""

    def __init__(self, methods: PaymentMethods) -> None:
        self._methods = methods

    async def described(self, org_id: OrgId) -> str | None:
        for method in await self._methods.all(org_id):
            if method.is_default:
                name = (method.brand or method.kind.value.replace("_", " ")).capitalize()
                return f"{name} ending in {method.last4}" if method.last4 else name
        return None


def new_invoicing(
    settings: Settings, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, methods: PaymentMethods | None = None
) -> Invoicing:
    """Raises ConfigurationError for a seller whose numbers are wrong."""
    known = None if methods is None else MethodsOnFile(methods)
    return Invoicing(engine, hash_key, clock, invoicing_terms(settings), known)


def invoicing_jobs_of(
    settings: Settings, invoicing: Invoicing, engine: AsyncEngine, tenancy: TenancyService, clock: Clock
) -> tuple[Job, ...]:
    """None of them without `enable_billing`, but that payments have things to tell, too."""
    notices = invoice_notice_jobs(InvoiceNotices(invoicing.notices, Outbox(engine), clock))
    if not settings.enable_billing:
        return notices if settings.enable_payments else ()
    return (*invoicing_jobs(invoicing.closer, Dunning(engine, tenancy, invoicing.terms, clock)), *notices)


def invoicing_terms(settings: Settings) -> InvoicingTerms:
    billing, invoices = settings.billing, settings.billing.invoices
    try:
        rules.zone(invoices.time_zone)
        seller = _seller(invoices.seller)
    except InvalidRequest as error:
        raise ConfigurationError(f"billing.invoices: {error}") from None
    return InvoicingTerms(
        seller=seller,
        configured=BillingTerms(
            cycle=Cycle(billing.cycle),
            time_zone=invoices.time_zone,
            invoice_day=billing.invoice_day,
            payment_terms_days=invoices.payment_terms_days,
            grace_days=billing.grace_period_days,
            auto_charge=settings.payments.auto_charge,
            usage_threshold=invoices.usage_threshold,
        ),
        tax_rules=tuple(map(_tax_rule, invoices.tax_rules)),
        series=invoices.series,
        credit_note_series=invoices.credit_note_series,
        fiscal_year_first_month=invoices.fiscal_year_first_month,
        time_zone=invoices.time_zone,
        close_delay_s=invoices.close_delay_s,
        issue_at_once=invoices.issue_at_once,
        reminder_days=invoices.reminder_days,
        suspend_unpaid=invoices.suspend_unpaid,
    )


def _seller(seller: SellerSettings) -> Seller:
    """Its numbers and address are checked as those of customers are."""
    address = Address(seller.address, seller.city, seller.state, seller.postal_code, seller.country)
    known = rules.checked(
        BillingProfile(
            legal_name=seller.legal_name,
            address=address,
            email=seller.email,
            gstin=seller.gstin,
            vat_id=seller.vat_id,
        )
    )
    return Seller(
        legal_name=known.legal_name or "",
        address=known.address,
        email=known.email,
        website=seller.website,
        gstin=known.gstin,
        lut=seller.lut,
        vat_id=known.vat_id,
        vat_countries=tuple(country.upper() for country in seller.vat_countries),
        sac=seller.sac,
        payment_instructions=seller.payment_instructions,
    )


def _tax_rule(rule: TaxRuleSettings) -> TaxRule:
    fields = {name: getattr(rule, name) for name in TaxRule.__struct_fields__}
    places = {"country": rule.country.upper(), "state": rule.state.upper()}
    percents = {name: format(fields[name], "f") for name in ("percent", "taxable_percent")}
    return msgspec.convert({**fields, **places, **percents}, TaxRule)
