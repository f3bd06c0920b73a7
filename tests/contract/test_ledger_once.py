"""Runs under one idempotency key, as the ledger takes them: one is charged, and it says which."""

import asyncio
import itertools

import msgspec
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Conflict
from crosslogic.kernel.ids import OrgId, RequestId
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LedgerRow, first_id
from crosslogic.metering.model import Evidence, Once, Outcome, Usage, UsageRecord
from tests.contract.test_ledger_log import PRICE, PRICES
from tests.metering_samples import JANUARY_1_2026_US, usage

START = ManualClock().now()
HOUR_US = 3_600 * 1_000_000
DAY_S = 86_400
KEY = Once(b"k" * 32, DAY_S)
NOTHING = {"prompt_tokens": 0, "cached_tokens": 0, "reasoning_tokens": 0}


def run(number: int, once: Once | None = KEY, **changes: object) -> UsageRecord:
    """The `number`th run, with an id such as gateways give."""
    given = {"request_id": RequestId(f"{first_id(START)}{number:020}"), "once": once, "completion_tokens": 10 + number}
    return usage(number, **(given | changes))


def killed(number: int, tokens: int = 0, **changes: object) -> UsageRecord:
    """A run whose gateway died, as recovery closes it."""
    evidence = Evidence.CHECKPOINT if tokens else Evidence.NONE
    closed = NOTHING | {"completion_tokens": tokens, "outcome": Outcome.INTERRUPTED, "evidence": evidence}
    return run(number, **(closed | changes))


async def rows(engine: AsyncEngine, org_id: str = "org_1") -> list[LedgerRow]:
    reader = LedgerReader(engine)
    assert (await reader.verify(org_id)).problem is None
    return await reader.rows_after(org_id, 0)


def charged(found: list[LedgerRow]) -> dict[str, int]:
    """What each request that is charged anything is charged, by the last digits of its id."""
    sums: dict[str, int] = {}
    for row in found:
        sums[row.request_id[-1]] = sums.get(row.request_id[-1], 0) + row.cost_pusd
    return {number: cost for number, cost in sums.items() if cost}


def cost(record: UsageRecord) -> int:
    uncached = record.prompt_tokens - record.cached_tokens
    return 50_000 * uncached + 10_000 * record.cached_tokens + 100_000 * record.completion_tokens


