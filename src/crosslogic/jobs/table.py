"""What is done again and again: every periodic job of the product with its interval, in one table.

(The node monitor is no row of it: it probes every node at that node's own pace, in a loop of its own.)
Each job may be killed at any line and run twice at once by two processes; it then does the same thing again. Those
that are `leased` run in the process that leads only: not because twice were wrong, but because once is enough.
"""

from collections.abc import Awaitable, Callable

import msgspec
from sqlalchemy.ext.asyncio import AsyncEngine

from crosslogic.billing.chargebacks.service import ChargebackService
from crosslogic.billing.charges.monthly import MonthlyFees, SignupCredits
from crosslogic.billing.charges.service import RatingService
from crosslogic.billing.exports.invoicing import InvoiceExports
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.inbound.service import Inbound
from crosslogic.billing.invoices.closing import Closer
from crosslogic.billing.payments.auto_charge import AutoCharge
from crosslogic.billing.payments.service import PaymentService
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.billing.retention.service import RetentionService
from crosslogic.capacity.allocations.ports import ResourceAllocator
from crosslogic.coordination.sql import SqlProcesses
from crosslogic.fleet import trust_sql
from crosslogic.insight.notices.dispatcher import Dispatcher
from crosslogic.jobs.alerts import AlertsJob
from crosslogic.jobs.anomalies import AnomaliesJob
from crosslogic.jobs.data_health import DataHealthJob
from crosslogic.jobs.dunning import Dunning
from crosslogic.jobs.finops import COUNT_EVERY_S, FinopsJob
from crosslogic.jobs.forecast import ForecastJob
from crosslogic.jobs.invoice_notices import InvoiceNotices
from crosslogic.jobs.licence import LicenceJob
from crosslogic.jobs.node_health import NodeHealthJob
from crosslogic.jobs.outcomes import OutcomesJob
from crosslogic.jobs.prepaid import PrepaidCaps
from crosslogic.jobs.spending_caps import SpendingCaps
from crosslogic.kernel.clock import Clock
from crosslogic.metering.costs.copying import UsageCopies
from crosslogic.metering.flush import JournalFlusher
from crosslogic.metering.partitions import Partitions
from crosslogic.metering.rollup import Rollups
from crosslogic.orchestration.driver import OrchestrationDriver
from crosslogic.store import changes

FORGET_PROCESSES_S = 3600.0  # after its last word
MAX_PAUSE_S = 10.0  # between attempts of a job that fails, unless its interval is longer


class Job(msgspec.Struct, frozen=True):
    name: str
    interval_s: float  # from the end of one run to the beginning of the next
    run: Callable[[], Awaitable[object]]
    timeout_s: float = 60.0
    jitter: float = 0.1  # share of the interval by which a pause is longer or shorter
    leased: bool = True


def metering_jobs(flusher: JournalFlusher) -> tuple[Job, ...]:
    """Of whoever can read the journals: the gateway's parent process, or the embedded cloud."""
    return (Job("metering flush", 0.5, flusher.flush, timeout_s=300.0, leased=False),)


def control_jobs(engine: AsyncEngine, clock: Clock) -> tuple[Job, ...]:
    """Of the control process."""

    async def prune_changes() -> int:
        return await changes.prune(engine, before=clock.now() - changes.RETENTION)

    async def forget_processes() -> int:
        return await SqlProcesses(engine).forget(FORGET_PROCESSES_S)

    async def prune_trust() -> int:
        return await trust_sql.prune(engine, before=clock.now() - trust_sql.RETENTION)

    return (
        Job("change prune", 3600.0, prune_changes),
        Job("process prune", 3600.0, forget_processes),
        Job("certificate prune", 3600.0, prune_trust),
    )


def rollup_jobs(rollups: Rollups, partitions: Partitions) -> tuple[Job, ...]:
    """Of the control process: what came into the ledger is summed by hour and day, and has room for months."""
    return (
        Job("usage rollup", 1.0, rollups.advance, timeout_s=300.0),
        Job("usage partitions", 3600.0, partitions.make_ahead),
    )


def retention_jobs(retention: RetentionService) -> tuple[Job, ...]:
    """Of the control process: months of usage that are older than what is kept go, once nothing waits for them."""
    return (Job("usage retention", 3600.0, retention.round, timeout_s=6 * 3600.0),)


def copy_jobs(copies: UsageCopies, interval_s: float) -> tuple[Job, ...]:
    """Of the control process, where another store answers for costs."""
    return (Job("usage copy", interval_s, copies.advance, timeout_s=3600.0),)


def capacity_jobs(allocator: ResourceAllocator) -> tuple[Job, ...]:
    """Of the control process, too."""
    return (Job("allocation sweep", 5.0, allocator.sweep),)


def spending_jobs(caps: SpendingCaps) -> tuple[Job, ...]:
    """Of whoever may change tenants: the control process, or the embedded cloud."""
    return (Job("spending caps", 1.0, caps.suspend),)


