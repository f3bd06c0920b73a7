"""`/admin/operators`: who runs the platform, each with an admin key of their own."""

from fastapi import APIRouter

from crosslogic.api.account_models import CreatedOperatorView, OperatorChange, OperatorCreate, OperatorView
from crosslogic.api.auth import OperatorTenancy
from crosslogic.api.models import Limit, Page, Word, page_of
from crosslogic.kernel.ids import OperatorId
from crosslogic.tenancy.model import Role, Status

router = APIRouter(prefix="/admin/operators", tags=["operators"])


@router.post("", status_code=201)
async def create_operator(body: OperatorCreate, tenancy: OperatorTenancy) -> CreatedOperatorView:
    created = await tenancy.operators.create(body.name, role=body.role)
    return CreatedOperatorView(**OperatorView.of(created.operator).model_dump(), key=created.token)


@router.get("")
async def list_operators(
    tenancy: OperatorTenancy,
    prefix: Word | None = None,
    role: Role | None = None,
    status: Status | None = None,
    cursor: Word | None = None,
    limit: Limit = 100,
) -> Page[OperatorView]:
    """`prefix` is the beginning of the name."""
    found = await tenancy.operators.operators(
        name_prefix=prefix or "", role=role, status=status, after=cursor, limit=limit
    )
    return page_of([OperatorView.of(operator) for operator in found], [operator.id for operator in found], limit)


@router.get("/{operator_id}")
async def get_operator(operator_id: Word, tenancy: OperatorTenancy) -> OperatorView:
    return OperatorView.of(await tenancy.operators.operator(OperatorId(operator_id)))


@router.patch("/{operator_id}")
async def change_operator(operator_id: Word, body: OperatorChange, tenancy: OperatorTenancy) -> OperatorView:
    return OperatorView.of(await tenancy.operators.change(OperatorId(operator_id), status=body.status))


@router.delete("/{operator_id}")
async def revoke_operator(operator_id: Word, tenancy: OperatorTenancy) -> OperatorView:
    """Final, and harmless to repeat."""
    return OperatorView.of(await tenancy.operators.change(OperatorId(operator_id), status=Status.REVOKED))
