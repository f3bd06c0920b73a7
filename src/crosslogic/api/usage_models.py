"""Bodies of usage and money. Amounts are exact decimals as text: JSON numbers are floats to most readers."""

from datetime import UTC, datetime, timedelta

from pydantic import BaseModel, Field

from crosslogic.kernel.money import PUSD_PER_USD, microdollars
from crosslogic.metering.ledger_row import LedgerRow, LogVerdict
from crosslogic.metering.model import UsageSum
from crosslogic.metering.requests import RequestUsage


def exact_usd(amount: int) -> str:
    dollars, rest = divmod(abs(amount), PUSD_PER_USD)
    return f"{'-' if amount < 0 else ''}{dollars}.{rest:012d}"


class UsageSumView(BaseModel):
    group: dict[str, str] = Field(description="the values of group_by that this row sums")
    requests: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int = Field(description="of the prompt tokens, those that came from a prefix cache")
    reasoning_tokens: int = Field(description="of the completion tokens, those that were thought and not said")
    total_tokens: int
    cost_usd: str = Field(description="exact decimal, never rounded")
    cost_microdollars: int = Field(description="rounded half-even to millionths of a dollar")

    @classmethod
    def of(cls, usage: UsageSum) -> "UsageSumView":
        return cls(
            group=usage.group,
            requests=usage.requests,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            cached_tokens=usage.cached_tokens,
            reasoning_tokens=usage.reasoning_tokens,
            total_tokens=usage.total_tokens,
            cost_usd=exact_usd(usage.cost_pusd),
            cost_microdollars=microdollars(usage.cost_pusd),
        )


class UsageView(BaseModel):
    org_id: str
    start: datetime | None
    end: datetime | None
    data: list[UsageSumView]
    totals: UsageSumView
    next_cursor: str | None = Field(default=None, description="what `cursor` takes to get the next page")


class CorrectionView(BaseModel):
    """What was added to a request's numbers afterwards, which may be less than nothing."""

    n: int
    at: datetime | None
    reason: str | None
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    cost_usd: str
    evidence: str
    outcome: str

    @classmethod
    def of(cls, row: LedgerRow) -> "CorrectionView":
        return cls(
            n=row.n,
            at=_time(row.recorded_us),
            reason=row.reason,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cached_tokens=row.cached_tokens,
            reasoning_tokens=row.reasoning_tokens,
            cost_usd=exact_usd(row.cost_pusd),
            evidence=row.evidence,
            outcome=row.outcome,
        )


class RequestUsageView(BaseModel):
    """One request. Its numbers are those that count now, with all corrections."""

    request_id: str
    client_request_id: str | None
    at: datetime
    env_id: str
    key_id: str
    endpoint: str
    model: str
    region: str
    node_id: str | None = Field(description="null for tenants, who do not learn of nodes")
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    reasoning_tokens: int
    total_tokens: int
    cost_usd: str = Field(description="exact decimal, never rounded")
    price_version: str | None
    evidence: str = Field(description="where the numbers come from")
    outcome: str
    finish_reason: str | None
    http_status: int
    streamed: bool
    attempts: int
    latency_ms: int
    first_token_ms: int | None
    position: int = Field(description="in the org's log")
    repeat_of: str | None = Field(
        description="the request that is charged for the same Idempotency-Key: then this one costs nothing"
    )
    corrections: list[CorrectionView]

    @classmethod
    def of(cls, usage: RequestUsage, *, operator: bool) -> "RequestUsageView":
        row, last = usage.original, (usage.original, *usage.corrections)[-1]
        at = _time(row.timestamp_us)
        assert at is not None
        return cls(
            request_id=row.request_id,
            client_request_id=row.client_request_id,
            at=at,
            env_id=row.env_id,
            key_id=row.key_id,
            endpoint=row.endpoint,
            model=row.model,
            region=row.region,
            node_id=row.node_id if operator else None,
            prompt_tokens=usage.total("prompt_tokens"),
            completion_tokens=usage.total("completion_tokens"),
            cached_tokens=usage.total("cached_tokens"),
            reasoning_tokens=usage.total("reasoning_tokens"),
            total_tokens=usage.total("total_tokens"),
            cost_usd=exact_usd(usage.total("cost_pusd")),
            price_version=last.price_version,
            evidence=last.evidence,
            outcome=last.outcome,
            finish_reason=last.finish_reason,
            http_status=row.http_status,
            streamed=row.streamed,
            attempts=row.attempts,
            latency_ms=row.latency_ms,
            first_token_ms=row.first_token_ms,
            position=row.seq,
            repeat_of=last.repeat_of,
            corrections=[CorrectionView.of(one) for one in usage.corrections],
        )


class LogVerdictView(BaseModel):
    """Rows behind `dropped` up to `rows` were found as they were written, up to the first that is not, if any."""

    org_id: str
    intact: bool
    rows: int
    dropped: int = Field(description="rows at the beginning of the log that were dropped for their age")
    head: str = Field(description="hash of the last row, hex: whoever keeps it notices any rewriting")
    wrong_position: int | None
    problem: str | None

    @classmethod
    def of(cls, verdict: LogVerdict) -> "LogVerdictView":
        return cls(
            org_id=verdict.org_id,
            intact=verdict.intact,
            rows=verdict.rows,
            dropped=verdict.dropped,
            head=verdict.head,
            wrong_position=verdict.wrong_seq,
            problem=verdict.problem,
        )


def _time(at_us: int | None) -> datetime | None:
    return None if at_us is None else datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
