"""What was used: the ledger, and what is known of spending."""

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Float, Index, Integer, LargeBinary, Table, Text, false, text

from crosslogic.store.tables.metadata import metadata
from crosslogic.store.types import Money, UtcDateTime

# Architecture document §34; one column for each field of `metering.model.UsageRecord`, and what it costs; one log for
# each org (`metering/ledger_row.py`). Rows are only ever added. A column that is added later may be null, so that the
# hashes of the rows before it stay right. No foreign keys: the ledger takes what was used, even of an org that is gone.
# PostgreSQL keeps each month of request ids in a partition of its own, so that it can be dropped in whole.
usage_records = Table(
    "usage_records",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("n", Integer, primary_key=True, autoincrement=False),  # 0: the original; 1, 2, …: its corrections
    Column("seq", BigInteger, nullable=False),  # position in the log of its org: 1, 2, 3, … in the order of commits
    Column("timestamp", UtcDateTime, nullable=False),  # arrival; exact to the microsecond
    Column("org_id", Text, nullable=False),
    Column("env_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("endpoint", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("region", Text, nullable=False),
    Column("node_id", Text, nullable=False),
    Column("prompt_tokens", BigInteger, nullable=False),
    Column("completion_tokens", BigInteger, nullable=False),
    Column("cached_tokens", BigInteger, nullable=False),
    Column("reasoning_tokens", BigInteger, nullable=False),
    Column("total_tokens", BigInteger, nullable=False),
    Column("evidence", Text, nullable=False),
    Column("outcome", Text, nullable=False),
    Column("finish_reason", Text),
    Column("http_status", Integer, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    Column("first_token_ms", BigInteger),
    Column("client_request_id", Text),  # the caller's own X-Request-Id; not unique, so never a key
    Column("cost_pusd", Money, nullable=False, server_default=text("0")),
    Column("cost_microdollars", BigInteger, nullable=False, server_default=text("0")),
    Column("price_version", Text),  # null: no price was known, nothing was charged
    Column("failed_nodes", Text),  # ids of the nodes that failed this request before, with spaces between them
    Column("region_asked", Text),  # where it wanted to be served; null: anywhere
    Column("failover", Boolean, nullable=False, server_default=false()),  # it was served elsewhere
    Column("reason", Text),  # of a correction: why
    Column("actor", Text),  # of a correction: who
    Column("recorded_at", UtcDateTime),  # when it came into the ledger; null: before that was kept
    Column("once", Text),  # digest of the idempotency key and the body that it ran under
    Column("repeat_of", Text),  # the request that is charged for that key instead; null: this one, if it costs anything
    Column("hash", LargeBinary, nullable=False),  # of this row and of the one before it in its org's log
    Index(None, "org_id", "seq"),
    Index(None, "org_id", "timestamp"),
    Index(None, "key_id", "timestamp"),  # when a key was last used
    Index(None, "once", postgresql_where=text("once IS NOT NULL"), sqlite_where=text("once IS NOT NULL")),
    postgresql_partition_by="RANGE (request_id)",
)

# The end of each org's log. Whoever appends holds the row, so that no two append the same number.
usage_heads = Table(
    "usage_heads",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("hash", LargeBinary, nullable=False),  # empty while there is no row
)

# What each key spent in each month. A trigger adds up what comes into the ledger, so it always agrees with it.
monthly_spend = Table(
    "monthly_spend",
    metadata,
    Column("month", Text, primary_key=True),  # of arrival, in UTC: "2026-01"
    Column("org_id", Text, primary_key=True),
    Column("env_id", Text, primary_key=True),
    Column("key_id", Text, primary_key=True),
    Column("cost_pusd", Money, nullable=False),
    Column("tokens", BigInteger, nullable=False),  # without those of cached answers, which cost nothing
)

# Spending caps of a month that refused a request: gateways write them, control suspends whom they concern.
cap_hits = Table(
    "cap_hits",
    metadata,
    Column("month", Text, primary_key=True),
    Column("layer", Text, primary_key=True),  # org or env
    Column("entity_id", Text, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)


def _alike() -> tuple[Column[Any], ...]:
    """The part of a roll-up's key that is the same in all rows of the ledger that it sums."""
    names = ("env_id", "key_id", "model", "region", "endpoint", "outcome")
    return tuple(Column(name, Text, primary_key=True) for name in names)


def _sums() -> tuple[Column[Any], ...]:
    return (
        Column("requests", BigInteger, nullable=False),
        Column("prompt_tokens", BigInteger, nullable=False),
        Column("completion_tokens", BigInteger, nullable=False),
        Column("cached_tokens", BigInteger, nullable=False),
        Column("reasoning_tokens", BigInteger, nullable=False),
        Column("total_tokens", BigInteger, nullable=False),
        Column("cost_pusd", Money, nullable=False),
    )


# The ledger summed by hour and by day of arrival, in UTC, up to a position in each org's log (`metering/rollup.py`).
# PostgreSQL keeps the sums in the primary key's index as well (INCLUDE): there an org's month lies together, while its
# rows lie where there was room when they came, each on another page.
usage_hourly = Table(
    "usage_hourly",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    *_alike(),
    *_sums(),
)
usage_daily = Table(
    "usage_daily",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    *_alike(),
    *_sums(),
)
# All of an org's hour in one row: a trigger keeps it what the rows of `usage_hourly` add up to.
usage_hours = Table(
    "usage_hours",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("at", UtcDateTime, primary_key=True),
    *_sums(),
)
usage_rollups = Table(
    "usage_rollups",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # rows up to here are in the roll-ups, those behind it are not
)

# Where a log begins whose oldest months were dropped (`metering/retention.py`): rows up to `seq` may be gone. What they
# summed up to, and what rating remembered behind them, stays here. Triggers let a beginning only move on.
usage_starts = Table(
    "usage_starts",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),  # of the last row that was dropped
    Column("hash", LargeBinary, nullable=False),  # of that row: the chain is followed from here
    Column("cutoff", UtcDateTime, nullable=False),  # of what went; what comes of that time now is too late
    Column("total_tokens", BigInteger, nullable=False),
    Column("cost_pusd", Money, nullable=False),
    Column("rating_state", Text),  # canonical JSON of `billing.charges.state`; null: it was not rated
)

# What was dropped, month by month.
usage_drops = Table(
    "usage_drops",
    metadata,
    Column("cutoff", UtcDateTime, primary_key=True),  # the first instant that was kept
    Column("row_count", BigInteger, nullable=False),
    Column("org_count", BigInteger, nullable=False),
    Column("decided_at", UtcDateTime, nullable=False),
    Column("removed_at", UtcDateTime),  # null: rows of it may still be there
)

# Records of a time whose rows were dropped: whether they were among those nobody knows, so people decide.
usage_too_late = Table(
    "usage_too_late",
    metadata,
    Column("request_id", Text, primary_key=True),
    Column("org_id", Text, nullable=False),
    Column("at", UtcDateTime, nullable=False),  # when it came
    Column("document", Text, nullable=False),  # JSON of the row that it would have been, as it would have been hashed
)

# How far each log is copied to another store of usage (`metering/costs/copying.py`).
usage_copies = Table(
    "usage_copies",
    metadata,
    Column("org_id", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)

# What the requests that run now have used so far, gateway by gateway (`metering/live`).
usage_live = Table(
    "usage_live",
    metadata,
    Column("session", Text, primary_key=True),
    Column("at_s", Float, nullable=False),  # by the database's clock
    Column("document", LargeBinary, nullable=False),  # MessagePack of `LiveUsage`
)