def orchestration_jobs(driver: OrchestrationDriver) -> tuple[Job, ...]:
    """Of the control process: deployments become what their nodes make them, rollouts go on or back."""
    return (Job("rollouts", 1.0, driver.round),)


def health_jobs(health: NodeHealthJob, interval_s: float) -> tuple[Job, ...]:
    """Of the control process: what agents and gateways see of nodes becomes verdicts."""
    return (Job("node health", interval_s, health.round),)


def payment_jobs(
    payments: PaymentService, inbound: Inbound, chargebacks: ChargebackService, auto_charge: AutoCharge | None
) -> tuple[Job, ...]:
    """Of the control process: what payments, refunds and webhooks wait for, and invoices that are to be charged."""
    charging = () if auto_charge is None else (Job("auto charge", 60.0, auto_charge.run, timeout_s=600.0),)
    return (
        Job("payments", 5.0, payments.drive_due, timeout_s=600.0),
        Job("webhooks", 1.0, inbound.act, timeout_s=600.0),
        Job("chargebacks", 300.0, chargebacks.round, timeout_s=600.0),
        *charging,
    )


def rating_jobs(
    rating: RatingService, fees: MonthlyFees, signup: SignupCredits, prepaid: PrepaidCaps
) -> tuple[Job, ...]:
    """Of the control process: what was used becomes charges."""
    return (
        Job("rating", 1.0, rating.round, timeout_s=600.0),
        Job("monthly fees", 60.0, fees.round, timeout_s=600.0),
        Job("signup credits", 5.0, signup.round),
        Job("prepaid caps", 1.0, prepaid.round),
    )


def notice_jobs(alerts: AlertsJob, dispatcher: Dispatcher) -> tuple[Job, ...]:
    """Of the control process: what is to be told is found, and reaches who is to be told."""
    return (
        Job("alerts", 30.0, alerts.round, timeout_s=120.0),
        Job("notices", 1.0, dispatcher.round, timeout_s=120.0),
    )


def licence_jobs(licence: LicenceJob) -> tuple[Job, ...]:
    """Of the control process of a site with a licence file."""
    return (Job("licence", 300.0, licence.round),)


def finops_jobs(finops: FinopsJob) -> tuple[Job, ...]:
    """Of the control process: the hours of nodes are counted, and become cost and margin."""
    return (Job("finops", COUNT_EVERY_S, finops.round),)


def forecast_jobs(forecast: ForecastJob) -> tuple[Job, ...]:
    """Of the control process: whether the nodes will do is looked at once an hour."""
    return (Job("capacity forecast", 3600.0, forecast.round, timeout_s=600.0),)


def anomaly_jobs(anomalies: AnomaliesJob) -> tuple[Job, ...]:
    """Of the control process: each ten minutes of service are looked at once they are over."""
    return (Job("anomalies", 30.0, anomalies.round, timeout_s=300.0),)


def data_health_jobs(health: DataHealthJob) -> tuple[Job, ...]:
    """Of the control process: what to doubt in the planner's data is in its log, from the start on."""
    return (Job("planner data", 3600.0, health.round, leased=False),)


def outcome_jobs(outcomes: OutcomesJob) -> tuple[Job, ...]:
    """Of the control process: what planned deployments do is held against their forecasts."""
    return (Job("outcomes", 30.0, outcomes.round, timeout_s=600.0),)


def invoice_notice_jobs(notices: InvoiceNotices) -> tuple[Job, ...]:
    """Of the control process: what invoices and chargebacks have to tell reaches who sends notices."""
    return (Job("invoice notices", 5.0, notices.round),)


def invoicing_jobs(closer: Closer, dunning: Dunning) -> tuple[Job, ...]:
    """Of the control process: periods that have ended become invoices, unpaid ones are reminded of."""
    return (
        Job("invoice close", 300.0, closer.round, timeout_s=6 * 3600.0),
        Job("dunning", 600.0, dunning.round, timeout_s=600.0),
        Job("unpaid suspensions", 2.0, dunning.restore),
    )


def export_jobs(exports: Exports, invoices: InvoiceExports, interval_s: float) -> tuple[Job, ...]:
    """Of the control process: usage and invoices on their way to the provider's books."""
    return (
        Job("usage export", interval_s, exports.run, timeout_s=1800.0),
        Job("invoice export", interval_s, invoices.run, timeout_s=1800.0),
    )


def reconciliation_jobs(reconciler: Reconciler) -> tuple[Job, ...]:
    """Of the control process."""
    return (Job("reconciliation", 3600.0, reconciler.daily, timeout_s=7200.0),)


def pause_s(job: Job, failures: int, spread: float) -> float:
    """How long to wait after a run, `failures` in a row behind it; `spread` from -1 to 1 places it within the jitter.

    A job that fails waits twice as long each time, so that it does not press on a database that is coming back.
    """
    longest_s = max(job.interval_s, MAX_PAUSE_S)
    return min(job.interval_s * 2.0 ** min(failures, 16), longest_s) * (1.0 + job.jitter * spread)
