"""Charges, cursors and terms of an org in the database.

Invariant: whoever rates, grants or voids for an org holds it alone until the end of the transaction, so its charges
come in the order of its ledger, each once, and always with the draws and the cursor that belong to them.
"""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import insert, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crosslogic.billing.charges.batch import Before, Rated
from crosslogic.billing.charges.model import Charge
from crosslogic.billing.charges.rows import canonical, charge_columns, to_charge
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.charges.tariff import RatedUsage
from crosslogic.billing.charges.terms import OrgTerms
from crosslogic.billing.credits.draw import place
from crosslogic.billing.credits.model import Grant
from crosslogic.billing.credits.rows import to_draw, to_grant
from crosslogic.kernel.ids import EnvId, KeyId, OrgId, RequestId
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.model import Evidence
from crosslogic.store.tables import charge_cursors, charges, credit_draws, credit_grants, rating_terms

_LOCK_SPACE = 0x636C_0031  # of PostgreSQL's advisory locks, beside a hash of the org


async def hold_org(conn: AsyncConnection, org_id: str) -> None:
    """Until the end of the transaction; SQLite has one writer anyway."""
    if conn.dialect.name == "postgresql":
        statement = text("SELECT pg_advisory_xact_lock(:space, hashtext(:org))")
        await conn.execute(statement, {"space": _LOCK_SPACE, "org": org_id})


async def cursor(conn: AsyncConnection, org_id: str) -> tuple[int, RatingState]:
    """The position up to which the org is rated, and the state behind it."""
    row = (await conn.execute(select(charge_cursors).where(charge_cursors.c.org_id == org_id))).first()
    if row is None:
        return 0, RatingState()
    return row.seq, msgspec.json.decode(row.state, type=RatingState)


async def cursors(conn: AsyncConnection, org_ids: Sequence[str]) -> dict[str, int]:
    query = select(charge_cursors.c.org_id, charge_cursors.c.seq).where(charge_cursors.c.org_id.in_(org_ids))
    return {row.org_id: row.seq for row in await conn.execute(query)}


async def terms(conn: AsyncConnection, org_id: str) -> list[tuple[int, OrgTerms]]:
    """On which terms the org was rated, each with the position behind which they hold."""
    query = select(rating_terms.c.from_seq, rating_terms.c.terms).where(rating_terms.c.org_id == org_id)
    rows = await conn.execute(query.order_by(rating_terms.c.from_seq))
    return [(row.from_seq, msgspec.json.decode(row.terms, type=OrgTerms)) for row in rows]


async def add_terms(conn: AsyncConnection, org_id: str, from_seq: int, own: OrgTerms) -> None:
    values = {"org_id": org_id, "from_seq": from_seq, "terms": canonical(own)}
    await conn.execute(insert(rating_terms).values(values))


async def grants(conn: AsyncConnection, org_id: str) -> list[Grant]:
    rows = await conn.execute(select(credit_grants).where(credit_grants.c.org_id == org_id))
    return [to_grant(row) for row in rows.mappings()]


async def before(conn: AsyncConnection, org_id: str, rows: Iterable[RatedUsage]) -> dict[str, Before]:
    """What the requests were charged that are corrected by these rows."""
    ids = sorted({row.request_id for row in rows if row.n > 0})
    if not ids:
        return {}
    query = select(charges).where(charges.c.request_id.in_(ids), charges.c.org_id == org_id).order_by(charges.c.seq)
    found: dict[str, list[Charge]] = {}
    for row in (await conn.execute(query)).mappings():
        charge = to_charge(row)
        found.setdefault(charge.request_id, []).append(charge)
    seqs = [charge.seq for each in found.values() for charge in each]
    drawn = select(credit_draws).where(credit_draws.c.org_id == org_id, credit_draws.c.seq.in_(seqs))
    draws = [to_draw(row) for row in (await conn.execute(drawn.order_by(credit_draws.c.seq))).mappings()]
    known = {grant.id: grant for grant in await grants(conn, org_id)}
    result = {}
    for request_id, each in found.items():
        own = {charge.seq for charge in each}
        # as they were made: by charge, then in the order in which grants are drawn
        own_draws = sorted((d for d in draws if d.seq in own), key=lambda d: (d.seq, place(known[d.grant_id])))
        result[request_id] = Before(tuple(each), tuple(own_draws))
    return result


async def add(conn: AsyncConnection, org_id: str, seq: int, rated: Rated, *, is_first: bool) -> None:
    """Write a rated stretch that ends at `seq`, and move the cursor there."""
    await conn.execute(insert(charges), [charge_columns(charge) for charge in rated.charges])
    if rated.draws:
        await conn.execute(insert(credit_draws), [msgspec.structs.asdict(draw) for draw in rated.draws])
    values: dict[str, Any] = {"seq": seq, "state": canonical(rated.state)}
    if is_first:
        await conn.execute(insert(charge_cursors).values(org_id=org_id, **values))
    else:
        await conn.execute(update(charge_cursors).where(charge_cursors.c.org_id == org_id).values(**values))


def usage_of(row: LedgerRow) -> RatedUsage:
    return RatedUsage(
        org_id=OrgId(row.org_id),
        seq=row.seq,
        request_id=RequestId(row.request_id),
        n=row.n,
        at=datetime.fromtimestamp(row.timestamp_us // 1_000_000, UTC).replace(microsecond=row.timestamp_us % 1_000_000),
        env_id=EnvId(row.env_id),
        key_id=KeyId(row.key_id),
        endpoint=row.endpoint,
        model=row.model,
        region=row.region,
        prompt_tokens=row.prompt_tokens,
        cached_tokens=row.cached_tokens,
        completion_tokens=row.completion_tokens,
        cost_pusd=row.cost_pusd,
        price_version=row.price_version,
        answered_from_cache=row.evidence == Evidence.CACHED.value,
        repeat_of=row.repeat_of,
    )
