"""Counts in the metrics what comes into the ledger, and what does not."""

from collections import defaultdict
from collections.abc import Callable, Sequence

from crosslogic.kernel.clock import Clock
from crosslogic.kernel.money import PUSD_PER_USD
from crosslogic.metering.flush import FlushReport
from crosslogic.metering.ledger_row import LedgerRow
from crosslogic.telemetry.metrics import Metrics


def counting(metrics: Metrics) -> Callable[[Sequence[LedgerRow]], None]:
    """What a ledger is to call after each commit."""

    def count(rows: Sequence[LedgerRow]) -> None:
        by_model: dict[str, list[LedgerRow]] = defaultdict(list)
        for row in rows:
            by_model[row.model].append(row)
        for model, mine in by_model.items():
            tokens = {
                "prompt": sum(row.prompt_tokens for row in mine),
                "completion": sum(row.completion_tokens for row in mine),
                "cached": sum(row.cached_tokens for row in mine),
                "reasoning": sum(row.reasoning_tokens for row in mine),
            }
            metrics.billed(model, tokens, sum(row.cost_pusd for row in mine) / PUSD_PER_USD)

    return count


def watching(metrics: Metrics, clock: Clock) -> Callable[[FlushReport], None]:
    """What a flusher is to call after each pass."""

    def watch(report: FlushReport) -> None:
        metrics.journal_backlog(report.waiting)
        if not report.waiting and not report.partial:
            metrics.ledger_whole(clock.now().timestamp())

    return watch
