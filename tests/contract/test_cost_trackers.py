"""One suite over every `CostTracker`: the ledger on SQLite and PostgreSQL, and ClickHouse (chdb, the embedded one)."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import httpx
import msgspec
import pytest
import pytest_asyncio
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.kernel.clock import ManualClock
from crosslogic.kernel.errors import Unavailable
from crosslogic.kernel.ids import OrgId
from crosslogic.metering.costs.clickhouse import ClickHouseCostTracker, HttpClickHouse
from crosslogic.metering.costs.copying import UsageCopies
from crosslogic.metering.costs.ports import Cost, CostTracker, Period
from crosslogic.metering.costs.sql import SqlCostTracker
from crosslogic.metering.ledger import Ledger
from crosslogic.metering.ledger_reader import LedgerReader
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.model import Evidence, Usage
from crosslogic.pricing.book import PriceBook, PriceEntry, PriceList
from crosslogic.store.engine import create_engine
from crosslogic.store.tables import usage_copies
from tests.metering_samples import DAY_US, JANUARY_1_2026_US, usage

PRICES = PriceBook(PriceList((PriceEntry("*", Decimal("0.05"), Decimal("0.10"), Decimal("0.01")),)))
COST_PUSD = 6 * 50_000 + 4 * 10_000 + 20 * 100_000
JANUARY = Period(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))


class Chdb:
    """ClickHouse inside this process: the same grammar, without a server."""

    def __init__(self, directory: Path) -> None:
        from chdb import session

        self._session = session.Session(str(directory))

    async def run(self, statement: str, parameters: Mapping[str, str], data: bytes = b"") -> bytes:
        text = f"{statement}\n{data.decode()}" if data else statement
        return await asyncio.to_thread(self._run, text, dict(parameters))

    def _run(self, text: str, parameters: dict[str, str]) -> bytes:
        answer = (
            self._session.query(text, "JSONEachRow", params=parameters) if parameters else self._session.query(text)
        )
        return bytes(answer.bytes() or b"")

    def close(self) -> None:
        self._session.close()


@pytest.fixture(params=["sqlite", "postgresql", "clickhouse"])
def store_url(request: pytest.FixtureRequest) -> str | None:
    """None: ClickHouse."""
    fixtures = {"sqlite": "sqlite_url", "postgresql": "postgres_database_url"}
    return request.getfixturevalue(fixtures[request.param]) if request.param in fixtures else None


@pytest_asyncio.fixture
async def tracker(store_url: str | None, tmp_path: Path) -> AsyncIterator[CostTracker]:
    if store_url is None:
        pytest.importorskip("chdb")
        clickhouse = await asyncio.to_thread(Chdb, tmp_path / "clickhouse")
        found = ClickHouseCostTracker(clickhouse, lambda: PRICES, ManualClock().now)
        await found.create()
        await found.create()
        yield found
        clickhouse.close()
        return
    engine = create_engine(store_url)
    yield SqlCostTracker(engine, lambda: PRICES)
    await engine.dispose()


async def test_each_request_counts_once_however_often_it_comes(tracker: CostTracker) -> None:
    records = [usage(n, org_id=OrgId(f"org_{n % 2}")) for n in range(10)]
    await tracker.record_usage(records)
    await tracker.record_usage(records[3:])
    assert await tracker.get_cost("org_0", JANUARY) == Cost("org_0", 150, 5, 5 * COST_PUSD)
    assert await tracker.aggregate_usage(JANUARY) == {
        org_id: Cost(org_id, 150, 5, 5 * COST_PUSD) for org_id in ("org_0", "org_1")
    }
    assert await tracker.get_cost("org_9", JANUARY) == Cost("org_9", 0, 0, 0)


async def test_a_period_has_its_first_instant_and_not_its_last(tracker: CostTracker) -> None:
    edges = [-1, 0, 31 * DAY_US - 1, 31 * DAY_US]
    await tracker.record_usage([usage(n, timestamp_us=JANUARY_1_2026_US + at) for n, at in enumerate(edges)])
    assert (await tracker.get_cost("org_1", JANUARY)).total_requests == 2
    assert [row.request_id for row in await tracker.get_usage("org_1", JANUARY)] == ["req_000001", "req_000002"]


async def test_rows_come_in_pages_as_they_were_kept(tracker: CostTracker) -> None:
    odd = usage(3, model='it\'s "quoted"\t☃ {org:String}', client_request_id="x" * 50, first_token_ms=7)
    await tracker.record_usage([usage(1), usage(2), odd])
    first = await tracker.get_usage("org_1", JANUARY, limit=2)
    rest = await tracker.get_usage("org_1", JANUARY, after=first[-1].request_id)
    assert [row.request_id for row in (*first, *rest)] == ["req_000001", "req_000002", "req_000003"]
    (row,) = rest
    assert (row.model, row.client_request_id, row.first_token_ms) == (odd.model, odd.client_request_id, 7)
    assert (row.prompt_tokens, row.cost_pusd, row.streamed, row.finish_reason) == (10, COST_PUSD, True, "stop")


async def test_costs_beyond_64_bits_are_exact(tracker: CostTracker) -> None:
    huge = [usage(n, completion_tokens=2**40, prompt_tokens=0, cached_tokens=0) for n in range(200)]
    await tracker.record_usage(huge)
    assert (await tracker.get_cost("org_1", JANUARY)).cost_pusd == 200 * 2**40 * 100_000


async def test_a_copy_in_clickhouse_is_the_ledger_with_its_corrections(
    sqlite_engine: AsyncEngine, tmp_path: Path
) -> None:
    pytest.importorskip("chdb")
    ledger = Ledger(sqlite_engine)
    await ledger.insert([usage(n) for n in range(5)], PRICES)
    price = PRICES.price("model-a", "local")
    corrected = {"evidence": Evidence.ENGINE, "reason": "counted anew", "actor": "op_1"}
    await ledger.correct("org_1", "req_000002", 1, Usage(10, 1), price, **corrected)  # type: ignore[arg-type]
    clickhouse = await asyncio.to_thread(Chdb, tmp_path / "clickhouse")
    copy = ClickHouseCostTracker(clickhouse, lambda: PRICES, ManualClock().now)
    await copy.create()
    rows = await LedgerReader(sqlite_engine).rows_after("org_1", 0)
    await copy.copy(rows)
    await copy.copy(rows)
    of_ledger = SqlCostTracker(sqlite_engine, lambda: PRICES)
    assert await copy.get_cost("org_1", JANUARY) == await of_ledger.get_cost("org_1", JANUARY)
    kept = [msgspec.structs.replace(row, hash=b"") for row in await of_ledger.get_usage("org_1", JANUARY)]
    assert await copy.get_usage("org_1", JANUARY) == kept
    clickhouse.close()


class FailingStore:
    """Takes pages until its turn to fail comes."""

    def __init__(self, takes: int) -> None:
        self.rows: dict[tuple[str, int], LedgerRow] = {}
        self.takes = takes
        self.copied = 0

    async def create(self) -> None:
        """There is nothing to make."""

    async def copy(self, rows: Sequence[LedgerRow]) -> None:
        if self.takes == 0:
            raise Unavailable("away")
        self.takes -= 1
        self.copied += len(rows)
        self.rows |= {(row.request_id, row.n): row for row in rows}


async def test_copying_goes_on_where_it_stopped_and_a_second_run_copies_nothing(engine: AsyncEngine) -> None:
    ledger = Ledger(engine)
    await ledger.insert([usage(n, org_id=OrgId(f"org_{n % 2}")) for n in range(20)], PRICES)
    store = FailingStore(3)
    with pytest.raises(Unavailable):
        await UsageCopies(engine, store, page_rows=3).advance()
    assert store.copied == 9
    store.takes = 100
    assert await UsageCopies(engine, store, page_rows=3).advance() == 11
    assert await UsageCopies(engine, store).advance() == 0
    assert len(store.rows) == store.copied == 20
    price = PRICES.price("model-a", "local")
    corrected = {"evidence": Evidence.ENGINE, "reason": "counted anew", "actor": "op_1"}
    await ledger.correct("org_1", "req_000001", 1, Usage(10, 1), price, **corrected)  # type: ignore[arg-type]
    assert await UsageCopies(engine, store).advance() == 1
    assert len(store.rows) == 21


async def test_the_job_makes_clickhouse_answer_as_the_ledger_does(engine: AsyncEngine, tmp_path: Path) -> None:
    pytest.importorskip("chdb")
    await Ledger(engine).insert([usage(n, org_id=OrgId(f"org_{n % 3}")) for n in range(30)], PRICES)
    clickhouse = await asyncio.to_thread(Chdb, tmp_path / "clickhouse")
    copy = ClickHouseCostTracker(clickhouse, lambda: PRICES, ManualClock().now)
    assert await UsageCopies(engine, copy).advance() == 30
    async with engine.begin() as conn:
        await conn.execute(update(usage_copies).values(seq=4))  # as after a kill before it was written down
    assert await UsageCopies(engine, copy).advance() == 18
    assert await copy.aggregate_usage(JANUARY) == await SqlCostTracker(engine, lambda: PRICES).aggregate_usage(JANUARY)
    clickhouse.close()


async def test_a_server_that_is_away_or_refuses_is_unavailable_and_its_password_is_not_told() -> None:
    away = HttpClickHouse("http://127.0.0.1:9", database="d", user="u", password="hunter2")
    with pytest.raises(Unavailable) as told:
        await away.run("SELECT 1", {})
    assert "hunter2" not in str(told.value)
    await away.close()


async def test_statements_go_to_a_server_with_their_parameters_apart() -> None:
    """What the HTTP interface is given, as a server of our own sees it."""
    seen: list[tuple[str, bytes]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(
            next(line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length"))
        )
        seen.append((head.split(b" ")[1].decode(), await reader.readexactly(length)))
        body = b'{"org_id":"o","tokens":"1","requests":"1","cost":"2"}\n'
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    away = HttpClickHouse(f"http://127.0.0.1:{port}", database="d", user="u", password="p")
    tracker = ClickHouseCostTracker(away, lambda: PRICES, ManualClock().now)
    assert await tracker.get_cost("'; DROP", JANUARY) == Cost("o", 1, 1, 2)
    target, statement = seen[0]
    assert httpx.URL(target).params["param_org"] == "'; DROP"
    assert b"DROP" not in statement
    await away.close()
    server.close()