async def test_the_second_answer_under_a_key_is_recorded_and_costs_nothing(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    for number in (1, 2, 3):
        await ledger.insert([run(number)], PRICES)
    found = await rows(engine)
    assert charged(found) == {"1": cost(run(1))}
    assert [row.total_tokens for row in found] == [21, 22, 23], "what nodes did is told all the same"
    assert [row.repeat_of for row in found] == [None, run(1).request_id, run(1).request_id]
    assert {row.once for row in found} == {KEY.digest.hex()}


@pytest.mark.parametrize("batched", [False, True])
@pytest.mark.parametrize("tokens", [0, 64])
async def test_a_whole_answer_is_charged_instead_of_one_that_a_killed_gateway_left(
    engine: AsyncEngine, tokens: int, batched: bool
) -> None:
    story = [killed(1, tokens), run(2), run(3), killed(4, 5)]
    for part in [story] if batched else [[each] for each in story]:
        await Ledger(engine).insert(part, PRICES)
    found = await rows(engine)
    assert charged(found) == {"2": cost(run(2))}
    given_up = next(row for row in found if row.request_id[-1] == "1" and row.n == 1)
    assert (given_up.repeat_of, given_up.completion_tokens, given_up.actor) == (
        run(2).request_id,
        -tokens,
        "crosslogic",
    )
    assert "idempotency key" in (given_up.reason or "")


async def test_in_whatever_order_journals_arrive_one_run_is_charged(engine: AsyncEngine) -> None:
    """Each order is another org's story."""
    story = [killed(1, 64), run(2), killed(3, 3), run(4), run(5, outcome=Outcome.CLIENT_CLOSED)]
    for number, order in enumerate(itertools.permutations(story[:4])):
        mine = [run_of(each, f"org_{number}") for each in (*order, story[4])]
        for record in mine:
            assert await Ledger(engine).insert([record], PRICES) >= 1
        assert await Ledger(engine).insert(mine, PRICES) == 0, "told again, as after a lost answer"
        (only,) = charged(await rows(engine, f"org_{number}"))
        first_whole = next(each for each in order if each.outcome is Outcome.COMPLETED)
        assert only == first_whole.request_id[-1]


def run_of(record: UsageRecord, org_id: str) -> UsageRecord:
    """The same run as another org's."""
    request_id = RequestId(f"{record.request_id[:16]}{org_id[4:]:>015}{record.request_id[-1]}")
    return msgspec.structs.replace(record, org_id=OrgId(org_id), request_id=request_id)


async def test_two_workers_that_raced_are_charged_once(engine: AsyncEngine) -> None:
    """Redis was away and each let the repeat run; their journals come in at the same time."""
    await asyncio.gather(*(Ledger(engine).insert([run(number)], PRICES) for number in range(1, 9)))
    found = await rows(engine)
    assert len(found) == 8
    (only,) = charged(found)
    assert {row.repeat_of for row in found} == {None, next(r.request_id for r in found if r.request_id[-1] == only)}


async def test_only_the_same_request_of_the_same_org_within_the_keys_time_is_a_repeat(engine: AsyncEngine) -> None:
    other_body = Once(b"o" * 32, DAY_S)
    late = {"timestamp_us": JANUARY_1_2026_US + 25 * HOUR_US}
    before = {"timestamp_us": JANUARY_1_2026_US - 25 * HOUR_US}
    other_org = {"org_id": OrgId("org_2")}
    runs = [run(1), run(2, other_body), run(3, None), run(4, None), run(5, **late), run(6, **before)]
    await Ledger(engine).insert([*runs, run(7, **other_org)], PRICES)
    assert set(charged(await rows(engine))) == {"1", "2", "3", "4", "5", "6"}
    assert set(charged(await rows(engine, "org_2"))) == {"7"}


async def test_a_keys_time_begins_when_its_answer_is_whole(engine: AsyncEngine) -> None:
    ended_an_hour_later = run(1, latency_ms=3_600_000)
    after = {"timestamp_us": JANUARY_1_2026_US + 24 * HOUR_US + HOUR_US // 2}
    await Ledger(engine).insert([ended_an_hour_later, run(2, **after)], PRICES)
    assert set(charged(await rows(engine))) == {"1"}


async def test_what_its_caller_broke_off_is_charged_and_so_is_its_repeat(engine: AsyncEngine) -> None:
    left = run(1, outcome=Outcome.CLIENT_CLOSED)
    cut = run(2, outcome=Outcome.TRUNCATED)
    for record in (left, cut, run(3)):
        await Ledger(engine).insert([record], PRICES)
    assert set(charged(await rows(engine))) == {"1", "2", "3"}


async def test_nothing_comes_behind_a_row_that_gave_its_charge_up(engine: AsyncEngine) -> None:
    """A journal that was found again must not charge its request beside the repeat, nor must an operator."""
    ledger = Ledger(engine)
    await ledger.insert([killed(1, 64)], PRICES)
    await ledger.insert([run(2)], PRICES)
    assert await ledger.insert([run(1)], PRICES) == 0
    truth = Usage(10, 20)
    with pytest.raises(Conflict, match="idempotency key"):
        await ledger.correct(
            "org_1", run(1).request_id, 2, truth, PRICE, evidence=Evidence.ENGINE, reason="", actor="op_1"
        )
    assert charged(await rows(engine)) == {"2": cost(run(2))}


async def test_a_record_that_was_found_again_is_charged_before_its_repeat(engine: AsyncEngine) -> None:
    """The found record and the repeat's come in one batch: the run that is known longer stays the charged one."""
    ledger = Ledger(engine)
    await ledger.insert([killed(1, 5)], PRICES)
    await ledger.insert([run(2), run(1)], PRICES)
    assert charged(await rows(engine)) == {"1": cost(run(1))}
