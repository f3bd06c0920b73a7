"""`/admin/exports`: how orgs' usage reaches the provider; `/admin/reconciliations`: whether all books agree; the pack
with everything about one request, for disputes."""

from datetime import date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query

from crosslogic.api.auth import OperatorTenancy, OperatorTrail, OwnHome, Services
from crosslogic.api.models import Body, Limit, Page, View, Word, page_of
from crosslogic.api.payments import rooms_of
from crosslogic.api.services import ApiServices
from crosslogic.billing.exports import sql as exports_sql
from crosslogic.billing.exports.model import Mode, Window, WindowStatus
from crosslogic.billing.exports.service import Exports
from crosslogic.billing.reconciliation.dispute import dispute_pack
from crosslogic.billing.reconciliation.model import Kind, Repair, Report
from crosslogic.billing.reconciliation.service import Reconciler
from crosslogic.kernel.errors import Conflict

router = APIRouter(prefix="/admin", tags=["reconciliation"])
own_router = APIRouter(prefix="/api/v1/billing", tags=["reconciliation"])


class ModeBody(Body):
    mode: Mode


class ModeView(View):
    org_id: str
    mode: Mode
    since: datetime
    sealed_seq: int


class WindowView(View):
    id: str
    org_id: str
    mode: Mode
    meter: str
    hour: datetime
    n: int
    quantity: int
    status: WindowStatus
    billing_failed: bool
    failure: str | None
    retry_count: int
    next_step_at: datetime | None
    replaces: str | None

    @classmethod
    def of(cls, window: Window) -> "WindowView":
        return cls(
            id=window.id,
            org_id=window.org_id,
            mode=window.mode,
            meter=window.meter,
            hour=window.hour,
            n=window.n,
            quantity=window.quantity,
            status=window.status,
            billing_failed=window.billing_failed,
            failure=window.failure,
            retry_count=max(window.sendings - 1, 0),
            next_step_at=window.next_step_at,
            replaces=window.replaces,
        )


class DifferenceView(View):
    kind: Kind
    org_id: str
    entity: str
    ours: str
    theirs: str
    cause: str
    repair: Repair | None


class ReportView(View):
    id: str
    day: date
    days: int
    started_at: datetime
    ended_at: datetime
    agrees: bool
    checked: dict[str, int]
    skipped: tuple[str, ...]
    differences: tuple[DifferenceView, ...]


class ReconciliationOrder(Body):
    day: date | None = None
    days: int = 1
    org: Word | None = None


class RepairOrder(Body):
    entity: Word


class Repaired(View):
    done: str


def _exports(trail: OperatorTrail, services: Services) -> Exports:
    exports = rooms_of(services).exports
    if exports is None:
        raise Conflict("this payment provider takes no exports of usage; use payments.provider: stripe")
    return exports.recording(trail)


def _reconciler(trail: OperatorTrail, services: Services) -> Reconciler:
    return reconciler_of(services).recording(trail)


def reconciler_of(services: ApiServices) -> Reconciler:
    if services.reconciler is None:
        raise Conflict("this process compares no books")
    return services.reconciler


OperatorExports = Annotated[Exports, Depends(_exports)]
OperatorReconciler = Annotated[Reconciler, Depends(_reconciler)]


@router.get("/exports/modes/{org}")
async def get_mode(org: Word, exports: OperatorExports, tenancy: OperatorTenancy) -> ModeView:
    return ModeView.model_validate(await exports.mode((await tenancy.org(org)).id))


@router.put("/exports/modes/{org}")
async def set_mode(org: Word, body: ModeBody, exports: OperatorExports, tenancy: OperatorTenancy) -> ModeView:
    """Choose how an org's usage is exported from now on. 409 while exports of it are under way."""
    return ModeView.model_validate(await exports.set_mode((await tenancy.org(org)).id, body.mode))


@router.get("/exports/windows")
async def list_windows(
    exports: OperatorExports,
    tenancy: OperatorTenancy,
    org: Word | None = None,
    status: WindowStatus | None = None,
    failed: Annotated[bool, Query(description="only those that did not work yet")] = False,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[WindowView]:
    org_id = None if org is None else (await tenancy.org(org)).id
    found = await exports_sql.page(
        exports.engine, org_id=org_id, status=status, failed=failed, after=cursor, limit=limit
    )
    return page_of([WindowView.of(each) for each in found], [each.id for each in found], limit)


@router.post("/exports/windows/{window_id}/retry")
async def retry_window(window_id: Word, exports: OperatorExports) -> WindowView:
    """Take the next step of a window now instead of when it is due."""
    return WindowView.of(await exports.retry(window_id))


@router.post("/reconciliations", status_code=201)
async def reconcile(body: ReconciliationOrder, reconciler: OperatorReconciler, tenancy: OperatorTenancy) -> ReportView:
    """Compare all books now, and keep the report."""
    org_id = None if body.org is None else (await tenancy.org(body.org)).id
    return _view(await reconciler.run(body.day, body.days, org_id))


@router.get("/reconciliations")
async def list_reports(
    reconciler: OperatorReconciler, cursor: Word | None = None, limit: Limit = 100
) -> Page[ReportView]:
    """Newest first."""
    found = await reconciler.reports(cursor, limit)
    return page_of([_view(each) for each in found], [each.id for each in found], limit)


@router.get("/reconciliations/{report_id}")
async def get_report(report_id: Word, reconciler: OperatorReconciler) -> ReportView:
    return _view(await reconciler.report(report_id))


@router.post("/reconciliations/{report_id}/repair")
async def repair(report_id: Word, body: RepairOrder, reconciler: OperatorReconciler) -> Repaired:
    """Put one difference right, by a correction. 409 where only people can."""
    return Repaired(done=await reconciler.repair(report_id, body.entity))


@router.get("/disputes/{request_id}")
async def get_dispute(request_id: Word, reconciler: OperatorReconciler) -> dict[str, Any]:
    """All that there is about one request: ledger rows with their proof, charges, invoices, exports."""
    return await dispute_pack(reconciler.engine, request_id)


@own_router.get("/disputes/{request_id}")
async def get_own_dispute(request_id: Word, home: OwnHome, services: Services) -> dict[str, Any]:
    """The same of one of the org's own requests."""
    return await dispute_pack(reconciler_of(services).engine, request_id, home.org.id)


def _view(report: Report) -> ReportView:
    return ReportView.model_validate(report, from_attributes=True)
