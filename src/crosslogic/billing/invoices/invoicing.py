"""All that may be done with invoices, as one service for routes, jobs and other rooms."""

from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.invoices.closing import Closer
from crosslogic.billing.invoices.issuing import Issuer, PaymentMethods
from crosslogic.billing.invoices.model import InvoicingTerms
from crosslogic.billing.invoices.notices import NoticeOutbox
from crosslogic.billing.invoices.service import InvoiceService
from crosslogic.billing.profiles.service import ProfileService
from crosslogic.kernel.clock import Clock
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.keys import KeyHasher


class Invoicing:
    """`invoices` reads them and takes payments, `issuer` issues, voids and credits, `closer` closes periods."""

    def __init__(
        self,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        terms: InvoicingTerms | None = None,
        methods: PaymentMethods | None = None,
        actor: Actor = SYSTEM,
    ) -> None:
        self.terms = terms or InvoicingTerms()
        self._made_of = (engine, hash_key, clock, self.terms, methods)
        self.invoices = InvoiceService(engine, hash_key, clock, actor)
        self.profiles = ProfileService(engine, hash_key, clock, self.terms.configured, actor)
        self.issuer = Issuer(engine, hash_key, clock, self.terms, methods, actor)
        self.closer = Closer(engine, self.issuer, clock)
        self.notices = NoticeOutbox(engine)

    def acting_as(self, actor: Actor) -> "Invoicing":
        """The same; what it changes is written down as done by `actor`."""
        return Invoicing(*self._made_of, actor)
