"""Whatever happens to an org, in whatever order: SQLite, PostgreSQL and a model in memory come to the same charges.

Each row of the ledger is charged once, balances are what a replay from the beginning gives, every credit is what was
drawn, expired, voided and remains, and rating again finds no difference.
"""

import asyncio
from datetime import timedelta
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from crosslogic.billing.charges.batch import rate_batch
from crosslogic.billing.charges.own_terms import Account
from crosslogic.billing.charges.rows import canonical
from crosslogic.billing.charges.sql import grants, terms, usage_of
from crosslogic.billing.charges.state import RatingState
from crosslogic.billing.credits.model import CreditClass
from crosslogic.kernel.ids import RequestId
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.pricing.sql import PriceShelf
from crosslogic.pricing.terms import Counted
from crosslogic.store.engine import create_engine
from tests.examples import examples
from tests.money_rig import MoneyRig
from tests.rating_samples import steps
from tests.rating_samples import terms as price_terms

tokens = st.integers(0, 40)
classes = st.sampled_from(list(CreditClass))
events = st.lists(
    st.one_of(
        st.tuples(st.just("use"), tokens, tokens, st.sampled_from([0, 0, 3600, -40 * 86_400])),
        st.tuples(st.just("correct"), st.integers(0, 20), tokens, tokens),
        st.tuples(
            st.just("grant"), st.sampled_from(list(CreditClass)), st.integers(1, 6 * 10**6), st.integers(1, 4000)
        ),
        st.tuples(st.just("void"), st.integers(0, 5)),
        st.tuples(st.just("account"), st.sampled_from([None, 0, 30, 100])),
        st.tuples(st.just("publish"), st.booleans()),
        st.tuples(st.just("wait"), st.integers(1, 5000)),
        st.tuples(st.just("rate")),
    ),
    max_size=25,
)
_numbers = count(1)


async def happen(rig: MoneyRig, sequence: list[tuple]) -> None:  # type: ignore[type-arg]
    requests: list[RequestId] = []
    made: list[str] = []
    for event in sequence:
        match event:
            case ("use", prompt, output, ahead):
                at = rig.clock.now() + timedelta(seconds=min(ahead, 0))
                requests.append(await rig.use(prompt, prompt // 2, output, at=at))
            case ("correct", which, prompt, output) if requests:
                await rig.correct(requests[which % len(requests)], prompt, 0, output)
            case ("grant", credit_class, amount, lasts_s):
                expires = rig.clock.now() + timedelta(seconds=lasts_s)
                made.append((await rig.credits.grant(rig.org_id, credit_class, amount, expires_at=expires)).grant.id)
            case ("void", which) if made:
                await rig.credits.void(made[which % len(made)])
            case ("account", free):
                await rig.accounts.put(Account(rig.org_id, free_tokens_per_month=free))
            case ("publish", by_spend):
                volume = steps(("0.000003", 10), ("0.000009", 40), counts=Counted.SPEND) if by_spend else None
                version = await rig.prices.draft(price_terms(volume=volume), org_id=rig.org_id)
                rig.clock.advance(1)
                await rig.prices.publish(version.id)
            case ("wait", seconds):
                rig.clock.advance(seconds)
            case ("rate",):
                await rig.rating.rate_org(rig.org_id)
    await rig.rating.rate_org(rig.org_id)


async def check(rig: MoneyRig) -> str:
    """What the database has is what a model in memory makes of the whole ledger at once."""
    rows = [usage_of(row) for row in await LedgerReader(rig.engine).rows_after(rig.org_id, 0)]
    async with rig.engine.connect() as conn:
        own, granted = await terms(conn, rig.org_id), await grants(conn, rig.org_id)
        history = await PriceShelf().history(conn)
    model = rate_batch(rows, history, own, granted, RatingState())
    charges, draws = await rig.charges(), await rig.draws()
    assert [each.seq for each in charges] == list(range(1, len(rows) + 1))
    assert [canonical(each) for each in charges] == [canonical(each) for each in model.charges]
    assert sorted(map(canonical, draws)) == sorted(map(canonical, model.draws))
    assert (await rig.rating.rebuild(rig.org_id)).wrong_seq is None
    for one in await rig.credits.of_org(rig.org_id):
        replayed = sum(each.amount for each in draws if each.grant_id == one.grant.id)
        assert one.drawn == replayed
        assert min(one.drawn, one.expired, one.voided, one.remaining) >= 0
        assert one.drawn + one.expired + one.voided + one.remaining == one.grant.amount
    return _without_ids(charges, draws)


def _without_ids(charges: list, draws: list) -> str:  # type: ignore[type-arg]
    """What two databases must agree on: ids of versions and grants are made anew in each."""
    return canonical([
        [(each.seq, each.n, each.at, each.list_amount, each.amount, each.terms) for each in charges],
        [(each.seq, each.amount) for each in sorted(draws, key=lambda each: (each.seq, each.amount))],
    ])  # fmt: skip


@pytest.mark.timeout(600)
def test_sqlite_postgresql_and_memory_agree(sqlite_url: str, postgres_database_url: str) -> None:
    async def outcome(url: str, org_id: str, sequence: list[tuple]) -> str:  # type: ignore[type-arg]
        engine = create_engine(url)
        try:
            rig = MoneyRig(engine, org_id)
            await rig.put_org()
            await happen(rig, sequence)
            return await check(rig)
        finally:
            await engine.dispose()

    @settings(max_examples=examples(12), deadline=None, suppress_health_check=list(HealthCheck))
    @given(events)
    def agree(sequence: list[tuple]) -> None:  # type: ignore[type-arg]
        org_id = f"org_{next(_numbers)}"
        found = {asyncio.run(outcome(url, org_id, sequence)) for url in (sqlite_url, postgres_database_url)}
        assert len(found) == 1

    agree()
