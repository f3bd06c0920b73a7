"""Usage by billing meters: every token is told once, whatever is lost, late, rejected or wrong about the time."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
import pytest_asyncio
from sqlalchemy import insert
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.exports.model import Mode, Window, WindowStatus
from crosslogic.billing.exports.windows import identifier, meter_of
from crosslogic.billing.reconciliation.books import Books
from crosslogic.kernel.errors import Conflict, NotFound
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import first_id
from crosslogic.metering.model import Evidence, Once, Outcome
from crosslogic.pricing.book import PriceBook, PriceList
from crosslogic.store.tables import charges, export_modes
from tests.exports_rig import MODEL, ExportRig, charge_row, counting, export_rig
from tests.fake_stripe.server import APPLIED_500, DOWN, FAILED_500, FAULTS, LOST_REPLY, LOST_REQUEST
from tests.metering_samples import usage
from tests.payments_rig import ACME, BOLT

EVENTS = "/v1/billing/meter_events"
INPUT = meter_of(MODEL, "input")


@pytest_asyncio.fixture
async def rig(engine: AsyncEngine) -> AsyncIterator[ExportRig]:
    async with export_rig(engine) as rig:
        yield rig


async def of_input(rig: ExportRig) -> list[Window]:
    return [each for each in await rig.windows() if each.meter == INPUT]


async def test_an_hour_is_told_once_it_is_over_by_meter_and_org(rig: ExportRig) -> None:
    now = rig.clock.now()
    await rig.use([(10, 4, 5), (20, 0, 7)], now)
    await rig.use([(1, 0, 1)], now, BOLT)
    await rig.exports.run()
    assert await rig.windows() == []
    rig.advance(3600 + 301)
    await rig.exports.run()
    rig.advance(1)
    assert await rig.told() == rig.owed()
    found = await rig.windows()
    assert {(each.org_id, each.n, each.status) for each in found} == {
        (ACME, 1, WindowStatus.SENT),
        (BOLT, 1, WindowStatus.SENT),
    }
    assert (await of_input(rig))[0].id == f"cic:{ACME}:{INPUT}:{now:%Y%m%d%H}:1"
    before = dict(rig.fake.calls)
    await rig.exports.run()
    assert rig.fake.calls == before


async def test_late_usage_is_a_further_window_of_its_hour(rig: ExportRig) -> None:
    began = rig.clock.now()
    await rig.use([(10, 0, 0)], began)
    await rig.until_quiet()
    await rig.use([(3, 0, 0)], began + timedelta(minutes=5))
    await rig.until_quiet()
    assert [(each.hour, each.n, each.quantity) for each in await of_input(rig)] == [(began, 1, 10), (began, 2, 3)]
    assert await rig.told() == rig.owed()


async def test_corrections_take_back_and_nothing_is_told_of_nothing(rig: ExportRig) -> None:
    began = rig.clock.now()
    await rig.use([(10, 0, 0), (-4, 0, 0), (5, 0, 0), (-5, 0, 0)], began)
    await rig.use([(7, 0, 0), (-7, 0, 0)], began, BOLT)
    await rig.until_quiet()
    assert [each.quantity for each in await of_input(rig)] == [6]
    await rig.use([(-6, 0, 0)], began)
    await rig.until_quiet()
    assert await rig.told() == rig.owed() == {(ACME, INPUT): 0, **{k: 0 for k in rig.owed() if k != (ACME, INPUT)}}


async def test_what_costs_nothing_is_not_told_to_who_rates_tokens_by_itself(
    rig: ExportRig, engine: AsyncEngine
) -> None:
    """Answers of the cache, and repeats under an idempotency key that was charged: also one that gave its charge up."""
    began = rig.clock.now()
    at_us, id_then = round(began.timestamp() * 1e6), first_id(began)
    given_up = {"outcome": Outcome.INTERRUPTED, "completion_tokens": 5}
    kinds = ({"evidence": Evidence.CACHED}, given_up, {"completion_tokens": 20}, {"completion_tokens": 21})
    records = [
        usage(
            n, org_id=ACME, timestamp_us=at_us, request_id=RequestId(f"{id_then}{n:020}"), model=MODEL,
            once=Once(b"k" * 32, 60) if n else None, **kind,
        )
        for n, kind in enumerate(kinds)
    ]  # fmt: skip
    await Ledger(engine).insert(records, PriceBook(PriceList(())))
    async with engine.begin() as conn:
        for row in await LedgerReader(engine).rows_after(ACME, 0):
            tokens = (row.prompt_tokens, row.cached_tokens, row.completion_tokens)
            charge = charge_row(ACME, row.seq, began, *tokens) | {"n": row.n, "request_id": row.request_id}
            await conn.execute(insert(charges).values(**charge))
    rig.seqs[ACME] = 5
    await rig.until_quiet()
    told = {each.meter: each.quantity for each in await rig.windows()}
    assert told == {INPUT: 6, meter_of(MODEL, "cached"): 4, meter_of(MODEL, "output"): 20}
    assert await Books(engine).windowed(ACME) == (30, 30)


@pytest.mark.parametrize("fault", FAULTS)
async def test_whatever_happens_to_an_event_on_its_way_it_counts_once(rig: ExportRig, fault: str) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now())
    rig.advance(4000)
    rig.fake.faults.order(fault, EVENTS)
    await rig.exports.run()
    (window,) = await rig.windows()
    assert (window.status, window.billing_failed) == (WindowStatus.SENDING, True)
    await rig.until_quiet()
    (window,) = await rig.windows()
    assert (window.status, window.billing_failed, window.sendings) == (WindowStatus.SENT, False, 2)
    assert await rig.told() == rig.owed()


@pytest.mark.parametrize("fault", [LOST_REPLY, LOST_REQUEST, APPLIED_500, FAILED_500])
async def test_after_a_day_nothing_is_sent_again_and_stripes_sums_decide(rig: ExportRig, fault: str) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now())
    rig.advance(4000)
    rig.fake.faults.order(fault, EVENTS)
    await rig.exports.run()
    rig.advance(25 * 3600)
    await rig.until_quiet()
    statuses = [each.status for each in await of_input(rig)]
    if fault in (LOST_REPLY, APPLIED_500):
        assert statuses == [WindowStatus.VERIFIED]
    else:
        assert statuses == [WindowStatus.REPLACED, WindowStatus.SENT]
    assert all(each.sendings == 1 for each in await of_input(rig))
    assert await rig.told() == rig.owed()


async def test_sums_that_lag_behind_decide_nothing(rig: ExportRig) -> None:
    began = rig.clock.now()
    await rig.use([(10, 0, 0)], began)
    rig.advance(4000)
    rig.fake.faults.order(LOST_REPLY, EVENTS)
    await rig.exports.run()
    rig.advance(24 * 3600)
    rig.fake.meters.lag_s = 8 * 3600
    await rig.use([(3, 0, 0)], began)  # and late usage of the same hour, which the sums do not show yet
    await rig.until_quiet()
    assert await rig.told() == rig.owed()
    assert {each.status for each in await of_input(rig)} <= {WindowStatus.SENT, WindowStatus.VERIFIED}


async def test_what_was_taken_and_then_rejected_is_told_again_under_another_identifier(rig: ExportRig) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now())
    rig.advance(4000)
    customer = await rig.rig.service.methods.customer(ACME)
    hidden = rig.fake.state.objects["customer"].pop(customer)
    await rig.exports.run()
    rig.advance(10)
    seen: set[str] = set()
    await rig.deliver(seen)
    (window,) = await rig.windows()
    assert (window.status, window.failure) == (WindowStatus.REJECTED, "meter_event_customer_not_found")
    rig.fake.state.objects["customer"][customer] = hidden
    await rig.exports.on_meter_report(next(iter(seen)))  # a report that comes twice
    await rig.until_quiet()
    assert [each.status for each in await of_input(rig)] == [WindowStatus.REPLACED, WindowStatus.SENT]
    assert (await of_input(rig))[1].replaces == window.id
    assert await rig.told() == rig.owed()


async def test_an_outage_costs_nothing_but_time_and_the_backlog_drains_in_order(rig: ExportRig) -> None:
    rig.fake.faults.down = True
    for _ in range(30):  # longer than identifiers are remembered
        await rig.use([(7, 2, 3)], rig.clock.now())
        rig.advance(3600)
        await rig.exports.run()
    found = await of_input(rig)
    assert found[0].billing_failed
    assert {each.status for each in found[1:]} == {WindowStatus.SEALED}
    rig.fake.faults.down = False
    await rig.until_quiet()
    assert await rig.told() == rig.owed()
    sent = [event["at"] for event in rig.fake.meters.counted if event["params"]["event_name"] == INPUT]
    assert sent[-28:] == sorted(sent[-28:])


@pytest.mark.parametrize("wrong", ["+5 min", "-5 min", "+1 h", "-1 h", "+36 d", "-36 d"])
async def test_clocks_that_jump_lose_and_repeat_nothing(rig: ExportRig, wrong: str) -> None:
    amount, unit = wrong.split()
    jump_s = int(amount) * {"min": 60, "h": 3600, "d": 86400}[unit]
    await rig.use([(10, 0, 0)], rig.clock.now())
    rig.advance(5000)
    rig.clock.wrong_s = jump_s
    await rig.use([(20, 0, 0)], rig.clock.now())
    await rig.exports.run()
    rig.advance(600)
    await rig.exports.run()
    rig.clock.wrong_s = 0
    await rig.use([(40, 0, 0)], rig.clock.now())
    await rig.until_quiet(rounds=400, step_s=4000)
    assert await rig.told() == rig.owed()


async def test_usage_that_is_older_than_stripe_takes_is_told_as_old_as_it_takes(rig: ExportRig) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now() - timedelta(days=60))
    await rig.until_quiet()
    assert await rig.told() == rig.owed()


async def test_two_exporters_at_once_tell_everything_once(rig: ExportRig) -> None:
    for hour in range(5):
        await rig.use([(10 + hour, 0, 1)], rig.clock.now())
        rig.advance(3600)
    rig.advance(600)
    await asyncio.gather(*(rig.exports.run() for _ in range(4)))
    await rig.until_quiet()
    assert await rig.told() == rig.owed()
    assert [each.n for each in await of_input(rig)] == [1] * 5


# which way


async def test_an_org_has_exactly_one_way(rig: ExportRig) -> None:
    assert (await rig.exports.mode(ACME)).mode is Mode.STRIPE_METER
    for org, mode in ((ACME, "none"), ("org_none", "both")):
        with pytest.raises(IntegrityError):
            await choose(rig, org, mode)


async def choose(rig: ExportRig, org: str, mode: str) -> None:
    values = {"org_id": org, "mode": mode, "since": rig.clock.now(), "sealed_seq": 0}
    async with rig.exports.engine.begin() as conn:
        await conn.execute(insert(export_modes).values(**values))


async def test_the_way_changes_between_hours_and_no_usage_goes_both_ways(rig: ExportRig) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now())
    with pytest.raises(Conflict, match="this hour"):
        await rig.exports.set_mode(ACME, Mode.NONE)
    rig.advance(4000)
    with pytest.raises(Conflict, match="under way"):
        await rig.exports.set_mode(ACME, Mode.NONE)
    await rig.exports.run()
    assert (await rig.exports.set_mode(ACME, Mode.NONE)).sealed_seq == 1
    rig.advance(1)
    told = await rig.told()
    await rig.use([(99, 0, 0)], rig.clock.now())
    rig.advance(4000)
    await rig.exports.run()
    assert await rig.told() == told
    assert (await rig.exports.set_mode(ACME, Mode.STRIPE_METER)).sealed_seq == 2
    await rig.use([(5, 0, 0)], rig.clock.now())
    await rig.until_quiet()
    assert counting(await of_input(rig)) == 15


async def test_operators_can_hurry_what_waits(rig: ExportRig) -> None:
    await rig.use([(10, 0, 0)], rig.clock.now())
    rig.advance(4000)
    rig.fake.faults.order(DOWN, EVENTS)
    await rig.exports.run()
    (window,) = await rig.windows()
    await rig.exports.retry(window.id)
    await rig.exports.drive()
    assert (await rig.windows())[0].status is WindowStatus.SENT
    with pytest.raises(Conflict):
        await rig.exports.retry(window.id)
    with pytest.raises(NotFound):
        await rig.exports.retry("cic:none")


def test_identifiers_fit_into_what_stripe_takes() -> None:
    longest = identifier(
        OrgId("org_" + "f" * 32), meter_of("X" * 500, "cached"), datetime(2026, 12, 31, 23, tzinfo=UTC), 10_000
    )
    assert len(longest) <= 100
    assert meter_of("a/b", "input") != meter_of("a-b", "input")
