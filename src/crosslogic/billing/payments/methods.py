"""Who an org is to its payment provider, and what it may pay with.

Invariants: an org has one customer at a provider; what it pays with is known here by an id of ours, so that nobody can
name another org's card; at most one method is the default.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.payments import sql
from crosslogic.billing.payments.model import Method, MethodFound, MethodKind, SetupStarted
from crosslogic.billing.payments.ports import PaymentProcessor, ProviderRefused
from crosslogic.billing.payments.rows import columns, to_method
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.store.tables import orgs, payment_customers, payment_methods
from crosslogic.tenancy.audit_sql import AuditTrail

MOST_METHODS = 20


class PaymentMethods:
    def __init__(
        self,
        engine: AsyncEngine,
        processor: PaymentProcessor,
        clock: Clock,
        trail: AuditTrail,
        currency: Callable[[OrgId], Awaitable[str]],
    ) -> None:
        self._engine = engine
        self._processor = processor
        self._clock = clock
        self._trail = trail
        self._currency = currency  # of an org, in lower case

    async def customer(self, org_id: OrgId) -> str:
        """The provider's name of the org, which is made a customer if it was none. Raises NotFound, Unavailable.

        Two at once ask under the same key and get the same; of two made days apart the first that was kept counts.
        """
        provider = self._processor.provider
        found = await sql.customer_ref(self._engine, org_id, provider)
        if found is not None:
            return found
        async with self._engine.connect() as conn:
            name = await conn.scalar(select(orgs.c.name).where(orgs.c.id == org_id))
        if name is None:
            raise NotFound("there is no such org")
        ref = await self._processor.create_customer(org_id, name)
        row = {"org_id": org_id, "provider": provider, "customer_ref": ref, "created_at": self._clock.now()}
        try:
            async with self._engine.begin() as conn:
                await conn.execute(insert(payment_customers).values(**row))
                await self._trail.append(
                    conn, "payment_customer.create", ref, org_id=org_id, before=None, after={"provider": provider}
                )
        except IntegrityError:
            found = await sql.customer_ref(self._engine, org_id, provider)
            if found is None:
                raise
            return found
        return ref

    async def begin_setup(self, org_id: OrgId, kind: MethodKind) -> SetupStarted:
        """Raises InvalidRequest for a kind that the provider does not know, Conflict for too many methods."""
        if kind not in self._processor.kinds:
            known = ", ".join(each.value for each in self._processor.kinds)
            raise InvalidRequest(f"{self._processor.provider} takes {known}", param="kind")
        async with self._engine.connect() as conn:
            if await sql.count_methods(conn, org_id) >= MOST_METHODS:
                raise Conflict(f"an organisation has at most {MOST_METHODS} payment methods; remove one first")
        customer, currency = await self.customer(org_id), await self._currency(org_id)
        try:
            return await self._processor.begin_setup(customer, kind, new_id("setup"), currency)
        except ProviderRefused as refused:
            raise InvalidRequest(str(refused), param="kind") from None

    async def finish_setup(self, org_id: OrgId, setup_ref: str) -> Method:
        """Take up what was set up at the provider; harmless to repeat. Raises Conflict while it is not complete."""
        try:
            found = await self._processor.finish_setup(await self.customer(org_id), setup_ref)
        except ProviderRefused:
            raise NotFound("there is no such set-up") from None
        if found is None:
            raise Conflict("the set-up is not complete: its form at the payment provider was not finished")
        return await self._keep(org_id, found)

    async def sync(self, org_id: OrgId) -> list[Method]:
        """What the provider has of the org, as far as it is not known yet, and gone what is gone there."""
        ref = await sql.customer_ref(self._engine, org_id, self._processor.provider)
        if ref is None:
            return []
        found = await self._processor.methods(ref)
        for each in found:
            await self._keep(org_id, each)
        there = {each.method_ref for each in found}
        for method in await self.all(org_id):
            if method.method_ref not in there:
                async with self._engine.begin() as conn:
                    await self._gone(conn, method)
        return await self.all(org_id)

    async def all(self, org_id: OrgId) -> list[Method]:
        return await sql.methods(self._engine, org_id, self._processor.provider)

    async def one(self, org_id: OrgId, method_id: str) -> Method:
        async with self._engine.begin() as conn:
            return await sql.method_in(conn, method_id, org_id, self._processor.provider)

    async def set_default(self, org_id: OrgId, method_id: str) -> Method:
        """First here, where it counts for what we charge; the provider is told for what it charges by itself."""
        async with self._engine.begin() as conn:
            method = await sql.method_in(conn, method_id, org_id, self._processor.provider)
            await sql.make_default_in(conn, org_id, method.id)
            await self._trail.append(conn, "payment_method.default", method.id, org_id=org_id, before=None, after={})
        await self._processor.set_default(await self.customer(org_id), method.method_ref)
        return await self.one(org_id, method_id)

    async def remove(self, org_id: OrgId, method_id: str) -> None:
        """At the provider first: what is gone here must not be charged there."""
        method = await self.one(org_id, method_id)
        await self._processor.remove_method(await self.customer(org_id), method.method_ref)
        async with self._engine.begin() as conn:
            await self._gone(conn, method)

    async def _gone(self, conn: AsyncConnection, method: Method) -> None:
        here = (payment_methods.c.id == method.id) & payment_methods.c.removed_at.is_(None)
        values: dict[str, Any] = {"removed_at": self._clock.now(), "is_default": False}
        if (await conn.execute(update(payment_methods).where(here).values(**values))).rowcount:
            shown = {"kind": method.kind.value, "last4": method.last4}
            await self._trail.append(
                conn, "payment_method.remove", method.id, org_id=method.org_id, before=shown, after=None
            )

    async def _keep(self, org_id: OrgId, found: MethodFound) -> Method:
        provider = self._processor.provider
        t = payment_methods.c
        same = (t.org_id == org_id) & (t.provider == provider) & (t.method_ref == found.method_ref)
        told: dict[str, Any] = {
            "brand": found.brand,
            "last4": found.last4,
            "expiry_month": found.expiry_month,
            "expiry_year": found.expiry_year,
        }
        async with self._engine.begin() as conn:
            # One at a time for an org, so that of two first methods one is the default.
            await conn.execute(
                select(payment_customers.c.org_id).where(payment_customers.c.org_id == org_id).with_for_update()
            )
            row = (await conn.execute(select(payment_methods).where(same))).mappings().first()
            if row is None:
                first = await sql.count_methods(conn, org_id) == 0
                method = Method(
                    id=new_id("pm"),
                    org_id=org_id,
                    provider=provider,
                    method_ref=found.method_ref,
                    kind=found.kind,
                    is_default=first,
                    created_at=self._clock.now(),
                    **told,
                )
                await conn.execute(insert(payment_methods).values(**columns(method)))
                await self._trail.append(
                    conn,
                    "payment_method.add",
                    method.id,
                    org_id=org_id,
                    before=None,
                    after={"kind": found.kind.value, "last4": found.last4},
                )
                return method
            await conn.execute(update(payment_methods).where(same).values(**told, removed_at=None))
            again = (await conn.execute(select(payment_methods).where(same))).mappings().one()
            return to_method(again)
