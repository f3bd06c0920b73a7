"""What a usage record becomes in the ledger: a row with its price, or the difference to what the ledger has. Pure.

Invariant: every record becomes a row that the database can hold. A value that it cannot (a NUL, a number out of all
proportion) is brought into range, for one impossible record must never stand in the way of all that come after it.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import msgspec

from crosslogic.kernel.money import PicoUsd, microdollars
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.metering.model import Evidence, Outcome, Usage, UsageRecord
from crosslogic.pricing.book import Price, PriceBook
from crosslogic.pricing.estimate import flat_price
from crosslogic.pricing.published import Published
from crosslogic.pricing.rate import rate

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MAX_32 = 2**31 - 1
_MAX_64 = 2**63 - 1
_MAX_TOKENS = 2**40  # beyond any request, and small enough that sums of them stay within 64 bits
_MAX_TIMESTAMP_US = 7_258_118_399_999_999  # the last microsecond of the year 2199: a float still holds it exactly
SUMMED = (
    "prompt_tokens", "completion_tokens", "cached_tokens", "reasoning_tokens", "total_tokens",
    "cost_pusd", "cost_microdollars",
)  # fmt: skip
# Of a recovery that found no record: what comes later knows more.
_PROVISIONAL = frozenset({Outcome.INTERRUPTED.value})


def original(record: UsageRecord, prices: PriceBook, recorded_us: int, published: Published | None = None) -> LedgerRow:
    """The row of a request, without its place in the log."""
    price = _price(record, prices, published)
    tokens = Usage(
        _within(record.prompt_tokens, _MAX_TOKENS),
        _within(record.completion_tokens, _MAX_TOKENS),
        _within(record.cached_tokens, _MAX_TOKENS),
        _within(record.reasoning_tokens, _MAX_TOKENS),
    )
    # An answer from the cache is recorded with its tokens and costs nothing: no node ran.
    cost = PicoUsd(0) if record.evidence is Evidence.CACHED else rate(tokens, price)
    return LedgerRow(
        request_id=_text(record.request_id) or _unnamed(record),
        n=0,
        seq=0,
        timestamp_us=_within(record.timestamp_us, _MAX_TIMESTAMP_US),
        org_id=_text(record.org_id),
        env_id=_text(record.env_id),
        key_id=_text(record.key_id),
        endpoint=_text(record.endpoint),
        model=_text(record.model),
        region=_text(record.region),
        node_id=_text(record.node_id),
        prompt_tokens=tokens.prompt_tokens,
        completion_tokens=tokens.completion_tokens,
        cached_tokens=tokens.cached_tokens,
        reasoning_tokens=tokens.reasoning_tokens,
        total_tokens=tokens.prompt_tokens + tokens.completion_tokens,
        evidence=record.evidence.value,
        outcome=record.outcome.value,
        finish_reason=None if record.finish_reason is None else _text(record.finish_reason),
        http_status=_within(record.http_status, _MAX_32),
        streamed=record.streamed,
        attempts=_within(record.attempts, _MAX_32),
        latency_ms=_within(record.latency_ms, _MAX_64),
        first_token_ms=None if record.first_token_ms is None else _within(record.first_token_ms, _MAX_64),
        client_request_id=None if record.client_request_id is None else _text(record.client_request_id),
        cost_pusd=cost,
        cost_microdollars=_within(microdollars(cost), _MAX_64),
        price_version=price.version,
        failed_nodes=" ".join(map(_text, record.failed_nodes)) or None,
        region_asked=None if record.region_asked is None else _text(record.region_asked),
        failover=record.failover,
        recorded_us=recorded_us,
        once=None if record.once is None else record.once.digest.hex(),
    )


def _price(record: UsageRecord, prices: PriceBook, published: Published | None) -> Price:
    """A plan's one price, that of the version that held on arrival, or the price book's."""
    if record.plan_price_pusd is not None:
        return flat_price(record.plan_price_pusd)
    if published is not None and not published.empty:
        at = _EPOCH + timedelta(microseconds=_within(record.timestamp_us, _MAX_TIMESTAMP_US))
        price = published.price(record.org_id, record.model, record.region, record.endpoint, at)
        if price is not None:
            return price
    return prices.price(record.model, record.region)


def supersedes(late: LedgerRow, known_outcome: str) -> bool:
    """Whether a record that comes after a request's original knows more than it."""
    return known_outcome in _PROVISIONAL and late.outcome not in _PROVISIONAL


def restated(first: LedgerRow, truth: Usage, price: Price, evidence: Evidence, recorded_us: int) -> LedgerRow:
    """The request's original as it would be had it used `truth`, at `price`."""
    cost = rate(truth, price)
    return msgspec.structs.replace(
        first,
        prompt_tokens=truth.prompt_tokens,
        completion_tokens=truth.completion_tokens,
        cached_tokens=truth.cached_tokens,
        reasoning_tokens=truth.reasoning_tokens,
        total_tokens=truth.prompt_tokens + truth.completion_tokens,
        evidence=evidence.value,
        cost_pusd=cost,
        cost_microdollars=_within(microdollars(cost), _MAX_64),
        price_version=price.version,
        recorded_us=recorded_us,
    )


def correction(rows: Sequence[LedgerRow], truth: LedgerRow, reason: str, actor: str) -> LedgerRow | None:
    """What makes `rows`, all of one request by their `n`, add up to `truth`; None where they do already."""
    row = difference(rows, truth, reason, actor)
    if rows[-1].outcome == truth.outcome and not any(getattr(row, name) for name in SUMMED):
        return None
    return row


def difference(rows: Sequence[LedgerRow], truth: LedgerRow, reason: str, actor: str) -> LedgerRow:
    """`correction`, also where there is nothing to correct."""
    first = rows[0]
    return msgspec.structs.replace(
        truth,
        **{name: getattr(truth, name) - sum(getattr(row, name) for row in rows) for name in SUMMED},
        request_id=first.request_id,
        n=rows[-1].n + 1,
        timestamp_us=first.timestamp_us,
        org_id=first.org_id,
        env_id=first.env_id,
        key_id=first.key_id,
        endpoint=first.endpoint,
        model=first.model,
        region=first.region,
        reason=_text(reason),
        actor=_text(actor),
    )


def _unnamed(record: UsageRecord) -> str:
    """Records without an id must not take each other for the same request."""
    return "req_unnamed_" + hashlib.sha256(msgspec.msgpack.encode(record)).hexdigest()[:32]


def _text(value: str) -> str:
    """PostgreSQL's text has no NUL."""
    return value.replace("\x00", "�") if "\x00" in value else value


def _within(value: int, most: int) -> int:
    return min(max(value, 0), most)
