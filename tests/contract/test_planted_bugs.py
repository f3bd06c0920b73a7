"""Does the invariant suite notice? Bugs that other gateways had (numbers are LiteLLM's issues), planted one by one."""

import asyncio
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crosslogic.gateway import evidence
from crosslogic.gateway.endpoints import BY_PATH
from crosslogic.gateway.request import Call
from crosslogic.kernel.money import PicoUsd
from crosslogic.metering import flush, ledger, rated, rollup
from crosslogic.metering.journal import FileJournal
from crosslogic.metering.model import Checkpoint, Evidence, Intent, UsageRecord
from crosslogic.pricing.book import Price
from crosslogic.pricing.rate import TokenCounts
from crosslogic.store.engine import DATABASE_ERRORS
from tests.metering_invariants import violations

Plant = Callable[[pytest.MonkeyPatch], None]
BUGS: dict[str, tuple[Plant, str]] = {}
LOST, TWICE = "every durable record is in the ledger", "no record is in the ledger twice"
COST, SUMS = "each request costs what its tokens cost", "roll-ups are the sums of the rows"


def bug(name: str, breaks: str) -> Callable[[Plant], Plant]:
    def planted(plant: Plant) -> Plant:
        BUGS[name] = (plant, breaks)
        return plant

    return planted


@bug("spend is lost when a commit fails (#35531)", LOST)
def _(patch: pytest.MonkeyPatch) -> None:
    taken_in = flush.JournalFlusher._take_in

    async def swallow(self: flush.JournalFlusher, *more: Any) -> None:
        try:
            await taken_in(self, *more)
        except DATABASE_ERRORS:
            return

    patch.setattr(flush.JournalFlusher, "_take_in", swallow)


@bug("entries leave the queue before the commit (#33872)", LOST)
def _(patch: pytest.MonkeyPatch) -> None:
    read = flush.read_slice
    taken: set[tuple[Path, int]] = set()

    def pop(path: Path, offset: int = 0) -> Any:
        found = read(path, offset)
        if (path, offset) in taken:
            return msgspec.structs.replace(found, entries=())
        taken.add((path, offset))
        return found

    patch.setattr(flush, "read_slice", pop)


@bug("what waits is dropped at shutdown (#38157)", LOST)
def _(patch: pytest.MonkeyPatch) -> None:
    close = FileJournal.close

    async def hasty(self: FileJournal) -> None:
        self._entries, self._waiters = [], []
        await close(self)

    patch.setattr(FileJournal, "close", hasty)


@bug("a caller that leaves is billed for less than it got (#35958)", "what a caller got before it left is billed")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(evidence, "of_stream", lambda _call, reader: (reader.usage or evidence.NOTHING, Evidence.NONE))


@bug("cached tokens are billed twice (#14849)", COST)
def _(patch: pytest.MonkeyPatch) -> None:
    def twice(usage: TokenCounts, price: Price) -> PicoUsd:
        return PicoUsd(
            usage.prompt_tokens * price.input_pusd
            + usage.cached_tokens * price.cached_pusd
            + usage.completion_tokens * price.output_pusd
        )

    patch.setattr(rated, "rate", twice)


@bug("reasoning tokens are billed on top of the completion", COST)
def _(patch: pytest.MonkeyPatch) -> None:
    rate = rated.rate

    def more(usage: Any, price: Price) -> PicoUsd:
        return PicoUsd(rate(usage, price) + usage.reasoning_tokens * price.output_pusd)

    patch.setattr(rated, "rate", more)


@bug("money is rounded to micro-dollars for each request", COST)
def _(patch: pytest.MonkeyPatch) -> None:
    rate = rated.rate
    rounded = Decimal(10**6)
    patch.setattr(
        rated, "rate", lambda usage, price: PicoUsd(int(round(Decimal(rate(usage, price)) / rounded) * rounded))
    )


@bug("an empty request id collapses rows (#6633)", "requests without an id are not taken for each other")
def _(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(rated, "_unnamed", lambda _record: "req_none")


@bug("a retry after a lost answer counts again", TWICE)
def _(patch: pytest.MonkeyPatch) -> None:
    original = ledger.original
    times = iter(range(1_000_000))

    def renamed(record: UsageRecord, *more: Any) -> Any:
        row = original(record, *more)
        return msgspec.structs.replace(row, request_id=f"{row.request_id}-{next(times)}")

    patch.setattr(ledger, "original", renamed)


@bug("requests of a gateway that died are forgotten", "every announced request is closed")
def _(patch: pytest.MonkeyPatch) -> None:
    async def forget(_self: flush.JournalFlusher, life: Any) -> None:
        life.intents.clear()
        life.marks.clear()

    patch.setattr(flush.JournalFlusher, "_interrupt", forget)


@bug("a crash is billed on a guess", "nothing is billed above the evidence")
def _(patch: pytest.MonkeyPatch) -> None:
    interrupted = flush.interrupted

    def guessed(intent: Intent, mark: Checkpoint | None = None) -> UsageRecord:
        record = interrupted(intent, mark)
        return msgspec.structs.replace(record, prompt_tokens=intent.prompt_tokens_estimate)

    patch.setattr(flush, "interrupted", guessed)


@bug("marks of running streams are ignored", "what is proven is billed")
def _(patch: pytest.MonkeyPatch) -> None:
    interrupted = flush.interrupted
    patch.setattr(flush, "interrupted", lambda intent, _mark=None: interrupted(intent))


@bug("a roll-up that is run again adds up again", SUMS)
def _(patch: pytest.MonkeyPatch) -> None:
    add = rollup._add

    async def twice(*more: Any) -> None:
        await add(*more)
        await add(*more)

    patch.setattr(rollup, "_add", twice)


@bug("a roll-up looks at the last hour and misses what comes late", SUMS)
def _(patch: pytest.MonkeyPatch) -> None:
    add = rollup._add

    async def lately(conn: Any, table: Any, unit: str, org_id: str, after: int, until: int) -> None:
        if after < 20:
            await add(conn, table, unit, org_id, after, until)

    patch.setattr(rollup, "_add", lately)


@bug("callers are told before the record is on the disk", "nobody is told of a record that is not on the disk")
def _(patch: pytest.MonkeyPatch) -> None:
    def at_once(self: FileJournal, usage: UsageRecord) -> "asyncio.Future[None]":
        self._entries.append(usage)
        self._waiters.append(None)
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        told.set_result(None)
        return told

    patch.setattr(FileJournal, "record", at_once)


@bug("the log has a hole where two writers met", "the log is whole")
def _(patch: pytest.MonkeyPatch) -> None:
    append = ledger.append

    def skipping(head: Any, rows: Any) -> Any:
        return append(msgspec.structs.replace(head, seq=head.seq + 1), rows)

    patch.setattr(ledger, "append", skipping)


CALL = Call(BY_PATH[b"/v1/chat/completions"], "m", True, 1, 10, 100, False, 0, b"")


async def test_without_a_bug_every_invariant_holds(sqlite_template: Path, tmp_path: Path) -> None:
    assert await violations(sqlite_template, tmp_path, CALL) == set()


@pytest.mark.parametrize("name", BUGS)
async def test_a_planted_bug_is_noticed(
    name: str, sqlite_template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant, breaks = BUGS[name]
    plant(monkeypatch)
    assert breaks in await violations(sqlite_template, tmp_path, CALL)


def test_there_are_at_least_a_dozen() -> None:
    assert len(BUGS) >= 12
