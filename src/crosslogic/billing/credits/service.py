"""What may be done with credits: grant, void, look at.

Invariants: whatever a credit is granted for is granted once; a grant and a void count for what is rated after them, so
neither changes a charge that is there; all of it stands in the audit log.
"""

from datetime import datetime

import msgspec
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from crosslogic.billing.charges import sql
from crosslogic.billing.charges.own_terms import account
from crosslogic.billing.credits.draw import in_order, standing
from crosslogic.billing.credits.model import CreditClass, Grant, Standing
from crosslogic.billing.credits.rows import grant_columns, to_grant
from crosslogic.billing.postings import book
from crosslogic.billing.postings.sql import post
from crosslogic.kernel.clock import Clock
from crosslogic.kernel.errors import Conflict, InvalidRequest, NotFound
from crosslogic.kernel.ids import OrgId, new_id
from crosslogic.store.engine import reading
from crosslogic.store.tables import credit_grants, orgs
from crosslogic.tenancy.audit import SYSTEM, Actor
from crosslogic.tenancy.audit_sql import AuditTrail
from crosslogic.tenancy.keys import KeyHasher
from crosslogic.tenancy.writing import Writer, check_ref, locked

USUAL_PRIORITY = 100
_MOST = 10**24  # a million million units of a currency
_WORD = "credit"


class Granted(msgspec.Struct, frozen=True):
    """`repeated`: it had been granted for the same `source_ref` before."""

    grant: Grant
    repeated: bool = False


