"""Builds the rooms of rating and money, and the jobs that drive them where `enable_billing` is on."""

from collections.abc import Callable, Iterable

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.api.services import MoneyServices
from crosslogic.billing.charges.accounts import AccountsService
from crosslogic.billing.charges.inquiries import Inquiries
from crosslogic.billing.charges.monthly import MonthlyFees, SignupCredits
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.charges.shadow import ShadowRating
from crosslogic.billing.credits.service import CreditsService
from crosslogic.jobs.prepaid import PrepaidCaps
from crosslogic.jobs.table import Job, rating_jobs
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import ConfigurationError
from crosslogic.kernel.money import pusd_of
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.pricing.reference import ReferenceList, read_reference, shipped_reference
from crosslogic.pricing.service import PricesService
from crosslogic.settings.commerce import BillingSettings
from crosslogic.settings.model import Settings
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.model import Plan
from crosslogic.tenancy.service import TenancyService
from crosslogic.wiring import translate


def new_money(
    settings: Settings,
    engine: AsyncEngine,
    hash_key: KeyHasher,
    clock: Clock,
    configured_plans: Callable[[], Iterable[Plan]],
) -> MoneyServices:
    credits = settings.billing.credits
    listed = translate.price_list(settings.prices, settings.regions)
    book = PriceBook(listed)
    reference, reference_name = _reference(settings.billing)
    return MoneyServices(
        prices=PricesService(engine, hash_key, clock),
        credits=CreditsService(engine, hash_key, clock),
        accounts=AccountsService(engine, hash_key, clock),
        rating=RatingService(
            engine,
            clock,
            configured_plans=configured_plans,
            free_tokens_per_month=credits.free_tokens_per_month,
            price_list=lambda: (book.version, listed),
        ),
        inquiries=Inquiries(
            engine,
            clock,
            configured_plans=configured_plans,
            free_tokens_per_month=credits.free_tokens_per_month,
            price_version=lambda: book.version,
            reference=reference,
            reference_name=reference_name,
        ),
        shadow=ShadowRating(engine),
        referral_amount=pusd_of(credits.referral_usd),
    )


def _reference(billing: BillingSettings) -> tuple[PriceBook | None, str | None]:
    """What estimates compare with, and what that is called. Raises ConfigurationError for a file that is no list."""
    reference: ReferenceList | None = None
    if billing.reference_file is not None:
        try:
            reference = read_reference(billing.reference_file.read_bytes())
        except OSError as error:
            raise ConfigurationError(f"billing.reference_file cannot be read: {error.strerror}") from None
    elif billing.reference_list == "openai":
        reference = shipped_reference()
    entries = (*translate.price_entries(billing.reference_prices), *(reference.prices if reference else ()))
    if not entries:
        return None, None
    return PriceBook(PriceList(entries)), "the configuration" if reference is None else reference.shown


def money_jobs(
    settings: Settings,
    engine: AsyncEngine,
    clock: Clock,
    money: MoneyServices,
    configured_plans: Callable[[], Iterable[Plan]],
    tenancy: TenancyService,
) -> tuple[Job, ...]:
    if not settings.enable_billing:
        return ()
    signup = SignupCredits(engine, money.credits, pusd_of(settings.billing.credits.signup_usd), clock)
    fees = MonthlyFees(engine, clock, configured_plans)
    return rating_jobs(money.rating, fees, signup, PrepaidCaps(engine, tenancy, clock))
