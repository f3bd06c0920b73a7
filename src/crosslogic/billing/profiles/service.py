"""Reading and changing billing profiles. Invariant: every change is in the audit log, in the same transaction."""

from typing import Any

import msgspec
from sqlalchemy import insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.profiles import rules
from crosslogic.billing.profiles.model import NO_PROFILE, BillingProfile, BillingTerms, terms_of
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.ids import OrgId
from crosslogic.store.engine import reading
from crosslogic.store.tables import billing_profiles, orgs
from crosslogic.tenancy.audit import SYSTEM, Actor, difference
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import locked


class ProfileService:
    """Raises InvalidRequest, and NotFound for an org that there is not."""

    def __init__(
        self,
        engine: AsyncEngine,
        hash_key: KeyHasher,
        clock: Clock,
        configured: BillingTerms | None = None,
        actor: Actor = SYSTEM,
    ) -> None:
        self.configured = configured or BillingTerms()
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._trail = AuditTrail(actor, hash_key, clock)

    def acting_as(self, actor: Actor) -> "ProfileService":
        return ProfileService(self._engine, self._hash_key, self._clock, self.configured, actor)

    async def profile(self, org_id: OrgId) -> BillingProfile:
        async with reading(self._engine) as conn:
            return await profile_in(conn, org_id)

    def terms(self, profile: BillingProfile) -> BillingTerms:
        return terms_of(profile, self.configured)

    async def change(self, org_id: OrgId, **given: Any) -> BillingProfile:
        """Change what is given. The next invoice is made by it; those that are issued stay as they are."""
        async with self._engine.begin() as conn:
            await locked(conn, orgs, org_id, "org")
            before = await profile_in(conn, org_id)
            after = rules.checked(msgspec.structs.replace(before, **given))
            if after == before:
                return before
            await _write(conn, org_id, after, self._clock)
            was, became = difference(msgspec.to_builtins(before), msgspec.to_builtins(after))
            await self._trail.append(conn, "billing_profile.change", org_id, org_id=org_id, before=was, after=became)
            return after


async def profile_in(conn: AsyncConnection, org_id: str) -> BillingProfile:
    found = await conn.scalar(select(billing_profiles.c.profile).where(billing_profiles.c.org_id == org_id))
    return NO_PROFILE if found is None else msgspec.convert(found, BillingProfile)


async def _write(conn: AsyncConnection, org_id: str, profile: BillingProfile, clock: Clock) -> None:
    values = {"profile": msgspec.to_builtins(profile), "updated_at": clock.now()}
    here = billing_profiles.c.org_id == org_id
    if not (await conn.execute(update(billing_profiles).where(here).values(values))).rowcount:
        await conn.execute(insert(billing_profiles).values(org_id=org_id, **values))