class CreditsService:
    """Raises InvalidRequest, NotFound, also for a grant of another org, and Conflict."""

    def __init__(self, engine: AsyncEngine, hash_key: KeyHasher, clock: Clock, actor: Actor = SYSTEM) -> None:
        self._engine = engine
        self._hash_key = hash_key
        self._clock = clock
        self._rows = Writer(engine, AuditTrail(actor, hash_key, clock))

    def acting_as(self, actor: Actor) -> "CreditsService":
        """The same service; what it changes is written down as done by `actor`."""
        return CreditsService(self._engine, self._hash_key, self._clock, actor)

    def now(self) -> datetime:
        return self._clock.now()

    async def grant(
        self,
        org_id: OrgId,
        credit_class: CreditClass,
        amount: int,
        *,
        priority: int = USUAL_PRIORITY,
        starts_at: datetime | None = None,
        expires_at: datetime | None = None,
        source_ref: str | None = None,
        reason: str = "",
    ) -> Granted:
        """Give an org `amount` pico-units of its currency. Repeated for the same `source_ref` it gives nothing more."""
        async with self._engine.begin() as conn:
            return await self.grant_in(
                conn,
                org_id,
                credit_class,
                amount,
                priority=priority,
                starts_at=starts_at,
                expires_at=expires_at,
                source_ref=source_ref,
                reason=reason,
            )

    async def grant_in(
        self,
        conn: AsyncConnection,
        org_id: OrgId,
        credit_class: CreditClass,
        amount: int,
        *,
        priority: int = USUAL_PRIORITY,
        starts_at: datetime | None = None,
        expires_at: datetime | None = None,
        source_ref: str | None = None,
        reason: str = "",
        anew: bool = False,
    ) -> Granted:
        """The same in a transaction of the caller's, such as that of the payment that it is bought with. `anew`: in
        place of what was bought before, so that no money comes in for it."""
        now = self._clock.now()
        start = now if starts_at is None else starts_at
        _check(amount, priority, start, expires_at)
        await sql.hold_org(conn, org_id)
        if await conn.scalar(select(orgs.c.id).where(orgs.c.id == org_id)) is None:
            raise NotFound("there is no such org")
        currency = (await account(conn, org_id)).currency
        if source_ref is not None:
            earlier = await self._granted_for(conn, org_id, source_ref)
            if earlier is not None:
                if (earlier.amount, earlier.credit_class) != (amount, credit_class):
                    raise Conflict(f"another credit was granted for {source_ref!r}")
                return Granted(earlier, repeated=True)
        reached, _ = await sql.cursor(conn, org_id)
        made = Grant(
            id=new_id("grant"),
            org_id=org_id,
            credit_class=credit_class,
            priority=priority,
            currency=currency,
            amount=amount,
            starts_at=start,
            created_at=now,
            expires_at=expires_at,
            source_ref=source_ref,
            reason=reason,
            from_seq=reached,
        )
        await self._rows.add_in(conn, credit_grants, grant_columns(made), _WORD)
        if credit_class is CreditClass.PAID and not anew:
            await _post(conn, "bought", made, book.of_bought(amount), now)
        return Granted(made)

    async def refer(self, referrer: OrgId, referred: OrgId, amount: int) -> Granted:
        """Thank an org for another that it has brought. An org is brought once, and nobody brings themselves."""
        if referrer == referred:
            raise InvalidRequest("an org cannot refer itself", param="referred")
        ref = f"referral:{referred}"
        async with self._engine.begin() as conn:
            await sql.hold_org(conn, referred)  # two who claim to have brought the same org take turns
            if await conn.scalar(select(orgs.c.id).where(orgs.c.id == referred)) is None:
                raise NotFound("there is no such org")
            query = select(credit_grants.c.org_id).where(credit_grants.c.source_ref == ref).limit(1)
            earlier = await conn.scalar(query)
            if earlier not in (None, referrer):
                raise Conflict("this org was referred by another")
            return await self.grant_in(
                conn, referrer, CreditClass.REFERRAL, amount, source_ref=ref, reason=f"for {referred}"
            )

    async def void(self, grant_id: str, *, org_id: OrgId | None = None) -> Standing:
        """Take back what is left of a grant; harmless to repeat."""
        async with self._engine.begin() as conn:
            return await self.void_in(conn, await self._grant(conn, grant_id, org_id))

    async def void_in(self, conn: AsyncConnection, grant: Grant, *, returned: bool = False) -> Standing:
        """The same in a transaction of the caller's. `returned`: its money goes back, which the caller posts."""
        await sql.hold_org(conn, grant.org_id)
        row = await locked(conn, credit_grants, grant.id, _WORD)
        now, (reached, state) = self._clock.now(), await sql.cursor(conn, grant.org_id)
        if row["voided_at"] is None:
            values = {"voided_at": now, "void_seq": reached}
            row = await self._rows.change_in(conn, credit_grants, row, values, _WORD, "void")
        found = standing(to_grant(row), state.drawn.get(grant.id, 0), now)
        if grant.credit_class is CreditClass.PAID and not returned:
            await _post(conn, "voided", found.grant, book.of_voided(found.voided), now)
        return found

    async def one(self, grant_id: str, *, org_id: OrgId | None = None) -> Standing:
        async with reading(self._engine) as conn:
            grant = await self._grant(conn, grant_id, org_id)
            _, state = await sql.cursor(conn, grant.org_id)
        return standing(grant, state.drawn.get(grant.id, 0), self._clock.now())

    async def of_org(self, org_id: OrgId) -> list[Standing]:
        """All that was ever granted, in the order in which it is drawn."""
        async with reading(self._engine) as conn:
            found = await sql.grants(conn, org_id)
            _, state = await sql.cursor(conn, org_id)
        now = self._clock.now()
        return [standing(each, state.drawn.get(each.id, 0), now) for each in in_order(found)]

    async def balance(self, org_id: OrgId) -> int:
        """What is left of all grants that are good now."""
        now = self._clock.now()
        return sum(each.remaining for each in await self.of_org(org_id) if each.grant.starts_at <= now)

    async def _grant(self, conn: AsyncConnection, grant_id: str, org_id: OrgId | None) -> Grant:
        check_ref(grant_id, _WORD)
        query = select(credit_grants).where(credit_grants.c.id == grant_id)
        if org_id is not None:
            query = query.where(credit_grants.c.org_id == org_id)
        row = (await conn.execute(query)).mappings().first()
        if row is None:
            raise NotFound("there is no such credit")
        return to_grant(row)

    async def _granted_for(self, conn: AsyncConnection, org_id: OrgId, source_ref: str) -> Grant | None:
        query = select(credit_grants).where(credit_grants.c.org_id == org_id, credit_grants.c.source_ref == source_ref)
        row = (await conn.execute(query)).mappings().first()
        return None if row is None else to_grant(row)


async def _post(conn: AsyncConnection, kind: str, grant: Grant, postings: book.Postings, now: datetime) -> None:
    whose = {"org_id": grant.org_id, "currency": grant.currency}
    await post(conn, f"{kind}:{grant.id}", kind, postings, **whose, at=now)


def _check(amount: int, priority: int, start: datetime, expires_at: datetime | None) -> None:
    if not 0 < amount <= _MOST:
        raise InvalidRequest("a credit is more than nothing and at most a million million", param="amount")
    if not 0 <= priority <= 1000:
        raise InvalidRequest("a priority is 0 to 1000; lower is drawn first", param="priority")
    if expires_at is not None and expires_at <= start:
        raise InvalidRequest("a credit expires after it starts", param="expires_at")
